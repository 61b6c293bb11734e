"""Tests of the client's front on Trio, against a scripted signald over memory streams."""

from functools import partial

import pytest
import trio
import trio.testing

from signald.sdk.events import Paired, Replaced, Resumed
from signald.sdk.trio import Bounds, Client, Refused, SessionGone, open_client
from tests.sdk.client_play import URL, drained, echo, play
from tests.sdk.peer import ScriptedPeer


def test_a_client_sends_and_receives_in_order() -> None:
    """What is sent arrives numbered from 1, and answers are handed out in order."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        assert connection.url == "ws://signald.test/v1/client"
        await connection.start_session()
        await echo(connection)

    async def application(client: Client) -> None:
        assert client.session == "s_1"
        assert [await client.send({"n": n}) for n in range(3)] == [1, 2, 3]
        got = []
        async for message in client:
            got.append((message.seq, message.data["n"]))
            if len(got) == 3:
                break
        assert got == [(1, 0), (2, 1), (3, 2)]
        assert drained(client) == [Paired("w_1")]

    play(script, application)


def test_bytes_travel_as_binary_frames() -> None:
    """Bytes are sent and received as they are, without JSON."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        message = await connection.until("message")
        assert message == {"type": "message", "seq": 1, "kind": "audio", "data": b"\x00\xff"}
        await connection.send_binary(b"\x01\x02", type="message", seq=1)

    async def application(client: Client) -> None:
        await client.send(b"\x00\xff", kind="audio")
        message = await anext(client)
        assert (message.data, message.binary) == (b"\x01\x02", True)

    play(script, application)


def test_a_message_is_acked_when_the_next_one_is_asked_for() -> None:
    """An ack tells that the application has finished with a message, not that it reached the process."""
    acks: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        for seq in (1, 2, 3):
            await connection.send(type="message", seq=seq, data=seq)
        while True:
            acks.append((await connection.until("ack"))["seq"])

    async def application(client: Client) -> None:
        await anext(client)
        await trio.sleep(1)
        assert acks == []
        await anext(client)
        await trio.sleep(1)
        assert acks == [1]
        client.ack(await anext(client))
        await trio.sleep(1)
        assert acks == [1, 3]

    play(script, application)


def test_an_application_that_lags_is_not_buried() -> None:
    """At the inbox bound the connection is not read until there is room; nothing is lost, and silence is not held
    against the other side."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        for seq in range(1, 101):
            await connection.send(type="message", seq=seq, data=seq)

    async def application(client: Client) -> None:
        await trio.sleep(300)
        assert len(client._core.session.inbox) <= 5
        assert [(await anext(client)).data for _ in range(100)] == list(range(1, 101))
        assert client.connections == 1

    play(script, application, bounds=Bounds(inbox_messages_max=5))


@pytest.mark.parametrize("code", [4401, 4403, 4409, 4410])
def test_a_final_close_is_raised_to_the_application(code: int) -> None:
    """Codes that end the session for this party raise `SessionGone` and open no other connection."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await connection.close(code, "why")

    async def application(client: Client) -> None:
        with pytest.raises(SessionGone) as caught:
            await anext(client)
        assert caught.value.code == code
        with pytest.raises(SessionGone):
            await client.send("too late")
        await trio.sleep(60)

    assert len(play(script, application).dials) == 1


def test_nothing_to_resume_ends_the_session() -> None:
    """4404 after `restore_session`: the session is gone, and the application is told why."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await connection.cut()
        connection = await peer.accept()
        await connection.receive()
        await connection.close(4404)

    async def application(client: Client) -> None:
        with pytest.raises(SessionGone, match="nothing_to_resume"):
            await anext(client)

    play(script, application)


def test_a_refused_client_is_told_so() -> None:
    """A close that forbids reconnecting, before the session exists, comes out of `open_client` as `Refused`."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.receive()
        await connection.close(4401, "no valid credential")

    async def application(_: Client) -> None:
        raise AssertionError("the block must not begin")

    with pytest.raises((Refused, ExceptionGroup)) as caught:
        play(script, application)
    flat = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(flat, Refused)
    assert flat.code == 4401


def test_a_hint_to_wait_is_obeyed() -> None:
    """1013 with `retry_after_ms` in its reason puts the next try off by that long and little more."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.receive()
        await connection.close(1013, '{"retry_after_ms":3000}')
        await (await peer.accept()).start_session()

    async def application(_: Client) -> None:
        pass

    peer = play(script, application)
    assert 3.0 <= peer.dials[1][0] - peer.dials[0][0] <= 3.75


def test_what_was_refused_for_its_rate_is_sent_again_later() -> None:
    """`rate` pauses; then everything from the refused message on is sent again, in order, and nothing twice."""
    seen: list[tuple[float, int]] = []

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        for _ in range(3):
            await connection.until("message")
        await connection.send(type="ack", seq=1)
        await connection.send(type="error", code="rate", message="slower", retry_after_ms=2000, expected=2, fatal=False)
        await connection.send(type="error", code="gap", message="expected 2", expected=2, fatal=False)
        for _ in range(2):
            again = await connection.until("message")
            seen.append((trio.current_time(), again["seq"]))
        await connection.send(type="ack", seq=3)
        assert (await connection.until("message"))["seq"] == 4

    async def application(client: Client) -> None:
        for n in range(3):
            await client.send(n)
        await client.flush()
        await client.send("next")
        await trio.sleep(5)

    play(script, application)
    assert [seq for _, seq in seen] == [2, 3]
    assert all(2.0 <= at <= 2.6 for at, _ in seen)


def test_silence_is_answered_with_a_ping_and_then_another_connection() -> None:
    """Nothing for a heartbeat: a ping; nothing after that: the connection counts as dead."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        assert await connection.receive() == {"type": "ping"}
        assert 18 <= trio.current_time() <= 20
        await connection.send(type="pong")
        assert await connection.receive() == {"type": "ping"}
        connection = await peer.accept()
        await connection.restore_session(accepted=0)
        await connection.send(type="message", seq=1, data="alive")

    async def application(client: Client) -> None:
        assert (await anext(client)).data == "alive"
        assert trio.current_time() <= 51

    play(script, application)


def test_bye_waits_for_what_was_sent_and_ends_the_session() -> None:
    """`bye` leaves after the last message was stored; then iteration ends and the connection closes with 1000."""
    codes: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        assert (await connection.receive())["type"] == "message"
        await trio.sleep(1)
        await connection.send(type="ack", seq=1)
        assert await connection.receive() == {"type": "bye", "reason": "done"}
        await connection.send(type="session_ended", reason="done")
        codes.append(await connection.close_code())

    async def application(client: Client) -> None:
        await client.send("last")
        await client.bye("done")
        assert [message async for message in client] == []
        assert client.ended == "done"
        await trio.sleep(3)

    play(script, application)
    assert codes == [1000]


def test_another_worker_is_announced_even_when_it_came_while_away() -> None:
    """A resume that shows another worker than before says `Replaced`."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session(worker="w_1")
        await connection.cut()
        connection = await peer.accept()
        await connection.restore_session(accepted=0, worker="w_2")
        await connection.send(type="message", seq=1, data="from w_2")

    async def application(client: Client) -> None:
        await anext(client)
        assert drained(client)[-2:] == [Resumed(), Replaced("w_2")]
        assert client.worker == "w_2"

    play(script, application)


def test_a_hole_in_what_arrives_breaks_the_connection() -> None:
    """Better a broken connection than a silent gap: the client resumes from what it has."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await connection.send(type="message", seq=1, data=1)
        await connection.send(type="message", seq=3, data=3)
        connection = await peer.accept()
        await connection.restore_session(accepted=0)
        for seq in (1, 2, 3):
            await connection.send(type="message", seq=seq, data=seq)

    async def application(client: Client) -> None:
        assert [(await anext(client)).data for _ in range(3)] == [1, 2, 3]

    play(script, application)


def test_leaving_the_block_says_no_bye_and_an_exception_comes_out_as_it_is() -> None:
    """The session outlives the block, and the block's own exception is not wrapped in a group."""
    heard: list[str] = []

    async def main() -> None:
        peer = ScriptedPeer()

        async def script() -> None:
            connection = await peer.accept()
            await connection.start_session()
            await connection.close_code()
            heard.append("closed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            with pytest.raises(KeyError):
                async with open_client(URL, dial=peer.dial):
                    raise KeyError("the application's own")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert heard == ["closed"]


def test_a_state_resumes_in_another_process() -> None:
    """A saved state carries token, positions and unconfirmed messages; its repr shows no secret."""

    async def main() -> None:
        peer = ScriptedPeer()
        dial = peer.dial
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                connection = await peer.accept()
                await connection.start_session()
                await connection.send(type="message", seq=1, data="one")
                await connection.send(type="message", seq=2, data="two")
                await connection.close_code()

            nursery.start_soon(first)
            async with open_client(URL, dial=dial) as client:
                await client.send("unstored")
                client.ack(await anext(client))
                state = client.state()
            assert "s_1.first" not in repr(state)

            async def second() -> None:
                connection = await peer.accept()
                opening = await connection.restore_session(accepted=0)
                assert (opening["received"], opening["recovery_token"]) == (1, "s_1.first")
                await connection.send(type="message", seq=2, data="two")
                assert (await connection.until("message"))["data"] == "unstored"
                await connection.send(type="ack", seq=1)

            nursery.start_soon(second)
            async with open_client(URL, dial=dial, state=state) as client:
                await client.flush()
                assert (await anext(client)).data == "two"
                assert await client.send("next") == 2

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_urls_are_tried_in_order() -> None:
    """An unreachable first URL makes room for the second at once, and no URL may carry a query."""

    async def main() -> None:
        peer = ScriptedPeer()
        peer.down = 1
        async with trio.open_nursery() as nursery:

            async def script() -> None:
                await (await peer.accept()).start_session()

            nursery.start_soon(script)
            async with open_client(["ws://a.test", "ws://b.test/signal"], dial=peer.dial):
                pass
        assert [url for _, url in peer.dials] == ["ws://a.test/v1/client", "ws://b.test/signal"]

    trio.run(partial(main), clock=trio.testing.MockClock(autojump_threshold=0))
    with pytest.raises(ValueError, match="query"):
        trio.run(partial(_open, "ws://a.test?token=x"))


async def _open(url: str) -> None:
    async with open_client(url):
        pass
