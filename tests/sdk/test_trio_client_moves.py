"""A client that moves, or whose connection breaks: what the service plays, and what the application notices."""

import pytest
import trio
import trio.testing

from signald.sdk.events import Disconnected, HandedOver, Paired, Resumed
from signald.sdk.trio import Client
from tests.sdk.client_play import drained, echo, play
from tests.sdk.peer import ScriptedPeer


def test_a_broken_connection_is_resumed_within_a_quarter_of_a_second() -> None:
    """After a plain break the client is back quickly, shows its newest token, and resends what was not stored."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await connection.until("message")
        await connection.send(type="ack", seq=1)
        await connection.send(type="message", seq=1, data="one")
        await connection.until("message")
        await connection.cut()
        connection = await peer.accept()
        opening = await connection.restore_session(accepted=1)
        assert opening["recovery_token"] == "s_1.first"
        assert (opening["received"], opening["acked"]) == (1, 1)
        again = await connection.until("message")
        assert (again["seq"], again["data"]) == (2, "b")
        await connection.send(type="message", seq=1, data="one")  # a replay the client has already
        await connection.send(type="message", seq=2, data="two")

    async def application(client: Client) -> None:
        await client.send("a")
        await client.send("b")
        assert [(await anext(client)).data for _ in range(2)] == ["one", "two"]
        assert client.connections == 2
        assert drained(client) == [Paired("w_1"), Disconnected(None, "the connection broke"), Resumed()]

    peer = play(script, application)
    assert peer.dials[1][0] <= 0.25


def test_goaway_moves_the_client_before_the_old_connection_is_closed() -> None:
    """A new connection is opened beside the old one; what is in flight on either arrives once."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await old.until("message")
        await old.send(
            type="goaway", reason="drain", not_before_ms=300, deadline_ms=5000, target="new.test:81", ticket="t1"
        )
        new = await peer.accept()
        assert new.url == "ws://new.test:81/v1/client"
        assert trio.current_time() >= 0.3
        await old.send(type="message", seq=1, data="late on the old one")
        opening = await new.restore_session(accepted=0)
        assert opening["ticket"] == "t1"
        assert (await new.until("message"))["seq"] == 1
        await new.send(type="ack", seq=1)
        await new.send(type="message", seq=1, data="late on the old one")
        await new.send(type="message", seq=2, data="on the new one")
        await old.close(4001, "moved")
        await echo(new, first_seq=3)

    async def application(client: Client) -> None:
        await client.send("a")
        got = [(await anext(client)).data for _ in range(2)]
        assert got == ["late on the old one", "on the new one"]
        await client.send("b")
        assert (await anext(client)).data == "b"
        assert client.connections == 2
        assert drained(client) == [Paired("w_1"), HandedOver("new.test:81")]

    play(script, application)


def test_a_target_that_fails_is_forgotten_at_once() -> None:
    """After one failure at the target the configured URLs are tried again."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        peer.down = 1
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000, target="wss://gone.test")
        new = await peer.accept()
        assert new.url == "ws://signald.test/v1/client"
        await new.restore_session(accepted=0)
        await new.send(type="message", seq=1, data="here")

    async def application(client: Client) -> None:
        assert (await anext(client)).data == "here"

    peer = play(script, application)
    assert [url for _, url in peer.dials][1:] == ["wss://gone.test/v1/client", "ws://signald.test/v1/client"]
    assert peer.dials[2][0] <= 0.05


def test_a_lost_answer_is_asked_for_again_with_the_old_token() -> None:
    """Cut between grant and answer, the client shows the token it still holds; later the newest one."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await connection.cut()
        connection = await peer.accept()
        assert (await connection.receive())["recovery_token"] == "s_1.first"
        await connection.cut()
        connection = await peer.accept()
        assert (await connection.restore_session(accepted=0, token="s_1.third"))["recovery_token"] == "s_1.first"
        await connection.cut()
        connection = await peer.accept()
        assert (await connection.restore_session(accepted=0))["recovery_token"] == "s_1.third"
        await connection.send(type="message", seq=1, data="in")

    async def application(client: Client) -> None:
        assert (await anext(client)).data == "in"

    play(script, application)


def test_a_move_whose_answer_was_lost_goes_on_after_4001() -> None:
    """Closed with 4001 while no answer ever came from the new place: the client resumes with the token it holds."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        await new.receive()
        await old.close(4001, "moved")
        await new.cut()
        again = await peer.accept()
        assert (await again.restore_session(accepted=0))["recovery_token"] == "s_1.first"
        await again.send(type="message", seq=1, data="in")

    async def application(client: Client) -> None:
        assert (await anext(client)).data == "in"

    play(script, application)


def test_a_close_that_overtakes_the_answer_is_no_interruption() -> None:
    """The old connection may be closed with 4001 before the new one's answer is read: still a handover."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000, target="new.test", ticket="t")
        new = await peer.accept()
        await old.close(4001, "moved")
        await trio.sleep(0.1)
        await new.restore_session(accepted=0)
        await new.send(type="message", seq=1, data="in")

    async def application(client: Client) -> None:
        await anext(client)
        assert drained(client) == [Paired("w_1"), HandedOver("new.test")]

    play(script, application)


@pytest.mark.parametrize("code", [4401, 4403, 4404, 1008])
def test_a_new_node_that_refuses_does_not_end_the_session(code: int) -> None:
    """While the old connection serves, refusals elsewhere only put the move off."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=60_000, ticket="t")
        bad = await peer.accept()
        await bad.receive()
        await bad.close(code)
        await old.send(type="message", seq=1, data="still served")
        await old.until("message")
        good = await peer.accept()
        assert (await good.restore_session(accepted=0))["ticket"] == "t"
        await good.send(type="message", seq=2, data="moved")

    async def application(client: Client) -> None:
        assert (await anext(client)).data == "still served"
        await client.send("x")
        assert (await anext(client)).data == "moved"

    play(script, application)
