"""Sessions for the HTTP API: see `signald.http.api.sessions`, whose protocol this implements.

Each answer comes from the store, so that any node gives it. A session that is begun here has no client: it stands in no line, and ends
with its time to live, as does one whose client is away.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from signald.core import tokens
from signald.core.callers import Access, Caller
from signald.core.head import Head
from signald.core.holders import principal_holder
from signald.core.session import Session
from signald.core.wants import subject_of
from signald.errors import OperationRefused, StoreUnavailable
from signald.http.api.sessions import MadeSession, NewSession, SessionJob, ShownPeer, ShownSession, ShownSessions
from signald.http.api.times import rfc3339
from signald.ids import job_id, new_nonce, new_session_id
from signald.net.admission import share
from signald.service.auth import Principal
from signald.service.events import SessionCreated
from signald.service.parts import Parts
from signald.service.pasts import take_back
from signald.store.base import Behind, Refused, Result
from signald.store.registry.ops import Hold, KeepAlive, ListSessionsOf
from signald.store.session.jobs.ops import JobList, ListChangedJobs
from signald.store.session.ops import CreateSession, ReadSession, SessionRead

_object = msgspec.json.Decoder(dict[str, Raw]).decode

JOBS_MAX = 200
"""Jobs shown with a session: those that its client is told of when it resumes."""


class HttpSessions:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._parts = parts

    @property
    def json_depth_max(self) -> int:
        """As deep as an opening message may be."""
        return self._context.config.limits.json_depth_max

    async def read(self, session: str, access: Access) -> ShownSession:
        """Show a session. Raises OperationRefused when there is none that `access` allows."""
        (shown,) = await self._read([session], access)
        if shown is None:
            raise unknown_session(session)
        return shown

    async def of_subject(
        self, caller: Caller, subject: str, tenant: str | None, after: str, limit: int
    ) -> ShownSessions:
        """Show the sessions of a subject in order of their ids, `limit` at most, behind `after`."""
        principal = _principal(caller, subject, tenant)
        listed = await self._context.committer.call(ListSessionsOf(principal_holder(principal), after, limit))
        names = listed.sessions
        # One that has ended since, or that an earlier release has left in the index, is left out.
        shown = [one for one in await self._read(names, Access(owner=principal)) if one is not None]
        return ShownSessions(shown, names[-1] if len(names) == limit else UNSET)

    async def _read(self, names: Sequence[str], access: Access) -> list[ShownSession | None]:
        """Read sessions; None for one that there is not, or that `access` does not allow."""
        since_ms = self._context.now_ms() - self._context.ttl_ms
        asked = [
            op for name in names for op in (ReadSession(name, access), ListChangedJobs(name, 0, since_ms, JOBS_MAX))
        ]
        found = await self._context.committer.call_many(asked)
        return [self._shown(name, *found[2 * place : 2 * place + 2]) for place, name in enumerate(names)]

    async def create(self, caller: Caller, new: NewSession) -> MadeSession:
        """Begin a session whose client is still to come. Raises OperationRefused when there are too many."""
        context = self._context
        principal = _principal(caller, new.subject, None if new.tenant is UNSET else new.tenant)
        session, now = new_session_id(context.entropy), context.now_ms()
        until = now + context.ttl_ms
        await self._hold(session, principal, until, now)
        token, token_hash = tokens.issue(session, context.entropy)
        create = CreateSession(
            session, "", new_nonce(context.entropy), principal, new.want, bytes(new.meta), False, token_hash, now,
            context.ttl_ms, new.pair, context.events_max,
        )  # fmt: skip
        made = await context.committer.call_many(
            [KeepAlive((session,), until), create], undo=take_back(context, session)
        )
        if not isinstance(made[1], Head):
            raise StoreUnavailable("a session with this id exists")
        context.untold.note(session)
        context.events.emit(SessionCreated(session))
        api = self._parts.api_tokens.make("client", session, principal)
        return MadeSession(session, token, context.ttl_ms, api.text, api.ttl_ms)

    async def _hold(self, session: str, principal: str, until_ms: int, now_ms: int) -> None:
        """Count a new session in the store. Raises OperationRefused when there are too many."""
        context = self._context
        limits, admission = context.config.limits, context.config.admission
        holder_max = share(limits.sessions_max, admission.address_share)
        holders = tuple(holder for holder in (principal_holder(principal),) if holder)
        held = await context.committer.call(Hold(session, holders, limits.sessions_max, holder_max, until_ms, now_ms))
        if isinstance(held, Refused) and held.reason == "sessions":
            context.counts.sessions_refused["store"] += 1
            raise OperationRefused("full", "busy", "there are too many sessions in all")
        if isinstance(held, Refused):
            context.counts.sessions_refused["share"] += 1
            raise OperationRefused("share", "busy", "this subject has too many sessions")

    async def end(self, session: str, access: Access) -> None:
        """End a session. Raises OperationRefused as `read`."""
        await self.read(session, access)  # to whom a session belongs never changes
        if not await self._parts.endings.by_order(session, "ended over HTTP", "api"):
            raise unknown_session(session)

    def _shown(self, session: str, read: Result, jobs: Result) -> ShownSession | None:
        if isinstance(read, Behind):
            raise StoreUnavailable(f"the record of {session} cannot be read now")
        if not isinstance(read, SessionRead):
            return None
        head, now_ms = read.head, self._context.now_ms()
        online = head.client_node == self._context.node or head.client_node in self._context.cluster.nodes
        known: Session[object] = Session(head, 0, 0)
        return ShownSession(
            session=session,
            subject=subject_of(head.principal),
            node=head.client_node if online else None,
            created_at=rfc3339(head.created_ms),
            connected_at=rfc3339(read.connected_ms) if read.connected_ms else None,
            # Of a client whose node is gone nothing is known since it attached there.
            last_seen_at=rfc3339(now_ms if online else read.connected_ms if head.client_node else read.away_ms),
            presence="online" if online else "away",
            peer=ShownPeer(known.peer_state, head.worker or UNSET) if head.pair else ShownPeer("none"),
            rooms=self._parts.rooms.rooms_of(known.id),
            settings=_settings(head.settings),
            jobs=[
                SessionJob(job_id(known.id, job.n), job.state, job.attempt)
                for job in (jobs.jobs if isinstance(jobs, JobList) else ())
            ],
        )


def _settings(answered: bytes) -> dict[str, Raw]:
    """Return what the core server has answered for a session. Its client and worker get any JSON; here only an object has a place."""
    try:
        return _object(answered)
    except msgspec.DecodeError:
        return {}


def _principal(caller: Caller, subject: str, tenant: str | None) -> str:
    """Return the name of the principal that a service means by `subject`, whose tenant a service that is bound to one need not say.

    Raises OperationRefused when the service is bound to another tenant.
    """
    if caller.tenant is not None and tenant not in (None, caller.tenant):
        raise OperationRefused("forbidden", "forbidden", "this credential is bound to another tenant")
    return Principal(subject, "client", caller.tenant if caller.tenant is not None else tenant).name


def unknown_session(session: str) -> OperationRefused:
    """Return the refusal of a session that there is not, or that the caller may not touch."""
    # Of a session that its credential does not cover, a program does not even learn that there is one.
    return OperationRefused("unknown", "unknown-session", f"there is no session {session}: it has ended, or never was")
