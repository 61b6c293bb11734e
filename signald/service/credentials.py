"""The credentials of connected parties: what happens when one runs out (`auth.expiry_grace_s`), and how it is renewed.

    runs out ─▸ error `auth_expiring` ─▸ `auth` with a new one: goes on
                                      └▸ the grace is over: error `auth_expired`, close 4401

    is revoked ▸ error `auth_revoked`, close 4401

One task looks after all parties of the node. With a grace of 0 it sleeps: a credential counts at the opening only.
"""

from collections import Counter
from collections.abc import Callable
from math import inf

import attrs
import structlog
import trio

from signald.service.attached import PartyLink
from signald.service.attachments import Attachments
from signald.service.auth import Authenticator, Forbidden, Unauthenticated, Verified
from signald.service.context import Context
from signald.service.events import RightsChanged
from signald.service.key_sets import KeysAway
from signald.service.races import either
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

PASS_MIN_S = 1.0
"""Least time between two looks at all parties: ten thousand take a millisecond, and a grace has seconds."""

ENDED = ("expired", "revoked")


class Credentials:
    """See the module. One for each node."""

    def __init__(self, context: Context, attachments: Attachments, auth: Callable[[], Authenticator]) -> None:
        """`auth` gives what verifies tokens now."""
        self._context = context
        self._attachments = attachments
        self._auth = auth
        self._sooner = trio.Event()
        self._next = inf
        """When to look again, in seconds since 1970."""
        self.ended: Counter[str] = Counter(dict.fromkeys(ENDED, 0))
        """Connections that were ended for their credential, by `ENDED`."""

    def bind(self, link: PartyLink, credential: Verified) -> None:
        """`link` was opened with `credential`, or has renewed it."""
        link.credential = attrs.evolve(credential, claims={})
        link.expires_by = 0.0
        if credential.expires_at < self._next and self._context.config.auth.expiry_grace_s:
            self._next = credential.expires_at
            self._sooner.set()

    def revoke(self, principal: str) -> None:
        """Tokens of `principal` are void: end the connections that were opened with one."""
        for link in list(self._attachments.links):
            credential = link.credential
            if link.principal != principal or credential is None or link.conn.closing:
                continue
            if self._context.revocations.refuses(principal, credential.issued_at):
                self.ended["revoked"] += 1
                log.info("credential_revoked", party=link.party, owner=link.owner)
                link.fail(CloseCode.UNAUTHENTICATED, "auth_revoked", "the tokens of this subject have been revoked")
        self._context.writes.flush()

    def renew(self, link: PartyLink, bearer: str) -> None:
        """A connected party shows a new credential: it must be valid, not about to run out at once, and of the same principal."""
        now = self._now()
        try:
            shown = self._auth().identify(bearer, link.party, now)
        except KeysAway as error:
            link.error("auth_unavailable", str(error), retry_after_ms=self._context.retry_after_ms())
            return
        except (Unauthenticated, Forbidden):
            shown = None
        if shown is None or shown.principal.name != link.principal or shown.expires_at <= now:
            link.error("auth_refused", "no valid credential of this party; nothing has changed")
            return
        self.bind(link, shown)
        self._context.events.emit(RightsChanged(link.party, tuple([session.id for session in link.attached])))

    async def run(self) -> None:
        """Look after the credentials, until cancelled."""
        while True:
            changed = self._context.config_changed
            self._next = self._pass(self._now())
            if self._next < inf:
                await trio.sleep(PASS_MIN_S)
            while not changed.is_set() and (left_s := self._next - self._now()) > 0:
                self._sooner = trio.Event()
                with trio.move_on_after(left_s):
                    await either(changed, self._sooner)

    def _now(self) -> float:
        return self._context.now_ms() / 1000

    def _pass(self, now: float) -> float:
        """Do what is due for each party; return when to look again, in seconds since 1970."""
        grace_s = self._context.config.auth.expiry_grace_s
        if not grace_s:
            return inf
        soonest = inf
        for link in list(self._attachments.links):
            if link.credential is not None and link.credential.expires_at < inf and not link.conn.closing:
                soonest = min(soonest, self._look(link, link.credential, grace_s, now))
        self._context.writes.flush()
        return soonest

    def _look(self, link: PartyLink, credential: Verified, grace_s: float, now: float) -> float:
        if now < credential.expires_at:
            return credential.expires_at
        if not link.expires_by:
            link.expires_by = now + grace_s
            text = "the credential has run out: send `auth` with a new one"
            link.error("auth_expiring", text, retry_after_ms=round(grace_s * 1000))
        if now < link.expires_by:
            return link.expires_by
        if self._auth().is_away(now):
            return now  # no party can prove anything now, and those that are known must not pay for it
        self.ended["expired"] += 1
        log.info("credential_expired", party=link.party, owner=link.owner)
        link.fail(CloseCode.UNAUTHENTICATED, "auth_expired", "the credential has run out")
        return inf
