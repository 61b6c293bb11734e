"""What is noted beneath the SDK, and when."""

from typing import Any

import trio
from trio.testing import MockClock

from signald.demo.judge import Moment
from signald.demo.watch import Passes, watched_dial
from tests.demo.test_carrier import server


async def test_only_noteworthy_frames_are_noted_and_every_dial_is() -> None:
    """A goaway, and the answers to a resume, are noted as parsed; messages, acks and anything else are not."""
    from trio_websocket import WebSocketConnection

    said = [
        '{"type":"session_started","session":"s_1"}',
        '{"type":"message","seq":1,"data":{"type":"goaway"}}',
        '{"type":"goaway","reason":"deploy"}',
        '{"type":"reconnection_ack","sessions":[]}',
        '{"type":"session_restored","session":"s_1"}',
    ]

    async def talk(connection: WebSocketConnection) -> None:
        for text in said:
            await connection.send_message(text)
        await connection.get_message()

    noted: list[str] = []
    dialed: list[None] = []

    def note(message: dict[str, Any], at: Moment) -> None:
        assert at.earliest <= at.latest <= trio.current_time()
        noted.append(message["type"])

    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    dial = watched_dial(passes, lambda: dialed.append(None), note)
    async with server(talk) as url, dial(url) as carrier:
        assert [await carrier.receive() for _ in said] == said
    assert noted == ["goaway", "reconnection_ack", "session_restored"]
    assert len(dialed) == 1


def test_a_moment_reaches_back_to_the_pass_before() -> None:
    """What is read now may have arrived since the pass before this one began, and not before that."""
    clock = MockClock()
    moments: list[Moment] = []

    async def main() -> None:
        passes = Passes()
        trio.lowlevel.add_instrument(passes)
        for _ in range(3):
            await trio.lowlevel.checkpoint()  # one pass each
            clock.jump(1.0)
        moments.append(passes.now())

    trio.run(main, clock=clock)
    assert moments == [Moment(1.0, 3.0)]
