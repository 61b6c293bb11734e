"""A job: each state with each event, its attempts, its deadline and its pieces."""

import itertools

import pytest
from msgspec.structs import replace

from signald.core.jobs import ENDS, JOB, OF_OUTCOME, STATES, Job, JobEvent, State, takes
from signald.core.transitions import ImpossibleTransition
from signald.ids import job_id, job_of, parse_job

NEW = Job(1, "tts", "", "", "n", b"k", b"p", 1000, 0, 60_000, 1 << 20, 5)


@pytest.mark.parametrize(("state", "event"), [*itertools.product(STATES, JobEvent)])
def test_a_job_has_one_end(state: State, event: JobEvent) -> None:
    """An event is possible in a job that has not ended, and in no other."""
    job = replace(NEW, state=state)
    if state in ENDS:
        with pytest.raises(ImpossibleTransition):
            job.end(event, 2000, 1)
        assert (state, event) not in JOB
    else:
        assert (JOB[state, event] in ENDS) is (event is not JobEvent.HAND_OUT)


def test_every_outcome_ends_a_job() -> None:
    """Each outcome of a stream is an event of its job, and only `complete` makes it succeed."""
    ends = {outcome: JOB["running", event] for outcome, event in OF_OUTCOME.items()}
    assert ends == {"complete": "succeeded", "failed": "failed", "cancelled": "cancelled", "interrupted": "failed"}


class TestAttempts:
    """Attempts begin when a worker gets the job."""

    def test_first(self) -> None:
        """A job that no worker has had has attempt 0; handed out it runs, under attempt 1, from then on."""
        job = NEW.hand_out(2000)
        assert (NEW.attempt, job.state, job.attempt, job.started_ms) == (0, "running", 1, 2000)

    def test_again(self) -> None:
        """Handed out again to the worker that has it, it has the same attempt and the same beginning."""
        job = NEW.hand_out(2000)
        assert job.hand_out(3000) == job

    def test_moved(self) -> None:
        """When its session is given to a worker, an attempt that was handed out is over; one that was not is not counted."""
        moved = NEW.hand_out(2000).move()
        assert (moved.attempt, moved.state, moved.move().attempt) == (2, "running", 2)
        assert NEW.move() == NEW
        assert moved.hand_out(3000).move().attempt == 3


class TestTime:
    """Time ends a job when it is looked at."""

    def test_deadline(self) -> None:
        """At its deadline a job is expired, not before, and never after another end."""
        job = replace(NEW, deadline_ms=5000)
        assert job.overdue(4999) is None
        assert job.overdue(5000) is JobEvent.EXPIRE
        assert job.end(JobEvent.FAIL, 4000, 1).overdue(6000) is None

    def test_cancelled(self) -> None:
        """A worker that has not ended it in time loses it to its cancellation, unless the deadline was earlier."""
        job = replace(NEW, cancel_ms=5000)
        assert job.overdue(5000) is JobEvent.CANCEL
        assert replace(job, deadline_ms=4000).overdue(6000) is JobEvent.EXPIRE
        assert replace(job, deadline_ms=5500).overdue(6000) is JobEvent.CANCEL

    def test_without_either(self) -> None:
        """A job without a deadline waits for ever."""
        assert NEW.due_ms == 0
        assert NEW.overdue(1 << 50) is None

    def test_kept(self) -> None:
        """It is kept for its time after its end, and as long as it has not ended."""
        ended = NEW.end(JobEvent.CANCEL, 2000, 1)
        assert not NEW.gone(1 << 50)
        assert [ended.gone(61_999), ended.gone(62_000)] == [False, True]


class TestPieces:
    """What is kept of a result."""

    def test_attempts(self) -> None:
        """The first piece of a higher attempt takes the place of all before it; the numbers of pieces go on."""
        job = NEW.keep_piece(1, 10, folded=True).keep_piece(1, 20, folded=True)
        assert (job.first, job.pieces, job.size, job.folded) == (1, 2, 30, 1)
        job = job.keep_piece(2, 5, folded=False)
        assert (job.first, job.pieces, job.size, job.folded, job.said) == (3, 3, 5, 0, 2)

    def test_folded(self) -> None:
        """An attempt is one text from its first piece of one on: its last piece may bring nothing more."""
        assert NEW.keep_piece(1, 10, folded=True).keep_piece(1, 0, folded=False).folded == 1


def test_kinds() -> None:
    """A worker takes the kinds that it names, or all by `*`; without a kind it takes none."""
    assert [takes(kinds, "tts") for kinds in (("stt", "tts"), ("*",), ("stt",), ())] == [True, True, False, False]


def test_ids() -> None:
    """The id of a job names its session and its number; every other text is none."""
    session = "s_" + "abcdefghijklmnopqrstuv23"
    name = job_id(session, 12)
    assert name == "j_abcdefghijklmnopqrstuv23_12"
    assert parse_job(name) == (session, 12)
    assert job_of(session, name) == 12
    for wrong in (
        name + "x",
        name[:-2] + "0",
        name[:-2] + "012",
        name[:-3],
        name[:-2] + "9" * 16,
        "j_A" + name[3:],
        name + "\n",
        "",
    ):
        assert parse_job(wrong) is None
        assert job_of(session, wrong) == 0, wrong
    assert job_of("s_other", name) == 0
