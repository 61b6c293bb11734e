"""Plays many plans on all cores, each in a process that may die of it.

A worker process takes one job at a time as a line of JSON and answers with a line. It is told to go after some
hundreds, so that nothing can pile up in it. One that dies or hangs is a failure of the seed it was at. Every worker has
a hash seed of its own, and each hundredth job is done by two of them: the digests must be the same.
"""

import gc
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

import attrs

from tests.sim.saved import Saved, load
from tests.sim.scene import Kept, Outcome, Transport, play

ROOT = Path(__file__).parents[2]
HANGS_S = 600.0
"""A seed takes half a second, or a minute where others keep the cores busy: one that takes this long does not end."""

NICE = 10
"""Virtual time does not mind being late: tests that wait for a real clock on the same cores go first."""

GC_EVERY = 20_000
"""Objects between two looks for garbage: runs make much of it, and are short."""
JOBS_PER_PROCESS = 1000
CHECKED_EVERY = 100
"""One of so many jobs is done twice."""


@attrs.frozen
class Job:
    """One seed, or a plan in a file."""

    seed: int = 0
    transport: Transport = "frames"
    plan: str = ""
    store: Kept = "memory"

    @property
    def name(self) -> str:
        """What to type to see it again."""
        kept = "" if self.store == "memory" else f"--store {self.store} "
        return f"{kept}--plan {self.plan}" if self.plan else f"{kept}--transport {self.transport} --only {self.seed}"


@attrs.frozen
class Failure:
    """A job that broke a promise, or its process."""

    job: Job
    checker: str
    text: str

    def __str__(self) -> str:
        line = " ".join(self.text.split())
        return f"{self.job.name}: {self.checker}: {line if len(line) < 300 else line[:297] + '...'}"


@attrs.define
class Total:
    """What came of many jobs."""

    seeds: int = 0
    deploys: int = 0
    kills: int = 0
    rollbacks: int = 0
    events: int = 0
    virtual_s: float = 0.0
    checked: int = 0
    """How many were done twice."""
    reached: Counter[str] = attrs.field(factory=Counter)
    """Rare situation → in how many seeds it occurred."""
    failures: list[Failure] = attrs.field(factory=list)

    def add(self, job: Job, result: dict[str, Any]) -> None:
        """Count one."""
        self.seeds += 1
        self.deploys += result["deploys"]
        self.events += result["events"]
        self.virtual_s += result["virtual_s"]
        rare: dict[str, int] = result["rare"]
        self.reached.update(rare.keys())
        self.kills += sum(times for what, times in rare.items() if what.startswith(("node killed", "node vanished")))
        self.rollbacks += sum(rare.get(what, 0) for what in ("drain called off", "rollback while draining"))
        for checker, text in result["violations"][:1]:
            self.failures.append(Failure(job, checker, text))


def run(
    jobs: Iterable[Job],
    *,
    processes: int = 0,
    hangs_s: float = HANGS_S,
    tell: Callable[[Failure], None] | None = None,
    stop: bool = False,
) -> Total:
    """Do all `jobs`; an iterator that ends at some time ends the run at that time, and so does a failure if `stop`.

    `tell` gets each failure at once. There are at least two processes, because a digest is checked by another process.
    """
    count = max(2, processes or os.cpu_count() or 2)
    work = _Work(iter(jobs), count, tell, stop=stop)
    threads = [threading.Thread(target=_worker, args=(work, index, hangs_s)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if work.errors:
        raise work.errors[0]
    work.total.failures.sort(key=lambda failure: (failure.job.transport, failure.job.seed, failure.job.plan))
    return work.total


class _Work:
    """What the threads, one for each process, share."""

    def __init__(self, jobs: Iterator[Job], count: int, tell: Callable[[Failure], None] | None, *, stop: bool) -> None:
        self._jobs = jobs
        self._tell = tell
        self._stop = stop
        self._lock = threading.Lock()
        self._taken = 0
        self.again: list[SimpleQueue[tuple[Job, str]]] = [SimpleQueue() for _ in range(count)]
        self.through = threading.Barrier(count)
        self.total = Total()
        self.errors: list[BaseException] = []

    def take(self) -> tuple[Job | None, bool]:
        """The next job, and whether another process is to do it as well."""
        with self._lock:
            over = self.errors or (self._stop and self.total.failures)
            job = None if over else next(self._jobs, None)
            self._taken += 1
            return job, self._taken % CHECKED_EVERY == 1

    def done(self, job: Job, result: dict[str, Any]) -> None:
        with self._lock:
            failed = len(self.total.failures)
            self.total.add(job, result)
            self._tell_of(failed)

    def compare(self, job: Job, digest: str, result: dict[str, Any]) -> None:
        with self._lock:
            self.total.checked += 1
            if result["digest"] != digest:
                self.total.failures.append(Failure(job, "determinism", f"{digest} and {result['digest']}"))
                self._tell_of(len(self.total.failures) - 1)

    def _tell_of(self, first: int) -> None:
        for failure in self.total.failures[first:]:
            if self._tell is not None:
                self._tell(failure)


def _worker(work: _Work, index: int, hangs_s: float) -> None:
    neighbour = work.again[(index + 1) % len(work.again)]
    process = _Process(index, hangs_s)
    try:
        while True:
            _check(work, index, process)
            job, twice = work.take()
            if job is None:
                break
            result = process.do(job)
            work.done(job, result)
            if twice and result["digest"]:
                neighbour.put((job, result["digest"]))
    except BaseException as error:
        work.errors.append(error)
    finally:
        try:
            work.through.wait()
            _check(work, index, process)
        finally:
            process.end()


def _check(work: _Work, index: int, process: "_Process") -> None:
    while True:
        try:
            job, digest = work.again[index].get_nowait()
        except Empty:
            return
        work.compare(job, digest, process.do(job))


class _Process:
    """One worker process at a time, begun when it is needed."""

    def __init__(self, index: int, hangs_s: float) -> None:
        self._env = {**os.environ, "PYTHONHASHSEED": str(index + 1), "PYTHONPATH": str(ROOT)}
        self._hangs_s = hangs_s
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def do(self, job: Job) -> dict[str, Any]:
        """Do `job`; what becomes of the process is part of the result."""
        if self._done >= JOBS_PER_PROCESS:
            self.end()
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-m", "tests.sim.runner"],
            env=self._env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._done += 1
        hung = threading.Event()
        clock = threading.Timer(self._hangs_s, _kill, (process, hung))
        clock.start()
        try:
            process.stdin.write(json.dumps(attrs.asdict(job)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        clock.cancel()
        if line:
            return cast("dict[str, Any]", json.loads(line))
        self.end()
        why = f"no end after {self._hangs_s:.0f} s" if hung.is_set() else f"the process ended with {process.returncode}"
        return {
            "violations": [("hung" if hung.is_set() else "crashed", why)],
            "digest": "",
            "events": 0,
            "rare": {},
            "virtual_s": 0.0,
            "deploys": 0,
        }

    def end(self) -> None:
        """Let it go."""
        process, self._process, self._done = self._process, None, 0
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.close()
                process.wait(10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            process.stdout.close()


def _kill(process: subprocess.Popen[str], hung: threading.Event) -> None:
    hung.set()
    process.kill()


def do(job: Job) -> Outcome:
    """Do `job` here."""
    outcome = _play(job, job.store)
    if job.store == "memory" or outcome.violations:
        return outcome
    # The same run by the rules in Python: it must not be told from this one by anything that has happened in it.
    by_rules = _play(job, "memory").digest
    if outcome.digest == by_rules:
        return outcome
    return attrs.evolve(outcome, violations=(("twin", f"digest {outcome.digest}, by the rules {by_rules}"),))


def _play(job: Job, store: Kept) -> Outcome:
    if not job.plan:
        return play(job.seed, transport=job.transport, store=store)
    saved: Saved = load(Path(job.plan))
    return saved.play(store=store)


def main() -> None:
    """Be a worker process: a job in, a result out, until there are no more."""
    os.nice(NICE)
    gc.set_threshold(GC_EVERY)
    for line in sys.stdin:
        outcome = do(Job(**json.loads(line)))
        result = attrs.asdict(outcome)
        del result["lines"]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
