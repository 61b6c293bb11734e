"""How apps come in: credentials, names that are taken, odd openings, limits; and the core server, which is asked and told."""

import json
from typing import Any

import pytest
import trio

from signald.testing.cluster import Cluster, play
from signald.testing.websocket import Speaker, text
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
    speaking,
    terminated,
    with_auth,
)
from tests.service.core_server import URL as AUTHORISE_URL
from tests.service.core_server import CoreServer, says
from tests.service.telling.core import Core, telling


class TestNames:
    """Two apps with one name."""

    @pytest.mark.parametrize("where", ["a", "b"])
    def test_the_later_supersedes_the_earlier(self, where: str) -> None:
        """Of one subject: the earlier is told so and closed, at whichever node it is; its client goes on with the later."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **with_auth())
            await cluster.start("b", **with_auth())
            first = await ready(cluster, "a", auth=credential("fleet"))
            client, _ = await cluster.client("a", auth=credential("ann", "client"))
            await paired(client)
            second = await ready(cluster, where, auth=credential("fleet"))
            assert await first.closed() == 4409
            await client.send({"type": "message", "seq": 1, "data": {"type": "go"}})
            assert await second.receive() == {"type": "go"}
            (info,) = (await registered(node)).values()
            assert (info.node, info.epoch, info.assigned) == (where, 2, 1)

        play(scene)

    def test_another_subject_is_refused(self) -> None:
        """The name belongs to the subject that came first, for as long as it is kept; in another tenant it is another app."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **with_auth(resume_timeout_s=20.0))
            first = await ready(cluster, "a", auth=credential("fleet"))
            for _ in range(2):
                other = await connect(cluster, "a")
                await other.send({"type": "app_ready", "instance_id": "cam-1", "auth": credential("eve")})
                error = await other.expect("error")
                assert (error["code"], error["fatal"]) == ("forbidden", True)
                assert "another subject" in error["message"]
                assert await other.closed() == 4403
                first.cut()
                await trio.sleep(1)
            await ready(cluster, "a", auth=credential("fleet", tenant="t"))
            assert len(node.hub.worker_links) == 1
            await trio.sleep(25)
            await ready(cluster, "a", auth=credential("eve"))

        play(scene)

    def test_no_token_finds_it(self) -> None:
        """The id of an app is no secret, and no worker of `signald.v1` becomes the app by it."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            (info,) = (await registered(node)).values()
            _, answer = await cluster.resume("a", f"{info.id}.{'A' * 43}")
            assert (answer["type"], answer["code"]) == ("error", "nothing_to_resume")
            assert await app.quiet(1) == []

        play(scene)


class TestOpenings:
    """The opening message, right and wrong."""

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            ("no json", "bad_message"),
            ("[1]", "bad_message"),
            ('{"no":"type"}', "bad_message"),
            ('{"type":"detection"}', "out_of_place"),
            ('{"type":"app_ready"}', "bad_message"),
            ('{"type":"app_ready","instance_id":""}', "bad_message"),
            ('{"type":"app_ready","instance_id":7}', "bad_message"),
            (json.dumps({"type": "app_ready", "instance_id": "x" * 129}), "bad_message"),
            ('{"type":"app_ready","instance_id":"c","config":' + "[" * 40 + "]" * 40 + "}", "bad_message"),
        ],
    )
    def test_refused(self, frame: str, code: str) -> None:
        """A wrong opening is refused in words, with 4400."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            app = await connect(cluster, "a")
            await app.socket.send_message(frame)
            assert await app.refused() == (code, 4400)

        play(scene)

    @pytest.mark.parametrize(
        "fields",
        [
            {"config": None},
            {"config": [1]},
            {"config": {"ack": "yes"}},
            {"labels": {"a": 5}},
            {"labels": {f"l{number}": "x" for number in range(32)}},
            {"reconnection": "true", "last_close_code": "1001"},
            {"reconnection": None, "last_close_code": None},
            {"auth": 5, "trace": 7},
            {"version": "1.2", "pipeline": {"sources": 4}},
            {"instance_id": "\x1b[31mcam \u00e4/\x1f" + "x" * 100},
        ],
    )
    def test_lenient(self, fields: dict[str, Any]) -> None:
        """What a program of the fleet may say differently does it no harm, and asks for no answer."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            app = await connect(cluster, "a")
            await app.send({"type": "app_ready", "instance_id": "cam-1", **fields})
            assert await app.quiet(1) == []
            (info,) = (await registered(node)).values()
            assert info.instance == fields.get("instance_id", "cam-1")
            assert info.labels["instance"] == info.instance
            assert info.labels["profile"] == "deepstream"

        play(scene)

    def test_a_label_is_no_name(self) -> None:
        """An app cannot pass for another by its labels."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **ON)
            await ready(cluster, "a", labels={"instance": "cam-9", "profile": "other", "site": "north"})
            (info,) = (await registered(node)).values()
            assert info.labels == {"instance": "cam-1", "profile": "deepstream", "site": "north"}

        play(scene)

    def test_ping(self) -> None:
        """A heartbeat is answered, before and after the opening; too many end the connection."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            app = await connect(cluster, "a")
            assert await app.ask({"type": "ping"}, "pong") == {"type": "pong"}
            await app.send({"type": "app_ready", "instance_id": "cam-1"})
            assert await app.ask({"type": "ping"}, "pong") == {"type": "pong"}
            for _ in range(200):
                await app.send({"type": "ping"})
            assert await app.closed() == 4429

        play(scene)

    @pytest.mark.parametrize("how", ["header", "subprotocol", "message"])
    def test_credentials(self, how: str) -> None:
        """A credential is shown as on `signald.v1`; without one no app is let in."""

        async def scene(cluster: Cluster) -> None:
            import base64

            await cluster.start("a", **with_auth())
            token = credential("fleet")
            coded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=")
            headers = {
                "header": [(b"Authorization", b"Bearer " + token.encode())],
                "subprotocol": [(b"Sec-WebSocket-Protocol", b"deepstream.v1, signald.bearer." + coded)],
                "message": [],
            }[how]
            app = Speaker(cluster.plain("a"))
            head = await app.open(*headers, path="/deepstream/ws")
            assert (b"deepstream.v1" in head) is (how == "subprotocol")
            said = {"type": "app_ready", "instance_id": "cam-1", "config": {"ack": True}}
            await app.say(said | ({"auth": token} if how == "message" else {}))
            await app.hear("app_accepted")
            for wrong in ({}, {"auth": "x.y.z"}):
                stranger = await connect(cluster, "a")
                await stranger.send({"type": "app_ready", "instance_id": "cam-2", **wrong})
                assert await stranger.refused() == ("unauthenticated", 4401)
            client = await connect(cluster, "a")
            await client.send({"type": "app_ready", "instance_id": "cam-2", "auth": credential("ann", "client")})
            assert await client.refused() == ("forbidden", 4403)

        play(scene)

    def test_who_sees_the_instances(self) -> None:
        """With credentials: apps and services, those of their tenant; a service without a tenant all; a probe none, but the counts."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **with_auth())
            await ready(cluster, "a", "one", auth=credential("fleet"))
            await ready(cluster, "a", "two", auth=credential("fleet", tenant="t"))
            for bearer, seen in (
                ("", []),
                ("nonsense", []),
                (credential("ann", "client"), []),
                (credential("fleet"), ["one"]),
                (credential("fleet", tenant="t"), ["two"]),
                (credential("desk", "service", "t"), ["two"]),
                (credential("desk", "service"), ["one", "two"]),
            ):
                said = await found(cluster, "a", bearer)
                assert (said.http, said.instances, said.sockets) == (200, seen, (2, 2, 0))

        play(scene)


class TestLimits:
    """What one app may do to a node."""

    def test_rate(self) -> None:
        """Beyond its rate messages are dropped and said once; an app that goes on as before is closed."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", **on(messages_per_s=10.0, messages_burst=20))
            app = await ready(cluster, "a")
            for number in range(30):
                await app.send({"type": "detection", "n": number})
            assert [frame["code"] for frame in await app.quiet(0.05)] == ["rate"]
            counts = node.hub.counts.app_messages
            assert (counts["rate"], counts["unwanted"]) == (10, 20)
            await trio.sleep(1)
            await app.send({"type": "detection"})
            await trio.sleep(0.1)
            assert counts["unwanted"] == 21
            for number in range(60):
                await app.send({"type": "detection", "n": number})
            assert await app.closed() == 4429

        play(scene)

    def test_wrong_frames(self) -> None:
        """A wrong frame costs itself, many cost the connection; a second opening is one too many."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            app = await speaking(cluster, "a")
            await app.send(text("not json"))
            assert (await app.hear("error"))["code"] == "bad_message"
            await app.say({"type": "ping"})
            await app.hear("pong")
            await app.say({"type": "app_ready", "instance_id": "cam-1"})
            error = await app.hear("error")
            assert (error["code"], error["fatal"]) == ("out_of_place", True)
            app = await speaking(cluster, "a", "cam-2")
            for _ in range(150):
                await app.send(text("[]"))
            code, _ = await app.closed_with()
            assert code == 4429

        play(scene)

    def test_a_message_that_is_too_long(self) -> None:
        """The bound of all parties holds."""

        async def scene(cluster: Cluster) -> None:
            await cluster.start("a", **ON)
            app = await ready(cluster, "a")
            await app.send({"type": "x", "data": "x" * 70_000})
            assert await app.closed() == 1009

        play(scene)

    def test_apps_are_admitted_like_any_party(self) -> None:
        """Set-ups have the bound of all parties: beyond it an app is told 1013, and comes again."""

        async def scene(cluster: Cluster) -> None:
            node = await cluster.start("a", admission={"setups_in_progress_max": 1}, **ON)
            node.hub.gate.in_progress = 1
            app = await connect(cluster, "a")
            await app.send({"type": "app_ready", "instance_id": "cam-1"})
            assert await app.refused() == ("busy", 1013)
            node.hub.gate.in_progress = 0
            await ready(cluster, "a")

        play(scene)


class TestCoreServer:
    """The core server of the operator's application."""

    def test_asked_for_new_apps_only(self) -> None:
        """It is asked before a new app is let in, its labels count, and one that comes back does not wait for it."""

        async def scene(cluster: Cluster) -> None:
            async with trio.open_nursery() as nursery:
                core = CoreServer(nursery)
                node = await cluster.start("a", core={"authorize_url": AUTHORISE_URL}, **with_auth())
                core.hear(node)
                core.answer = says(allow=True, labels={"site": "north"})
                app = await ready(cluster, "a", auth=credential("fleet"))
                assert [(asked["role"], asked["subject"]) for asked in core.asked] == [("worker", "fleet")]
                assert (await registered(node))["cam-1"].labels["site"] == "north"
                core.answer = says(allow=False, reason="not this one")
                app.cut()
                app, answer = await back(cluster, "a", auth=credential("fleet"))
                assert answer["session_restored"] is True
                assert (await registered(node))["cam-1"].labels["site"] == "north"
                other = await connect(cluster, "a")
                await other.send({"type": "app_ready", "instance_id": "cam-2", "auth": credential("fleet")})
                assert await other.refused() == ("forbidden", 4403)
                nursery.cancel_scope.cancel()

        play(scene)

    def test_told_what_apps_say(self) -> None:
        """Without a client an app's messages are events, in order behind its registration; its end is the last."""

        async def scene(cluster: Cluster) -> None:
            core = cluster.core = Core(cluster)
            node = await cluster.start("a", **telling(), **ON)
            app = await ready(cluster, "a")
            for number in range(3):
                await app.send({"type": "alarm", "n": number, "why": {"zone": "\u00e4"}})
            await trio.sleep(3)
            client, _ = await cluster.client("a")
            await paired(client)
            await app.send({"type": "alarm", "n": 9})
            assert (await client.expect("message"))["data"]["n"] == 9
            worker = (await registered(node))["cam-1"].id
            node.hub.terminations.order(worker)
            await terminated(app)
            await trio.sleep(3)
            assert core.types(worker) == ["worker.registered", *["app.message"] * 3, "worker.lost"]
            told = [attempt.data for attempt in core.told if attempt.type == "app.message"]
            assert [one["data"] for one in told] == [
                {"type": "alarm", "n": number, "why": {"zone": "\u00e4"}} for number in range(3)
            ]
            assert {one["instance"] for one in told} == {"cam-1"}
            assert len({one["message"] for one in told}) == 3
            assert node.hub.counts.app_messages["told"] == 3

        play(scene)

    def test_bounds(self) -> None:
        """What is too long is said to be so; a queue that is full drops and counts; without a core server nothing is said."""

        async def scene(cluster: Cluster) -> None:
            from tests.service.telling.core import away

            core = cluster.core = Core(cluster)
            core.behave = away
            node = await cluster.start("a", **telling(), **on(event_bytes_max=100, events_queue_max=5))
            app = await ready(cluster, "a")
            await app.send({"type": "x", "data": "x" * 100})
            assert (await app.expect("error"))["code"] == "too_big"
            for number in range(10):
                await app.send({"type": "alarm", "n": number})
            await trio.sleep(1)
            core.behave = Core(cluster).behave
            await trio.sleep(60)
            worker = (await registered(node))["cam-1"].id
            assert core.types(worker) == ["worker.registered", *["app.message"] * 4]
            await app.send({"type": "alarm", "n": 99})
            await trio.sleep(5)
            assert core.told[-1].data["dropped"] == 6

        play(scene)
