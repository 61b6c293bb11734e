"""The rows D1 to D7 of the fleet's guide, each by its name, with the bytes of the wire."""

import json
from typing import Any

import pytest
import structlog
import trio
from jsonschema import Draft202012Validator

from signald.dialects.deepstream.paths import HEALTH
from signald.testing.cluster import Cluster, play
from signald.testing.websocket import Client, request
from signald.testing.wire import Peer
from tests.deepstream.fleet import (
    ON,
    back,
    connect,
    found,
    health,
    on,
    ready,
    registered,
    speaking,
    terminated,
)
from tests.http.api.asking import ask_app
from tests.http.api.schemas import closed


class TestD1:
    """D1: close codes."""

    def test_1001_for_an_app_that_is_late(self) -> None:
        """A server that goes away says 1001, also where no other node is there, which `signald.v1` calls 1012."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            client = await cluster.dial("a", "/v1/client")
            await client.ask({"type": "connect", "pair": False}, "session_started")
            node.shutdown.signal()
            assert (await app.closed(), await client.closed()) == (1001, 1012)

        play(scene)

    @pytest.mark.parametrize("late_s", [0.5, 9.0])
    def test_1013_for_an_arrival(self, late_s: float) -> None:
        """Whoever arrives during the shutdown is told 1013, before and after the others were closed."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            stuck = await cluster.dial("a", "/v1/client")
            await stuck.ask({"type": "connect", "pair": False}, "session_started")
            node.shutdown.signal()
            await trio.sleep(late_s)
            late = await connect(cluster, "a")
            assert await late.closed() == 1013
            assert app.close_reason == ""

        play(scene)

    def test_1013_to_the_very_end(self) -> None:
        """Also behind the goodbyes, where arrivals of `signald.v1` are told 1001: the fleet would wait for the wrong time."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            node.hub.refusing = {"worker": 1001}  # type: ignore[dict-item]
            assert await (await connect(cluster, "a")).closed() == 1013
            assert await (await cluster.dial("a", "/v1/worker")).closed() == 1001

        play(scene)

    def test_1013_for_an_arrival_that_has_said_nothing(self) -> None:
        """The end of the node closes a connection that has no opening yet as an arrival; `signald.v1` has 1012 for it."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app, worker = await connect(cluster, "a"), await cluster.dial("a", "/v1/worker")
            node.shutdown.signal()
            assert (await app.closed(), await worker.closed()) == (1013, 1012)

        play(scene)


class TestD2:
    """D2: terminate_app and its answer."""

    def test_terminated(self) -> None:
        """Asked at once, the app cleans up, answers, and is closed with 1000 as soon as it has; nothing is left of it."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            began = trio.current_time()
            node.shutdown.signal()
            asked = await app.expect("terminate_app")
            assert set(asked) == {"type", "request_id", "reason"}
            assert asked["request_id"]
            assert trio.current_time() - began < 0.5
            await trio.sleep(3)
            await app.send(
                {"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": "EOS sent"}
            )
            assert await app.closed() == 1000
            assert 3 <= trio.current_time() - began < 3.5
            assert await registered(node) == {}
            await cluster.wait_exit("a")
            assert trio.current_time() - began < 5  # it has waited for nothing else
            assert node.hub.counts.apps_ended == {"ok": 1, "failed": 0, "late": 0, "gone": 0}

        play(scene)

    def test_late(self) -> None:
        """Ten seconds are granted; then 1001, and the app may come back."""

        async def scene(cluster: Cluster) -> None:
            node, other = await cluster.start("a", **ON), await cluster.start("b", **ON)
            app = await ready(cluster, "a")
            began = trio.current_time()
            node.shutdown.signal()
            await app.expect("terminate_app")
            assert await app.closed() == 1001
            assert 10 <= trio.current_time() - began < 10.5
            assert node.hub.counts.apps_ended["late"] == 1
            await cluster.wait_exit("a")
            assert [info.node for info in (await registered(other)).values()] == [""]

        play(scene)

    def test_failed(self) -> None:
        """Another status than OK is noted, and ends the app all the same."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            node.shutdown.signal()
            await terminated(app, status="ERROR")
            assert await app.closed() == 1000
            assert node.hub.counts.apps_ended["failed"] == 1

        play(scene)

    def test_gone(self) -> None:
        """An app that hangs up in place of an answer is not waited for."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            node.shutdown.signal()
            await app.expect("terminate_app")
            began = trio.current_time()
            app.cut()
            await cluster.wait_exit("a")
            assert trio.current_time() - began < 2
            assert node.hub.counts.apps_ended["gone"] == 1

        play(scene)


class TestD3:
    """D3: health."""

    def test_fields(self) -> None:
        """All fields, of the kinds that the guide names."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            await ready(cluster, "a")
            await connect(cluster, "a")
            await trio.sleep(0.1)
            answer = await health(cluster, "a")
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/json"
            said: Any = json.loads(answer.body)
            assert set(said) == {"status", "timestamp", "connected_instances", "websocket", "system"}
            assert said["status"] == "ok"
            assert said["timestamp"].endswith("Z")
            assert said["connected_instances"] == ["cam-1"]
            assert said["websocket"] == {
                "total_connections": 2,
                "authenticated_connections": 1,
                "unauthenticated_connections": 1,
                "is_shutting_down": False,
            }
            system = said["system"]
            assert set(system) == {"cpu_usage", "memory_usage", "uptime"}
            assert all(isinstance(value, int | float) for value in system.values())
            assert 0 < system["memory_usage"] < 100
            assert system["cpu_usage"] >= 0
            assert system["uptime"] >= 0
            assert (await health(cluster, "a", method="HEAD")).status == 200

        play(scene)

    def test_it_stands_in_openapi(self) -> None:
        """Each answer is what `/openapi.json` describes under its status, and has no other field."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            await ready(cluster, "a")
            document = (await ask_app(node.api, "GET", "/openapi.json")).json()
            described = document["paths"][HEALTH]["get"]
            assert described["security"] == []
            schema = closed({"components": document["components"], **described["responses"]})
            for status in (200, 503):
                answer = await health(cluster, "a")
                assert answer.status == status
                content = schema[str(status)]["content"][answer.headers["content-type"]]
                Draft202012Validator({**schema, **content["schema"]}).validate(json.loads(answer.body))
                node.shutdown.begin("operator")
                await trio.sleep(0.1)

        play(scene)

    def test_a_fleet_behind_one_address_may_ask_at_once(self) -> None:
        """Health has a rate of its own, ten times that of other requests, and a bound all the same."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON, limits={"requests_per_s": 1.0, "requests_burst": 3})
            assert {(await health(cluster, "a")).status for _ in range(30)} == {200}
            refused = await health(cluster, "a")
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")

        play(scene)

    def test_shutting_down(self) -> None:
        """503 from the signal on, while the answer itself goes on; again 200 when an operator's drain is called off."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            await cluster.start("b", **ON)
            await ready(cluster, "a")
            node.shutdown.begin("operator")
            await trio.sleep(0.1)
            assert (await found(cluster, "a")).http == 503
            node.shutdown.abort()
            await trio.sleep(0.5)
            assert (await found(cluster, "a")).http == 200
            node.shutdown.signal()
            await trio.sleep(0.1)
            seen = await found(cluster, "a")
            assert (seen.http, seen.status, seen.instances) == (503, "shutting_down", ["cam-1"])
            assert (await found(cluster, "b")).http == 200

        play(scene)

    def test_only_where_it_is_on(self) -> None:
        """A node without the profile has no such paths."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a")
            assert (await health(cluster, "a")).status == 404
            knocking = Client(cluster.plain("a"))
            await knocking.send(request("/deepstream/ws"))
            assert (await knocking.response()).startswith(b"HTTP/1.1 404 ")

        play(scene)


class TestD4:
    """D4: the order of a shutdown."""

    def test_order(self) -> None:
        """Health says so, arrivals are refused, all are asked, the mute are closed last, and what is through is freed."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", drain={"unready_s": 2.0, "timeout_s": 40.0}, **ON)
            good, mute = await ready(cluster, "a", "good"), await ready(cluster, "a", "mute")
            began = trio.current_time()
            node.shutdown.signal()
            await trio.sleep(0.5)
            assert (await found(cluster, "a")).http == 503
            assert await (await connect(cluster, "a")).closed() == 1013
            with trio.move_on_after(1):
                pytest.fail(str(await good.receive()))  # not before health could be seen
            await good.expect("terminate_app")
            await mute.expect("terminate_app")
            assert 2 <= trio.current_time() - began < 2.2
            await good.send({"type": "app_terminated", "request_id": "", "status": "OK", "message": ""})
            assert await good.closed() == 1000
            assert trio.current_time() - began < 3
            assert await mute.closed() == 1001
            assert 12 <= trio.current_time() - began < 12.5
            assert list(await registered(node)) == ["mute"]
            await cluster.wait_exit("a")
            assert trio.current_time() - began < 14

        play(scene)

    def test_health_stays_up_for_as_long_as_apps_are_waited_for(self) -> None:
        """The answer is served until the last app is through."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            node.shutdown.signal()
            for _ in range(9):
                await trio.sleep(1)
                assert (await found(cluster, "a")).sockets[1] == 1
            assert await app.closed() == 1001

        play(scene)


class TestD5:
    """D5: app_ready and coming back."""

    def test_no_answer(self) -> None:
        """A first `app_ready` needs `instance_id` alone, and has no answer; asked for, it is `app_accepted`."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await connect(cluster, "a")
            await app.send({"type": "app_ready", "instance_id": "cam-1"})
            assert await app.quiet(3) == []
            assert list(await registered(node)) == ["cam-1"]
            other = await connect(cluster, "a")
            said = {
                "type": "app_ready",
                "instance_id": "cam-2",
                "reconnection": False,
                "config": {"ack": True, "fps": 30},
            }
            assert await other.ask(said, "app_accepted") == {
                "type": "app_accepted",
                "status": "ok",
                "instance_id": "cam-2",
            }

        play(scene)

    @pytest.mark.parametrize("code", [1001, 1013])
    def test_restored(self, code: int) -> None:
        """After 1001 or 1013 the earlier registration is found at another node, by the instance alone."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            await cluster.start("b", **ON)
            app = await ready(cluster, "a")
            node.shutdown.signal()
            assert await app.closed() == 1001
            await trio.sleep(60)  # the longest wait of a device
            app, answer = await back(cluster, "b", after=code)
            assert answer == {
                "type": "reconnection_ack",
                "status": "ok",
                "session_restored": True,
                "server_status": "running",
            }
            assert (await registered(cluster.nodes["b"]))["cam-1"].epoch == 2

        play(scene)

    def test_kept_for_so_long(self) -> None:
        """Beyond `resume_timeout_s` it is forgotten, and the app begins anew; within it nothing is forgotten."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **on(resume_timeout_s=30.0))
            app = await ready(cluster, "a")
            for away_s, restored in ((28.0, True), (35.0, False)):
                app.cut()
                await trio.sleep(away_s)
                app, answer = await back(cluster, "a")
                assert answer["session_restored"] is restored
            assert list(await registered(node)) == ["cam-1"]

        play(scene)

    def test_not_known(self) -> None:
        """An app that says it was here and is not known is let in, and told so."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            _, answer = await back(cluster, "a")
            assert answer["session_restored"] is False

        play(scene)

    def test_terminated_is_not_restored(self) -> None:
        """An app that has ended in order begins anew."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            await cluster.start("b", **ON)
            app = await ready(cluster, "a")
            node.shutdown.signal()
            await terminated(app)
            assert await app.closed() == 1000
            _, answer = await back(cluster, "b", after=1000)
            assert answer["session_restored"] is False

        play(scene)


class TestD6:
    """D6: the waits of the guide's client."""

    def test_a_client_of_the_guide_through_a_deploy(self) -> None:
        """On 1001 it waits for 5 s, asks health, and comes back to the next node: once, without an attempt in vain."""

        async def scene(cluster: Cluster) -> None:
            old = await cluster.start("old", **on(on_drain="reconnect"))
            await cluster.start("new", **on(on_drain="reconnect"))
            apps = [await ready(cluster, "old", f"cam-{number}") for number in range(20)]
            old.shutdown.signal()
            restored: list[bool] = []

            async def come_back(app: Peer, number: int) -> None:
                assert await app.closed() == 1001
                assert app.aside == []  # no terminate_app
                await trio.sleep(5)
                assert (await found(cluster, "new")).status == "ok"
                _, answer = await back(cluster, "new", f"cam-{number}")
                restored.append(answer["session_restored"])

            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number, app in enumerate(apps):
                    nursery.start_soon(come_back, app, number)
            assert restored == [True] * 20
            assert trio.current_time() - began < 7
            assert (await found(cluster, "new")).sockets == (20, 20, 0)

        play(scene)


class TestD7:
    """D7: the states of each app are tracked and logged."""

    def test_states(self) -> None:
        """Each with its instance, in order, and counted."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            with structlog.testing.capture_logs() as logged:
                app = await ready(cluster, "a")
                node.shutdown.signal()
                await terminated(app)
                await app.closed()
                await cluster.wait_exit("a")
            said = [line for line in logged if line["event"] == "app_state"]
            assert [line["state"] for line in said] == ["connected", "authenticated", "terminating", "disconnected"]
            assert {line["instance"] for line in said} == {"cam-1"}
            assert said[-1]["code"] == 1000
            assert node.hub.counts.app_states == dict.fromkeys([line["state"] for line in said], 1)

        play(scene)

    def test_turned_away(self) -> None:
        """An app that is turned away was connected, and is not; a repetition of a state is none."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", auth={"jwt_secret": "a-shared-secret-of-thirty-two-bytes"}, **ON)
            with structlog.testing.capture_logs() as logged:
                app = await connect(cluster, "a")
                await app.send({"type": "app_ready", "instance_id": "cam-1"})
                assert await app.refused() == ("unauthenticated", 4401)
            said = [(line["state"], line.get("why")) for line in logged if line["event"] == "app_state"]
            assert said == [("connected", None), ("disconnected", "unauthenticated")]

        play(scene)

    def test_a_silent_connection_has_no_state(self) -> None:
        """Before its opening message a connection is counted by health alone; it has as long as any party."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            app = await speaking(cluster, "a")
            assert (await found(cluster, "a")).sockets == (1, 1, 0)
            mute = await connect(cluster, "a")
            assert await mute.refused() == ("hello_timeout", 4408)
            assert (await found(cluster, "a")).sockets == (1, 1, 0)
            assert await app.silent_for(1)

        play(scene)
