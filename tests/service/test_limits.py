"""What happens at the bounds: nothing is dropped, no party is stuck, and no queue grows for ever."""

import pytest
import trio
import trio.testing

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer


async def offer(peer: Peer, first: int, last: int, size: int = 1) -> None:
    """Send messages `first` to `last`."""
    for seq in range(first, last + 1):
        await peer.send({"type": "message", "seq": seq, "data": "x" * size})


def of(kind: str, frames: list[Json]) -> list[Json]:
    """Those of one type."""
    return [frame for frame in frames if frame["type"] == kind]


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_sender_is_pushed_back_and_loses_nothing(worker_at: str) -> None:
    """Beyond the backlog: `backlog`, with the seq to begin from and when; with the receiver's ack there is room again."""

    async def scene(cluster: Cluster) -> None:
        limits: dict[str, object] = {"backlog_messages_max": 5}
        await cluster.start("n1", limits=limits)
        await cluster.start("n2", limits=limits)
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        for seq in range(1, 6):
            await offer(client, seq, seq)
            await trio.sleep(0.1)
        await client.quiet()
        await offer(client, 6, 9)
        errors = of("error", await client.quiet())
        assert [(error["code"], error["expected"], error["fatal"]) for error in errors] == [("backlog", 6, False)]
        assert errors[0]["retry_after_ms"] > 0
        assert len(of("message", await worker.quiet())) == 5
        await worker.send({"type": "ack", "session": session, "seq": 3})
        await trio.sleep(errors[0]["retry_after_ms"] / 1000)
        await offer(client, 6, 8)
        assert of("ack", await client.quiet())[-1]["seq"] == 8
        assert [frame["seq"] for frame in of("message", await worker.quiet())] == [6, 7, 8]

    play(scene)


def test_a_sender_that_offers_again_too_early_is_told_again() -> None:
    """Each refused try gets its answer: a sender that waits for one must not wait for ever."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"backlog_messages_max": 2})
        client, _, worker, _, session = await cluster.pair("n1")
        await offer(client, 1, 2)
        await client.quiet()
        for _ in range(4):
            await offer(client, 3, 5)
            errors = of("error", await client.quiet(0.5))
            assert [(error["code"], error["expected"]) for error in errors] == [("backlog", 3)]
        await worker.send({"type": "ack", "session": session, "seq": 2})
        await trio.sleep(0.5)
        await offer(client, 3, 4)
        assert of("ack", await client.quiet())[-1]["seq"] == 4

    play(scene)


def test_bytes_have_a_bound_of_their_own() -> None:
    """bounded-memory: `limits.backlog_bytes_max`, both for what is stored and for what waits for the store."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"backlog_bytes_max": 10_000})
        client, _, worker, _, session = await cluster.pair("n1")
        await offer(client, 1, 3, 3000)
        for _ in range(3):
            await offer(client, 4, 5, 3000)
            assert [error["expected"] for error in of("error", await client.quiet(0.5))] == [4]
        await worker.send({"type": "ack", "session": session, "seq": 3})
        await trio.sleep(0.5)
        await offer(client, 4, 4, 3000)
        assert of("ack", await client.quiet())[-1]["seq"] == 4

    play(scene)


def test_a_client_over_its_rate_is_slowed_and_not_cut() -> None:
    """A burst passes; then `rate` with when to go on; offered again in its time everything arrives."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 10.0, "messages_burst": 20})
        client, _, worker, _, _ = await cluster.pair("n1")
        await offer(client, 1, 30)
        frames = await client.quiet()
        assert [(error["code"], error["expected"]) for error in of("error", frames)] == [("rate", 21)]
        assert 0 < of("error", frames)[0]["retry_after_ms"] <= 200
        assert of("ack", frames)[-1]["seq"] == 20
        for seq in range(21, 31):
            await offer(client, seq, seq)
            await trio.sleep(0.1)
        assert of("ack", await client.quiet())[-1]["seq"] == 30
        assert [frame["seq"] for frame in of("message", await worker.quiet())] == list(range(1, 31))

    play(scene)


def test_a_client_that_heard_of_a_gap_is_told_of_its_rate_as_well() -> None:
    """A gap asks for a message at once; when just that one is over the rate its sender hears so, and does not wait for ever."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 10.0, "messages_burst": 2})
        client, _, _, _, _ = await cluster.pair("n1")
        await offer(client, 1, 1)
        await offer(client, 3, 3)
        await offer(client, 2, 2)
        errors = of("error", await client.quiet())
        assert [(error["code"], error["expected"]) for error in errors] == [("gap", 2), ("rate", 2)]
        await trio.sleep(errors[-1]["retry_after_ms"] / 1000)
        await offer(client, 2, 2)
        assert of("ack", await client.quiet())[-1]["seq"] == 2

    play(scene)


def test_a_client_whose_tries_are_used_up_by_realtime_is_told_again() -> None:
    """Realtime shares the rate; a message that is refused for it a second time is answered a second time."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 1.0, "messages_burst": 2})
        client, _, _, _, _ = await cluster.pair("n1")
        await offer(client, 1, 3)
        assert [error["expected"] for error in of("error", await client.quiet(0.5))] == [3]
        for _ in range(3):
            await trio.sleep(0.7)
            await client.send({"type": "realtime", "data": 1})
            await client.send({"type": "realtime", "data": 1})
            await offer(client, 3, 3)
            assert [error["code"] for error in of("error", await client.quiet(0.5))] == ["rate"]
        await trio.sleep(1.5)
        await offer(client, 3, 3)
        assert of("ack", await client.quiet())[-1]["seq"] == 3

    play(scene)


def test_realtime_that_was_dropped_is_not_held_against_a_message() -> None:
    """The sender was not told to wait, so the message behind it is pushed back like any other, and the connection stays."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 10.0, "messages_burst": 10})
        client, _ = await cluster.client("n1")
        for _ in range(50):
            await client.send({"type": "realtime", "data": 1})
        await offer(client, 1, 1)
        error = await client.expect("error")
        assert (error["code"], error["expected"], error["fatal"]) == ("rate", 1, False)
        await trio.sleep(error["retry_after_ms"] / 1000)
        await offer(client, 1, 1)
        assert (await client.expect("ack"))["seq"] == 1

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 4000])
@pytest.mark.parametrize("binary", [False, True])
def test_realtime_counts_in_every_form(binary: bool, size: int) -> None:
    """Text or binary, empty or large: of a burst the worker gets as many as the rate lets through, and messages wait behind them."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 10.0, "messages_burst": 10})
        client, _, worker, _, _ = await cluster.pair("n1")
        for _ in range(60):
            if binary:
                await client.send_binary(b"x" * size, {"type": "realtime"})
            else:
                await client.send({"type": "realtime", "data": "x" * size})
        await offer(client, 1, 1)
        errors = of("error", await client.quiet())
        assert [(error["code"], error["expected"]) for error in errors] == [("rate", 1)]
        assert 10 <= len(of("realtime", await worker.quiet())) <= 12

    play(scene)


def test_a_client_that_floods_is_closed_and_may_resume() -> None:
    """A whole burst more after it was told to wait: 4429; its session lives."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 10.0, "messages_burst": 20})
        client, started, _, _, _ = await cluster.pair("n1")
        await offer(client, 1, 60)
        assert await client.closed() == 4429
        assert of("error", client.aside)[-1]["fatal"] is True
        await trio.sleep(3)
        again, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["accepted"] == 20
        await offer(again, 21, 22)
        assert of("ack", await again.quiet())[-1]["seq"] == 22

    play(scene)


@pytest.mark.parametrize(("frame", "answer"), [("ping", "pong"), ("nonsense", "error")])
def test_a_client_that_floods_with_other_frames_is_closed_and_may_resume(frame: str, answer: str) -> None:
    """What is answered and costs nothing has a bound too: 100 a second and a burst of 1,000; then 4429."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        for _ in range(20):
            await trio.sleep(0.1)
            for _ in range(10):
                await client.ask({"type": frame}, answer)
        for _ in range(1200):
            await client.send({"type": frame})
        assert await client.closed() == 4429
        assert of("error", client.aside)[-1]["code"] == "rate"
        assert len(of(answer, client.aside)) <= 1100
        assert (await cluster.restore("n1", started["recovery_token"]))[1]["type"] == "session_restored"

    play(scene)


def test_a_party_that_does_not_begin_is_not_answered_for_ever() -> None:
    """Before its opening message a connection may say a little, and no more."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        for path in ("/v1/client", "/v1/worker"):
            peer = await cluster.dial("n1", path)
            for _ in range(100):
                await peer.ask({"type": "ping"}, "pong")
            await peer.send({"type": "ping"})
            assert await peer.refused() == ("out_of_place", 4400)
        peer = await cluster.dial("n1", "/v1/client")
        for _ in range(99):
            await peer.ask({"type": "ping"}, "pong")
        await peer.ask({"type": "connect"}, "session_started")

    play(scene)


def test_a_worker_has_no_rate() -> None:
    """It speaks for many sessions; the backlog of each holds it back."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"messages_per_s": 1.0, "messages_burst": 1})
        client, _, worker, _, session = await cluster.pair("n1")
        for seq in range(1, 201):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        assert [frame["seq"] for frame in of("message", await client.quiet())] == list(range(1, 201))

    play(scene)


def test_a_message_too_long_closes_and_may_resume() -> None:
    """1009 for one byte over `limits.message_bytes_max`; the session lives. A worker loses the session that it names, no more."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"message_bytes_max": 2000})
        client, started, worker, _, _ = await cluster.pair("n1")
        await offer(client, 1, 1, 1900)
        assert (await worker.expect("message"))["seq"] == 1
        await offer(client, 2, 2, 2000)
        assert await client.closed() == 1009
        assert (await cluster.restore("n1", started["recovery_token"]))[1]["accepted"] == 1
        await worker.send({"type": "message", "session": started["session"], "seq": 1, "data": "x" * 2000})
        error = await worker.expect("error")
        assert (error["code"], error["session"], error["fatal"]) == ("too_big", started["session"], False)
        assert (await worker.expect("session_ended"))["session"] == started["session"]
        assert (await worker.ask({"type": "ping"}, "pong"))["type"] == "pong"
        await worker.send({"type": "app_terminated", "message": "x" * 2000})
        assert await worker.closed() == 1009

    play(scene)


def test_a_worker_that_resumes_may_name_all_its_sessions() -> None:
    """As many as it may have, in one message longer than any other may be; a client has no such need."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        _, accepted = await cluster.worker("n1")
        most = node.hub.config.limits.sessions_per_worker_max
        named: list[Json] = [{"session": f"s_{n:022}", "received": 2**40 + n, "acked": 2**40 + n} for n in range(most)]
        _, answer = await cluster.resume("n1", accepted["recovery_token"], *named)
        assert answer["lost"] == [one["session"] for one in named]
        client, _ = await cluster.client("n1")
        await offer(client, 1, 1, node.hub.config.limits.message_bytes_max)
        assert await client.closed() == 1009

    play(scene)


def test_a_client_that_does_not_read_is_cut_and_finds_everything_later() -> None:
    """bounded-memory: the queue of one connection stays bounded, others are not held up, and nothing is lost."""

    async def scene(cluster: Cluster) -> None:
        limits: dict[str, object] = {"send_queue_messages_max": 20, "send_queue_bytes_max": 100_000}
        node = await cluster.start("n1", limits=limits, timeouts={"write_s": 5.0})
        worker, _ = await cluster.worker("n1")
        slow = await cluster.dial("n1", "/v1/client", streams=trio.testing.lockstep_stream_pair)
        started = await slow.ask({"type": "connect"}, "session_started")
        quick, _ = await cluster.client("n1")
        sessions = []
        for _ in range(2):
            sessions.append((await worker.expect("session_assigned"))["session"])
            await worker.send({"type": "session_accept", "session": sessions[-1]})
        most = 0
        for seq in range(1, 201):
            for name in sessions:
                await worker.send({"type": "message", "session": name, "seq": seq, "data": "x" * 500})
            await trio.sleep(0.01)
            most = max(most, *(conn.queued_messages for conn in node.hub.connections.values()))
        assert most <= 2 * 20
        assert [frame["seq"] for frame in of("message", await quick.quiet(0.5))] == list(range(1, 201))
        await trio.sleep(20)
        assert len(node.hub.connections) == 2, "the one that does not read is gone"
        again, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["replaying"] == 200
        got = of("message", await again.quiet())
        assert [frame["seq"] for frame in got] == list(range(1, 201))

    play(scene)


@pytest.mark.parametrize(
    ("limits", "history_bytes_max", "says"),
    [
        ({"send_queue_messages_max": 4}, 10_000, 0),
        ({"send_queue_bytes_max": 20_000, "message_bytes_max": 4000}, 10_000, 3),
    ],
    ids=["messages", "bytes"],
)
def test_a_worker_that_reads_is_not_cut_by_all_that_wait_for_it(
    limits: dict[str, object], history_bytes_max: int, says: int
) -> None:
    """bounded-memory: a worker is asked to take as many sessions at once as its send queue holds; the others follow."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits=limits, session={"history_bytes_max": history_bytes_max})
        waiting = []
        for _ in range(30):
            client, started = await cluster.client("n1")
            await offer(client, 1, says, 3000)
            waiting.append(started["session"])
        worker, _ = await cluster.worker("n1", capacity=40)
        asked = [(await worker.accept())["session"] for _ in waiting]
        assert sorted(asked) == sorted(waiting)
        assert len(node.hub.worker_links) == 1

    play(scene)


def test_a_worker_that_does_not_read_is_asked_no_more() -> None:
    """bounded-memory: what it has not been asked to take waits in the store, and it is asked when it reads again."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits={"send_queue_messages_max": 4})
        worker = await cluster.dial("n1", "/v1/worker", streams=trio.testing.lockstep_stream_pair)
        await worker.ask({"type": "app_ready", "instance_id": "worker-a", "capacity": 40}, "app_accepted")
        waiting = [(await cluster.client("n1"))[1]["session"] for _ in range(30)]
        await trio.sleep(1.0)
        (link,) = node.hub.worker_links.values()
        assert len(link.seats) <= 2 * 4 + 4, "the rest has not been asked"
        asked = [(await worker.accept())["session"] for _ in waiting]
        assert sorted(asked) == sorted(waiting)

    play(scene)


def test_a_silent_peer_is_pinged_and_given_up() -> None:
    """4408 after `ping_interval_s` and `pong_timeout_s` without a sign of life; a peer that answers stays."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", timeouts={"ping_interval_s": 5.0, "pong_timeout_s": 5.0})
        dead = await cluster.dial("n1", "/v1/client", streams=trio.testing.lockstep_stream_pair)
        started = await dead.ask({"type": "connect"}, "session_started")
        for _ in range(3):  # its reader stops when the test does not take what it has read
            await dead.send({"type": "ping"})
        alive, _ = await cluster.client("n1")
        await trio.sleep(8)
        assert len(node.hub.connections) == 2
        await trio.sleep(52)
        assert await alive.ask({"type": "ping"}, "pong") == {"type": "pong"}
        assert len(node.hub.connections) == 1
        record = cluster.world.rows.session(started["session"])
        assert record is not None
        assert record.client.node == "", "its session waits for it"

    play(scene)
