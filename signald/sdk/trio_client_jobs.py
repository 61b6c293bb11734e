"""The jobs of a client, on Trio: submitted and read over HTTP at the node of its connection, told over the connection."""

import re
from collections.abc import AsyncIterator
from ssl import SSLContext
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import msgspec
import trio
from msgspec import UNSET, Raw, Struct, UnsetType

from signald.ids import job_of
from signald.sdk.backoff import Backoff
from signald.sdk.client_core import ClientCore
from signald.sdk.client_jobs import OVER, ClientJob, JobPart
from signald.sdk.errors import ApiRefused, JobFailed, SessionGone
from signald.sdk.requests import Answer, NoAnswer, OpenStream, ask, origin
from signald.sdk.values import check_text, read, readable, write
from signald.wire.messages import CONTENT_TYPE_MAX, KIND_MAX

REQUEST_S = 20.0
"""For a whole request: above the time in which a node answers that its store is away (503)."""

RETRIES = Backoff(base_s=0.2, cap_s=5.0)
"""The waits between requests: short, because the next node of a deploy is there at once."""

TRIES_AFTER_END = 5
"""Requests for a job after the end of the session: its node may be gone as well, and no connection finds another one."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class _Shown(Struct, frozen=True):
    """A job as HTTP shows it."""

    job: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    result: Raw | UnsetType = UNSET
    result_url: str | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _OfClient(Protocol):
    """What jobs need of their client."""

    _core: ClientCore
    _ssl_context: SSLContext | None


class Jobs:
    """The requests of one client for its jobs."""

    def __init__(self, client: _OfClient, open_stream: OpenStream) -> None:
        self._client = client
        self._open_stream = open_stream
        self._url = ""
        self.news = trio.lowlevel.ParkingLot()
        """Unparked when a job may have changed, and at the end of the session."""

    @property
    def core(self) -> ClientCore:
        """The client's core."""
        return self._client._core

    async def submit(
        self, kind: str, data: Any, key: str | None, deadline_s: float | None, content_type: str | None
    ) -> "Job":
        """Submit a job; see `Client.submit`."""
        check_text("kind", kind, KIND_MAX, 1)
        check_text("content_type", content_type, CONTENT_TYPE_MAX, 1)
        if key is None:
            key = self.core.entropy.token_bytes(16).hex()
        elif not _KEY.fullmatch(key):
            raise ValueError("`key` has 1 to 255 visible characters")
        asked: dict[str, object] = {"kind": kind}
        if deadline_s is not None:
            asked["deadline_ms"] = max(1, round(deadline_s * 1000))
        headers = {"idempotency-key": key}
        if isinstance(data, bytes | bytearray | memoryview):
            target, body = "/v1/jobs?" + urlencode(asked), bytes(data)
            headers["content-type"] = content_type or "application/octet-stream"
        else:
            # The object of the body is the first level.
            asked["data"] = Raw(write(data, self.core.bounds.json_depth_max - 1))
            target, body = "/v1/jobs", msgspec.json.encode(asked)
            headers["content-type"] = "application/json"
        answer = await self.request("POST", target, headers, body)
        name = answer.json().get("job")
        if not isinstance(name, str) or not job_of(self.core.session_id or "", name):
            raise ApiRefused(answer.status, "about:blank", "not an answer of signald", "")
        return Job(self, name)

    async def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Ask until there is an answer; return it when it is one of success.

        Raises:
            ApiRefused: it is another one, and asking again would not help.
            SessionGone: the session is over, and no node answers.
        """
        tries = 0
        while True:
            core = self.core
            if core.current is not None:
                self._url = origin(core.current.url)
            token = core.credentials.api_token or ""
            said = {"authorization": f"Bearer {token}", **(headers or {})}
            hint_s: float | None = None
            try:
                answer = await ask(
                    self._open_stream, self._url, method, target,
                    headers=said, body=body, ssl_context=self._client._ssl_context, timeout_s=REQUEST_S,
                )  # fmt: skip
            except NoAnswer:
                pass
            else:
                if 200 <= answer.status < 300:
                    return answer
                # A token that has run out while there was no connection: the next connection brings another one.
                stale = answer.status == 401 and (core.credentials.api_token != token or core.current is None)
                if not stale and not _is_passing(answer):
                    raise _refused(answer)
                hint_s = answer.retry_after_s
            if core.over is not None and tries >= TRIES_AFTER_END:
                raise core.failure() or SessionGone(core.over.code, core.over.reason)
            wait_s = RETRIES.delay_s(tries, core.entropy)
            tries += 1
            await trio.sleep(wait_s if hint_s is None else RETRIES.hinted_s(hint_s, core.entropy))

    async def shown(self, name: str) -> _Shown:
        """Read a job over HTTP."""
        answer = await self.request("GET", f"/v1/jobs/{name}")
        try:
            return msgspec.json.decode(answer.body, type=_Shown)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ApiRefused(answer.status, "about:blank", "not an answer of signald", "") from None


def _is_passing(answer: Answer) -> bool:
    kind = str(answer.json().get("type", ""))
    if answer.status == 409:
        return kind.endswith("key-in-use")
    return answer.status in _AGAIN and not kind.endswith("jobs-full")


def _refused(answer: Answer) -> ApiRefused:
    problem = answer.json()
    kind, title, detail = (str(problem.get(name, ""))[:500] for name in ("type", "title", "detail"))
    return ApiRefused(answer.status, kind or "about:blank", title, detail)


class Job:
    """A job of this client; made by `Client.submit` and `Client.job`."""

    def __init__(self, jobs: Jobs, name: str) -> None:
        self._jobs = jobs
        self.id = name
        self._known: ClientJob = jobs.core.jobs.get(name)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self.state!r}, attempt={self.attempt})"

    @property
    def state(self) -> str:
        """`queued`, `running`, `succeeded`, `failed`, `cancelled` or `expired`, as far as it was told."""
        return self._known.state

    @property
    def attempt(self) -> int:
        """How often it was given to a worker, the present time included."""
        return self._known.attempt

    @property
    def progress(self) -> Any:
        """What the worker has said last of how far it is, or None.

        Raises:
            Unreadable: it cannot be read here.
        """
        return readable(self._known.progress)

    async def result(self) -> Any:
        """Wait for the end of the job; return its result, JSON or bytes.

        Raises:
            JobFailed: it has ended otherwise than by success.
            ApiRefused: it is kept no longer.
            SessionGone: the session is over, and no node tells of its jobs.
            Unreadable: the result cannot be read here.
        """
        core, tries = self._jobs.core, 0
        while True:
            while not self._known.over and core.over is None:
                await self._jobs.news.park()
            shown = await self._jobs.shown(self.id)
            if shown.state in OVER:
                self._known.state = shown.state
                return await self._of(shown)
            if core.over is not None:
                raise core.failure() or SessionGone(core.over.code, core.over.reason)
            await trio.sleep(RETRIES.delay_s(tries, core.entropy))
            tries += 1

    async def _of(self, shown: _Shown) -> Any:
        if shown.state != "succeeded":
            error = read(shown.error) if isinstance(shown.error, Raw) else None
            said = error if isinstance(error, dict) else {}
            raise JobFailed(self.id, shown.state, str(said.get("code", "")), str(said.get("message", "")))
        if shown.result_url is not UNSET:
            return (await self._jobs.request("GET", f"/v1/jobs/{self.id}/result")).body
        return readable(read(shown.result)) if isinstance(shown.result, Raw) else None

    async def cancel(self) -> None:
        """Ask for the end of the job; `result` tells what came of it. It may have ended already.

        Raises:
            ApiRefused: it is kept no longer.
            SessionGone: the session is over, and no node answers.
        """
        await self._jobs.request("DELETE", f"/v1/jobs/{self.id}")

    async def __aiter__(self) -> AsyncIterator[JobPart]:
        """Yield the parts of the result as they come, until the end of the job or of the session. One reader."""
        jobs, known = self._jobs.core.jobs, self._known
        while True:
            while (part := jobs.take(known)) is not None:
                yield part
            if known.over or self._jobs.core.over is not None:
                return
            await self._jobs.news.park()
