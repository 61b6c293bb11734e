"""Odd JSON in every field, both ways, through a node: what the node does with it, and what the SDK of the other party shows.

A literal is carried to the other party, passed over (a field that this message does not have), or it ends its sender's connection
(a client's, an opening) or session (a worker's). The party of the SDK is never ended, nor is its other session.
"""

import json
from typing import Any, Literal

import pytest
import trio

from signald.ids import SeededEntropy
from signald.sdk.errors import Unreadable
from signald.sdk.events import MessageReceived
from signald.sdk.trio import WorkerSession, open_client, open_worker
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer

HALF = "\ud83d"
LITERALS: dict[str, str] = {
    "text": '"plain"',
    "null": "null",
    "nul": r'"\u0000"',
    "70 letters": '"' + "x" * 70 + '"',
    "600 letters": '"' + "x" * 600 + '"',
    "half": r'"cut \ud83d"',
    "half key": r'{"\ud83d":"\udc00"}',
    "1e999": "1e999",
    "digits": "9" * 5000,
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "deep": "[" * 40 + "]" * 40,
    "31 levels": "[" * 31 + "]" * 31,
    "tab": '"\t"',
}
NOT_JSON = {"NaN", "Infinity", "tab", "deep"}
UNREADABLE = {"1e999", "digits"}
FIELDS = ("data", "meta", "want", "labels", "config", "trace", "kind", "reason")
TEXT_MAX = {"kind": 64, "trace": 256, "reason": 512, "want": 256, "labels": 256}
OWN = {
    "up": {"data", "meta", "want", "trace", "kind", "reason"},
    "down": {"data", "labels", "config", "trace", "kind", "reason"},
}
"""The fields that each party's messages have; the others are unknown to them."""
IN_OPENING = {"meta", "want", "labels", "config"}
Outcome = Literal["carried", "passed over", "refused"]


def value_of(literal: str) -> Any:
    """What the SDK shows of a literal; `Unreadable` where reading it raises."""
    return Unreadable if literal in UNREADABLE else json.loads(LITERALS[literal])


def outcome_of(literal: str, field: str, way: str) -> Outcome:
    """The rule, as docs/protocol.md has it."""
    if literal in NOT_JSON:
        return "refused"
    if field in ("want", "labels") and literal == "31 levels":
        return "refused"  # it lies in an object of its own: 33 levels
    if field not in OWN[way]:
        return "passed over"
    if field not in TEXT_MAX:
        return "carried"
    value = value_of(literal)
    if value is None and field in ("kind", "trace"):
        return "carried"
    return "carried" if isinstance(value, str) and HALF not in value and len(value) <= TEXT_MAX[field] else "refused"


def member(field: str, literal: str) -> str:
    """The field with the literal in it; in labels it is the value of one."""
    text = LITERALS[literal]
    return f'"{field}":' + (f'{{"a":{text}}}' if field in ("want", "labels") else text)


def shown(message: MessageReceived) -> Any:
    """The data of a message, or `Unreadable`."""
    try:
        return message.data
    except Unreadable:
        return Unreadable


@pytest.mark.long
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("literal", LITERALS)
def test_from_a_client_to_a_worker(literal: str, field: str) -> None:
    """The worker's handler sees the very value, or one that raises when it is read; the worker goes on."""
    expected = outcome_of(literal, field, "up")
    seen: list[tuple[str, Any]] = []
    handlers: list[WorkerSession] = []

    async def handler(session: WorkerSession) -> None:
        handlers.append(session)
        async for message in session:
            seen.append(("data", shown(message)))
            seen.append(("kind", message.kind))
            seen.append(("trace", message.trace))

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        value = value_of(literal) if expected == "carried" else None
        labels = {"a": value} if field == "want" and isinstance(value, str) else {}
        async with open_worker(
            "ws://n1",
            handler,
            instance_id="w",
            capacity=9,
            labels=labels,
            dial=Balancer(cluster, "n1").dial,
            entropy=SeededEntropy(1),
        ) as worker:
            innocent, _ = await cluster.client("n1")
            odd = await cluster.dial("n1", "/v1/client")
            opening = '{"type":"connect"' + ("," + member(field, literal) if field in IN_OPENING else "") + "}"
            await odd.socket.send_message(opening)
            if field in IN_OPENING and expected == "refused":
                assert await odd.refused() == ("bad_message", 4400)
            else:
                await odd.expect("session_started")
                while (await odd.expect("peer"))["state"] != "paired":
                    pass
                await told(odd)
            await innocent.send({"type": "message", "seq": 1, "data": "innocent"})
            assert (await innocent.expect("ack"))["seq"] == 1
            await trio.sleep(1)
            assert seen[-3][1] == "innocent"
            assert worker.connections == 1

    async def told(odd: Peer) -> None:
        if field in IN_OPENING:
            if field == "meta":
                meta: Any
                try:
                    meta = handlers[-1].meta
                except Unreadable:
                    meta = Unreadable
                assert meta == value_of(literal)
            return
        part = member(field, literal)
        data = "" if field == "data" else '"data":0,'
        kind = "bye" if field == "reason" else "message"
        await odd.socket.send_message(f'{{"type":"{kind}","seq":1,{data}{part}}}')
        if expected == "refused":
            assert await odd.refused() == ("bad_message", 4400)
        elif field == "reason":
            assert (await odd.expect("session_ended"))["reason"] == (value_of(literal) or "bye")
            await trio.sleep(1)
            assert handlers[-1].ended == value_of(literal)
        else:
            assert (await odd.expect("ack"))["seq"] == 1
            await trio.sleep(1)
            assert (field, value_of(literal)) in seen

    play(scene)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("literal", LITERALS)
def test_from_a_worker_to_a_client(literal: str, field: str) -> None:
    """The client's application sees it likewise; a refusal costs the worker the one session, and the client gets another worker."""
    expected = outcome_of(literal, field, "down")

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker = await cluster.dial("n1", "/v1/worker")
        opening = (
            '{"type":"app_ready","instance_id":"i","capacity":9'
            + ("," + member(field, literal) if field in IN_OPENING else "")
            + "}"
        )
        await worker.socket.send_message(opening)
        if field in IN_OPENING:
            if expected == "refused":
                assert await worker.refused() == ("bad_message", 4400)
            else:
                assert (await worker.expect("app_accepted"))["worker"]
            return
        await worker.expect("app_accepted")
        want = {"a": value_of(literal)} if field == "labels" and expected == "carried" else {}
        dial = Balancer(cluster, "n1").dial
        async with open_client("ws://n1", want=want, dial=dial, entropy=SeededEntropy(1)) as client:
            session = (await worker.accept())["session"]
            innocent, started = await cluster.client("n1")
            await worker.accept()
            data = "" if field == "data" else '"data":0,'
            kind = "bye" if field == "reason" else "message"
            front = '{"type":"%s","session":"%s","seq":1,%s' % (kind, session, data)  # noqa: UP031
            await worker.socket.send_message(front + member(field, literal) + "}")
            if expected == "refused":
                error = await worker.expect("error")
                assert (error["code"], error["session"], error["fatal"]) == ("bad_message", session, False)
                assert (await worker.expect("session_ended"))["session"] == session
                assert client.ended is None
            elif field == "reason":
                with trio.fail_after(10):
                    assert [one async for one in client] == []
                assert client.ended == (value_of(literal) or "bye")
            else:
                with trio.fail_after(10):
                    message = await client.__anext__()
                got = {"data": shown(message), "kind": message.kind, "trace": message.trace}
                assert got[field] == value_of(literal)
            await worker.send({"type": "message", "session": started["session"], "seq": 1, "data": "innocent"})
            assert (await innocent.expect("message"))["data"] == "innocent"
            assert client.connections == 1

    play(scene)


@pytest.mark.parametrize(
    "literal", [r'"cut \ud83d"', r'{"\uDC00":["\ud83d\\ud83d","\ud83d\ude00"]}', "1e999", '{"a" : 1.50}']
)
def test_the_very_bytes_arrive(literal: str) -> None:
    """Not only a value that is equal: `data`, live and in the chat history, and `meta`."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        client = await cluster.dial("n1", "/v1/client")
        await client.socket.send_message('{"type":"connect","meta":%s}' % literal)  # noqa: UP031
        assigned = await raw(worker, "session_assigned")
        assert f'"client":{{"meta":{literal}}}' in assigned
        session = json.loads(assigned)["session"]
        await worker.send({"type": "session_accept", "session": session})
        await client.socket.send_message('{"type":"message","seq":1,"data":%s}' % literal)  # noqa: UP031
        assert f'"data":{literal}' in await raw(worker, "message")
        await worker.send({"type": "session_refuse", "session": session})
        assert f'"data":{literal}' in await raw(worker, "session_assigned")

    async def raw(peer: Peer, kind: str) -> str:
        with trio.fail_after(10):
            while f'"type":"{kind}"' not in (frame := await peer.socket.get_message()):
                pass
        return str(frame)

    play(scene)


def test_a_message_at_the_limit_is_carried_and_answered_within_it() -> None:
    """What a client may send reaches its worker with `session` around it; what the worker may not send is refused at it."""
    refused: list[str] = []

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            try:
                await session.send(message.data)
            except ValueError as error:
                refused.append(str(error))
                await session.send("too long")

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"message_bytes_max": 2000, "json_depth_max": 8})
        dial = Balancer(cluster, "n1").dial
        async with (
            open_worker("ws://n1", handler, instance_id="w", dial=dial, entropy=SeededEntropy(1)) as worker,
            open_client("ws://n1", dial=dial, entropy=SeededEntropy(2)) as client,
        ):
            front = len('{"type":"message","seq":1,"data":""}')
            await client.send("x" * (2000 - front))
            assert (await client.__anext__()).data == "too long"
            assert refused == ["a message may have at most 2000 bytes on the wire, not 2039"]
            for beyond in ("x" * (2001 - front), json.loads("[" * 8 + "]" * 8)):
                with pytest.raises(ValueError, match=r"2000 bytes|deeper"):
                    await client.send(beyond)
            await client.send(json.loads("[" * 7 + "]" * 7))
            assert (await client.__anext__()).data == json.loads("[" * 7 + "]" * 7)
            assert (worker.connections, client.connections) == (1, 1)

    play(scene)
