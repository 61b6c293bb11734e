"""The callers of the HTTP API, by what they show: see `signald.http.api.auth`, whose protocol this implements.

    an API token                          a client or a worker
    a JWT, role `service`                 a service
    a JWT, role `client`                  a person; also in a cookie
    nothing, where no key is configured   an anonymous person, to whom no session belongs

A revoked principal is no caller by what was issued to it before. A recovery token is none of these.
"""

from signald.core.api_tokens import Statement, kid_in
from signald.core.callers import Caller, CallerKind, CallerRefused
from signald.errors import StoreUnavailable
from signald.service.auth import Forbidden, Role, Unauthenticated, Verified
from signald.service.key_sets import KeysAway
from signald.service.parts import Parts

IN_HEADER: tuple[Role, ...] = ("client", "service")
IN_COOKIE: tuple[Role, ...] = ("client",)
"""A page must not act for a backend by what a browser adds to its requests."""


class HttpCallers:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def known(self, shown: str | None, *, cookie: bool) -> Caller | None:
        """Return the caller that shows this credential; None when only `verify` can tell. Raises CallerRefused."""
        if shown is None:
            return self._anonymous()
        if cookie or kid_in(shown) is None:
            return self._of_jwt(shown, IN_COOKIE if cookie else IN_HEADER)
        said = self._parts.api_tokens.read_known(shown)
        return None if said is None else self._of_party(said)

    async def verify(self, shown: str | None, *, cookie: bool) -> Caller:
        """Return the caller that shows this credential, in a cookie or in the header. Raises CallerRefused."""
        caller = self.known(shown, cookie=cookie)
        if caller is not None:
            return caller
        assert shown is not None
        try:
            said = await self._parts.api_tokens.read(shown)
        except StoreUnavailable:
            raise CallerRefused("unavailable") from None
        if said is None:
            raise CallerRefused("unauthenticated")
        return self._of_party(said)

    def _anonymous(self) -> Caller:
        if self._parts.auth.keys is not None:
            raise CallerRefused("unauthenticated")
        return Caller("person", "", "")

    def _of_party(self, said: Statement) -> Caller:
        if self._parts.context.revocations.refuses(said.principal, said.auth_time):
            raise CallerRefused("unauthenticated")
        return said.caller

    def _of_jwt(self, shown: str, roles: tuple[Role, ...]) -> Caller:
        try:
            verified = self._parts.auth.verify(shown, roles, self._parts.context.now_ms() / 1000)
        except Unauthenticated:
            raise CallerRefused("unauthenticated") from None
        except Forbidden:
            raise CallerRefused("forbidden") from None
        except KeysAway:
            raise CallerRefused("unavailable") from None
        return _caller(verified)


def _caller(verified: Verified) -> Caller:
    principal = verified.principal
    kind: CallerKind = "service" if principal.role == "service" else "person"
    return Caller(
        kind, principal.name, principal.subject, principal.tenant, scopes=principal.scopes, rooms=verified.rooms
    )
