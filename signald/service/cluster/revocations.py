"""Revocations of principals: made by an operator at any node, and in force on all nodes within two seconds.

    admin API ▸ RevocationKeeper.revoke ▸ Revoke ─▸ wake-up `v` to the other nodes ▸ read
                                          a wake-up that is lost, or a node that ignores it ▸ a look each second

A node reads what is new by number. It reads all anew when wake-ups may have been lost or the store shows a lower number, and gives
back what the store has lost. Where no token is asked for there is nothing to revoke, and the store is not asked.
"""

from collections.abc import Callable

import structlog
import trio

from signald.errors import OperationRefused, StoreUnavailable
from signald.service.context import Context
from signald.service.credentials import Credentials
from signald.store.base import Refused
from signald.store.registry.ops import ListRevoked, Revoke

log = structlog.get_logger(__name__)

REVOKED_MAX = 10_000
"""Principals that can be revoked at a time: each costs a node a few hundred bytes, and one that is banned for good is banned by the
issuer."""

PAGE = 1000
"""Revocations in one answer of the store: some 100 KiB."""

POLL_S = 1.0
"""A wake-up may be lost, or fall on a node of an earlier release; two of these are the promise."""

NAME_CHARS_MAX = 1024
"""Of a subject and of a tenant: the bound of what `REVOKED_MAX` of them take."""


class RevocationKeeper:
    """See the module. One for each node."""

    def __init__(self, context: Context, credentials: Credentials, needed: Callable[[], bool]) -> None:
        """`credentials` ends connections; `needed` tells whether parties show tokens here."""
        self._context = context
        self._credentials = credentials
        self._needed = needed
        self._read_to = 0

    async def begin(self) -> None:
        """Learn what is revoked, before any party is let in. Raises StoreUnavailable, StoreMisused."""
        if self._needed():
            await self._read(again=True)

    async def run(self) -> None:
        """Keep up with the store, until cancelled."""
        inbox, all_anew = self._context.inboxes.revoked, self._context.inboxes.revoked_anew
        while True:
            changed = self._context.config_changed
            if not self._needed():
                await changed.wait()
                continue
            with trio.move_on_after(POLL_S * self._context.entropy.uniform(0.75, 1.0)):
                await inbox.wait()
            inbox.clear()
            again = all_anew.is_set
            all_anew.clear()
            try:
                await self._read(again=again)
            except StoreUnavailable:
                if again:
                    all_anew()

    async def revoke(self, principal: str) -> int:
        """Void all tokens of `principal` that were issued before now; return that moment, in milliseconds since 1970.

        Raises StoreUnavailable, and OperationRefused when there are too many, or no party shows a token here.
        """
        if not self._needed():
            raise OperationRefused("state", "no-tokens", "this node asks for no tokens: there is nothing to revoke")
        context, now = self._context, self._context.now_ms()
        until = now + round(context.config.auth.revoked_keep_s * 1000)
        answer = await context.committer.call(Revoke(principal, now, until, now, REVOKED_MAX, context.node))
        if isinstance(answer, Refused):
            raise OperationRefused(
                "state", "full", f"{REVOKED_MAX} subjects are revoked already: let the issuer ban them"
            )
        log.info("subject_revoked", number=answer.number)
        await self._read(again=False)
        return now

    async def _read(self, *, again: bool) -> None:
        """Take in what is new; `again`: everything, and give back what the store does not have."""
        context, revoked = self._context, self._context.revocations
        listed: dict[str, int] = {}
        after, now = 0 if again else self._read_to, context.now_ms()
        while True:
            page = await context.committer.call(ListRevoked(after, PAGE, now))
            if page.last < after and not again:
                await self._read(again=True)
                return
            for revocation in page.revocations:
                listed[revocation.principal] = revocation.at_ms
                if revoked.adopt(revocation):
                    self._credentials.revoke(revocation.principal)
            if page.upto >= page.last or page.upto == after:
                break
            after = page.upto
        self._read_to = page.last
        revoked.expire(now)
        if again:
            self._give_back(listed, now)

    def _give_back(self, listed: dict[str, int], now: int) -> None:
        for one in self._context.revocations.all():
            if listed.get(one.principal, 0) < one.at_ms:
                self._context.submit(
                    Revoke(one.principal, one.at_ms, one.until_ms, now, REVOKED_MAX, self._context.node)
                )
