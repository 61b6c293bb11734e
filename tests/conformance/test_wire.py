"""Every way in which the service ends a connection, as it stands on the wire: code, reason, and the end of the TCP behind it.

Autobahn sees one connection and no service. Here the whole service is judged: each row of the close-code table is provoked once, in virtual
time and over TCP, beside a client and a worker that are in conversation.
"""

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import pytest
import structlog.testing
import trio
import trio.testing

from signald.testing.websocket import Speaker, close, frame, text
from signald.wire.close_codes import CloseCode
from tests.conformance.service import Scene, Stage, in_memory, over_tcp
from tests.net.clients import until
from tests.service.test_opening import token_for

RETRY = r'\{"retry_after_ms":\d+\}'


@attrs.frozen
class Row:
    """One way to be closed."""

    code: CloseCode
    reason: str
    """A regular expression."""
    provoke: Callable[[Stage], Awaitable[Speaker]]
    """Starts what it needs and returns the party whose connection is about to be closed."""
    sections: dict[str, dict[str, object]]
    calm: bool
    """The node goes on afterwards, and has bystanders."""
    tcp: bool
    polite: bool
    """The peer has broken no rule of the transport: it is waited for, `timeouts.close_s`."""

    def __str__(self) -> str:
        """Name the row in the list of tests."""
        return self.provoke.__name__.removeprefix("_")


ROWS: list[Row] = []


def row(
    code: CloseCode,
    reason: str,
    *,
    calm: bool = True,
    tcp: bool = True,
    polite: bool = True,
    **sections: dict[str, object],
) -> Callable[[Callable[[Stage], Awaitable[Speaker]]], Callable[[Stage], Awaitable[Speaker]]]:
    """Make a row of what is decorated; `sections` are for the configuration of the node `n1`."""

    def add(provoke: Callable[[Stage], Awaitable[Speaker]]) -> Callable[[Stage], Awaitable[Speaker]]:
        ROWS.append(Row(code, reason, provoke, sections, calm, tcp, polite))
        return provoke

    return add


# --- the session is over ---------------------------------------------------------------------------------------------


@row(CloseCode.NORMAL, "")
async def _a_client_says_bye(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.say({"type": "bye"})
    assert (await client.hear("session_ended"))["reason"] == "bye"
    return client


@row(CloseCode.NORMAL, "terminated", calm=False)
async def _a_worker_was_terminated(stage: Stage) -> Speaker:
    worker = await stage.dial()
    await worker.open(path="/v1/worker")
    auth = token_for("ann", "worker")
    await worker.say({"type": "app_ready", "instance_id": "old", "capacity": 1, "auth": auth})
    await worker.hear("app_accepted")
    await stage.start("n2")
    stage.cluster.nodes["n1"].shutdown.signal()
    asked = await worker.hear("terminate_app")
    done = {"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""}
    await worker.say(done)
    return worker


@row(CloseCode.SESSION_ENDED, "done")
async def _a_worker_ends_the_session(stage: Stage) -> Speaker:
    client, _, worker, session = await stage.pair()
    await worker.say({"type": "bye", "session": session, "reason": "done"})
    assert (await client.hear("session_ended"))["reason"] == "done"
    return client


# --- the node goes ---------------------------------------------------------------------------------------------------


@row(CloseCode.GOING_AWAY, "going away", calm=False)
async def _a_client_that_was_told_to_go_and_stays(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await stage.start("n2")
    stage.cluster.nodes["n1"].shutdown.signal()
    await client.hear("goaway")
    return client


@row(CloseCode.RESTARTING, "restarting", calm=False)
async def _a_node_goes_and_there_is_no_other(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    stage.cluster.nodes["n1"].shutdown.signal()
    return client


@row(CloseCode.MOVED, "moved")
async def _a_client_has_moved(stage: Stage) -> Speaker:
    client, started = await stage.client()
    await stage.start("n2")
    node = stage.cluster.nodes["n1"]
    node.hub.sessions[started["session"]].client.link.told_to_go = True  # type: ignore[union-attr]
    moved = await stage.restore(started["recovery_token"], "n2")
    await moved.hear("session_restored")
    return client


# --- not admitted ----------------------------------------------------------------------------------------------------


@row(CloseCode.REFUSED, RETRY, calm=False, drain={"unready_s": 1.0})
async def _a_draining_node_is_asked(stage: Stage) -> Speaker:
    await stage.client()
    stage.cluster.nodes["n1"].shutdown.signal()
    await trio.sleep(0.1)
    return await stage.connect()


@row(CloseCode.REFUSED, RETRY, admission={"setups_in_progress_max": 0})
async def _too_many_are_being_set_up(stage: Stage) -> Speaker:
    stage.cluster.nodes["n1"].hub.gate.in_progress = 1000
    party = await stage.connect()
    await party.say({"type": "connect", "auth": token_for("ann", "client")})
    assert (await party.hear("error"))["code"] == "busy"
    stage.cluster.nodes["n1"].hub.gate.in_progress = 0
    return party


@row(CloseCode.REFUSED, RETRY, store={"command_timeout_s": 0.5})
async def _the_store_is_away(stage: Stage) -> Speaker:
    party = await stage.connect()
    stage.cluster.world.outage = "down"
    await party.say({"type": "connect", "auth": token_for("ann", "client")})
    assert (await party.hear("error"))["code"] == "store_unavailable"
    stage.cluster.world.outage = ""
    return party


@row(CloseCode.UNAUTHENTICATED, "unauthenticated")
async def _nobody_we_know(stage: Stage) -> Speaker:
    party = await stage.connect()
    await party.say({"type": "connect", "auth": "nonsense"})
    return party


@row(CloseCode.FORBIDDEN, "forbidden")
async def _a_worker_where_clients_are(stage: Stage) -> Speaker:
    party = await stage.connect()
    await party.say({"type": "connect", "auth": token_for("ann", "worker")})
    return party


@row(CloseCode.FORBIDDEN, "forbidden")
async def _somebody_elses_session(stage: Stage) -> Speaker:
    _, started = await stage.client()
    return await stage.restore(started["recovery_token"], subject="eve")


async def _reuse(stage: Stage) -> tuple[Speaker, str]:
    """Return a client that has shown a retired token, and the token that was good before."""
    _, started = await stage.client()
    again = await stage.restore(started["recovery_token"])
    restored = await again.hear("session_restored")
    await again.say({"type": "ping"})
    await again.hear("pong")
    await trio.sleep(0.1)
    return await stage.restore(started["recovery_token"]), restored["recovery_token"]


@row(CloseCode.FORBIDDEN, "token_reuse")
async def _a_token_was_used_before(stage: Stage) -> Speaker:
    return (await _reuse(stage))[0]


@row(CloseCode.FORBIDDEN, "token_reuse")
async def _all_tokens_of_a_stolen_session(stage: Stage) -> Speaker:
    thief, good = await _reuse(stage)
    await thief.hear("error")
    return await stage.restore(good)


@row(CloseCode.NOTHING_TO_RESUME, "nothing_to_resume")
async def _a_session_there_is_not(stage: Stage) -> Speaker:
    return await stage.restore("s_none." + "A" * 43)


@row(CloseCode.TIMEOUT, "hello_timeout", timeouts={"hello_s": 0.5})
async def _a_party_that_never_says_who_it_is(stage: Stage) -> Speaker:
    return await stage.connect()


# --- the connection is not what it should be -------------------------------------------------------------------------


@row(CloseCode.SUPERSEDED, "superseded")
async def _a_client_that_came_back(stage: Stage) -> Speaker:
    client, started = await stage.client()
    again = await stage.restore(started["recovery_token"])
    await again.hear("session_restored")
    return client


@row(CloseCode.TIMEOUT, "no pong", timeouts={"ping_interval_s": 1.0, "pong_timeout_s": 1.0}, tcp=False, polite=False)
async def _a_client_that_gives_no_sign_of_life(stage: Stage) -> Speaker:
    return (await stage.client())[0]


@row(CloseCode.BAD_MESSAGE, "bad_message")
async def _a_message_that_is_none(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(text("{"))
    return client


@row(CloseCode.BAD_MESSAGE, "out_of_place")
async def _a_message_before_the_opening(stage: Stage) -> Speaker:
    party = await stage.connect()
    await party.say({"type": "ack", "seq": 1})
    return party


@row(CloseCode.RATE, RETRY, limits={"messages_per_s": 10.0, "messages_burst": 10})
async def _a_client_that_floods(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    flood = [text(json.dumps({"type": "message", "seq": seq, "data": 0})) for seq in range(1, 30)]
    await client.send(b"".join(flood))
    return client


@row(CloseCode.SLOW_CONSUMER, "send queue overflow|write timeout", tcp=False, polite=False)
async def _a_client_that_does_not_read(stage: Stage) -> Speaker:
    # In memory, where a stream holds nothing: a TCP takes megabytes before it tells.
    client, _, worker, session = await stage.pair(streams=trio.testing.lockstep_stream_pair)
    for seq in range(1, 101):
        message = {"type": "message", "session": session, "seq": seq, "data": "x" * 1000}
        await worker.say(message)
    node = stage.cluster.nodes["n1"]
    await until(lambda: any(conn.closing for conn in node.server.connections.values()))
    return client


# --- the frames are not what they should be --------------------------------------------------------------------------


@row(CloseCode.PROTOCOL_ERROR, "reserved bit set", polite=False)
async def _a_reserved_bit(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(frame(1, b"{}", rsv=4))
    return client


@row(CloseCode.INVALID_DATA, "text is not UTF-8", polite=False)
async def _text_that_is_not_utf8(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(text(b"\xff"))
    return client


@row(CloseCode.TOO_BIG, "message over 65536 bytes", polite=False)
async def _a_message_that_is_too_long(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(frame(1, length=65537))
    return client


@row(CloseCode.TOO_BIG, "too_big")
async def _a_workers_message_that_is_too_long(stage: Stage) -> Speaker:
    _, _, worker, _ = await stage.pair()
    await worker.say({"type": "app_terminated", "message": "x" * 65536})
    return worker


@row(CloseCode.POLICY, "too many pings", polite=False)
async def _a_flood_of_pings(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(frame(9, b"?") * 500)
    return client


@row(CloseCode.POLICY, "too many pings", polite=False)
async def _a_flood_of_pongs(stage: Stage) -> Speaker:
    client, _ = await stage.client()
    await client.send(frame(10, b"!") * 500)
    return client


@row(CloseCode.INTERNAL, "internal error")
async def _an_error_of_ours(stage: Stage) -> Speaker:
    node = stage.cluster.nodes["n1"]
    party = await stage.connect()
    working, node.hub.auth = node.hub.auth, None  # type: ignore[assignment]
    await party.say({"type": "connect"})
    await until(lambda: any(conn.closing for conn in node.server.connections.values()))
    node.hub.auth = working
    return party


def scene_of(row: Row, *, answers: bool, timed: bool) -> Scene:
    """Play `row` to its end: what stands on the wire, and what is left."""

    async def end(stage: Stage, party: Speaker) -> None:
        code, reason = await party.closed_with()
        assert code == row.code
        assert re.fullmatch(row.reason, reason), reason
        if answers:
            with suppress(trio.BrokenResourceError):
                await party.send(close(code))
        # A peer that answers, or that has broken the rules of the transport, is gone within a second; another has `close_s`.
        after = await party.hung_up_after()
        assert not timed or after <= (1.0 if answers or not row.polite else 5.01)
        assert party.received == b"", "nothing follows a Close"

    async def scene(stage: Stage) -> None:
        await stage.start("n1", **row.sections)
        if row.calm:
            async with stage.bystanders() as bystanders:
                party = await row.provoke(stage)
                await bystanders.goes_on()
                await end(stage, party)
                for other in stage.parties[2:]:
                    await trio.aclose_forcefully(other.stream)
            await stage.nobody_left()
        else:
            await end(stage, await row.provoke(stage))
            for other in stage.parties:
                await trio.aclose_forcefully(other.stream)
            await stage.cluster.wait_exit("n1")

    return scene


def errors_of(row: Row) -> list[str]:
    """The errors of its own that signald logs on the way."""
    return ["handler_failed"] if row.code == CloseCode.INTERNAL else []


def judged(row: Row, play: Callable[[Scene], None], *, answers: bool, timed: bool) -> None:
    """Play a row; nothing may be logged as an error but what is one."""
    with structlog.testing.capture_logs() as logged:
        play(scene_of(row, answers=answers, timed=timed))
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == errors_of(row)


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "unanswered"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_close_stands_on_the_wire(row: Row, answers: bool) -> None:
    """Code and reason as documented, the TCP closed within a second of the peer's answer or by a deadline without, others unharmed."""
    judged(row, in_memory, answers=answers, timed=True)


@pytest.mark.real
@pytest.mark.parametrize("row", [row for row in ROWS if row.tcp], ids=str)
def test_each_close_stands_on_the_wire_of_tcp(row: Row) -> None:
    """The same over TCP, where a close with unread bytes would be a reset; no descriptor is left."""
    judged(row, over_tcp, answers=True, timed=False)


def test_every_code_has_its_row() -> None:
    """No code of the table is without a test but 1003, which this release does not send."""
    assert {row.code for row in ROWS} == set(CloseCode) - {CloseCode.UNSUPPORTED}
