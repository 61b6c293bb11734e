"""What every store must do about the jobs of a session, one rule of `signald/store/session/jobs/ops.py` after the other.

The client of the session is at `a`, its worker at `b`, under epoch 1.
"""

from typing import Any

from msgspec.structs import replace

from signald.core.callers import ALL, Access
from signald.core.jobs import Job
from signald.core.log import Entry
from signald.core.streams import Mark
from signald.store.base import Behind, Done, Fenced
from signald.store.session.jobs import ops
from signald.store.session.jobs.ops import (
    CancelJob,
    JobGone,
    JobList,
    JobMade,
    JobProgress,
    JobRead,
    JobsFull,
    JobsTaken,
    JobTooBig,
    KeyTaken,
    ListChangedJobs,
    ListJobs,
    NoJob,
    ReadJob,
    ReadPieces,
    SweepJobs,
    Swept,
    TakeJobs,
)
from signald.store.session.ops import (
    Appended,
    Detach,
    Ended,
    EndSession,
    ExpireSession,
    NoSession,
    ReadHistory,
    StreamRefused,
    Unpair,
    Unpaired,
    UnpairFailed,
)
from signald.store.session.streams.ops import CloseStreams, OpenStreams
from tests.store.ops import (
    NOW_MS,
    SESSION,
    TTL_MS,
    WORKER,
    ack,
    append,
    claim_client,
    claim_side,
    create,
    create_job,
    entries,
    reseed,
)
from tests.store.scenes import NO_WAKES, claimed, look, pair
from tests.store.worlds import World

KEEP_MS = 3_600_000
BOTH = {"a": [b"ss_1"], "b": [b"ss_1"]}


async def make(world: World, n: int = 1, **said: Any) -> Job:
    """Make a job with a key of its own."""
    made = await world.ask(create_job(key=b"k%d" % n, **said))
    assert isinstance(made, JobMade), made
    assert not made.replayed
    return made.job


async def read(world: World, n: int = 1, *, now_ms: int = NOW_MS, access: Access = ALL) -> Any:
    """Return the job, or the answer in its place."""
    found = await world.ask(ReadJob(SESSION, n, access, "a", now_ms))
    return found.job if isinstance(found, JobRead) else found


async def take(
    world: World,
    *,
    kinds: tuple[str, ...] = ("*",),
    known: tuple[int, ...] = (),
    epoch: int = 1,
    node: str = "b",
    limit: int = 100,
    now_ms: int = NOW_MS,
) -> JobsTaken:
    """Hand jobs to the worker at `b`."""
    taken = await world.ask(TakeJobs(SESSION, node, epoch, kinds, known, limit, now_ms), at="b")
    assert isinstance(taken, JobsTaken), taken
    return taken


def given(taken: JobsTaken) -> list[tuple[int, int]]:
    """Return (number, attempt) of the jobs that were handed out."""
    return [(job.n, job.attempt) for job, _ in taken.given]


class TestCreateJob:
    """A job is stored."""

    async def test_made(self, world: World) -> None:
        """A new job is queued under the next number, raises the number of changes, and wakes both nodes but the caller's."""
        await pair(world)
        first, second = await make(world, 1), await make(world, 2, now_ms=NOW_MS + 5)
        assert (first.n, first.state, first.attempt, first.created_ms) == (1, "queued", 0, NOW_MS)
        assert (second.n, second.created_ms) == (2, NOW_MS + 5)
        assert (await look(world)).head.jobs == 2
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}
        assert await read(world) == first

    async def test_elsewhere(self, world: World) -> None:
        """A job that is made at a node without a party wakes both parties' nodes."""
        await pair(world)
        await world.ask(create_job(node="c"))
        assert await world.woken() == BOTH

    async def test_again(self, world: World) -> None:
        """The same request again has the same answer; another one with the same key and payload is a replay of one job."""
        await pair(world)
        first, again, replayed = await world.do(
            create_job(), create_job(), create_job(nonce="other", now_ms=NOW_MS + 9)
        )
        assert (first, again) == (JobMade(first.job, False), first)
        assert replayed == JobMade(first.job, True)
        assert await read(world, 2) == NoJob()

    async def test_replayed_as_it_is(self, world: World) -> None:
        """A replay shows the job as it is by now, time included."""
        await pair(world)
        await world.ask(create_job(deadline_ms=NOW_MS + 10))
        replayed = await world.ask(create_job(nonce="other", now_ms=NOW_MS + 10))
        assert replayed.job.state == "expired"

    async def test_taken(self, world: World) -> None:
        """A key is good for one payload."""
        await pair(world)
        await world.ask(create_job())
        assert await world.ask(create_job(payload=b"other", nonce="other")) == KeyTaken()
        assert await read(world, 2) == NoJob()

    async def test_key_before_bounds(self, world: World) -> None:
        """The key is judged before each bound: a replay is never refused for the size of its input or the number of jobs."""
        await pair(world)
        first = await world.ask(create_job(in_flight_max=1))
        for bound in ({"too_big": True}, {"in_flight_max": 1}):
            assert await world.ask(create_job(nonce="other", **bound)) == JobMade(first.job, True)
            assert await world.ask(create_job(payload=b"x", nonce="other", **bound)) == KeyTaken()
        assert await world.ask(create_job(key=b"new", too_big=True)) == JobTooBig()
        assert await world.ask(create_job(key=b"new", in_flight_max=1)) == JobsFull()

    async def test_full(self, world: World) -> None:
        """Unfinished jobs are bounded, by number and by the bytes of their inputs; one that ends makes room."""
        await pair(world)
        await make(world, 1)
        await make(world, 2, deadline_ms=NOW_MS + 10)
        assert await world.ask(create_job(key=b"new", in_flight_max=2)) == JobsFull()
        assert (await make(world, 3, in_flight_max=2, now_ms=NOW_MS + 10)).n == 3

    async def test_full_of_bytes(self, world: World) -> None:
        """The inputs of unfinished jobs have a bound in sum."""
        await pair(world)
        half = b"x" * (ops.INPUT_BYTES_MAX // 2)
        await make(world, 1, data=half)
        await make(world, 2, data=half)
        assert await world.ask(create_job(key=b"new")) == JobsFull()
        await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS))
        assert (await make(world, 3, data=half)).n == 3

    async def test_access(self, world: World) -> None:
        """A caller that may not touch the session is answered as if there was none."""
        await pair(world)
        for access in (Access(owner="eve"), Access(tenant="acme"), Access(worker="w_9")):
            assert await world.ask(create_job(access=access)) == NoSession()
        assert isinstance(await world.ask(create_job(access=Access(owner="ann"))), JobMade)
        assert await read(world, access=Access(owner="eve")) == NoSession()
        assert (await read(world, access=Access(worker=WORKER))).n == 1

    async def test_tenant(self, world: World) -> None:
        """A service of a tenant has access to the sessions of its principals."""
        await world.do(create(principal="acme\x1fann"))
        assert isinstance(await world.ask(create_job(access=Access(tenant="acme"))), JobMade)
        assert await world.ask(create_job(access=Access(tenant="acm"))) == NoSession()

    async def test_no_session(self, world: World) -> None:
        """Without the session there is no job, neither before nor after its life."""
        assert await world.ask(create_job()) == NoSession()
        await pair(world)
        await make(world)
        await world.do(EndSession(SESSION, "a", NOW_MS))
        assert await world.ask(create_job()) == NoSession()

    async def test_key_is_good_as_long_as_its_job(self, world: World) -> None:
        """When a job is kept no longer, its key makes another one."""
        await pair(world)
        await world.ask(create_job(keep_ms=100, deadline_ms=NOW_MS + 1))
        await read(world, now_ms=NOW_MS + 1)
        again = await world.ask(create_job(nonce="other", now_ms=NOW_MS + 101))
        assert (again.job.n, again.replayed) == (2, False)


class TestReadJob:
    """A job is read."""

    async def test_unknown(self, world: World) -> None:
        """A job that never was is unknown, in a session that had jobs or none, and without a session."""
        assert await read(world) == NoSession()
        await pair(world)
        assert await read(world) == NoJob()
        await make(world)
        assert [await read(world, 2), await read(world, 0)] == [NoJob(), NoJob()]

    async def test_expired(self, world: World) -> None:
        """A look past the deadline stores that the job has expired, and wakes; a look before changes nothing."""
        await pair(world)
        await make(world, deadline_ms=NOW_MS + 10)
        await world.woken()
        assert (await read(world, now_ms=NOW_MS + 9)).state == "queued"
        assert await world.woken() == NO_WAKES
        job = await read(world, now_ms=NOW_MS + 12)
        assert (job.state, job.ended_ms) == ("expired", NOW_MS + 12)
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}
        assert await read(world, now_ms=NOW_MS + 50) == job

    async def test_gone(self, world: World) -> None:
        """A job that was and is kept no longer is gone."""
        await pair(world)
        await make(world, keep_ms=100)
        ended = (await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS))).job
        assert await read(world, now_ms=NOW_MS + 99) == ended
        assert await read(world, now_ms=NOW_MS + 100) == JobGone()
        assert await world.ask(SweepJobs(SESSION, "a", NOW_MS + 100)) == Swept(0)
        assert await read(world, now_ms=NOW_MS) == JobGone()

    async def test_kept_at_most(self, world: World) -> None:
        """Of the ended jobs, those that ended first give way when there are too many; unfinished ones never do."""
        await pair(world)
        await make(world, 1)
        for n in range(2, 2 + ops.KEPT_MAX + 2):
            await make(world, n)
            await world.ask(CancelJob(SESSION, n, ALL, "a", 0, NOW_MS))
        assert [await read(world, 2), await read(world, 3)] == [JobGone(), JobGone()]
        assert ((await read(world, 4)).state, (await read(world, 1)).state) == ("cancelled", "queued")


class TestCancelJob:
    """A job is cancelled by request."""

    async def test_queued(self, world: World) -> None:
        """A job that no worker has ends at once."""
        await pair(world)
        await make(world)
        job = (await world.ask(CancelJob(SESSION, 1, ALL, "a", 10_000, NOW_MS + 5))).job
        assert (job.state, job.ended_ms) == ("cancelled", NOW_MS + 5)

    async def test_running(self, world: World) -> None:
        """Its worker has the time to end it itself; asked again, that time does not begin anew. Then it is cancelled."""
        await pair(world)
        await make(world)
        await world.woken(at="a")
        await take(world)
        await world.woken(at="b")
        first = (await world.ask(CancelJob(SESSION, 1, ALL, "a", 100, NOW_MS))).job
        assert (first.state, first.cancel_ms) == ("running", NOW_MS + 100)
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}
        assert (await world.ask(CancelJob(SESSION, 1, ALL, "a", 100, NOW_MS + 50))).job == first
        assert [job.n for job in (await take(world, known=(1,))).cancels] == [1]
        assert (await read(world, now_ms=NOW_MS + 100)).state == "cancelled"

    async def test_without_a_worker(self, world: World) -> None:
        """When its session has no worker, a running job ends at once."""
        await pair(world)
        await make(world)
        await take(world)
        await world.do(Unpair(SESSION, "b", WORKER, 0))
        assert (await world.ask(CancelJob(SESSION, 1, ALL, "a", 100, NOW_MS))).job.state == "cancelled"

    async def test_not_handed_out_again(self, world: World) -> None:
        """A worker that does not have a job that is being cancelled does not get it: it is cancelled."""
        await pair(world)
        await make(world)
        await take(world)
        await world.ask(CancelJob(SESSION, 1, ALL, "a", 100, NOW_MS))
        assert given(await take(world)) == []
        assert (await read(world)).state == "cancelled"

    async def test_ended(self, world: World) -> None:
        """A job that has ended stays as it is."""
        await pair(world)
        await make(world, deadline_ms=NOW_MS + 1)
        ended = await read(world, now_ms=NOW_MS + 1)
        assert (await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS + 2))).job == ended

    async def test_unknown(self, world: World) -> None:
        """One that is not there cannot be cancelled, nor by a caller that may not."""
        await pair(world)
        await make(world)
        assert await world.ask(CancelJob(SESSION, 2, ALL, "a", 0, NOW_MS)) == NoJob()
        assert await world.ask(CancelJob(SESSION, 1, Access(owner="eve"), "a", 0, NOW_MS)) == NoSession()


class TestListJobs:
    """Jobs are listed."""

    async def list(self, world: World, state: str = "", before: int = 0, limit: int = 10, now_ms: int = NOW_MS) -> Any:
        """Return the numbers, and whether there are more."""
        found = await world.ask(ListJobs(SESSION, ALL, "a", state, before, limit, now_ms))
        return ([job.n for job in found.jobs], found.more) if isinstance(found, JobList) else found

    async def test_newest_first(self, world: World) -> None:
        """A page begins with the newest, and the next one behind the last of it."""
        await pair(world)
        for n in range(1, 6):
            await make(world, n)
        await world.ask(CancelJob(SESSION, 3, ALL, "a", 0, NOW_MS))
        assert await self.list(world, limit=3) == ([5, 4, 3], True)
        assert await self.list(world, before=3, limit=3) == ([2, 1], False)
        assert await self.list(world, state="queued", limit=4) == ([5, 4, 2, 1], False)
        assert await self.list(world, state="cancelled") == ([3], False)

    async def test_time_passes(self, world: World) -> None:
        """What is overdue is listed as it is by now, and what is kept no longer is not."""
        await pair(world)
        await make(world, 1, deadline_ms=NOW_MS + 5, keep_ms=10)
        await make(world, 2)
        assert await self.list(world, state="expired", now_ms=NOW_MS + 5) == ([1], False)
        assert await self.list(world, now_ms=NOW_MS + 15) == ([2], False)

    async def test_none(self, world: World) -> None:
        """A session without jobs has an empty list; without a session there is none."""
        assert await self.list(world) == NoSession()
        await pair(world)
        assert await self.list(world) == ([], False)


class TestListChangedJobs:
    """A node reads what has changed."""

    async def changed(self, world: World, since: int, *, ended_ms: int = 0, limit: int = 10) -> list[int]:
        """Return the numbers."""
        found = await world.ask(ListChangedJobs(SESSION, since, ended_ms, limit))
        assert isinstance(found, JobList)
        return [job.n for job in found.jobs]

    async def test_changed(self, world: World) -> None:
        """Each change has a number, and what has changed after one is listed; ended jobs also by the time of their end."""
        await pair(world)
        await make(world, 1)
        await make(world, 2)
        await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS + 7))
        assert (await look(world)).head.jobs == 3
        assert await self.changed(world, 0) == [2, 1]
        assert await self.changed(world, 2) == [1]
        assert await self.changed(world, 3) == []
        assert await self.changed(world, 0, ended_ms=NOW_MS + 7) == [2]
        assert await self.changed(world, 0, limit=1) == [2]

    async def test_behind_what_was_said(self, world: World) -> None:
        """A change stands behind the last message that the worker had said by then."""
        await pair(world)
        await make(world)
        await world.do(append(entries(1, 3), party="worker"))
        job = (await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS))).job
        assert (job.behind, job.changed) == (3, 2)


class TestTakeJobs:
    """Jobs are handed to the worker."""

    async def test_in_order(self, world: World) -> None:
        """They go out in the order of their creation, with their input, under attempt 1, and run; the client's node is woken."""
        await pair(world)
        await make(world, 1, data=b"one")
        await make(world, 2, data=b"two", content_type="audio/ogg")
        await world.woken()
        taken = await take(world)
        assert given(taken) == [(1, 1), (2, 1)]
        assert [data for _, data in taken.given] == [b"one", b"two"]
        assert taken.given[1][0].content_type == "audio/ogg"
        assert taken.head_jobs == (await look(world)).head.jobs == 4
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        assert ((await read(world)).state, (await read(world)).started_ms) == ("running", NOW_MS)

    async def test_clocks_differ(self, world: World) -> None:
        """A job does not start before its creation or end before its start, though the nodes that say so have slower clocks."""
        await pair(world)
        await make(world)
        early = NOW_MS - 3
        assert (await take(world, now_ms=early)).given[0][0].started_ms == NOW_MS
        await world.ask(EndSession(SESSION, "a"))
        job = await read(world, now_ms=early)
        assert (job.created_ms, job.started_ms, job.ended_ms) == (NOW_MS, NOW_MS, NOW_MS)

    async def test_cancelled_early(self, world: World) -> None:
        """A job that is cancelled by the slower of two clocks has not ended before its creation."""
        await pair(world)
        await make(world)
        cancelled = await world.ask(CancelJob(SESSION, 1, ALL, "a", 5000, NOW_MS - 3))
        assert isinstance(cancelled, JobRead)
        assert (cancelled.job.state, cancelled.job.ended_ms) == ("cancelled", NOW_MS)

    async def test_known(self, world: World) -> None:
        """What the worker has does not go out again; what it lacks does, under the same attempt and without a change."""
        await pair(world)
        await make(world, 1)
        await make(world, 2)
        await take(world)
        number = (await look(world)).head.jobs
        assert given(await take(world, known=(1, 2))) == []
        assert given(await take(world, known=(2,))) == [(1, 1)]
        assert (await look(world)).head.jobs == number

    async def test_limit(self, world: World) -> None:
        """So many go out in one step as are asked for, and the answer says that there are more."""
        await pair(world)
        for n in range(1, 4):
            await make(world, n)
        taken = await take(world, limit=2)
        assert (given(taken), taken.more) == ([(1, 1), (2, 1)], True)
        taken = await take(world, known=(1, 2), limit=2)
        assert (given(taken), taken.more) == ([(3, 1)], False)

    async def test_kinds(self, world: World) -> None:
        """A job whose kind the worker does not take fails when it would be handed out."""
        await pair(world)
        await make(world, 1, kind="tts")
        await make(world, 2, kind="stt")
        assert given(await take(world, kinds=("stt",))) == [(2, 1)]
        job = await read(world, 1)
        assert (job.state, b'"kind_not_taken"' in job.error) == ("failed", True)

    async def test_ended_meanwhile(self, world: World) -> None:
        """A worker that has a job which has ended is told so."""
        await pair(world)
        await make(world, deadline_ms=NOW_MS + 5)
        await take(world)
        taken = await take(world, known=(1,), now_ms=NOW_MS + 5)
        assert [(job.n, job.cancel_reason) for job in taken.cancels] == [(1, "deadline")]

    async def test_due(self, world: World) -> None:
        """The answer says when time ends the next one."""
        await pair(world)
        await make(world, 1, deadline_ms=NOW_MS + 50)
        await make(world, 2, deadline_ms=NOW_MS + 30)
        await make(world, 3)
        assert (await take(world)).due_ms == NOW_MS + 30
        assert (await take(world, known=(1, 2, 3), now_ms=NOW_MS + 30)).due_ms == NOW_MS + 50

    async def test_fenced(self, world: World) -> None:
        """Only the node that holds the worker, under its epoch, is given jobs."""
        await pair(world)
        await make(world)
        for node, epoch, answer in (("b", 2, Behind(1)), ("c", 1, Fenced(1))):
            assert await world.ask(TakeJobs(SESSION, node, epoch, ("*",), (), 9, NOW_MS)) == answer
        await world.do(claim_side(node="c", assign=False, nonce="resumed"))
        assert await world.ask(TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS)) == Fenced(2)
        assert (await read(world)).state == "queued"

    async def test_no_session(self, world: World) -> None:
        """Without the session there is nothing to hand out."""
        assert await world.ask(TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS)) == NoSession()


class TestAttempts:
    """What becomes of a job when its worker does not go on with it."""

    async def test_resumed(self, world: World) -> None:
        """A worker that comes back goes on with the same attempt."""
        await pair(world)
        await make(world)
        await take(world)
        await world.do(claim_side(node="c", assign=False, nonce="resumed"))
        assert given(await take(world, node="c", epoch=2)) == [(1, 1)]

    async def test_moved(self, world: World) -> None:
        """Another worker gets it under the next attempt; a drain or a hand-over is no failure."""
        await pair(world)
        await make(world, 1)
        await take(world)
        await make(world, 2)
        for attempt in range(2, 7):
            worker = f"w_{attempt}"
            await world.do(Unpair(SESSION, "b", (await look(world)).head.worker, 0))
            epoch = claimed(await world.ask(claim_side(worker, nonce=worker))).epoch
            assert given(await take(world, epoch=epoch)) == [(1, attempt), (2, attempt - 1)]
        assert (await read(world)).failures == 0

    async def test_asked_and_refused(self, world: World) -> None:
        """A worker that was asked to take the session and never had the job costs no attempt."""
        await pair(world)
        await make(world)
        await world.do(Unpair(SESSION, "b", WORKER, 0), claim_side("w_2", nonce="2"), Unpair(SESSION, "b", "w_2", 0))
        epoch = claimed(await world.ask(claim_side("w_3", nonce="3"))).epoch
        assert given(await take(world, epoch=epoch)) == [(1, 1)]

    async def test_lost_too_often(self, world: World) -> None:
        """A job with which too many workers were lost fails; one that none of them had does not."""
        await pair(world)
        await make(world, 1)
        await take(world)
        await make(world, 2)
        for number in range(2, 4):
            unpaired = await world.ask(UnpairFailed(SESSION, "b", f"w_{number - 1}", 0, 99, NOW_MS, NOW_MS, 3))
            assert isinstance(unpaired, Unpaired)
            epoch = claimed(await world.ask(claim_side(f"w_{number}", nonce=str(number)))).epoch
            assert given(await take(world, epoch=epoch, limit=1)) == [(1, number)]
        await world.ask(UnpairFailed(SESSION, "b", "w_3", 0, 99, NOW_MS, NOW_MS, 3))
        job = await read(world)
        assert (job.state, b'"worker_lost"' in job.error, job.failures) == ("failed", True, 3)
        assert (await read(world, 2)).state == "queued"

    async def test_failed_otherwise(self, world: World) -> None:
        """A hand-out that failed without the loss of a worker is no failure of its jobs."""
        await pair(world)
        await make(world)
        await take(world)
        await world.ask(UnpairFailed(SESSION, "b", WORKER, 0, 99, NOW_MS, NOW_MS))
        assert (await read(world)).failures == 0


class TestJobProgress:
    """A worker says how far it is."""

    async def test_kept(self, world: World) -> None:
        """The last one is kept and told; saying the same again changes nothing."""
        await pair(world)
        await make(world)
        await world.woken(at="a")
        await take(world)
        await world.woken()
        await world.woken(at="b")
        said = JobProgress(SESSION, 1, "b", 1, b'{"p":1}', NOW_MS)
        assert await world.ask(said, at="b") == Done()
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        number = (await look(world)).head.jobs
        await world.do(said)
        assert ((await read(world)).progress, (await look(world)).head.jobs) == (b'{"p":1}', number)

    async def test_ignored(self, world: World) -> None:
        """A job that does not run has no progress; neither has one of another worker."""
        await pair(world)
        await make(world)
        assert await world.ask(JobProgress(SESSION, 1, "b", 1, b"1", NOW_MS)) == Done()
        assert await world.ask(JobProgress(SESSION, 9, "b", 1, b"1", NOW_MS)) == Done()
        assert await world.ask(JobProgress(SESSION, 1, "c", 1, b"1", NOW_MS)) == Fenced(1)
        assert await world.ask(JobProgress(SESSION, 1, "b", 2, b"1", NOW_MS)) == Behind(1)
        assert (await read(world)).progress == b""


class TestTheEndOfTheSession:
    """Jobs outlive their session for a while."""

    async def test_ended(self, world: World) -> None:
        """With its session an unfinished job is cancelled; all are readable until their time is over, by their own principal."""
        await pair(world)
        await make(world, 1)
        await take(world)
        assert isinstance(await world.ask(EndSession(SESSION, "a", NOW_MS + 5)), Ended)
        job = await read(world, access=Access(owner="ann"))
        assert (job.state, job.ended_ms) == ("cancelled", NOW_MS + 5)
        assert await read(world, access=Access(owner="eve")) == NoSession()
        assert await read(world, 2) == NoJob()
        assert (await world.ask(ListJobs(SESSION, ALL, "a", "", 0, 9, NOW_MS))).jobs == (job,)
        last_ms = NOW_MS + 5 + KEEP_MS - 1
        assert await read(world, now_ms=last_ms) == job
        assert await read(world, now_ms=last_ms + 1) == NoSession()

    async def test_expired(self, world: World) -> None:
        """The same when the session expires."""
        await pair(world)
        await make(world)
        await world.do(Detach(SESSION, "client", "a", 1, NOW_MS))
        assert isinstance(await world.ask(ExpireSession(SESSION, "a", ("a", "b"), NOW_MS + TTL_MS, TTL_MS)), Ended)
        job = await read(world)
        assert (job.state, job.ended_ms) == ("cancelled", NOW_MS + TTL_MS)

    async def test_overdue(self, world: World) -> None:
        """A job whose deadline had come before the end of its session has expired; the others are cancelled."""
        await pair(world)
        await make(world, 1, deadline_ms=NOW_MS + 5)
        await make(world, 2, deadline_ms=NOW_MS + 50)
        await world.ask(EndSession(SESSION, "a", NOW_MS + 10))
        assert ((await read(world, 1)).state, (await read(world, 2)).state) == ("expired", "cancelled")

    async def test_without_a_time(self, world: World) -> None:
        """A node that does not say when the session ended ends it at the last time that is known of its jobs."""
        await pair(world)
        await make(world, now_ms=NOW_MS + 3)
        await world.ask(EndSession(SESSION, "a"))
        assert (await read(world)).ended_ms == NOW_MS + 3

    async def test_begins_anew(self, world: World) -> None:
        """A session that begins has no jobs, whatever had its id before."""
        await pair(world)
        await make(world)
        await world.do(EndSession(SESSION, "a", NOW_MS), create(nonce="again"))
        assert await read(world) == NoJob()
        assert (await make(world)).n == 1

    async def test_nothing_more_changes(self, world: World) -> None:
        """After the end of the session a job can neither be cancelled nor handed out."""
        await pair(world)
        await make(world)
        await world.do(EndSession(SESSION, "a", NOW_MS))
        assert (await world.ask(CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS + 9))).job.ended_ms == NOW_MS
        assert await world.ask(TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS)) == NoSession()
        assert await world.ask(SweepJobs(SESSION, "a", NOW_MS)) == Swept(0)


class TestAStoreThatLostSomething:
    """Numbers are not given twice."""

    async def test_number(self, world: World) -> None:
        """A node that knows of more changes than the store raises its number, and jobs go on above all that may have been."""
        await pair(world)
        await make(world)
        known = (await look(world)).head
        given_back = await world.ask(reseed(replace(known, jobs=7)))
        assert given_back.jobs == 7
        assert (await make(world, 2)).n == 8
        assert await read(world, 5) == JobGone()
        assert (await read(world, 1)).state == "queued"

    async def test_all_lost(self, world: World) -> None:
        """A session that is given back without its jobs goes on behind their numbers."""
        await pair(world)
        known = (await look(world)).head
        await world.do(EndSession(SESSION, "a"), reseed(replace(known, jobs=3)))
        assert (await make(world)).n == 4

    async def test_claims_keep_it(self, world: World) -> None:
        """A client that resumes finds the number of changes in its head."""
        await pair(world)
        await make(world)
        assert claimed(await world.ask(claim_client())).head.jobs == 1


def said(
    seq: int, n: int = 1, attempt: int = 1, *, text: str | None = None, end: str = "", error: bytes = b""
) -> Entry:
    """A piece that the worker says of a job: of a text, or with the seq as its data."""
    data = b"%d" % seq if text is None else b'"%b"' % text.encode()
    mark = Mark(f"j_1_{n}", attempt, None if text is None else text.encode(), end, job=n, error=error)
    return Entry(seq, b't"seq":%d,"data":%b}' % (seq, data), False, mark)


async def say(world: World, *pieces: Entry, epoch: int = 1) -> Any:
    """Append pieces of the worker at `b`."""
    return await world.ask(append(pieces, party="worker", epoch=epoch), at="b")


def plain(*pieces: Entry) -> tuple[Entry, ...]:
    """Return pieces as a store gives them."""
    return tuple(Entry(piece.seq, piece.body) for piece in pieces)


class TestPieces:
    """The worker's messages in the stream of a job are its result."""

    async def begin(self, world: World, **made: Any) -> None:
        """A job runs."""
        await pair(world)
        await make(world, **made)
        await world.woken(at="a")
        await take(world)
        await world.woken(at="b")

    async def test_succeeded(self, world: World) -> None:
        """The last piece ends the job in the step that stores it: its result is that piece, and the client is told behind it."""
        await self.begin(world)
        first, last = said(1), said(2, end="complete")
        assert await say(world, first, last) == Appended(2, 0, "a")
        read_back = await world.ask(ReadJob(SESSION, 1, ALL, "a", NOW_MS))
        assert (read_back.job.state, read_back.job.ended_ms, read_back.job.behind) == ("succeeded", NOW_MS, 2)
        assert read_back.result == plain(last)
        assert (await look(world)).head.jobs == read_back.job.changed
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        assert given(await take(world)) == []

    async def test_folded(self, world: World) -> None:
        """Of a text all pieces are the result."""
        await self.begin(world)
        pieces = said(1, text="a"), said(2, text="b"), said(3, text="", end="complete")
        await say(world, *pieces)
        read_back = await world.ask(ReadJob(SESSION, 1, ALL, "a", NOW_MS))
        assert (read_back.job.state, read_back.result) == ("succeeded", plain(*pieces))

    async def test_other_ends(self, world: World) -> None:
        """A worker may end a job otherwise, and say why; then it has no result."""
        await pair(world)
        for n, (outcome, state) in enumerate(
            (("failed", "failed"), ("cancelled", "cancelled"), ("interrupted", "failed")), 1
        ):
            await make(world, n)
            await take(world)
            await say(world, said(n, n, end=outcome, error=b'{"code":"x"}'))
            found = await world.ask(ReadJob(SESSION, n, ALL, "a", NOW_MS))
            assert (found.job.state, found.job.error, found.result) == (state, b'{"code":"x"}', ())

    async def test_kept(self, world: World) -> None:
        """Pieces are read in order behind a seq, whatever was acked, and after the end of the session."""
        await self.begin(world)
        pieces = [said(seq) for seq in range(1, 6)]
        await say(world, *pieces)
        await world.do(ack(5, party="client"))
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS))).pieces == plain(*pieces)
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 2, 2, NOW_MS))).pieces == plain(*pieces[2:4])
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 5, 9, NOW_MS))).pieces == ()
        await world.do(EndSession(SESSION, "a", NOW_MS))
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 4, 9, NOW_MS))).pieces == plain(pieces[4])

    async def test_higher_attempt(self, world: World) -> None:
        """The first piece of the next attempt takes the place of all that was said under the one before."""
        await self.begin(world)
        await say(world, said(1, text="old"), said(2, text="er"))
        await world.do(Unpair(SESSION, "b", WORKER, 0))
        epoch = claimed(await world.ask(claim_side("w_2", nonce="2"))).epoch
        await take(world, epoch=epoch)
        pieces = said(3, 1, 2, text="new"), said(4, 1, 2, text="", end="complete")
        await say(world, *pieces, epoch=epoch)
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS))).pieces == plain(*pieces)
        assert (await world.ask(ReadJob(SESSION, 1, ALL, "a", NOW_MS))).result == plain(*pieces)

    async def test_lower_attempt(self, world: World) -> None:
        """A piece of an attempt that is over is refused, also before the next one has said anything."""
        await self.begin(world)
        await world.do(Unpair(SESSION, "b", WORKER, 0))
        epoch = claimed(await world.ask(claim_side("w_2", nonce="2"))).epoch
        await take(world, epoch=epoch)
        assert await say(world, said(1), epoch=epoch) == StreamRefused("stream_superseded", "j_1_1", 0, 0, "a")
        assert (await read(world)).state == "running"

    async def test_over(self, world: World) -> None:
        """The end that is stored first holds: a piece of a job that has ended is refused, and what is before it is stored."""
        await self.begin(world, deadline_ms=NOW_MS)
        assert (await read(world)).state == "expired"
        refused = await say(world, Entry(1, b"t1"), said(2, end="complete"))
        assert refused == StreamRefused("stream_over", "j_1_1", 1, 0, "a")
        assert ((await read(world)).state, (await look(world)).head.down_last) == ("expired", 1)

    async def test_too_big(self, world: World) -> None:
        """A result that is too big fails the job, and nothing of it is kept."""
        await self.begin(world, result_bytes_max=500)
        await say(world, said(1, text="x" * 200))
        assert (await read(world)).state == "running"
        await say(world, said(2, text="x" * 200))
        job = await read(world)
        assert (job.state, b'"result_too_big"' in job.error, job.size) == ("failed", True, 0)
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS))).pieces == ()
        assert await say(world, said(3)) == StreamRefused("stream_over", "j_1_1", 2, 0, "a")

    async def test_stream_of_an_ended_job(self, world: World) -> None:
        """When a job ends without a word of its worker, its stream is interrupted with it, and the chat history says so."""
        await self.begin(world, deadline_ms=NOW_MS + 5)
        piece = said(1, text="Once")
        await say(world, Entry(1, piece.body, True, piece.mark))
        assert (await read(world, now_ms=NOW_MS + 5)).state == "expired"
        streams = (await world.ask(OpenStreams(SESSION))).streams
        assert [(one.stream, one.outcome, one.by_signald) for one in streams] == [("j_1_1", "interrupted", True)]
        (entry,) = (await world.ask(ReadHistory(SESSION, 9))).entries
        assert (entry.stream, entry.outcome) == ("j_1_1", "interrupted")

    async def test_unknown_job(self, world: World) -> None:
        """A stream with the name of a job that never was is a stream like others."""
        await self.begin(world)
        assert await say(world, said(1, 9, end="complete")) == Appended(1, 0, "a")

    async def test_of_the_next_worker(self, world: World) -> None:
        """The stream of a job is not found open by the next worker, which gets the job itself: nothing interrupts it."""
        await self.begin(world)
        await say(world, said(1))
        await world.do(Unpair(SESSION, "b", WORKER, 0))
        epoch = claimed(await world.ask(claim_side("w_2", nonce="2"))).epoch
        assert [view.found for view in (await world.ask(OpenStreams(SESSION))).streams] == [False]
        await world.do(CloseStreams(SESSION, "b", epoch, ("j_1_1",), "interrupted", NOW_MS))
        assert [view.outcome for view in (await world.ask(OpenStreams(SESSION))).streams] == [""]

    async def test_again(self, world: World) -> None:
        """Pieces that are appended again count once."""
        await self.begin(world)
        pieces = said(1), said(2, end="complete")
        assert await say(world, *pieces) == await say(world, *pieces) == Appended(2, 0, "a")
        assert (await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS))).pieces == plain(*pieces)


async def test_pieces_of_none(world: World) -> None:
    """A job whose worker has said nothing has no pieces."""
    await pair(world)
    assert await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS)) == NoJob()
    job = await make(world)
    assert await world.ask(ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS)) == ops.Pieces(job, ())
    assert await world.ask(ReadPieces(SESSION, 1, Access(owner="eve"), 0, 9, NOW_MS)) == NoSession()
    assert await world.ask(ReadPieces(SESSION, 2, ALL, 0, 9, NOW_MS)) == NoJob()


def test_the_bound_of_a_step() -> None:
    """A step that adds one job removes more than one that is kept no longer."""
    assert ops.DUE_MAX > 1
