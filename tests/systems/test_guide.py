"""The apps of docs/examples keep the rules of the DeepStream guide, told by a server with a script, with the bytes on the wire."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.real.harness import PATIENCE, until
from tests.systems.devices import Device
from tests.systems.guide import Call, Guide, Part
from tests.systems.recorder import CLOSE, Recorder, Seen

pytestmark = pytest.mark.real

LANGUAGES = pytest.mark.parametrize("language", ["c", "python"])
CREDENTIAL = "the-credential-of-a-test"
JITTER = 1.25
SCALE = 0.1
"""Of the guide's waits: 5 s are half a second."""
OK, BUSY = 200, 503
EOS_S = 0.3


async def taken(call: Call, code: int) -> None:
    """Take an app for the first time, hear a frame of it, and close."""
    ready = await call.hear("app_ready")
    assert (ready["instance_id"], ready["reconnection"]) == ("camera-1", False)
    await call.hear("detections")
    await call.close(code)


async def restored(call: Call, before: int, code: int) -> None:
    """Take it back, and close with `code`."""
    ready = await call.hear("app_ready")
    assert (ready["reconnection"], ready["last_close_code"]) == (True, before)
    await call.say(type="reconnection_ack", status="ok", session_restored=True, server_status="running")
    await call.hear("detections")
    await call.close(code)


async def play(
    language: str,
    directory: Path,
    health: Iterable[int],
    *parts: Part,
    then: Callable[[Device], None] = lambda _: None,
    **app: Any,
) -> tuple[int, Device]:
    """Run one app against the script to its end; returns its status. `then` is called when its first frame was seen."""
    waits = {name: value for name, value in app.items() if name in ("cap_s", "health_interval_s")}
    async with trio.open_nursery() as nursery:
        guide = Guide(health, parts)
        await guide.serve(nursery)
        recorder = Recorder(lambda _: guide.address)
        await recorder.serve(nursery)
        pipeline = {name: value for name, value in app.items() if name not in waits}
        device = Device("camera-1", language, recorder, directory, **pipeline)
        device.configure(CREDENTIAL, SCALE, **waits)

        async def steer() -> None:
            await until(lambda: any(seen.type == "detections" for seen in recorder.seen), 20)
            then(device)

        nursery.start_soon(steer)
        with trio.fail_after(30 * PATIENCE):
            status = await device.run_once()
        nursery.cancel_scope.cancel(reason="the app has ended")
    assert CREDENTIAL not in device.said
    return status, device


def asked(device: Device, path: str) -> list[Seen]:
    """Return the requests for a path."""
    return [seen for seen in device.recorder.seen if seen.path == path]


def answers(device: Device) -> list[Seen]:
    """Return the answers to requests for health."""
    return [seen for seen in device.recorder.seen if seen.status in (OK, BUSY)]


def frames_of(device: Device) -> list[int]:
    """Return the numbers of the frames on the wire."""
    return [seen.fields["frame"] for seen in device.recorder.seen if seen.type == "detections"]


def gap_s(device: Device, code: int) -> float:
    """Return the seconds between a Close of the server and the next request for health."""
    closed = next(seen for seen in device.recorder.seen if (seen.sender, seen.code) == ("node", code))
    return next(seen.at for seen in asked(device, "/deepstream/health") if seen.at > closed.at) - closed.at


@LANGUAGES
async def test_each_close_has_its_wait_and_health_is_asked_first(language: str, tmp_path: Path) -> None:
    """5 s behind 1001, 10 s behind 1013, each with up to a quarter more; then the opening says which code it was."""
    status, device = await play(
        language,
        tmp_path,
        [OK] * 4,
        lambda call: taken(call, 1001),
        lambda call: restored(call, 1001, 1013),
        lambda call: restored(call, 1013, 1011),
        lambda call: restored(call, 1011, 1000),
    )
    assert status == 0, device.account()
    planned = {line["code"]: line["seconds"] for line in device.saw("waiting")}
    for code, wait_s in ((1001, 5), (1013, 10), (1011, 1)):
        assert SCALE * wait_s <= planned[code] <= SCALE * wait_s * JITTER, device.account()
        # A timer of the loop counts in milliseconds.
        assert gap_s(device, code) >= SCALE * wait_s - 0.01, device.account()
    paths = [seen.path.rpartition("/")[2] for seen in device.recorder.seen if seen.kind == "request"]
    assert paths == ["health", "ws"] * 4, device.account()
    upgrades = asked(device, "/deepstream/ws")
    assert all(f"authorization: bearer {CREDENTIAL}" in seen.raw.decode().lower() for seen in upgrades)
    assert not [seen for seen in asked(device, "/deepstream/health") if CREDENTIAL.encode() in seen.raw]


@LANGUAGES
async def test_an_app_gives_up_after_ten_tries_with_growing_waits(language: str, tmp_path: Path) -> None:
    """No answer and 503 count alike; it never connects while the server is not healthy, and ends with EX_UNAVAILABLE."""
    status, device = await play(language, tmp_path, [0, BUSY] * 5, cap_s=4.0)
    assert status == 69, device.account()
    waits = [line["seconds"] for line in device.saw("waiting")]
    for number, wait_s in enumerate(waits[:9]):
        least = SCALE * min(4.0, 2.0**number)
        assert least <= wait_s <= least * JITTER, device.account()
    assert len(asked(device, "/deepstream/health")) == 10
    assert not asked(device, "/deepstream/ws")


@LANGUAGES
async def test_the_stream_ends_before_the_answer(language: str, tmp_path: Path) -> None:
    """`app_busy`, then the last frames, then `app_terminated` with the same id and an upper-case OK; then the app ends well."""
    heard: list[dict[str, object]] = []

    async def script(call: Call) -> None:
        await call.hear("detections")
        await call.say(type="terminate_app", request_id="r-1", reason="deploy")
        heard.extend([await call.hear("app_busy"), await call.hear("app_terminated")])
        await call.close(1000)

    status, device = await play(language, tmp_path, [OK], script, eos_s=EOS_S, busy_s=1)
    assert status == 0, device.account()
    assert heard[0].items() >= {"request_id": "r-1"}.items()
    assert heard[1].items() >= {"request_id": "r-1", "status": "OK"}.items()
    assert isinstance(heard[1]["message"], str)
    frames = frames_of(device)
    assert frames == list(range(1, len(frames) + 1))
    said = [seen for seen in device.recorder.seen if seen.type]
    assert [seen.type for seen in said[-2:]] == ["end_of_stream", "app_terminated"], device.account()
    assert said[-2].fields["frames"] == len(frames)
    asked_at = next(seen.at for seen in said if seen.type == "terminate_app")
    assert said[-1].at - asked_at >= EOS_S - 0.01, device.account()
    assert [line["state"] for line in device.saw("state")] == ["connected", "terminating", "disconnected"]


@LANGUAGES
async def test_a_request_that_was_not_answered_in_time_is_void(language: str, tmp_path: Path) -> None:
    """The server closes with 1001 before the stream has ended: the app comes back, and its source goes on with the next frame."""

    async def script(call: Call) -> None:
        await call.hear("detections")
        await call.say(type="terminate_app", request_id="r-1", reason="deploy")
        await trio.sleep(0.3)
        await call.close(1001)

    status, device = await play(language, tmp_path, [OK] * 2, script, lambda call: restored(call, 1001, 1000), eos_s=60)
    assert status == 0, device.account()
    frames = frames_of(device)
    assert frames == list(range(1, len(frames) + 1)), device.account()
    assert not [seen for seen in device.recorder.seen if seen.type == "app_terminated"]


@LANGUAGES
async def test_sends_wait_while_the_server_says_that_it_will_go(language: str, tmp_path: Path) -> None:
    """Health is asked beside an open connection too; after 503 no frame is sent, and after 200 the next one is."""

    async def script(call: Call) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.listen)
            await until(lambda: device_of and len(answers(device_of[0])) == 3, 30)
            before = len(frames_of(device_of[0]))
            await until(lambda: len(frames_of(device_of[0])) >= before + 3, 30)
            await call.send(CLOSE, (1000).to_bytes(2, "big"))

    device_of: list[Device] = []
    status, device = await play(
        language, tmp_path, [OK, BUSY, OK, OK, OK], script, then=device_of.append, health_interval_s=20.0
    )
    assert status == 0, device.account()
    _, blocked, opened, *_ = answers(device)
    sent = [seen.at for seen in device.recorder.seen if seen.type == "detections"]
    assert [at for at in sent if at < blocked.at], device.account()
    # One was on its way when the answer came.
    assert len([at for at in sent if blocked.at < at < opened.at]) <= 1, device.account()
    frames = frames_of(device)
    assert frames == list(range(1, len(frames) + 1)), device.account()


@LANGUAGES
async def test_an_app_notices_that_the_server_is_silent(language: str, tmp_path: Path) -> None:
    """A server that answers no ping is left; what follows is a reconnection behind a connection that broke."""

    async def script(call: Call) -> None:
        await call.hear("app_terminated")  # it never comes, and hears no ping

    status, device = await play(
        language, tmp_path, [OK] * 20, script, lambda call: restored(call, 1006, 1000), health_interval_s=20.0
    )
    assert status == 0, device.account()


@LANGUAGES
async def test_an_app_that_is_asked_to_leave_says_all_and_closes_with_1000(language: str, tmp_path: Path) -> None:
    """SIGTERM drains the source, sends the Close, and ends with 0."""

    async def script(call: Call) -> None:
        await call.listen()
        await call.send(CLOSE, (1000).to_bytes(2, "big"))

    status, device = await play(language, tmp_path, [OK], script, then=lambda device: device.retire(), eos_s=0.2)
    assert status == 0, device.account()
    assert [seen.code for seen in device.recorder.seen if (seen.sender, seen.kind) == ("app", "close")] == [1000]


@LANGUAGES
@pytest.mark.parametrize(("code", "status"), [(4401, 77), (4409, 69), (1008, 76)])
async def test_a_close_that_no_new_connection_mends_ends_the_app(
    language: str, code: int, status: int, tmp_path: Path
) -> None:
    """The status of the process says why, for its supervisor."""
    ended, device = await play(language, tmp_path, [OK], lambda call: taken(call, code))
    assert ended == status, device.account()
