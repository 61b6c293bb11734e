"""The callers of the HTTP API, and which sessions a caller may touch.

A `Caller` is the verified statement of a credential. An `Access` is the part of it that an operation carries to the store: the step
that reads or changes a session judges it against the principal of the session's head, so that no answer depends on an earlier look.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from signald.core.wants import SEPARATOR

CallerKind = Literal["client", "worker", "service", "person"]

Scope = Literal["jobs", "sessions", "rooms", "blobs", "users"]
SCOPES: frozenset[Scope] = frozenset({"jobs", "sessions", "rooms", "blobs", "users"})
"""What the JWT of a service can be limited to."""


class CallerRefused(Exception):
    """A credential that names no caller. The text is constant: what exactly is wrong with it helps an attacker more than a caller."""

    def __init__(self, because: Literal["unauthenticated", "forbidden", "unavailable"]) -> None:
        """`unavailable`: it cannot be judged now, and may be good."""
        super().__init__(_REFUSALS[because])
        self.because = because


_REFUSALS = {
    "unauthenticated": "no valid credential",
    "forbidden": "this credential is not for this",
    "unavailable": "the credential cannot be judged now; come again",
}


class Caller(Struct, frozen=True, gc=False):
    """A verified caller: a party by its API token, or a service or a person by a JWT."""

    kind: CallerKind
    principal: str
    """The name of the principal, as a session is bound to it; "" for an anonymous one."""
    subject: str
    """What the credential calls `sub`; "" for an anonymous one."""
    tenant: str | None = None
    session: str = ""
    """The session of a client; "" for any other kind."""
    worker: str = ""
    """The id of a worker; "" for any other kind."""
    scopes: frozenset[str] | None = None
    """The scopes of a service; None: all. Only a service has some."""
    rooms: Mapping[str, Sequence[str]] | None = None
    """The claim `rooms` of its credential, or of the one by which a party was let in; None: it has none."""

    @property
    def is_anonymous(self) -> bool:
        """True when the caller has shown no credential, as it may where none is configured."""
        return self.kind in ("person", "service") and not self.principal

    @property
    def payer(self) -> str:
        """The name that the caller's requests and bytes count for: an anonymous session or worker is a principal of its own."""
        return self.principal or self.session or self.worker

    def may(self, scope: Scope) -> bool:
        """Tell whether the caller's credential covers `scope`. Only a service is limited by scopes."""
        return self.scopes is None or scope in self.scopes


class Access(Struct, frozen=True, gc=False):
    """The sessions that an operation may touch. At most one field is set; without any, all sessions."""

    owner: str | None = None
    """The name of a principal: its own sessions. The anonymous principal has the name ""."""
    tenant: str | None = None
    """A tenant: the sessions of its principals."""
    worker: str | None = None
    """The id of a worker: the sessions that are paired with it."""

    def allows(self, principal: str, worker: str = "") -> bool:
        """Tell whether a session of `principal` that is paired with `worker` ("": with none) may be touched."""
        if self.owner is not None:
            return principal == self.owner
        if self.tenant is not None:
            return principal.startswith(self.tenant + SEPARATOR)
        if self.worker is not None:
            return bool(worker) and worker == self.worker
        return True

    @property
    def words(self) -> tuple[str, str]:
        """Two words for a script: `a` (all), `o` (owner: its text), `t` (tenant: the beginning of a principal), `w` (worker: its id).

        A script refuses each kind that it does not know.
        """
        if self.owner is not None:
            return "o", self.owner
        if self.tenant is not None:
            return "t", self.tenant + SEPARATOR
        if self.worker is not None:
            return "w", self.worker
        return "a", ""


ALL = Access()
"""Access to all sessions: for a service without a tenant, and for the node itself."""
