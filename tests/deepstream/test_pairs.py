"""An app and its client: messages both ways, what counts as received, and a deploy between them."""

import json
from typing import Any

import pytest
import trio

from signald.testing.cluster import Cluster, play
from signald.testing.websocket import Speaker, close
from signald.testing.wire import Json, Peer
from tests.deepstream.fleet import (
    ON,
    back,
    on,
    paired,
    ready,
    registered,
    speaking,
    terminated,
    with_auth,
)


async def client_of(cluster: Cluster, node: str, instance: str = "cam-1", **fields: object) -> tuple[Peer, Json]:
    """A client that wants one app, and has it."""
    client, started = await cluster.client(node, want={"instance": instance}, receipts=True, **fields)
    await paired(client)
    return client, started


async def say(client: Peer, seq: int, data: object) -> None:
    """A client says something to its app."""
    await client.send({"type": "message", "seq": seq, "data": data})


def test_both_ways() -> None:
    """A client's data reaches its app as it is, and what the app says is a message of its session, numbered for it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        await ready(cluster, "a", "cam-2")
        client, _ = await client_of(cluster, "a")
        roi = {"type": "set_roi", "box": [1, 2.5, "\u00e4"], "deep": {"a": None}}
        await say(client, 1, roi)
        assert await app.receive() == roi
        assert (await client.expect("receipt"))["seq"] == 1
        for number in range(3):
            await app.send({"type": "detection", "objects": number})
        came = [await client.expect("message") for _ in range(3)]
        assert [frame["seq"] for frame in came] == [1, 2, 3]
        assert [frame["data"]["objects"] for frame in came] == [0, 1, 2]
        assert node.hub.counts.app_messages["paired"] == 3

    play(scene)


def test_what_no_app_understands_is_withheld() -> None:
    """Data without a type, data that is no object, and the words of signald: none reaches an app, and none stops what follows."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        client, _ = await client_of(cluster, "a")
        wrong: list[Any] = ["text", [1], {"no": "type"}, {"type": 5}, {"type": ""}]
        wrong += [{"type": kind} for kind in ("terminate_app", "reconnection_ack", "app_accepted", "error", "pong")]
        for seq, data in enumerate(wrong, 1):
            await say(client, seq, data)
        await client.send_binary(b"\x00\x01", {"type": "message", "seq": len(wrong) + 1})
        await say(client, len(wrong) + 2, {"type": "go"})
        assert await app.receive() == {"type": "go"}
        while (await client.expect("receipt"))["seq"] < len(wrong) + 2:
            pass
        assert node.hub.counts.app_messages["withheld"] == len(wrong) + 1

    play(scene)


def test_received_is_what_the_app_has_read() -> None:
    """What is written is not received: the client's receipt comes with the app's Pong, one Ping at a time."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await speaking(cluster, "a")
        client, _ = await client_of(cluster, "a")
        for seq in (1, 2, 3):
            await say(client, seq, {"type": "n", "n": seq})
            await trio.sleep(0.2)
        assert [frame["type"] for frame in await client.quiet(5) if frame["type"] == "receipt"] == []
        kinds = [await app.frame() for _ in range(4)]
        assert [opcode for opcode, _ in kinds] == [1, 9, 1, 1]  # one Ping, behind the first
        await app.send(pong(b"nonsense"))
        await app.send(pong(b"999999"))
        assert [frame for frame in await client.quiet(2) if frame["type"] == "receipt"] == []
        await app.send(pong(kinds[1][1]))
        assert (await client.expect("receipt"))["seq"] == 1
        opcode, payload = await app.frame()
        assert opcode == 9
        await app.send(pong(payload))
        assert (await client.expect("receipt"))["seq"] == 3
        (session,) = node.hub.sessions.values()
        assert session.up.acked == 3

    play(scene)


def pong(payload: bytes) -> bytes:
    """A Pong as a client sends it."""
    from signald.testing.websocket import frame

    return frame(10, payload)


def test_many_messages_are_few_pings() -> None:
    """An app answers each Ping, and is not taken for one that floods the node with Pongs."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits={"messages_per_s": 10_000.0, "messages_burst": 10_000}, **ON)
        app = await ready(cluster, "a")
        client, _ = await client_of(cluster, "a")
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                for seq in range(1, 1001):
                    await say(client, seq, {"type": "n"})
                    await trio.sleep(0.002)

            nursery.start_soon(talk)
            for _ in range(1000):
                assert await app.receive() == {"type": "n"}
        await say(client, 1001, {"type": "last"})
        assert await app.receive() == {"type": "last"}

    play(scene)


@pytest.mark.parametrize("proved", [True, False])
def test_a_connection_that_breaks(proved: bool) -> None:
    """What the app has shown to have read is not given out again; what was in flight is, to the connection that it comes back on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **ON)
        app = await speaking(cluster, "a")
        client, _ = await client_of(cluster, "a")
        await say(client, 1, {"type": "n", "n": 1})
        assert (await app.frame())[0] == 1
        opcode, payload = await app.frame()
        assert opcode == 9
        if proved:
            await app.send(pong(payload))
            await client.expect("receipt")
        await app.stream.aclose()
        await trio.sleep(1)
        await say(client, 2, {"type": "n", "n": 2})
        again, _ = await back(cluster, "a", after=1006)
        first = await again.expect("n")
        assert first["n"] == (2 if proved else 1)

    play(scene)


def test_a_deploy_repeats_and_loses_nothing() -> None:
    """`on_drain = "reconnect"`: the answer to our Close proves what was read, and frames that cross it are taken."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **on(on_drain="reconnect"))
        app = await speaking(cluster, "old")
        client, started = await client_of(cluster, "old")
        await cluster.start("new", **on(on_drain="reconnect"))
        await say(client, 1, {"type": "n", "n": 1})
        await trio.sleep(0.1)
        old.shutdown.signal()
        kinds = []
        while (found := await app.frame())[0] != 8:
            kinds.append(found)
        assert [opcode for opcode, _ in kinds] == [1, 9]  # not answered: the answer to the Close is all that it shows
        for number in (1, 2):
            await app.say({"type": "detection", "n": number})  # it has not read the Close yet
        await app.send(close(1001))
        came = [await client.expect("message") for _ in range(2)]
        assert [frame["data"]["n"] for frame in came] == [1, 2]
        await client.send({"type": "ack", "seq": 2})
        await say(client, 2, {"type": "n", "n": 2})
        await trio.sleep(5)
        again, answer = await back(cluster, "new")
        assert answer["session_restored"] is True
        assert await again.receive() == {"type": "n", "n": 2}
        await client.expect("goaway")
        moved, restored = await cluster.restore("new", started["recovery_token"], received=2)
        assert restored["peer"]["state"] == "paired"
        assert await client.closed() == 4001
        await cluster.wait_exit("old")
        await again.send({"type": "detection", "n": 3})
        assert (await moved.expect("message"))["seq"] == 3
        await say(moved, 3, {"type": "n", "n": 3})
        assert await again.receive() == {"type": "n", "n": 3}

    play(scene)


def test_what_comes_behind_the_close_is_given_to_the_next_connection() -> None:
    """The answer to our Close proves what stood before it: a message that came meanwhile was never written, and is not received."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **on(on_drain="reconnect"))
        app = await speaking(cluster, "old")
        client, _ = await client_of(cluster, "old")
        await cluster.start("new", **on(on_drain="reconnect"))
        old.shutdown.signal()
        while (await app.frame())[0] != 8:
            pass
        await say(client, 1, {"type": "n", "n": 1})
        await client.expect("ack")
        await trio.sleep(0.1)
        await app.send(close(1001))
        await trio.sleep(5)
        again, answer = await back(cluster, "new")
        assert answer["session_restored"] is True
        assert await again.receive() == {"type": "n", "n": 1}
        assert (await client.expect("receipt"))["seq"] == 1

    play(scene)


def test_the_client_of_an_app_that_ends() -> None:
    """`terminate`: the app may speak to its client until it is through; then the client waits for another app, and is moved."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **ON)
        await cluster.start("new", **ON)
        app = await ready(cluster, "old")
        client, started = await client_of(cluster, "old")
        old.shutdown.signal()
        asked = await app.expect("terminate_app")
        await app.send({"type": "eos"})
        assert (await client.expect("message"))["data"] == {"type": "eos"}
        await trio.sleep(2)
        assert [frame["type"] for frame in await client.quiet(0.5)] == []
        await app.send({"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""})
        assert (await client.expect("peer"))["state"] == "waiting"
        await client.expect("goaway")
        moved, restored = await cluster.restore("new", started["recovery_token"], received=1)
        assert restored["peer"]["state"] == "waiting"
        await ready(cluster, "new")
        await paired(moved)
        await cluster.wait_exit("old")

    play(scene)


def test_another_app_takes_over_for_the_one_that_has_ended() -> None:
    """A client that wants no certain app goes on with the next one."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        first, second = await ready(cluster, "a", "cam-1"), await ready(cluster, "a", "cam-2")
        client, _ = await cluster.client("a", want={"profile": "deepstream"})
        await paired(client)
        infos = await registered(node)
        (busy,) = [name for name, info in infos.items() if info.assigned]
        apps = {"cam-1": first, "cam-2": second}
        node.hub.terminations.order(infos[busy].id)
        await terminated(apps.pop(busy))
        assert await client.states() == ["waiting", "replaced"]
        ((_, other),) = apps.items()
        await say(client, 1, {"type": "go"})
        assert await other.receive() == {"type": "go"}

    play(scene)


def test_capacity_is_one_client_or_none() -> None:
    """A second client waits; with `pairs` off every client does."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **ON)
        await cluster.start("b", **on(pairs=False))
        await ready(cluster, "b", "cam-2")
        alone, _ = await cluster.client("b")
        assert await alone.states() == []
        await alone.send({"type": "bye"})
        await alone.closed()
        await ready(cluster, "a")
        await client_of(cluster, "a")
        second, _ = await cluster.client("a", want={"instance": "cam-1"})
        assert await second.states() == []

    play(scene)


def test_tenants() -> None:
    """A client is paired with an app of its tenant only."""

    async def scene(cluster: Cluster) -> None:
        from tests.deepstream.fleet import credential

        await cluster.start("a", **with_auth())
        await ready(cluster, "a", auth=credential("fleet", tenant="x"))
        stranger, _ = await cluster.client("a", auth=credential("eve", "client", "y"))
        assert await stranger.states() == []
        await client_of(cluster, "a", auth=credential("ann", "client", "x"))

    play(scene)


def test_a_client_that_is_far_behind() -> None:
    """An app has no way to offer again: what its client's log has no room for is dropped, said and counted."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", limits={"backlog_messages_max": 10}, **ON)
        app = await ready(cluster, "a")
        client, _ = await client_of(cluster, "a")
        for number in range(15):
            await app.send({"type": "detection", "n": number})
        assert (await app.expect("error"))["code"] == "backlog"
        await trio.sleep(0.1)
        assert node.hub.counts.app_messages["backlog"] == 5
        for _ in range(10):
            await client.expect("message")
        await client.send({"type": "ack", "seq": 10})
        await trio.sleep(1)
        await app.send({"type": "detection", "n": 99})
        assert (await client.expect("message"))["data"]["n"] == 99

    play(scene)


def test_an_app_is_not_killed_with_its_node() -> None:
    """A node that dies takes nothing along: the app comes to another node and has its client and what it had not read."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **ON)
        await cluster.start("b", **ON)
        await ready(cluster, "a")
        client, _ = await client_of(cluster, "b")
        await trio.sleep(1)
        cluster.kill("a")
        await say(client, 1, {"type": "n"})
        await trio.sleep(5)
        again, answer = await back(cluster, "b", after=1006)
        assert answer["session_restored"] is True
        assert await again.receive() == {"type": "n"}
        await again.send({"type": "m"})
        assert (await client.expect("message"))["data"] == {"type": "m"}

    play(scene)


def test_what_is_said_is_json_as_it_came() -> None:
    """Numbers, spaces and escapes of an app's message reach its client unchanged."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", **ON)
        app = Speaker(cluster.plain("a"))
        await app.open(path="/deepstream/ws")
        await app.say({"type": "app_ready", "instance_id": "cam-1"})
        client, _ = await client_of(cluster, "a")
        from signald.testing.websocket import text

        said = '{ "type" : "x", "n": 1.50, "big": 123456789012345678901234567890, "s": "\\u00e4\\n" }'
        await app.send(text(said))
        frame = await client.socket.get_message()
        assert f'"data":{said}' in frame
        assert json.loads(frame)["data"]["s"] == "\u00e4\n"

    play(scene)
