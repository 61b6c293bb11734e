"""The steps that all manners of opening have in common, in their order.

The credential is judged (`credential_of`), the set-up takes a place (`SetUp`), the core server is asked for a new party (`admit`), the
store grants the claim (`make_claim`), and the connection must still be open (`still_open`). A party that does not get through a step is
`Turned` away.
"""

from collections.abc import Sequence

import attrs

from signald.core.authorising import Grant
from signald.core.holders import address_holder, principal_holder
from signald.errors import StoreUnavailable
from signald.net.admission import bearer_of_share, share
from signald.net.connection import Connection
from signald.net.ending import ConnectionClosed
from signald.service.asking import ask_holders, is_unreadable
from signald.service.auth import Role, Unauthenticated, Verified
from signald.service.context import Context
from signald.service.hooks.authorising import question_of
from signald.service.parts import Parts
from signald.service.refusals import Turned
from signald.store.base import Op, Refused, Result, Wake
from signald.store.registry.ops import Hold
from signald.wire.close_codes import CloseCode


def credential_of(parts: Parts, conn: Connection, auth: str | None, role: Role) -> Verified:
    """Authenticate a party by what its opening message or its handshake brought, and return what that says."""
    return parts.auth.identify(auth or conn.bearer, role, parts.context.now_ms() / 1000)


@attrs.frozen
class Admitted:
    """What the core server has said of a new party that may come in."""

    grant: Grant
    asked_until_ms: int
    """Until when that counts; 0: it was not asked."""


async def admit(
    parts: Parts,
    conn: Connection,
    credential: Verified,
    *,
    want: dict[str, str],
    meta: bytes = b"",
    labels: dict[str, str] | None = None,
) -> Admitted:
    """Ask the core server, if there is one, whether a new party may come in. Raises Turned, ConnectionClosed.

    Without an answer `core.on_failure` decides. State that could change during the wait is checked again: a drain that has begun
    meanwhile would send the party on at once.
    """
    context, authoriser = parts.context, parts.authoriser
    if not context.config.core.authorize_url:
        return Admitted(Grant(True), 0)
    remote = "" if conn.shared else conn.remote
    grant = await authoriser.ask(question_of(credential, remote, want=want, meta=meta, labels=labels))
    still_open(context, conn, credential, ())
    if credential.principal.role in context.refusing:
        raise Turned(CloseCode.REFUSED, "busy", "this node admits no new party any more", context.retry_after_ms())
    if grant is None:
        if context.config.core.on_failure == "closed":
            authoriser.turned_away += 1
            text = "the core server does not answer; come again"
            raise Turned(CloseCode.REFUSED, "core_unavailable", text, context.retry_after_ms())
        authoriser.let_in += 1
        return Admitted(Grant(True), context.now_ms())
    if not grant.allow:
        raise Turned(CloseCode.FORBIDDEN, "forbidden", grant.reason or "not allowed")
    return Admitted(grant, grant.until_ms(context.now_ms()))


class SetUp:
    """A place among the set-ups in progress."""

    def __init__(
        self,
        parts: Parts,
        conn: Connection,
        *,
        resume: bool,
        ticket: bool = False,
        client: str = "",
        replaces: bool = False,
    ) -> None:
        """For a party that may resume, with a `ticket` of a drain; `client` and `replaces` as in `SetupGate.enter`."""
        self._gate = parts.gate
        self._remote = "" if conn.shared else conn.remote
        self._resume = resume
        self._free = ticket
        self._client = client
        self._replaces = replaces

    def __enter__(self) -> None:
        if not self._free:
            retry_after_ms = self._gate.enter(
                resume=self._resume, remote=self._remote, principal=self._client, replaces=self._replaces
            )
            if retry_after_ms:
                raise Turned(CloseCode.REFUSED, "busy", "too many parties at once; come again", retry_after_ms)

    def __exit__(self, *_: object) -> None:
        if not self._free:
            self._gate.leave(self._remote, self._client)


def address_of(conn: Connection) -> str:
    """Return the address that the peer's shares are counted for; "" when it has none."""
    return "" if conn.shared else bearer_of_share(conn.remote)


async def hold_session(
    parts: Parts, conn: Connection, subject: str, session: str, meta_bytes: int, now_ms: int, until_ms: int
) -> None:
    """Count a new session in the store, for its client's address and principal; raises Turned when there are too many.

    Sessions that exist are never refused for it: a resume does not come here.
    """
    limits, admission = parts.context.config.limits, parts.context.config.admission
    address = address_of(conn)
    if address and not parts.holdings.may_begin(address, meta_bytes):
        raise _too_many(parts, "bytes", "too much of this address is stored for peers that are away; come again")
    holders = [holder for holder in (address and address_holder(address), principal_holder(subject)) if holder]
    holder_max = share(limits.sessions_max, admission.address_share)
    held = await parts.context.committer.call(
        Hold(session, tuple(holders), limits.sessions_max, holder_max, until_ms, now_ms)
    )
    if isinstance(held, Refused):
        full, whose = ("store", "in all") if held.reason == "sessions" else ("share", "of this address or principal")
        raise _too_many(parts, full, f"too many sessions {whose}; come again")


def _too_many(parts: Parts, full: str, text: str) -> Turned:
    parts.context.counts.sessions_refused[full] += 1
    return Turned(CloseCode.REFUSED, "busy", text, parts.context.retry_after_ms())


async def make_claim(parts: Parts, conn: Connection, ops: Sequence[Op], asked_ms: int, wake: Wake) -> list[Result]:
    """Claim by the first of `ops`; a record that is damaged may be given back by who holds the party, who is asked by `wake`.

    A claim that has waited for the store is not made any more when its connection is over, or when the clock was set back
    since it was dated: it would pass for a later one than all that were made meanwhile, and a token that its party has left
    behind in the meantime for a stolen one.
    """

    def worth() -> bool:
        return not conn.closing and parts.context.now_ms() >= asked_ms

    try:
        results = await parts.context.committer.call_many(ops, worth=worth)
        if is_unreadable(results[0]):
            await ask_holders(parts.context, parts.attachments, [wake])
            results = await parts.context.committer.call_many(ops, worth=worth)
    except StoreUnavailable:
        if conn.closed is not None:
            raise ConnectionClosed(conn.closed) from None
        raise
    return results


def still_open(context: Context, conn: Connection, credential: Verified, undo: Sequence[Op]) -> None:
    """The store has granted: undo it if the connection is over by now, or the subject is revoked.

    A drain that has begun meanwhile is no reason to refuse: the claim has taken the session from where it was, so the
    party is served here, and told to go with the others.
    """
    revoked = context.revocations.refuses(credential.principal.name, credential.issued_at)
    if conn.closing or revoked:
        for op in undo:
            context.submit(op)
        if revoked and not conn.closing:
            raise Unauthenticated
        raise ConnectionClosed(conn.closed) if conn.closed else Turned(CloseCode.REFUSED, "closing", "closing")
