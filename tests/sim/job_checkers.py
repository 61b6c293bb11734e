"""Jobs: each has one end, which holds; a job that was promised is found; a key makes one job."""

from typing import TYPE_CHECKING, Any

from signald.core.callers import ALL
from signald.core.jobs import Job
from signald.ids import job_id, parse_job
from signald.store.base import Op, Result
from signald.store.session.jobs.ops import (
    CreateJob,
    JobGone,
    JobList,
    JobMade,
    JobRead,
    JobsTaken,
    NoJob,
    Pieces,
    ReadJob,
)
from signald.store.session.ops import NoSession
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.parties import ClientParty
    from tests.sim.scene import Scene


def _jobs_in(result: Result) -> tuple[Job, ...]:
    if isinstance(result, JobRead | JobMade | Pieces):
        return (result.job,)
    if isinstance(result, JobList):
        return result.jobs
    if isinstance(result, JobsTaken):
        return (*[job for job, _ in result.given], *result.cancels)
    return ()


class JobOnce(Checker):
    """A job has exactly one end, and a submit that was answered is a job; one key makes one job."""

    name = "job-once"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self.made: dict[tuple[str, str], str] = {}
        """(session, key) → the job that a submit was answered with."""
        self._jobs: dict[tuple[str, int], Job] = {}
        """As it was last seen in an answer of the store."""
        self._of_key: dict[tuple[str, bytes], int] = {}
        """(session, key) → the job that the store has made."""
        self._told: dict[tuple[str, str], tuple[int, str]] = {}
        """(wire, job) → attempt and state that a client was last told."""

    @property
    def promised(self) -> bool:
        """Tell whether the store keeps what it is given, for as long as it should."""
        return not self.scene.plan.store_may_lose and not self.scene.plan.clock_steps

    def applied(self, op: Op, result: Result) -> None:
        """The store shows jobs in its answers, in the order in which it carries operations out."""
        if not self.promised:
            return
        for job in _jobs_in(result):
            self._see(op.session, job)  # type: ignore[attr-defined]
        if isinstance(op, CreateJob) and isinstance(result, JobMade):
            before = self._of_key.setdefault((op.session, op.key), result.job.n)
            if before != result.job.n:
                self.broken(f"{op.session}: one key made job {before} and job {result.job.n}")

    def stored(self, session: str) -> list[int]:
        """Return the numbers of the jobs that the store has made in `session`."""
        return sorted(n for one, n in self._jobs if one == session)

    def ended(self) -> dict[str, list[str]]:
        """Return the jobs of each session that have ended, as far as the store has shown them."""
        found: dict[str, list[str]] = {}
        for (session, n), job in self._jobs.items():
            if job.over:
                found.setdefault(session, []).append(job_id(session, n))
        return found

    def _see(self, session: str, job: Job) -> None:
        before = self._jobs.get((session, job.n))
        self._jobs[session, job.n] = job
        if before is None:
            return
        if job.attempt < before.attempt:
            self.broken(f"{session}: {job} had attempt {before.attempt}")
        if before.over and (job.state, job.ended_ms, job.error) != (before.state, before.ended_ms, before.error):
            self.broken(f"{session}: {before} had ended, and is {job}")
        if before.state == "running" and job.state == "queued":
            self.broken(f"{session}: {before} ran, and is {job}")

    def submitted(self, session: str, key: str, job: str) -> None:
        """A submit was answered with a job."""
        before = self.made.setdefault((session, key), job)
        if before != job and self.promised:
            self.broken(f"{session}: key {key} made {before} and {job}")
        if list(self.made.values()).count(job) > 1 and self.promised:
            self.broken(f"{session}: two keys made {job}")

    def told(self, client: "ClientParty", wire: str, said: dict[str, Any]) -> None:
        """A client is told of a job."""
        now = said["attempt"], said["state"]
        before = self._told.get((wire, said["job"]), (0, ""))
        self._told[wire, said["job"]] = now
        if not self.promised:
            return
        if now[0] < before[0] or (before[1] not in ("", "queued", "running") and now != before):
            self.broken(f"{client.name} is told {now} of {said['job']} after {before}")

    def shown(self, client: "ClientParty", wire: str, stream: str) -> None:
        """A client is shown a piece of what may be the result of a job."""
        _, state = self._told.get((wire, stream), (0, ""))
        if self.promised and state not in ("", "queued", "running"):
            self.broken(f"{client.name} is shown a piece of {stream} behind its end, {state}")

    def read(self, job: str) -> Result:
        """Read a job in the store."""
        session, n = parse_job(job) or ("", 0)
        now_ms = self.scene.world.now_ms()
        [result] = self.scene.world.execute([ReadJob(session, n, ALL, "", now_ms)])
        return result

    def waiting(self) -> list[str]:
        """Each job that has not ended."""
        if not self.promised:
            return []
        texts = []
        for (session, _), job in self.made.items():
            if session in self.scene.stolen:
                continue  # without a client it waits for a worker in no line
            read = self.read(job)
            if isinstance(read, JobRead) and not read.job.over:
                texts.append(f"{read.job} of {session} has not ended")
            elif isinstance(read, NoJob | JobGone | NoSession):
                self.broken(f"{job} was promised, and the store says {read}")
        return texts
