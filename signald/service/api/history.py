"""Chat histories and streams for the HTTP API: see `signald.http.api.history`, whose protocol this implements."""

import msgspec
from msgspec import UNSET, Raw, Struct

from signald.core.callers import Access
from signald.core.chat_history import HistoryEntry
from signald.errors import OperationRefused, StoreUnavailable
from signald.http.api.history import ShownEntry, ShownHistory
from signald.http.api.times import rfc3339
from signald.ids import parse_job
from signald.service.api.sessions import unknown_session
from signald.service.parts import Parts
from signald.store.base import Behind, Done, Result
from signald.store.damage import REPORTS
from signald.store.session.jobs.ops import CancelJob, JobGone, JobRead, NoJob
from signald.store.session.ops import History, ReadHistory
from signald.store.session.streams.ops import NoStream
from signald.wire import records


class _Message(Struct, frozen=True, gc=False):
    """What a plain message of the history has beside its seq."""

    data: Raw
    kind: str | None = None
    blob: str | None = None


_message = msgspec.json.Decoder(_Message)


class HttpHistories:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._context = parts.context

    @property
    def json_depth_max(self) -> int:
        """As deep as an opening message may be."""
        return self._context.config.limits.json_depth_max

    async def history(self, session: str, access: Access, before: int, limit: int) -> ShownHistory:
        """Show a page of the chat history, also of a session that has ended, as long as it is kept.

        Raises OperationRefused when there is no session that `access` allows.
        """
        now = self._context.now_ms()
        history = await self._context.committer.call(ReadHistory(session, limit, before, access, now))
        if isinstance(history, Behind):
            raise StoreUnavailable(f"the record of {session} cannot be read now")
        if not isinstance(history, History):
            raise unknown_session(session)
        shown = [one for entry in history.entries if (one := _shown(session, entry)) is not None]
        more = history.more and history.entries
        return ShownHistory(entries=shown, next=str(history.entries[0].number) if more else UNSET)

    async def cancel_stream(self, session: str, access: Access, stream: str, reason: str) -> None:
        """Ask the worker to end a stream; on the id of a job, cancel the job. Raises OperationRefused when there is no such thing."""
        context = self._context
        job = parse_job(stream)
        result: Result
        if job is not None and job[0] == session:
            timeout_ms = round(context.config.jobs.cancel_timeout_s * 1000)
            cancel = CancelJob(session, job[1], access, context.node, timeout_ms, context.now_ms())
            result = await context.committer.call(cancel)
        else:
            result = await self._parts.attachments.streams.cancel_for(session, stream, reason, access)
        if isinstance(result, JobRead):
            self._parts.jobs.changed(session, result.job)
        if isinstance(result, Done | JobRead):
            return
        if isinstance(result, NoStream | NoJob | JobGone):
            raise OperationRefused("unknown", "unknown-stream", f"the session has no stream {stream}")
        raise unknown_session(session)


def _shown(session: str, entry: HistoryEntry) -> ShownEntry | None:
    at = rfc3339(entry.at_ms) if entry.at_ms else None
    if entry.stream:
        return ShownEntry(
            sender=entry.party,
            seq=entry.seq,
            data=Raw(b'"' + entry.data + b'"'),
            at=at,
            kind=entry.kind or UNSET,
            stream=entry.stream,
            attempt=entry.attempt,
            open=entry.open,
            outcome=entry.outcome or UNSET,
            truncated=entry.truncated,
        )
    try:
        message = _message.decode(records.parts(entry.body)[0])
    except msgspec.MsgspecError:
        REPORTS.tell("chat history", session)
        return None
    kind, blob = message.kind, message.blob
    return ShownEntry(
        sender=entry.party,
        seq=entry.seq,
        data=message.data,
        at=at,
        kind=UNSET if kind is None else kind,
        blob=UNSET if blob is None else blob,
    )
