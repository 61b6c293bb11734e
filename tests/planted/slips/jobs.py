"""Slips in streams and jobs: in their rules, in Python and in Lua, and in what nodes do for them.

Those that name no test are noticed by seeds: what a client is shown, and the one end of a job.
"""

from tests.planted.bug import Bug

_STREAM = "signald/core/streams.py"
_STREAM_RULES = "signald/store/session/streams/rules.py"
_STREAMS_LUA = "signald/store/session/streams/streams.lua"
_CARE = "signald/service/streams.py"
_JOB = "signald/core/jobs.py"
_KEEPING = "signald/store/session/jobs/keeping.py"
_JOB_RULES = "signald/store/session/jobs/rules.py"
_JOBS_LUA = "signald/store/session/jobs/operations.lua"
_JOBS_OF_SESSION_LUA = "signald/store/session/jobs/session.lua"
_DESK = "signald/service/jobs.py"
_API = "signald/service/api/jobs.py"

_JOBS_CONTRACT = "tests/store/session/jobs/test_contract.py"
_STREAMS_CONTRACT = "tests/store/session/test_streams.py"
_OF_STREAMS = "tests/service/test_streams.py::"
_OF_JOBS = "tests/service/test_jobs.py::"


def _by(file: str, world: str) -> tuple[str, ...]:
    return (file, "-k", world)


STREAMS = (
    Bug(
        "stream-over-goes-on",
        _STREAM,
        "judge",
        "Stage.OVER if outcome else Stage.OPEN",
        "Stage.OPEN",
        "stream-prefix",
        "A stream that is over takes further pieces.",
    ),
    Bug(
        "attempt-of-a-stream-not-noted",
        _STREAM_RULES,
        "take_piece",
        "stream.attempt, stream.pieces = (mark.attempt, 0)",
        "stream.pieces = 0",
        "stream-prefix",
        "A stream that begins anew keeps its attempt: the worker that was superseded goes on in it.",
        _by(_STREAMS_CONTRACT, "memory"),
    ),
    Bug(
        "stream-that-is-spoken-in-stays-found",
        _STREAM_RULES,
        "take_piece",
        "(entry.seq, 0, mark.end)",
        "(entry.seq, stream.found, mark.end)",
        "stream-prefix",
        "A stream is interrupted although its worker goes on with it.",
        (_OF_STREAMS + "test_a_stream_in_which_the_worker_speaks_goes_on",),
    ),
    Bug(
        "stream-of-a-job-found-open",
        _STREAM_RULES,
        "find",
        "and (not stream.job)",
        "",
        "job-once",
        "The stream of a job is interrupted when the next worker does not speak in it at once.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "open-streams-never-closed",
        _CARE,
        "StreamCare.begin",
        "if seat.found:",
        "if not seat.found:",
        "liveness",
        "A stream that a worker found open, and never spoke in, stays open for ever.",
    ),
    Bug(
        "state-of-a-stream-before-its-pieces",
        _CARE,
        "StreamCare.tell",
        "if client.sent < view.last:",
        "if client.sent < 0:",
        "stream-prefix",
        "A client that reads slowly is told of the end of a stream before it has its last pieces.",
        (_OF_STREAMS + "test_a_client_that_is_behind_is_told_of_the_end_behind_the_text",),
    ),
    Bug(
        "lua-stream-over-goes-on",
        _STREAMS_LUA,
        "take_piece",
        "if stream and stream[STREAM.outcome] ~= '' then",
        "if false then",
        "twin",
        "A stream that is over takes further pieces.",
        _by(_STREAMS_CONTRACT, "redis"),
    ),
    Bug(
        "lua-stream-that-is-spoken-in-stays-found",
        _STREAMS_LUA,
        "take_piece",
        "= seq, 0, outcome",
        "= seq, stream[STREAM.found], outcome",
        "twin",
        "A stream is interrupted although its worker goes on with it.",
        _by(_STREAMS_CONTRACT, "redis"),
    ),
)

JOBS = (
    Bug(
        "attempt-of-a-job-not-raised",
        _JOB,
        "Job.move",
        "attempt=self.attempt + 1, handed=0",
        "attempt=self.attempt, handed=0",
        "job-once",
        "A job that goes to another worker keeps its attempt: what both say passes for one result.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "key-makes-another-job",
        _JOB_RULES,
        "_known",
        "n = opened.rows.job_of_key(op.session, op.key)",
        "n = 0",
        "job-once",
        "The same key makes one more job.",
    ),
    Bug(
        "request-again-is-a-replay",
        _JOB_RULES,
        "_known",
        "job.nonce != op.nonce",
        "True",
        "job-once",
        "A request that a node repeats after a lost answer is answered as a replay.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "payload-of-a-key-not-compared",
        _JOB_RULES,
        "_known",
        "if job.payload == op.payload",
        "if job.payload",
        "job-once",
        "A key that was used for another payload finds the job of the first one.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "end-of-a-job-not-held",
        _KEEPING,
        "judge_piece",
        "job.state if job.over else ''",
        "''",
        "job-once",
        "A worker goes on with the result of a job that was cancelled or has expired.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "one-worker-lost-too-many",
        _KEEPING,
        "lose_worker",
        "failed.failures >= failures_max",
        "failed.failures > failures_max",
        "job-once",
        "A job fails with one worker more than it may.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "jobs-outlive-their-session-unfinished",
        _KEEPING,
        "SessionJobs.finish",
        "self.end(job, JobEvent.CANCEL)",
        "pass",
        "job-once",
        "A job of a session that has ended never ends.",
        _by(_JOBS_CONTRACT, "memory"),
    ),
    Bug(
        "change-told-too-early",
        _DESK,
        "JobDesk._say",
        "if job.behind > session.client.sent:",
        "if False:",
        "job-once",
        "A client is told of the end of a job before its last piece.",
    ),
    Bug(
        "jobs-that-a-worker-has-forgotten",
        _DESK,
        "JobDesk.returned",
        "at.known = {n: 0 for name in names if (n := job_of(session.id, name))}",
        "at.known = {}",
        "job-once",
        "A worker that comes back gets the jobs that it has, and is not told of those that have ended.",
        (_OF_JOBS + "test_resumed_worker",),
    ),
    Bug(
        "job-known-and-not-given",
        _DESK,
        "JobDesk._listed",
        "self._serve(session)",
        "pass",
        "job-once",
        "A job that the client's side has read first is given to no worker until something else happens.",
        (_OF_JOBS + "test_reaches_the_worker_when_the_client_is_told_first",),
    ),
    Bug(
        "key-in-use-for-ever",
        _API,
        "HttpJobs.submit",
        "self._storing.discard(place)",
        "pass",
        "liveness",
        "A key can be used once at each node.",
        ("tests/service/api/test_jobs.py::test_keys",),
    ),
    Bug(
        "lua-payload-of-a-key-not-compared",
        _JOBS_LUA,
        "operation.create_job",
        "known[JOB.payload] == payload and",
        "known[JOB.payload] and",
        "twin",
        "A key that was used for another payload finds the job of the first one.",
        _by(_JOBS_CONTRACT, "redis"),
    ),
    Bug(
        "lua-one-worker-lost-too-many",
        _JOBS_OF_SESSION_LUA,
        "lose_worker",
        "job[JOB.failures] >= tonumber(failures_max)",
        "job[JOB.failures] > tonumber(failures_max)",
        "twin",
        "A job fails with one worker more than it may.",
        _by(_JOBS_CONTRACT, "redis"),
    ),
)

STREAMS_AND_JOBS = (*STREAMS, *JOBS)
