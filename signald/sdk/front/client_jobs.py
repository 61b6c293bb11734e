"""The jobs of a client: submitted and read over HTTP at the node of its connection, told over the connection."""

import re
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import urlencode

import anyio
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from signald.ids import job_of
from signald.sdk.api_core import RETRIES, not_signald
from signald.sdk.client_core import ClientCore
from signald.sdk.client_jobs import OVER, ClientJob, JobPart
from signald.sdk.errors import JobFailed, SessionGone
from signald.sdk.front.api import Api
from signald.sdk.front.waiting import Lot
from signald.sdk.requests import Bytes
from signald.sdk.values import check_text, read, readable, write
from signald.wire.fields import KIND_MAX
from signald.wire.messages import CONTENT_TYPE_MAX

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class _Shown(Struct, frozen=True):
    """A job as HTTP shows it."""

    job: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    result: Raw | UnsetType = UNSET
    result_url: str | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Jobs:
    """The requests of one client for its jobs."""

    def __init__(self, core: ClientCore, api: Api) -> None:
        self.core = core
        self.api = api
        self.news = Lot()
        """Unparked when a job may have changed, and at the end of the session."""

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
        answer = await self.api.request("POST", target, headers, Bytes(body))
        name = answer.json().get("job")
        if not isinstance(name, str) or not job_of(self.core.session_id or "", name):
            raise not_signald(answer)
        return Job(self, name)

    async def shown(self, name: str) -> _Shown:
        """Read a job over HTTP."""
        answer = await self.api.request("GET", f"/v1/jobs/{name}")
        try:
            return msgspec.json.decode(answer.body, type=_Shown)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise not_signald(answer) from None


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
            await anyio.sleep(RETRIES.delay_s(tries, core.entropy))
            tries += 1

    async def _of(self, shown: _Shown) -> Any:
        if shown.state != "succeeded":
            error = read(shown.error) if isinstance(shown.error, Raw) else None
            said = error if isinstance(error, dict) else {}
            raise JobFailed(self.id, shown.state, str(said.get("code", "")), str(said.get("message", "")))
        if shown.result_url is not UNSET:
            return (await self._jobs.api.request("GET", f"/v1/jobs/{self.id}/result")).body
        return readable(read(shown.result)) if isinstance(shown.result, Raw) else None

    async def cancel(self) -> None:
        """Ask for the end of the job; `result` tells what came of it. It may have ended already.

        Raises:
            ApiRefused: it is kept no longer.
            SessionGone: the session is over, and no node answers.
        """
        await self._jobs.api.request("DELETE", f"/v1/jobs/{self.id}")

    async def __aiter__(self) -> AsyncIterator[JobPart]:
        """Yield the parts of the result as they come, until the end of the job or of the session. One reader."""
        jobs, known = self._jobs.core.jobs, self._known
        while True:
            while (part := jobs.take(known)) is not None:
                yield part
            if known.over or self._jobs.core.over is not None:
                return
            await self._jobs.news.park()
