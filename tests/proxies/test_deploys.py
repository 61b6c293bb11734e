"""Deploys behind real proxies: no party notices, and none comes twice."""

import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.http.publicly import HttpPeer
from tests.proxies.proxy import KINDS, Kind
from tests.proxies.scene import Scene, behind
from tests.real.harness import DRAIN, HOST, Settings, dial, kill, logged, until

pytestmark = pytest.mark.real


@pytest.mark.parametrize("kind", KINDS)
async def test_flips(kind: Kind, tmp_path: Path) -> None:
    """Blue to green and back: one reconnect for each party and deploy, the same worker, every message once."""
    async with behind(kind, tmp_path) as scene:
        await scene.deploy()
        await scene.talk.goes_on(3)
        assert scene.connections() == {2}, scene.talk.account()
        await scene.deploy()
        await scene.talk.goes_on(3)
        assert scene.connections() == {3}, scene.talk.account()
        await scene.talk.settle()
        assert scene.same_workers()


@pytest.mark.parametrize("kind", KINDS)
async def test_weights(kind: Kind, tmp_path: Path) -> None:
    """At 10, 50 and 100 of 100 so many newcomers come to the new node, and no connected party moves until the old one drains."""
    async with behind(kind, tmp_path, clients=4) as scene:
        await scene.start("green")
        for weight, least, most in ((10, 1, 3), (50, 9, 11), (100, 20, 20)):
            await scene.proxy.weigh(100 - weight, weight)
            came = await scene.newcomers(20)
            assert least <= came["green"] <= most, (weight, came)
        assert scene.connections() == {1}
        await scene.stop("blue")
        await scene.talk.goes_on(3)
        assert scene.connections() <= {1, 2}
        await scene.talk.settle()
        assert scene.same_workers()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_proxy_is_reloaded_in_mid_traffic(kind: Kind, tmp_path: Path) -> None:
    """No connection is cut, and the weights are those of before; nor does a reload in mid-drain cost any party anything."""
    async with behind(kind, tmp_path, {"pace": {"sessions_per_s": 8.0}}) as scene:
        await scene.start("green")
        await scene.proxy.flip_to("green")
        scene.proxy.reload()
        await trio.sleep(1.5)
        await scene.talk.goes_on(5)
        assert scene.connections() == {1}, scene.talk.account()
        assert await scene.newcomers(3) == {"blue": 0, "green": 3}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.stop, "blue")
            for _ in range(2):
                await trio.sleep(0.8)
                scene.proxy.reload()
        await scene.talk.goes_on(3)
        assert scene.connections() == {1, 2}, scene.talk.account()
        await scene.talk.settle()
        assert scene.same_workers()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_proxy_is_killed_and_started_again(kind: Kind, tmp_path: Path) -> None:
    """Each party comes back by token, to the colour that was in service; once in mid-traffic, once in mid-drain."""
    settings: Settings = {"pace": {"sessions_per_s": 3.0}}
    async with behind(kind, tmp_path, settings) as scene:
        blue, green = scene.running["blue"], await scene.start("green")
        await scene.proxy.flip_to("green")
        await scene.proxy.kill()
        await trio.sleep(0.3)
        await scene.proxy.start()
        await scene.talk.goes_on(3)
        assert len(logged(green, "session_restored")) >= 6
        await scene.proxy.flip_to("blue")
        stopped = trio.Event()

        async def stop() -> None:
            await scene.stop("green")
            stopped.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            await until(lambda: logged(blue, "session_restored"), 10, "the handover has begun")
            await scene.proxy.kill()
            assert not stopped.is_set()
            await scene.proxy.start()
        await scene.talk.goes_on(3)
        await scene.talk.settle()
        assert scene.same_workers()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rollback_in_mid_drain(kind: Kind, tmp_path: Path) -> None:
    """The drain is called off, the proxy points back, and the new node hands back what it got: no party comes more than twice."""
    # Slow enough for some to be left where they are, whatever else the machine has to do.
    drain: dict[str, object] = {"timeout_s": 40.0, "worker_timeout_s": 15.0, "client_timeout_s": 15.0}
    settings: Settings = {"pace": {"sessions_per_s": 2.0}, "drain": {**DRAIN, **drain}}
    async with behind(kind, tmp_path, settings, clients=8, workers=4) as scene:
        blue, green = scene.running["blue"], await scene.start("green")
        await scene.proxy.flip_to("green")
        await scene.operate(blue, "drain", reason="deploy")
        await until(lambda: len(logged(green, "session_restored")) >= 3, 15, "some clients have moved")
        assert (await scene.operate(blue, "abort"))["state"] == "ready"
        moved = len(logged(green, "session_restored"))
        assert moved < 8
        await scene.proxy.flip_to("blue")
        await scene.stop("green")
        await scene.talk.goes_on(3)
        assert scene.connections() <= {1, 2, 3}, scene.talk.account()
        assert 1 in scene.connections(), "somebody had not been told to go yet, and stayed"
        await scene.talk.settle()
        assert scene.same_workers()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_dial_that_a_colour_refuses_goes_to_the_other(kind: Kind, tmp_path: Path) -> None:
    """A full node (503) and a dead one (connection refused) cost a party that arrives nothing."""
    async with behind(kind, tmp_path, clients=2, workers=1) as scene:
        full = await scene.start("green", admission={"connections_max": 1})
        await scene.proxy.flip_to("green")
        assert await scene.newcomers(1) == {"blue": 0, "green": 1}
        await scene.proxy.weigh(50, 50)
        for n in range(12):
            if n == 6:
                await kill(full)
            async with dial(scene.proxy.url, "/v1/client") as peer:
                await peer.send({"type": "connect"})
                assert (await peer.receive())["type"] == "session_started"
        assert scene.connections() <= {1, 2}


@pytest.mark.parametrize("kind", KINDS)
async def test_signald_hears_who_comes(kind: Kind, tmp_path: Path) -> None:
    """Limits by address count the party's own, whatever the party says about itself, and not the proxy's."""
    async with behind(
        kind, tmp_path, {"admission": {"connects_per_s": 0.001, "connects_burst": 4}}, clients=1, workers=1
    ) as scene:

        async def answer_to(address: str, claimed: str) -> bytes:
            request = (
                f"GET /v1/client HTTP/1.1\r\nHost: signald\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                f"X-Forwarded-For: {claimed}\r\n\r\n"
            )
            async with await trio.open_tcp_stream(HOST, scene.proxy.port, local_address=address) as stream:
                await stream.send_all(request.encode())
                return bytes(await stream.receive_some()).split(b"\r\n")[0].split(b" ")[1]

        assert [await answer_to("127.0.0.2", f"192.0.2.{n}") for n in range(6)] == [b"101"] * 4 + [b"429"] * 2
        assert await answer_to("127.0.0.3", "127.0.0.2") == b"101"


@pytest.mark.parametrize("kind", KINDS)
async def test_only_parties_get_through(kind: Kind, tmp_path: Path) -> None:
    """Neither health nor the admin API nor any other path is reached by the proxy."""
    async with behind(kind, tmp_path, clients=1, workers=1) as scene:
        for path in ("/readyz", "/metrics", "/v1/admin/status", "/v1/client/../admin/status", "/v1/clients", "/"):
            async with await trio.open_tcp_stream(HOST, scene.proxy.port) as stream:
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: signald\r\n\r\n".encode())
                assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 404 "), path


async def ask(scene: Scene, answers: Counter[tuple[int, str]]) -> None:
    """Make one request after the other, over one connection as long as it lasts, and count what comes."""
    body = b"x" * 1000
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: signald\r\nContent-Length: 1000\r\n\r\n"
    while True:
        async with await trio.open_tcp_stream(HOST, scene.proxy.port) as stream:
            peer = HttpPeer(stream)
            with suppress(EOFError, trio.BrokenResourceError):
                while True:
                    answer = await peer.ask(head + body)
                    answers[answer.status, answer.headers["content-type"]] += 1
                    await trio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_api_gets_through_deploys(kind: Kind, tmp_path: Path) -> None:
    """Each request is answered by a node, while blue and green change places twice; the proxy has no error of its own to tell.

    nginx closes connections between two requests when it is reloaded, so those are opened again.
    """
    async with behind(kind, tmp_path, {"limits": {"requests_per_s": 0}}, clients=2, workers=1) as scene:
        answers: Counter[tuple[int, str]] = Counter()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, scene, answers)
            for _ in range(2):
                await scene.deploy()
                await trio.sleep(1)
            nursery.cancel_scope.cancel(reason="both deploys are through")
        assert set(answers) == {(404, "application/problem+json")}, (answers, scene.proxy.said())
        assert answers.total() > 100


async def test_the_health_check_flips_by_itself(tmp_path: Path) -> None:
    """HAProxy with both colours at 50: a node that drains gets no party once `drain.unready_s` has given the check its time."""
    settings: Settings = {"drain": {**DRAIN, "unready_s": 1.5}}
    async with behind("haproxy", tmp_path, settings) as scene:
        await scene.start("green")
        await scene.proxy.weigh(50, 50)
        await scene.stop("blue")
        await scene.talk.goes_on(3)
        assert scene.connections() == {2}, scene.talk.account()
        await scene.talk.settle()
        assert scene.same_workers()


async def test_haproxy_is_sent_to_nobody_who_is_not_ready(tmp_path: Path) -> None:
    """A flip to a colour without a ready node is refused, and changes nothing."""
    async with behind("haproxy", tmp_path, clients=1, workers=1) as scene:
        with pytest.raises(AssertionError, match="green is not ready, nothing was changed"):
            await scene.proxy.flip_to("green")
        assert await scene.newcomers(2) == {"blue": 2}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_that_stands_still_for_two_seconds_is_waited_for(kind: Kind, tmp_path: Path) -> None:
    """It is the only one with a weight: a proxy that gave it up would have no node to send a request to."""
    async with behind(kind, tmp_path, {"limits": {"requests_per_s": 0}}, clients=2, workers=1) as scene:
        answers: Counter[tuple[int, str]] = Counter()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, scene, answers)
            await until(lambda: answers.total() > 20, 10, "there are answers")
            scene.running["blue"].send_signal(signal.SIGSTOP)
            await trio.sleep(2)
            scene.running["blue"].send_signal(signal.SIGCONT)
            before = answers.total()
            await until(lambda: answers.total() > before + 20, 10, "there are answers again")
            nursery.cancel_scope.cancel(reason="it has gone on")
        assert set(answers) == {(404, "application/problem+json")}, (answers, scene.proxy.said())
        assert scene.connections() == {1}
