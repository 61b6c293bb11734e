"""The frozen result of Autobahn, and those of its cases that are worth running without it."""

import json

import pytest

from signald.testing.websocket import close, frame, text
from tests.conformance import verdict
from tests.conformance.autobahn import SETTINGS
from tests.net.clients import served, simulated

SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
"""Section of the suite → how many cases it has. 12 and 13 are compression."""

EXPECTED, REASONS = verdict.load()


def test_every_case_is_frozen() -> None:
    """All 517 cases of the suite have an outcome in the file: 301 of the protocol and 216 of compression."""
    counts = dict.fromkeys(SECTIONS, 0)
    for case in EXPECTED:
        counts[int(case.partition(".")[0])] += 1
    assert counts == SECTIONS


def test_nothing_frozen_is_a_failure() -> None:
    """No case failed or ended with an unclean close, and no case that was not run is taken for a success."""
    assert [case for case, outcome in EXPECTED.items() if not verdict.is_good(outcome)] == []


def test_compression_is_off() -> None:
    """Exactly the cases of compression are UNIMPLEMENTED: what is never inflated cannot be a bomb."""
    unimplemented = {case for case, outcome in EXPECTED.items() if outcome.startswith("UNIMPLEMENTED")}
    assert unimplemented == {case for case in EXPECTED if case.startswith(("12.", "13."))}


def test_whatever_is_not_simply_ok_has_its_reason() -> None:
    """Each NON-STRICT and INFORMATIONAL case says why in one sentence, and no reason outlives its case."""
    assert set(REASONS) == {case for case, outcome in EXPECTED.items() if verdict.needs_reason(outcome)}
    assert all(reason.strip() for reason in REASONS.values())


def test_the_file_is_as_the_command_writes_it() -> None:
    """Freezing what is frozen changes nothing, so a difference in the file is a difference in behaviour."""
    assert verdict.FROZEN.read_text() == verdict.freeze(EXPECTED, REASONS)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({"1.1.1": "OK / OK / 1000"}, []),
        ({"1.1.1": "OK / OK / 1001"}, ["1.1.1: OK / OK / 1001, frozen: OK / OK / 1000"]),
        ({}, ["1.1.1: not run, frozen: OK / OK / 1000"]),
        (
            {"1.1.1": "OK / OK / 1000", "1.1.2": "OK / UNCLEAN / 1000"},
            ["1.1.2: OK / UNCLEAN / 1000, frozen: not known", "1.1.2: OK / UNCLEAN / 1000 is a failure"],
        ),
        (
            {"1.1.1": "NON-STRICT / OK / 1000"},
            [
                "1.1.1: NON-STRICT / OK / 1000, frozen: OK / OK / 1000",
                "1.1.1: NON-STRICT / OK / 1000 without a reason",
            ],
        ),
        (
            {"1.1.1": "FAILED / OK / 1000"},
            ["1.1.1: FAILED / OK / 1000, frozen: OK / OK / 1000", "1.1.1: FAILED / OK / 1000 is a failure"],
        ),
    ],
)
def test_any_difference_is_a_fault(got: dict[str, str], said: list[str]) -> None:
    """Another outcome, a case more or less, a failure, an unclean close and a missing reason are each said."""
    assert verdict.faults(got, {"1.1.1": "OK / OK / 1000"}, {}) == said


@pytest.mark.parametrize("outcome", ["FAILED / OK / 1000", "OK / UNCLEAN / None", "OK / WRONG CODE / 1002"])
def test_a_failure_is_one_also_when_it_is_frozen(outcome: str) -> None:
    """A failure cannot be made good by freezing it."""
    assert verdict.faults({"1.1.1": outcome}, {"1.1.1": outcome}, {}) == [f"1.1.1: {outcome} is a failure"]


def test_what_the_suite_says_is_read() -> None:
    """Behaviour, close behaviour and the close code we sent make the outcome; cases stand in the order of their numbers."""
    entry = {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000, "duration": 5, "reportfile": "x"}
    said = json.loads(json.dumps({"10.1.1": entry, "9.1.1": {**entry, "remoteCloseCode": None}}))
    assert list(verdict.outcomes(said).items()) == [("9.1.1", "OK / OK / None"), ("10.1.1", "OK / OK / 1000")]


HALF = "Hello-µ@ßöäüàá-UTF-8!!".encode()
NOT_UTF8 = b"\xf4\x90\x80\x80edited"


@simulated
async def test_case_2_10_ten_pings_are_ten_pongs() -> None:
    """Every Ping is answered, in order, however many come in one read."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        await peer.send(b"".join(frame(9, b"payload-%d" % number) for number in range(10)))
        assert [await peer.frame() for _ in range(10)] == [(10, b"payload-%d" % number) for number in range(10)]
        await peer.send(close())
        assert await peer.closed_with() == (1000, "")


@simulated
async def test_case_6_4_1_a_bad_fragment_fails_at_once() -> None:
    """Text that cannot become UTF-8 any more ends the connection with its fragment, before the message is whole."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        await peer.send(frame(1, HALF, fin=False) + frame(0, NOT_UTF8, fin=False))
        assert await peer.closed_with() == (1007, "text is not UTF-8")


@simulated
async def test_case_6_4_3_a_bad_frame_fails_at_its_end() -> None:
    """Within one frame it takes until the frame is whole: NON-STRICT, and not more than that."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        whole = text(HALF + NOT_UTF8 + HALF)
        await peer.send(whole[:-1])
        assert await peer.silent_for(5)
        await peer.send(whole[-1:])
        assert await peer.closed_with() == (1007, "text is not UTF-8")


@simulated
async def test_case_7_1_6_what_comes_before_a_close_is_answered_and_the_rest_is_not() -> None:
    """A large message, a small one, a Close and a Ping in one go: both messages come back, then our Close, and no Pong."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        large = b"BAsd7&jh23" * 26215
        await peer.send(text(large) + text("Hello World!") + close() + frame(9))
        assert await peer.frame() == (1, large)
        assert await peer.frame() == (1, b"Hello World!")
        assert await peer.frame() == (8, b"\x03\xe8")
        assert await peer.hung_up_after() == 0
        assert peer.received == b""


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
@simulated
async def test_case_7_7_a_good_close_code_comes_back(code: int) -> None:
    """The Close of the peer is answered with its own code."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        await peer.send(close(code))
        assert await peer.closed_with() == (code, "")
        assert await peer.hung_up_after() == 0


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
@simulated
async def test_case_7_9_a_bad_close_code_is_a_protocol_error(code: int) -> None:
    """A code that must not be on the wire is not sent back, nor taken for a goodbye."""
    async with served(settings=SETTINGS) as net:
        peer = await net.connect()
        await peer.send(close(code))
        assert await peer.closed_with() == (1002, "close code that must not be sent")
        assert await peer.hung_up_after() <= 1.0
