"""What the core server is told of sessions, workers and deploys: over a cluster in memory, with a receiver that answers."""

from typing import Any

import pytest
import trio

from signald.core.callers import ALL
from signald.ids import SessionId
from signald.service.api.jobs import HttpJobs
from signald.store.base import Op
from signald.store.registry.agenda.ops import ReadAgenda, Schedule, TakeDue
from signald.testing.cluster import Cluster, play
from tests.metrics.scraping import Scraper
from tests.service.api.asker import Asker
from tests.service.telling.core import SECRET, URL, Core, always, telling
from tests.service.test_jobs import cancel, pair, submit


async def settle(seconds: float = 3.0) -> None:
    """Let what waits be told."""
    await trio.sleep(seconds)


def started(cluster: Cluster) -> Core:
    """Give the nodes that start from now on a core server."""
    core = Core(cluster)
    cluster.core = core
    return core


def test_the_life_of_a_session() -> None:
    """Each step of a session is told once, in order, with what it tells."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        client, begun, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        await trio.sleep(5)
        client, _ = await cluster.restore("n1", begun["recovery_token"])
        await client.send({"type": "message", "seq": 1, "data": "hello"})
        await trio.sleep(1)
        await worker.send({"type": "ack", "session": session, "seq": 1})
        await client.send({"type": "bye", "reason": "done"})
        await client.closed()
        await settle()
        assert core.types(session) == [
            "session.started",
            "session.paired",
            "session.away",
            "session.resumed",
            "session.ended",
        ]
        first, paired, away, resumed, ended = [one.data for one in core.once(session)]
        assert (first["session"], first["n"], first["node"]) == (session, 1, "n1")
        assert "subject" not in first
        assert paired["worker"].startswith("w_")
        assert away["node"] == "n1"
        assert 4_900 < resumed["away_ms"] < 5_200
        assert (ended["reason"], ended["up"], ended["down"]) == ("done", 1, 0)
        assert ended["duration_ms"] > 5_000
        assert core.attempts[0].url == URL
        assert len(core.told) == len(core.once())
        core.check()
        del accepted

    play(scene)


def test_a_reason_and_a_want_are_told_as_they_are() -> None:
    """`want` is an object; a backend that begins and ends a session over HTTP is told of it."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        node = await cluster.start("n1", **telling())
        client, begun = await cluster.client("n1", want={"language": "de"})
        await settle()
        assert core.once(begun["session"])[0].data["want"] == {"language": "de"}
        await node.operations.end(begun["session"])
        await client.closed()
        await settle()
        assert core.once(begun["session"])[-1].data["reason"] == "operator"
        core.check()

    play(scene)


def test_another_worker_is_a_reassignment() -> None:
    """A session that another worker accepts tells both."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        client, _, worker, _, session = await cluster.pair("n1")
        await worker.send({"type": "bye"})
        await worker.closed()
        other, _ = await cluster.worker("n1", "worker-b")
        assigned = await other.expect("session_assigned")
        await other.send({"type": "session_accept", "session": assigned["session"]})
        await settle()
        assert core.types(session) == ["session.started", "session.paired", "session.reassigned"]
        paired, again = [one.data for one in core.once(session)][1:]
        assert again["previous"] == paired["worker"] != again["worker"]
        assert sorted(core.types()).count("worker.registered") == 2
        lost = next(one for one in core.once() if one.type == "worker.lost")
        assert lost.data["worker"] == paired["worker"]
        core.check()
        del client

    play(scene)


def test_the_end_of_a_job() -> None:
    """A job that is cancelled is told, whichever node has cancelled it."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        await cluster.start("n2", **telling())
        _, begun = await cluster.client("n1")
        session = begun["session"]
        job = await submit(cluster, "n2", session)
        await cancel(cluster, "n2", session)
        await settle()
        assert core.types(session) == ["session.started", "job.ended"]
        told = core.once(session)[1].data
        assert (told["job"], told["kind"], told["state"]) == (job, "tts", "cancelled")
        core.check()

    play(scene)


def test_a_job_that_its_worker_or_its_time_ends() -> None:
    """The last piece of a result ends a job in the step that stores it; a deadline ends one whose parties are all away."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        for name in ("n1", "n2"):
            await cluster.start(name, **telling())
        client, worker, session, _ = await pair(cluster, "n1", "n2")
        await submit(cluster, "n1", session)
        job = await worker.expect("job")
        piece = {
            "type": "message",
            "session": session,
            "seq": 1,
            "data": {"audio": 1},
            "stream": job["job"],
            "end": True,
        }
        await worker.send(piece)
        await settle()
        ended = core.once(session)[-1]
        assert (ended.type, ended.data["job"], ended.data["state"]) == ("job.ended", job["job"], "succeeded")
        deadline_ms = cluster.world.now_ms() + 10_000
        await submit(cluster, "n2", session, 2, deadline_ms=deadline_ms)
        await worker.send({"type": "bye"})
        client.cut()
        await settle(20)
        await HttpJobs(cluster.nodes["n2"].hub.parts).read(SessionId(session), 2, ALL)
        await settle()
        assert [one.data["state"] for one in core.once(session) if one.type == "job.ended"] == ["succeeded", "expired"]
        core.check()

    play(scene)


def test_a_session_that_a_backend_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at once, before its client comes, whose first claim is no return."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        asked = await Asker(cluster, monkeypatch)("POST", "", {"subject": "ann"})
        assert asked.status == 201, asked.body
        await settle()
        told = core.once(asked.json()["session"])
        assert [(one.type, one.data["subject"]) for one in told] == [("session.started", "ann")]
        core.check()

    play(scene)


def test_a_handover_is_no_absence() -> None:
    """A planned deploy: nothing is told of sessions that have no gap, and the deploy once, by the node that goes on."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        client, begun, worker, accepted, session = await cluster.pair("n1")
        await settle()
        node = await cluster.start("n2", **telling())
        cluster.nodes["n1"].shutdown.signal()
        await worker.expect("goaway")
        worker2, _ = await cluster.resume("n2", accepted["recovery_token"], {"session": session, "received": 0})
        await client.expect("goaway")
        client2, _ = await cluster.restore("n2", begun["recovery_token"])
        await cluster.wait_exit("n1")
        await settle()
        assert core.types(session) == ["session.started", "session.paired"]
        finished = [one for one in core.once() if one.type == "deploy.finished"]
        assert len(finished) == 1
        assert (finished[0].data["node"], finished[0].data["moved"], finished[0].data["lost"]) == ("n1", 1, 0)
        core.check()
        del node, client2, worker2

    play(scene)


def test_nothing_is_told_and_no_poll_made_without_a_url() -> None:
    """A node without `core.events_url` stores no event, and never asks the agenda."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        node = await cluster.start("n1")
        asked: list[Op] = []
        execute = node.committer.store.execute
        node.committer.store.execute = lambda ops: asked.extend(ops) or execute(ops)  # type: ignore[method-assign,func-returns-value]
        client, *_ = await cluster.pair("n1")
        client.cut()
        await settle(200)
        assert not core.attempts
        agenda = [op for op in asked if isinstance(op, TakeDue | ReadAgenda | Schedule)]
        assert {op.kind for op in agenda} == {"b", "r"}  # sweeps of blobs and rooms ask for their own
        with_url = await cluster.start("n2", **telling())
        await settle(20)
        assert not core.attempts
        assert (await with_url.operations.events(10))["waiting"]["queues"] == 0

    play(scene)


def test_what_is_measured() -> None:
    """What was told, what failed and what waits is counted."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        node = await cluster.start("n1", **telling())
        scraper = Scraper(node)
        await cluster.client("n1")
        await settle()
        assert await scraper.value("signald_core_events_delivered_total") == 1
        core.behave = always(500)
        await cluster.client("n1")
        await settle(65)
        assert await scraper.value("signald_core_events_failed_total", reason="server_error") > 1
        assert await scraper.value("signald_core_events_queues") == 1
        assert await scraper.value("signald_core_events_failing") == 1
        assert 40 < await scraper.value("signald_core_events_oldest_seconds") < 80
        assert await scraper.value("signald_core_events_stopped") == 0
        core.behave = always(410)
        await settle(300)  # longer than any pause after so few failures
        assert await scraper.value("signald_core_events_stopped") == 1

    play(scene)


def test_both_secrets_sign_while_they_rotate() -> None:
    """A receiver that knows only the old secret, or only the new one, finds a right signature."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        new = "whsec_" + "A" * 42 + "8="
        await cluster.start("n1", **telling(secret=new, secret_previous=SECRET))
        await cluster.client("n1")
        await settle()
        assert core.types() == ["session.started"]
        core.check()

    play(scene)


def names(cluster: Cluster) -> list[Any]:
    """The queues that the agenda has."""
    return sorted(item.name for item in cluster.world.rows.items_after("e", "", 1000))


def test_nothing_is_left_behind() -> None:
    """When all is told and over, neither queue nor item of the agenda is left but that of the cluster."""

    async def scene(cluster: Cluster) -> None:
        core = started(cluster)
        await cluster.start("n1", **telling())
        client, _, worker, _, session = await cluster.pair("n1")
        await client.send({"type": "bye"})
        await client.closed()
        await worker.send({"type": "bye"})
        await worker.closed()
        await settle()
        assert core.types(session)[-1] == "session.ended"
        assert not names(cluster)
        assert cluster.world.rows.queue(session) is None

    play(scene)
