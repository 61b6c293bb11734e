"""The jobs that a worker's core holds, and those that a client's core knows."""

import json
from typing import Any

import pytest
from msgspec import Raw

from signald.ids import SeededEntropy
from signald.sdk.client_jobs import KEPT_MAX, PARTS_BYTES_MAX, ClientJobs
from signald.sdk.core import SessionCore
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.link import Link
from signald.sdk.notices import SessionEvent
from signald.sdk.worker_core import WorkerCore
from signald.wire.messages import JobStateChanged, Message
from tests.sdk.test_hostile_node import ACCEPTED, assigned, job, worker_with


def said(core: WorkerCore, link: Link) -> list[dict[str, Any]]:
    """What the worker writes now."""
    return [json.loads(payload) for _, payload in core.write(link, 0.0)]


def told(core: WorkerCore) -> list[object]:
    """The notices about jobs, which are taken."""
    events = [one.event for one in core.notices if isinstance(one, SessionEvent)]
    core.notices.clear()
    return [event for event in events if isinstance(event, JobGiven | JobCancelled)]


def back(core: WorkerCore, link: Link, accepted: int = 0) -> tuple[Link, Any]:
    """Lose the connection and resume; return the new one, and what was said of the session's jobs."""
    core.lost(link, None, "", 1.0)
    again = core.opened("ws://h/v1/worker", 2.0)
    (opening,) = said(core, again)
    kept = [{"session": "s_1", "accepted": accepted, "replaying": 0}]
    answer = {"session_restored": True, "server_status": "", "sessions": kept, "lost": []}
    core.receive(again, json.dumps({**ACCEPTED, "type": "reconnection_ack", **answer}), 2.0)
    core.notices.clear()
    return again, opening["sessions"][0].get("jobs")


def test_an_attempt_is_handed_out_once() -> None:
    """Not again over a resume, nor an earlier one; a higher one is; a job of a connection that is left is not taken."""
    core, link = worker_with("s_1")
    core.receive(link, json.dumps(job("j_1_1")), 0.0)
    core.receive(link, json.dumps(job("j_1_1")), 0.0)
    assert [event.attempt for event in told(core) if isinstance(event, JobGiven)] == [1]
    link, listed = back(core, link)
    assert listed == ["j_1_1"]
    core.receive(link, json.dumps(job("j_1_1")), 2.0)
    assert told(core) == []
    core.receive(link, json.dumps(job("j_1_1", attempt=3)), 2.0)
    core.receive(link, json.dumps(job("j_1_1", attempt=2)), 2.0)
    assert [event.attempt for event in told(core) if isinstance(event, JobGiven)] == [3]


def test_a_job_is_listed_until_its_end_is_stored() -> None:
    """Else signald would give it again while its result is under way."""
    core, link = worker_with("s_1")
    seat = core.sessions["s_1"]
    core.receive(link, json.dumps(job("j_1_1")), 0.0)
    core.job_ended(seat.core, "j_1_1", 1, seat.core.send("done"))
    link, listed = back(core, link)
    assert listed == ["j_1_1"]
    link, listed = back(core, link, accepted=1)
    assert listed == ["j_1_1"]  # as of the opening message nothing was known of the store
    assert back(core, link, accepted=1)[1] is None


@pytest.mark.parametrize("reason", ["deadline", "session_ended"])
def test_a_job_that_has_ended_is_forgotten(reason: str) -> None:
    """One whose end was asked for is kept until the worker has said it."""
    core, link = worker_with("s_1")
    for number in (1, 2):
        core.receive(link, json.dumps(job(f"j_1_{number}")), 0.0)
    for number, why in ((1, reason), (2, "requested")):
        cancel = {"type": "job_cancel", "session": "s_1", "job": f"j_1_{number}", "reason": why}
        core.receive(link, json.dumps(cancel), 0.0)
    assert told(core)[2:] == [JobCancelled("j_1_1", reason), JobCancelled("j_1_2", "requested")]
    assert back(core, link)[1] == ["j_1_2"]


def test_the_last_word_of_progress_is_said_again() -> None:
    """Of many words one is written; the last one again on another connection; none of an attempt that is over."""
    core, link = worker_with("s_1")
    seat = core.sessions["s_1"]
    core.receive(link, json.dumps(job("j_1_1")), 0.0)
    for step in range(5):
        core.job_progress(seat.core, "j_1_1", 1, step)
    assert [one["progress"] for one in said(core, link)] == [4]
    link, _ = back(core, link)
    assert [one["progress"] for one in said(core, link) if one["type"] == "job_progress"] == [4]
    core.job_progress(seat.core, "j_1_1", 2, "of another attempt")
    core.job_ended(seat.core, "j_1_1", 1, seat.core.send("done"))
    core.job_progress(seat.core, "j_1_1", 1, "late")
    core.touched(seat.core)
    assert [one["type"] for one in said(core, link)] == ["message"]
    with pytest.raises(ValueError, match="4096"):
        core.job_progress(seat.core, "j_1_1", 1, "x" * 5000)


def test_kinds_are_said_and_bounded() -> None:
    """What signald would refuse is refused here."""
    core = WorkerCore(["ws://h"], instance_id="i", entropy=SeededEntropy(1), jobs=["a", "*"])
    assert said(core, core.opened("ws://h/v1/worker", 0.0))[0]["jobs"] == ["a", "*"]
    for kinds in (["x" * 65], [""], ["a"] * 65):
        with pytest.raises(ValueError, match="kind"):
            WorkerCore(["ws://h"], instance_id="i", entropy=SeededEntropy(1), jobs=kinds)


def test_a_job_of_no_session_here_is_ignored() -> None:
    """The session was given back a moment before."""
    core, link = worker_with()
    core.receive(link, json.dumps(job("j_1_1")), 0.0)
    core.receive(link, json.dumps(assigned("s_1")), 0.0)
    assert told(core) == []


# --- at a client -------------------------------------------------------------------------------------------------------


def message(seq: int, data: bytes, attempt: int = 1, *, end: bool = False) -> Message:
    """A message of a job's stream."""
    return Message(seq, Raw(data), stream="j_1_1", attempt=attempt, end=end)


def test_a_higher_attempt_begins_anew() -> None:
    """Parts of an earlier one are not handed out, late ones neither; an end is never taken back."""
    jobs = ClientJobs()
    known = jobs.get("j_1_1")
    jobs.message("j_1_1", message(1, b'"old"'), None)
    jobs.message("j_1_1", message(2, b'"new"', 2), None)
    jobs.message("j_1_1", message(3, b'"late"'), None)
    jobs.message("j_1_1", message(4, b"null", 2, end=True), None)
    taken = [jobs.take(known), jobs.take(known)]
    assert [part and (part.attempt, part.data) for part in taken] == [(2, "new"), None]
    assert known.over
    jobs.state(JobStateChanged("j_1_1", "succeeded", 2))
    jobs.state(JobStateChanged("j_1_1", "running", 3))
    assert (known.state, known.attempt) == ("succeeded", 2)


def test_what_a_client_keeps_is_bounded() -> None:
    """Jobs by number, those that are over first; parts by bytes, those of the oldest job first."""
    jobs = ClientJobs()
    live = jobs.get("live")
    for number in range(2 * KEPT_MAX):
        jobs.state(JobStateChanged(f"j_1_{number}", "failed", 1))
    assert jobs.get("live") is live
    big, last = b"x" * (PARTS_BYTES_MAX // 2), jobs.get("j_1_1")
    for seq in range(1, 4):
        jobs.message("live", message(seq, b""), big)
    jobs.message("j_1_1", message(4, b"1"), None)
    assert jobs.take(live) is None
    part = jobs.take(last)
    assert part is not None
    assert part.data == 1


def test_own_messages_are_finished_in_their_turn() -> None:
    """A message that the application has taken and not finished with is not acked by one of a job behind it."""
    core = SessionCore(None, SeededEntropy(1))
    core.is_own = lambda one: one.stream is not None
    core.receive(Message(1, Raw(b'"plain"')), None)
    core.receive(message(2, b'"part"'), None)
    taken = core.take()
    assert taken is not None
    core.receive(message(3, b'"part"'), None)
    assert core.finished == 0
    assert core.finish(taken.seq)
    assert (core.finished, core.take()) == (3, None)
    core.receive(message(4, b'"part"'), None)
    assert core.finished == 4
