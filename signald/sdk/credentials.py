"""The credential that a party shows to nodes, and the API token that it shows to the HTTP API. No I/O.

A credential is a text, or a function of the application that gives a fresh one for each opening message. When the current one runs out,
a party with a function renews it by itself; without a function the application is told, and calls `PartyCore.renew_auth`.
"""

import logging
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from signald.sdk.core import NEVER
from signald.sdk.events import AuthExpiring
from signald.sdk.party_records import DEADLINE_MAX_S
from signald.sdk.values import check_text
from signald.wire.messages import SECRET_MAX, ErrorMessage

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

AUTH_TOLD_EVERY_S = 1.0
"""Words about the credential that are acted on: a node that says more of them makes the application fetch tokens without end."""

AUTH_EXPIRING, AUTH_REFUSED = "auth_expiring", "auth_refused"


class Credentials:
    """The credentials of one party; see the module."""

    __slots__ = ("_auth", "_told_at", "api", "api_token")

    def __init__(self, auth: str | Callable[[], str] | None, *, api: bool) -> None:
        """Raises ValueError when `auth` is no text that can be a credential."""
        if not callable(auth):
            check_text("auth", auth, SECRET_MAX, 1)
        self._auth = auth
        self._told_at = -NEVER
        self.api = api
        """The party asks for API tokens."""
        self.api_token: str | None = None
        """The newest API token: what the party shows to the HTTP API; None before there is one. It is followed by another before it runs
        out, for as long as the party is connected."""

    def auth(self) -> str | None:
        """Return the credential for the next opening message, asking the application for a fresh one if it said how."""
        return self._auth() if callable(self._auth) else self._auth

    def keep_api_token(self, token: str | UnsetType) -> None:
        """Keep the API token of a message, if it has one."""
        if token is not UNSET:
            self.api_token = token

    def renew(self, auth: str) -> bytes:
        """Return the message that shows `auth`. Opening messages show it too, unless the application gave a function for that.

        Raises:
            ValueError: it is no text that can be a credential.
        """
        check_text("auth", auth, SECRET_MAX, 1)
        if not callable(self._auth):
            self._auth = auth
        return msgspec.json.encode({"type": "auth", "auth": auth})

    def doubted(self, error: ErrorMessage, now: float) -> bytes | AuthExpiring | None:
        """Return the answer to AUTH_EXPIRING or AUTH_REFUSED: a message for signald, or a notice for the application.

        None: the last such error was acted on less than AUTH_TOLD_EVERY_S ago.
        """
        if now < self._told_at + AUTH_TOLD_EVERY_S:
            return None
        self._told_at = now
        grace_s = None
        if error.code == AUTH_EXPIRING:
            if (fresh := self._fresh()) is not None:
                return self.renew(fresh)
            grace_ms = error.retry_after_ms if error.retry_after_ms is not UNSET else 0
            grace_s = min(max(grace_ms / 1000, 0.0), DEADLINE_MAX_S)
        return AuthExpiring(grace_s)

    def _fresh(self) -> str | None:
        """Return a fresh credential; None where there is no function, or it gives none that can be sent."""
        if not callable(self._auth):
            return None
        try:
            fresh = self._auth()
            check_text("auth", fresh, SECRET_MAX, 1)
        except Exception:
            # The function is the application's and may fail for a moment; the connection still serves.
            log.exception("the function that gives credentials failed")
            return None
        return fresh
