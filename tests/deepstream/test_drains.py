"""Deploys of a fleet: busy apps, late ones, no successor, an operator's drain, and what an operator sees and ends."""

import pytest
import structlog
import trio

from signald.config import Config
from signald.errors import OperationRefused
from signald.testing.cluster import Cluster, play
from tests.deepstream.fleet import (
    ON,
    back,
    connect,
    credential,
    found,
    on,
    paired,
    ready,
    registered,
    terminated,
    with_auth,
)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_busy_app_has_longer(absolute: bool) -> None:
    """It says how long, as a duration or as a time; nothing is shortened by it, and the drain waits."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        began = trio.current_time()
        node.shutdown.signal()
        asked = await app.expect("terminate_app")
        for until_ms in (20_000, 1, -5):
            said = until_ms + (node.hub.context.now_ms() if absolute else 0)
            await app.send(
                {"type": "app_busy", "request_id": asked["request_id"], "until_ms": said, "reason": "muxing"}
            )
        await trio.sleep(18)
        await app.send({"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""})
        assert await app.closed() == 1000
        assert 18 <= trio.current_time() - began < 18.5
        await cluster.wait_exit("a")
        assert trio.current_time() - began < 20

    play(scene)


def test_a_busy_app_has_no_longer_than_the_drain() -> None:
    """The deadline of the drain is that of the process."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", drain={"timeout_s": 25.0}, **ON)
        app = await ready(cluster, "a")
        began = trio.current_time()
        node.shutdown.signal()
        asked = await app.expect("terminate_app")
        await app.send({"type": "app_busy", "request_id": asked["request_id"], "until_ms": 3_600_000})
        assert await app.closed() == 1001
        assert 20 <= trio.current_time() - began <= 21.1
        await cluster.wait_exit("a")
        assert trio.current_time() - began < 25

    play(scene)


@pytest.mark.parametrize("until", [None, "soon", True, [], float("nan")])
def test_a_busy_app_that_says_nothing_readable(until: object) -> None:
    """It has the time that it had."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        node.shutdown.signal()
        await app.expect("terminate_app")
        began = trio.current_time()
        await app.send({"type": "app_busy", "until_ms": until})
        assert await app.closed() == 1001
        assert 9.9 <= trio.current_time() - began < 10.1

    play(scene)


def test_a_fleet() -> None:
    """Sixty apps, ten of them mute and ten busy: all are asked at once, and the process ends within its deadline."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        apps = [await ready(cluster, "a", f"cam-{number}") for number in range(60)]
        codes: dict[str, list[int]] = {"good": [], "mute": [], "busy": []}
        asked_at: list[float] = []

        async def serve(number: int) -> None:
            app = apps[number]
            asked = await app.expect("terminate_app")
            asked_at.append(trio.current_time())
            kind = "mute" if number < 10 else "busy" if number < 20 else "good"
            if kind == "busy":
                await app.send({"type": "app_busy", "request_id": asked["request_id"], "until_ms": 20_000})
                await trio.sleep(15)
            if kind != "mute":
                await app.send(
                    {"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""}
                )
            codes[kind].append(await app.closed())

        began = trio.current_time()
        node.shutdown.signal()
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(serve, number)
        assert codes == {"good": [1000] * 40, "mute": [1001] * 10, "busy": [1000] * 10}
        assert max(asked_at) - began < 1
        await cluster.wait_exit("a")
        assert trio.current_time() - began < 17
        assert node.hub.counts.apps_ended == {"ok": 50, "failed": 0, "late": 10, "gone": 0}

    play(scene)


def test_reconnect_waits_for_the_successor() -> None:
    """`reconnect`: no terminate_app, and 1001 only when a node is ready to come back to."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **on(on_drain="reconnect"))
        app = await ready(cluster, "a")
        node.shutdown.signal()
        await trio.sleep(4)
        assert await app.quiet(1) == []
        assert (await found(cluster, "a")).http == 503
        began = trio.current_time()
        await cluster.start("b", **on(on_drain="reconnect"))
        assert await app.closed() == 1001
        assert trio.current_time() - began < 1
        assert app.aside == []
        await cluster.wait_exit("a")
        _, answer = await back(cluster, "b")
        assert answer["session_restored"] is True

    play(scene)


def test_reconnect_without_a_successor() -> None:
    """With no node to come back to it is 1001 at the end, and the next process finds the app."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **on(on_drain="reconnect"))
        app = await ready(cluster, "a")
        node.shutdown.signal()
        assert await app.closed() == 1001
        assert app.aside == []
        await cluster.wait_exit("a")
        await cluster.start("a", **on(on_drain="reconnect"))
        _, answer = await back(cluster, "a")
        assert answer["session_restored"] is True

    play(scene)


def test_a_client_waits_for_its_app() -> None:
    """`reconnect`: an app with a slow wait is not given up for it; its client moves when the app is at the next node."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **on(on_drain="reconnect"))
        await cluster.start("new", **on(on_drain="reconnect"))
        app = await ready(cluster, "old")
        client, started = await cluster.client("old")
        await paired(client)
        old.shutdown.signal()
        assert await app.closed() == 1001
        await trio.sleep(30)
        assert [frame["type"] for frame in await client.quiet(1)] == ["peer"]
        again, answer = await back(cluster, "new")
        assert answer["session_restored"] is True
        await client.expect("goaway")
        moved, restored = await cluster.restore("new", started["recovery_token"])
        assert restored["peer"]["state"] == "paired"
        await moved.send({"type": "message", "seq": 1, "data": {"type": "go"}})
        assert await again.receive() == {"type": "go"}
        await cluster.wait_exit("old")

    play(scene)


def test_an_operators_drain() -> None:
    """It ends no app; with `reconnect` it sends them on, and after a rollback the node takes them again."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        await cluster.start("b", **on(on_drain="reconnect"))
        app = await ready(cluster, "a")
        node.shutdown.begin("rollout")
        assert await app.quiet(5) == []
        assert await (await connect(cluster, "a")).closed() == 1013
        node.shutdown.abort()
        await trio.sleep(1)
        await ready(cluster, "a", "cam-2")
        node.shutdown.begin("rollout")
        await trio.sleep(3)
        node.shutdown.signal()  # and now it ends
        await terminated(app)
        assert await app.closed() == 1000

    play(scene)


def test_two_signals_are_in_a_hurry() -> None:
    """Nothing is waited for any more: 1001 at once."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        node.shutdown.signal()
        await app.expect("terminate_app")
        began = trio.current_time()
        node.shutdown.signal()
        assert await app.closed() == 1001
        await cluster.wait_exit("a")
        assert trio.current_time() - began < 3

    play(scene)


def test_the_receipt_names_the_app_that_was_asked() -> None:
    """The session whose app is asked to end here has its line, with the app as one of its parties."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        await cluster.start("b", **ON)
        app = await ready(cluster, "a")
        client, started = await cluster.client("b")
        await paired(client)
        node.shutdown.signal()
        await terminated(app)
        await cluster.wait_exit("a")
        line = node.shutdown.ledger.line(started["session"])
        assert line is not None
        assert line.parties == ["worker"]
        assert await client.states() == ["waiting"]

    play(scene)


class TestOperator:
    """`ctl apps` and `ctl terminate`, at any node."""

    def test_apps(self) -> None:
        """All apps of the cluster with their state, wherever they are; no worker of `signald.v1` is among them."""

        async def scene(cluster: Cluster) -> None:
            a, b = await cluster.start("a", **ON), await cluster.start("b", **ON)
            await ready(cluster, "a", "here")
            ending = await ready(cluster, "b", "ending")
            gone = await ready(cluster, "b", "gone")
            await cluster.worker("a")
            gone.cut()
            await a.operations.terminate("ending", None)
            await ending.expect("terminate_app")
            await trio.sleep(2)
            for node in (a, b):
                said = await node.operations.apps(10)
                states = {app["instance"]: (app["state"], app["node"]) for app in said["apps"]}
                assert states == {
                    "ending": ("terminating", "b"),
                    "gone": ("disconnected", ""),
                    "here": ("authenticated", "a"),
                }
                assert said["states"] == {"terminating": 1, "disconnected": 1, "authenticated": 1}
                assert said["total"] == 3
            assert len((await a.operations.apps(2))["apps"]) == 2

        play(scene)

    def test_terminate(self) -> None:
        """The app is asked with the operator's word, and closed with 1000; a second order changes nothing."""

        async def scene(cluster: Cluster) -> None:
            a, _ = await cluster.start("a", **ON), await cluster.start("b", **ON)
            app, other = await ready(cluster, "b"), await ready(cluster, "b", "cam-2")
            said = await a.operations.terminate("cam-1", None)
            assert (said["instance"], said["node"]) == ("cam-1", "b")
            await a.operations.terminate("cam-1", None)
            assert (await terminated(app))["reason"] == "operator"
            assert await app.closed() == 1000
            assert app.aside == []
            assert list(await registered(a)) == ["cam-2"]
            assert await other.quiet(1) == []
            late = await ready(cluster, "a")
            await a.operations.terminate("cam-1", None)
            assert await late.closed() == 1001

        play(scene)

    def test_a_busy_app_is_not_waited_for_without_end(self) -> None:
        """Ended by an operator it has as long as a drain would have."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            await node.operations.terminate("cam-1", None)
            await app.expect("terminate_app")
            began = trio.current_time()
            await app.send({"type": "app_busy", "until_ms": 3_600_000})
            assert await app.closed() == 1001
            assert abs(trio.current_time() - began - Config().drain.timeout_s) < 0.1

        play(scene)

    def test_an_app_that_is_ended_takes_no_client(self) -> None:
        """Its own stays with it until it is through, and no other is paired with it."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            await node.operations.terminate("cam-1", None)
            await app.expect("terminate_app")
            client, _ = await cluster.client("a")
            assert await client.states() == []

        play(scene)

    def test_refused(self) -> None:
        """An app that is not known, one that is away, and one of several tenants."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **with_auth())
            app = await ready(cluster, "a", auth=credential("fleet"))
            one = await ready(cluster, "a", auth=credential("fleet", tenant="t"))
            for instance, tenant, kind in (
                ("cam-9", None, "unknown-app"),
                ("cam-1", "x", "unknown-app"),
                ("cam-1", None, "several-apps"),
            ):
                with pytest.raises(OperationRefused) as refused:
                    await node.operations.terminate(instance, tenant)
                assert refused.value.kind == kind
            await node.operations.terminate("cam-1", "t")
            await terminated(one)
            app.cut()
            await trio.sleep(1)
            with pytest.raises(OperationRefused) as refused:
                await node.operations.terminate("cam-1", None)
            assert refused.value.kind == "app-away"

        play(scene)

    def test_a_worker_with_a_token_is_not_ended(self) -> None:
        """The order names an app; a worker of `signald.v1` has its own ways."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            worker, _ = await cluster.worker("a")
            for name in node.hub.worker_links:
                node.hub.terminations.order(name)
            assert await worker.quiet(1) == []

        play(scene)


def test_an_app_that_leaves_by_itself() -> None:
    """`app_terminated` unasked is a goodbye: 1000, and nothing is kept."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        app = await ready(cluster, "a")
        with structlog.testing.capture_logs() as logged:
            await app.send({"type": "app_terminated", "status": "OK", "message": "end of file"})
            assert await app.closed() == 1000
        assert app.aside == []
        assert await registered(node) == {}
        (line,) = [line for line in logged if line["event"] == "app_terminated"]
        assert (line["instance"], line["message"]) == ("cam-1", "end of file")
        assert [line["log_level"] for line in logged if line["event"] == "worker_left"] == ["info"]
        assert {line["log_level"] for line in logged} <= {"info", "debug"}, "an orderly end calls no operator"

    play(scene)
