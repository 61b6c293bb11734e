"""The lists of who sends which message, and the table of error codes, held to the code that sends and decodes."""

import pytest
from msgspec import Struct

from signald.errors import BadMessage
from signald.sdk import decoding
from signald.wire import codec
from signald.wire.catalogue import ANSWERS, BINARY, SENT_BY, SENT_TO, tag
from signald.wire.close_codes import ADVICE
from signald.wire.error_codes import ERROR_CODES
from tests.test_docs import PROTOCOL, TYPES, error_codes, rows
from tests.wire.frames import DEPTH_MAX, binary

SENT_ALSO = {"ping", "receipt"}
"""Types that the SDK takes on each connection, although signald sends them on one or none."""


def test_every_message_has_a_way() -> None:
    """Each message class is sent by a party or to one."""
    named = {kind for kinds in (*SENT_BY.values(), *SENT_TO.values()) for kind in kinds}
    assert named == {kind for _, kind in TYPES}


def test_parties_send_what_the_codec_takes() -> None:
    """The types of each party are those that its decoder knows."""
    assert {tag(kind) for kind in SENT_BY["client"]} == codec.CLIENT_TYPES
    assert {tag(kind) for kind in SENT_BY["worker"]} == codec.WORKER_TYPES


def test_parties_are_sent_what_the_sdk_takes() -> None:
    """The types that signald sends to each party are those that the SDK of this release decodes."""
    for party, known in (("client", decoding._CLIENT), ("worker", decoding._WORKER)):
        kinds = SENT_TO["client" if party == "client" else "worker"]
        assert {tag(kind) for kind in kinds} | SENT_ALSO == known


def test_answers_are_sent_to_the_party_that_asks() -> None:
    """Each opening message is sent by the party that its answers are sent to."""
    for opening, answers in ANSWERS.items():
        (party,) = (party for party, kinds in SENT_BY.items() if opening in kinds)
        assert set(answers) <= set(SENT_TO[party])


@pytest.mark.parametrize("kind", dict.fromkeys((*SENT_BY["client"], *SENT_BY["worker"])))
def test_binary_frames_are_those_that_the_codec_takes(kind: type[Struct]) -> None:
    """A binary frame of any other type is refused for being binary, whatever it holds."""
    decode = codec.decode_client if kind in SENT_BY["client"] else codec.decode_worker
    needed = dict.fromkeys(("instance_id", "recovery_token", "session", "auth", "job", "progress", "stream"), "a")
    needed |= dict.fromkeys(("room", "presence"), "a")
    frame = binary(b"data", type=tag(kind), seq=1, capacity=1, position=1, **needed)
    if kind in BINARY:
        assert decode(False, frame, DEPTH_MAX)[1] == b"data"
    else:
        with pytest.raises(BadMessage, match="may be binary"):
            decode(False, frame, DEPTH_MAX)


def test_error_codes_are_those_of_the_code_and_of_the_page() -> None:
    """The table has each code that is sent, with the close that docs/protocol.md gives it, once."""
    assert {row.code for row in ERROR_CODES} == error_codes()
    table = [(row.code, None if row.close is None else int(row.close)) for row in ERROR_CODES]
    page = [
        (code.strip("`"), int(close) if close.isdecimal() else None)
        for code, close, _ in rows(PROTOCOL, "| code | fatal, close |")
    ]
    assert sorted(table, key=str) == sorted(page, key=str)
    assert len({row[:2] + row[3:] for row in ERROR_CODES}) == len(ERROR_CODES)
    assert all(row.close is None or row.close in ADVICE for row in ERROR_CODES)


def test_the_page_says_which_party_is_told() -> None:
    """A code of one party alone is one whose meaning begins with that party in docs/protocol.md."""
    told: dict[tuple[str, str], set[str | None]] = {}
    for code, close, meaning in rows(PROTOCOL, "| code | fatal, close |"):
        party = meaning[1:].partition(")")[0] if meaning.startswith("(") else None
        told.setdefault((code.strip("`"), close), set()).add(party)
    for row in ERROR_CODES:
        parties = told[row.code, "no" if row.close is None else str(int(row.close))]
        assert row.party in parties or parties == {None}, row
