"""Jobs over HTTP: submitted, shown, listed, waited for, followed and cancelled. See `docs/http.md`.

    POST   /v1/jobs                 a job of a session
    GET    /v1/jobs                 those of a session
    GET    /v1/jobs/{job}           one; with `Prefer: wait` as soon as it has ended
    GET    /v1/jobs/{job}/result    the bytes of its result
    GET    /v1/jobs/{job}/events    what its worker says, as server-sent events (job_events.py)
    DELETE /v1/jobs/{job}           cancel it

The id of a job contains that of its session, so a request for a job needs nothing else. The session is judged in the store's step.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Protocol

import msgspec
import trio
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.core.callers import Access, Caller, CallerKind
from signald.errors import StoreUnavailable
from signald.http.api import refusals
from signald.http.api.app import trace_of
from signald.http.api.auth import caller_of, session_of
from signald.http.api.blobs import CONDITIONS, ELSEWHERE, PART, UNCHANGED, Blobs, blob_answer
from signald.http.api.bodies import read_body
from signald.http.api.describe import Answer, Header, Operation, described, json_answer
from signald.http.api.job_events import EVENTS_MEDIA, Follow, events_answer
from signald.http.api.job_views import Event, JobRefused, Refusal, Result, ShownJob, ShownJobs, Submission, Submitted
from signald.http.api.reading import JSON, Headers, JsonBody, Path, Query, RawBody, media_type
from signald.http.problem_details import HttpProblem
from signald.ids import SessionId, parse_job
from signald.wire.fields import KIND_MAX, SEQ_MAX
from signald.wire.messages import CONTENT_TYPE_MAX, JobState

ENVELOPE_BYTES = 1024
"""What the JSON around an input may have: a kind, a session and a deadline."""

PAGE_MAX = 200
"""Jobs of one page."""

WAIT_MAX_S = 60
"""Longest `Prefer: wait`: shorter than the patience of usual proxies."""

RETRY_S = 1

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)

Kind = Annotated[
    str, Meta(min_length=1, max_length=KIND_MAX, description="What is to be done, by the word of the worker.")
]
Deadline = Annotated[
    int, Meta(ge=1, le=31_536_000_000, description="Milliseconds from now; the job is expired when they are over.")
]
Session = Annotated[str, Meta(max_length=64, description="The session, for a service or a person.")]


# --- what is asked ------------------------------------------------------------------------------------------------


class NewJob(Struct, frozen=True):
    """A job to be done, with JSON as its input."""

    kind: Kind
    data: Raw = Raw(b"null")
    deadline_ms: Deadline | UnsetType = UNSET
    session: Session | UnsetType = UNSET


class OfNewJob(Struct, frozen=True):
    """What stands in the query beside an input that is no JSON."""

    kind: Kind
    deadline_ms: Deadline | UnsetType = UNSET
    session: Session | UnsetType = UNSET


class OfSession(Struct, frozen=True):
    """The session that a request names."""

    session: Session | UnsetType = UNSET


class SubmitHeaders(Struct, frozen=True, rename="kebab"):
    """Header fields of a submission."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255, pattern="^[\\x21-\\x7e]+$")]
    prefer: Annotated[str, Meta(description="`wait=N`: wait up to N seconds, at most 60, for the end.")] = ""


class WaitHeaders(Struct, frozen=True, rename="kebab"):
    """Header fields of a look at a job."""

    prefer: Annotated[str, Meta(description="`wait=N`: wait up to N seconds, at most 60, for the end.")] = ""


class EventHeaders(Struct, frozen=True, rename="kebab"):
    """Header fields of a reader of events."""

    last_event_id: Annotated[str, Meta(max_length=32, description="The `id` of the last event it has.")] = ""


class OneJob(Struct, frozen=True):
    """The id of a job."""

    job: Annotated[str, Meta(pattern="^j_[a-z2-7]{24}_[1-9][0-9]{0,14}$")]


class Listed(Struct, frozen=True):
    """A page of jobs."""

    state: JobState | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Jobs of a page.")] = 50
    after: Annotated[int, Meta(ge=1, le=SEQ_MAX, description="`next` of the page before.")] | UnsetType = UNSET
    session: Session | UnsetType = UNSET


# --- what the service does ----------------------------------------------------------------------------------------


class Jobs(Follow, Protocol):
    """The operations of the service. They raise JobRefused and StoreUnavailable."""

    @property
    def json_depth_max(self) -> int:
        """The nesting that the JSON of a body may have."""

    @property
    def input_bytes_max(self) -> int:
        """The bytes that an input may have."""

    async def exists(self, session: SessionId, access: Access) -> bool:
        """Tell whether there is such a session for this caller."""

    async def submit(self, asked: Submission) -> Submitted:
        """Store a job, or find the one that was stored with the same key."""

    async def read(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Show a job."""

    async def wait(self, session: SessionId, n: int, access: Access, wait_s: float, until: trio.Event) -> ShownJob:
        """Show a job as soon as it has ended, `wait_s` are over, or `until` is set."""

    async def listed(self, session: SessionId, access: Access, state: str, before: int, limit: int) -> ShownJobs:
        """Show jobs of a session with numbers below `before` (0: all)."""

    async def result(self, session: SessionId, n: int, access: Access) -> Result:
        """Return the bytes of a result."""

    async def cancel(self, session: SessionId, n: int, access: Access) -> ShownJob:
        """Cancel a job."""


_PROBLEMS: dict[Refusal, tuple[int, str, str]] = {
    "no_session": (404, "unknown-session", "there is no such session: it has ended, or never was"),
    "no_job": (404, "unknown-job", "the session never had this job"),
    "gone": (410, "job-gone", "the job was, and is kept no longer"),
    "key_taken": (422, "key-reused", "this Idempotency-Key was used for another request"),
    "key_in_use": (409, "key-in-use", "the first request with this Idempotency-Key is being stored"),
    "too_big": (413, "too-large", "the input is longer than jobs.input_bytes_max"),
    "full": (429, "jobs-full", "the session has as many unfinished jobs as it may have"),
    "unfinished": (409, "job-unfinished", "the job has not ended"),
    "no_result": (404, "no-result", "the job has not succeeded"),
}


@contextmanager
def as_problems() -> Iterator[None]:
    """Within the block, a refusal and a store that does not answer become an HttpProblem."""
    try:
        with refusals.as_problems():
            yield
    except JobRefused as refused:
        status, kind, detail = _PROBLEMS[refused.because]
        members: dict[str, object] = {}
        if refused.job is not None:
            members["state"] = refused.job.state
            if refused.job.error is not UNSET:
                members["error"] = msgspec.json.decode(refused.job.error)
        problem = HttpProblem(status, kind, detail, **members)
        raise problem.with_headers(retry_after=str(RETRY_S)) if status in (409, 429) else problem from None


# --- operations ---------------------------------------------------------------------------------------------------

ONE, LIST_QUERY, NEW, RAW_QUERY = Path(OneJob), Query(Listed), JsonBody(NewJob), Query(OfNewJob)
SUBMIT_HEADERS, WAIT_HEADERS, EVENT_HEADERS = Headers(SubmitHeaders), Headers(WaitHeaders), Headers(EventHeaders)
SESSION_QUERY = Query(OfSession)

APPLIED = Header("The wait that was granted.", always=False)
ACCEPTED = Answer(
    202, "The job is stored.", ShownJob,
    headers={
        "Location": Header("Where it is shown."),
        "Retry-After": Header("Seconds.", "integer"),
        "Idempotency-Replayed": Header("`true`: an earlier request with the same key has made it.", always=False),
        "Preference-Applied": APPLIED,
    },
)  # fmt: skip
ENDED = Answer(200, "The job, which has ended in time.", ShownJob, headers={"Preference-Applied": APPLIED})
SHOWN = Answer(200, "The job.", ShownJob, headers={"Preference-Applied": APPLIED})
PAGE = Answer(200, "The jobs.", ShownJobs)
BYTES = Answer(200, "The bytes of the result, with their own content type.", bytes, "*/*")
EVENTS = Answer(200, "Events, the last of which is `end`.", Event, EVENTS_MEDIA)
NO_MORE = Answer(204, "The reader has the last event.")
CANCELLING = Answer(202, "Its worker has been asked to end it.", ShownJob)
CANCELLED = Answer(200, "It has ended.", ShownJob)

OF_ITS_USER: frozenset[CallerKind] = frozenset({"client", "person", "service"})

SUBMIT = Operation(
    name="submitJob", method="POST", path="/v1/jobs", tag="jobs", summary="Submit a job",
    about="With another content type than JSON the body is the input, and `kind`, `deadline_ms` and `session` stand in the query. "
    "A key is good for `jobs.keep_s` (3600 s by default), and for as long as its job is kept.",
    callers=OF_ITS_USER, scope="jobs", parameters=(SUBMIT_HEADERS, SESSION_QUERY),
    bodies=(NEW, RawBody("The input of the job.")),
    answers=(ACCEPTED, ENDED), problems=frozenset({404, 409, 413, 422}),
)  # fmt: skip
LIST = Operation(
    name="listJobs", method="GET", path="/v1/jobs", tag="jobs", summary="List the jobs of a session",
    callers=OF_ITS_USER, scope="jobs", parameters=(LIST_QUERY,), answers=(PAGE,), problems=frozenset({404}),
)  # fmt: skip
READ = Operation(
    name="readJob", method="GET", path="/v1/jobs/{job}", tag="jobs", summary="Show a job",
    callers=OF_ITS_USER, scope="jobs", parameters=(ONE, WAIT_HEADERS), answers=(SHOWN,),
    problems=frozenset({404, 410}),
)  # fmt: skip
RESULT = Operation(
    name="readJobResult", method="GET", path="/v1/jobs/{job}/result", tag="jobs", summary="Read the result of a job",
    about="A result that is a blob is answered as the blob itself, with a part and conditions as there.",
    callers=OF_ITS_USER, scope="jobs", parameters=(ONE, CONDITIONS), answers=(BYTES, PART, UNCHANGED, ELSEWHERE),
    problems=frozenset({404, 409, 410, 412, 416, 501}),
)  # fmt: skip
FOLLOW = Operation(
    name="followJob", method="GET", path="/v1/jobs/{job}/events", tag="jobs", summary="Follow a job",
    callers=OF_ITS_USER, scope="jobs", parameters=(ONE, EVENT_HEADERS), answers=(EVENTS, NO_MORE),
    problems=frozenset({404, 410}),
)  # fmt: skip
CANCEL = Operation(
    name="cancelJob", method="DELETE", path="/v1/jobs/{job}", tag="jobs", summary="Cancel a job",
    callers=OF_ITS_USER, scope="jobs", parameters=(ONE,), answers=(CANCELLING, CANCELLED),
    problems=frozenset({404, 410}),
)  # fmt: skip


def wait_of(prefer: str) -> int:
    """Return for how many seconds `Prefer` asks to wait; 0: not."""
    found = _WAIT.search(prefer)
    return min(int(found[1]), WAIT_MAX_S) if found else 0


def _applied(wait_s: int) -> dict[str, str]:
    return {"preference-applied": f"wait={wait_s}"} if wait_s else {}


def _named(asked: str | UnsetType, also: str | UnsetType = UNSET) -> str | None:
    return asked if isinstance(asked, str) else also if isinstance(also, str) else None


def _of_job(request: Request, caller: Caller) -> tuple[SessionId, int, Access]:
    """Return the session and the number of the job of a request, and what the caller may do there. Raises HttpProblem."""
    parsed = parse_job(ONE.read(request).job)
    if parsed is None:
        raise HttpProblem(404, "unknown-job", "this is no id of a job")
    session, access = session_of(caller, parsed[0])
    return session, parsed[1], access


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


class _Submitting:
    """A submission that is read: what it names is judged before what is wrong with it."""

    def __init__(self, request: Request, caller: Caller, body: bytes, depth_max: int) -> None:
        self.request = request
        self.body = body
        self.is_json = media_type(request) in (JSON, "")
        self.new: NewJob | OfNewJob | None = None
        self.headers: SubmitHeaders | None = None
        self.wrong: HttpProblem | None = None
        try:
            self.new = NEW.decode(body, depth_max) if self.is_json else RAW_QUERY.read(request)
            # A session that the document does not allow is refused, also where the body names another one.
            SESSION_QUERY.read(request)
            self.headers = SUBMIT_HEADERS.read(request)
        except HttpProblem as problem:
            self.wrong = problem
        query = request.query_params.get("session")
        asked = _named(self.new.session if self.new is not None else UNSET, query if query is not None else UNSET)
        self.session, self.access = session_of(caller, asked)

    def submission(self) -> Submission:
        """Return what is to be stored."""
        new, headers = self.new, self.headers
        assert new is not None
        assert headers is not None
        content_type = self.request.headers.get("content-type", "")
        data = bytes(new.data) if isinstance(new, NewJob) else self.body
        return Submission(
            self.session,
            self.access,
            _digest(b"POST", b"/v1/jobs", headers.idempotency_key.encode()),
            _digest(content_type.encode(), self.request.url.query.encode(), self.body),
            new.kind,
            data,
            "" if self.is_json else content_type[:CONTENT_TYPE_MAX],
            new.deadline_ms if isinstance(new.deadline_ms, int) else None,
            trace_of(self.request.scope),
        )


def routes(jobs: Jobs, blobs: Blobs) -> list[BaseRoute]:
    """Return the routes of jobs. A result may be one of `blobs`."""

    async def submit(request: Request) -> Response:
        caller = await caller_of(request)
        asked = _Submitting(request, caller, await read_body(request), jobs.json_depth_max)
        with as_problems():
            if asked.wrong is not None:
                if not await jobs.exists(asked.session, asked.access):
                    raise JobRefused("no_session")
                raise asked.wrong
            made = await jobs.submit(asked.submission())
        return await _accepted(request, jobs, asked, made)

    async def listed(request: Request) -> Response:
        caller, asked = await caller_of(request), LIST_QUERY.read(request)
        session, access = session_of(caller, _named(asked.session))
        state = asked.state if isinstance(asked.state, str) else ""
        before = asked.after if isinstance(asked.after, int) else 0
        with as_problems():
            return json_answer(PAGE, await jobs.listed(session, access, state, before, asked.limit))

    async def read(request: Request) -> Response:
        session, n, access = _of_job(request, await caller_of(request))
        wait_s = wait_of(WAIT_HEADERS.read(request).prefer)
        with as_problems():
            job = await jobs.wait(session, n, access, wait_s, request.app.state.draining)
        return json_answer(SHOWN, job, _applied(wait_s))

    async def result(request: Request) -> Response:
        caller = await caller_of(request)
        session, n, access = _of_job(request, caller)
        with as_problems():
            found = await jobs.result(session, n, access)
        if found.blob:
            return await blob_answer(request, blobs, found.blob, session, access, caller)
        # Bytes of a party must not run in a page of this host.
        headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
        return Response(found.data, 200, headers, media_type=found.content_type)

    async def follow(request: Request) -> Response:
        session, n, access = _of_job(request, await caller_of(request))
        after = EVENT_HEADERS.read(request).last_event_id
        with as_problems():
            return await events_answer(jobs, session, n, access, after, request.app.state.draining)

    async def cancel(request: Request) -> Response:
        session, n, access = _of_job(request, await caller_of(request))
        with as_problems():
            job = await jobs.cancel(session, n, access)
        return json_answer(CANCELLED if job.over else CANCELLING, job)

    bounds: dict[str, Callable[[], int]] = {"/v1/jobs": lambda: jobs.input_bytes_max + ENVELOPE_BYTES}
    return described(
        (SUBMIT, submit), (LIST, listed), (READ, read), (CANCEL, cancel), (RESULT, result), (FOLLOW, follow),
        body_bytes_max=bounds,
    )  # fmt: skip


async def _accepted(request: Request, jobs: Jobs, asked: _Submitting, made: Submitted) -> Response:
    """Answer for a job that is stored: with its end, when it comes in the time that the caller waits."""
    assert asked.headers is not None
    wait_s, now = wait_of(asked.headers.prefer), made.now
    headers = {"location": f"/v1/jobs/{made.first.job}", "retry-after": str(RETRY_S), **_applied(wait_s)}
    if made.replayed:
        headers["idempotency-replayed"] = "true"
    if wait_s and not now.over:
        now = await _wait_stored(request, jobs, asked, now, wait_s)
    if wait_s and now.over:
        return json_answer(ENDED, now, headers)
    return json_answer(ACCEPTED, made.first, headers)


async def _wait_stored(request: Request, jobs: Jobs, asked: _Submitting, job: ShownJob, wait_s: int) -> ShownJob:
    """Wait for a job that is stored. What goes wrong with that is no failure of the submission."""
    parsed = parse_job(job.job)
    if parsed is None:
        return job
    try:
        return await jobs.wait(parsed[0], parsed[1], asked.access, wait_s, request.app.state.draining)
    except (JobRefused, StoreUnavailable):
        return job
