"""Who asks: the caller of a request, by its `Authorization` header or its cookie, and the session that the request is about.

A browser adds a cookie to each request, also to one that another site's page has made. So a cookie counts only where the browser says
that the page is one of `listen.allowed_origins`, or of no other site. `*` in that list admits pages without cookies.

`Authentication.key_of` runs before the rates are judged, and by what the node knows: a request counts for its caller, and one whose
credential is not good for its address. The verdict stays with the request, so that a credential is verified once.
"""

from collections.abc import Callable, Collection
from typing import Protocol

import attrs
from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from signald.config import Config
from signald.core.callers import ALL, Access, Caller, CallerKind, CallerRefused, Scope
from signald.heads import cookies_in
from signald.http.api.app import address_of
from signald.http.problem_details import HttpProblem
from signald.ids import SessionId, as_session

SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""

RETRY_S = 1
"""When a credential that cannot be judged now is worth showing again: a store that fails over, or an issuer, needs a few seconds."""

_CALLER, _SHOWN = "signald.caller", "signald.shown"


class Callers(Protocol):
    """Names the caller that shows a credential."""

    def known(self, shown: str | None, *, cookie: bool) -> Caller | None:
        """Return the caller, by what is known here; None when only `verify` can tell. Raises CallerRefused."""

    async def verify(self, shown: str | None, *, cookie: bool) -> Caller:
        """Return the caller. Raises CallerRefused."""


class Judged(Protocol):
    """What an operation asks of its callers."""

    @property
    def callers(self) -> Collection[CallerKind]:
        """The kinds of callers that may ask; empty: any."""

    @property
    def scope(self) -> Scope | None:
        """What the credential of a service must cover."""


@attrs.frozen
class Shown:
    """The credential of a request."""

    text: str | None = attrs.field(repr=False)
    cookie: bool = False


class Authentication:
    """See the module. One for each node; it stands in `request.app.state.authentication`."""

    def __init__(self, callers: Callers, config: Callable[[], Config]) -> None:
        """`config` returns the configuration in force."""
        self._callers = callers
        self._config = config

    def key_of(self, scope: AsgiScope) -> str:
        """Return the holder of the rate of a request: its caller, else its address. Raises nothing."""
        try:
            shown = self._shown(scope)
            if shown.text is not None:
                caller = self._callers.known(shown.text, cookie=shown.cookie)
                scope[_CALLER] = caller
                if caller is not None and caller.payer:
                    # A backend and a person may have the same name, and are two.
                    return f"{'service' if caller.kind == 'service' else 'principal'} {caller.payer}"
        except (HttpProblem, CallerRefused) as refused:
            scope[_CALLER] = refused  # a handler that asks for the caller answers with it
        return address_of(scope)

    async def caller(self, scope: AsgiScope) -> Caller:
        """Return the caller of a request. Raises HttpProblem."""
        verdict = scope.get(_CALLER)
        try:
            if isinstance(verdict, Exception):
                raise verdict
            if verdict is None:
                shown = self._shown(scope)
                verdict = scope[_CALLER] = await self._callers.verify(shown.text, cookie=shown.cookie)
        except CallerRefused as refused:
            raise _problem(refused, shown=scope.get(_SHOWN)) from None
        assert isinstance(verdict, Caller)
        return verdict

    def _shown(self, scope: AsgiScope) -> Shown:
        """Return the credential of a request, once the browser that may have sent it is one that may. Raises HttpProblem."""
        origin, site = _one(scope, b"origin"), _one(scope, b"sec-fetch-site")
        allowed = self._config().listen.allowed_origins
        if origin is not None and origin not in allowed and "*" not in allowed:
            raise HttpProblem(403, "origin", "the origin of this page is not allowed")
        shown = scope[_SHOWN] = self._credential(scope)
        if shown.cookie:
            if origin is not None and origin not in allowed:
                raise HttpProblem(403, "origin", "cookies count for listed origins only")
            if origin is None and (scope["method"] not in SAFE or site not in ("same-origin", "none")):
                raise HttpProblem(403, "origin", "a request with a cookie must say which page it comes from")
        return shown

    def _credential(self, scope: AsgiScope) -> Shown:
        header = _one(scope, b"authorization")
        if header is not None:
            scheme, _, text = header.partition(" ")
            if scheme.lower() != "bearer" or not text.strip():
                raise HttpProblem(401, "unauthenticated", "the header Authorization needs Bearer and a token")
            return Shown(text.strip())
        name = self._config().auth.cookie_name
        found = cookies_in(scope["headers"], name) if name else []
        if len(found) > 1:
            # A page of a neighbouring host may have set one of them.
            raise HttpProblem(401, "unauthenticated", "the cookie stands twice")
        return Shown(found[0], cookie=True) if found else Shown(None)


async def caller_of(request: Request, scope: Scope | None = None) -> Caller:
    """Return the caller of a request, if the operation is open to that kind of caller.

    `scope`: what the credential of a service must cover, where that depends on more than the operation.
    Raises HttpProblem: 401 without a valid credential, 403 for one that is not for this, 503 for one that cannot be judged now.
    """
    authentication: Authentication = request.app.state.authentication
    caller = await authentication.caller(request.scope)
    operation: Judged | None = request.scope.get("signald.operation")
    if operation is not None:
        allow(caller, operation.callers, scope or operation.scope)
    return caller


def allow(caller: Caller, kinds: Collection[CallerKind], scope: Scope | None) -> None:
    """Judge whether `caller` is of one of `kinds` (empty: any), and its credential covers `scope`. Raises HttpProblem: 401, 403."""
    if kinds and caller.kind not in kinds:
        if caller.is_anonymous:
            raise HttpProblem(401, "unauthenticated", "this needs a credential")
        raise HttpProblem(403, "forbidden", f"this is not for a {caller.kind}")
    if scope is not None and not caller.may(scope):
        problem = HttpProblem(403, "scope", f"the credential does not cover {scope}")
        raise problem.with_headers(www_authenticate=f'Bearer error="insufficient_scope", scope="{scope}"')


def session_of(caller: Caller, asked: str | None) -> tuple[SessionId, Access]:
    """Return the session of a request, and what the store is to judge it by; `asked` is the one that the request names.

    A client's is its own, which it need not name. Raises HttpProblem: 400 when one must be named, 401 for an anonymous caller, 403 for
    another session than a client's own, 404 for what is no session.
    """
    if caller.kind == "client":
        if asked not in (None, caller.session):
            raise HttpProblem(403, "forbidden", "this token is for another session")
        return SessionId(caller.session), Access(owner=caller.principal)
    if caller.is_anonymous:
        # An anonymous session belongs to its own client alone, and its id is no secret.
        raise HttpProblem(401, "unauthenticated", "this needs the API token of the session")
    if asked is None:
        errors = [{"field": "session", "message": "is missing"}]
        raise HttpProblem(400, "bad-field", "the session must be named", errors=errors)
    session = as_session(asked)
    if session is None or len(session) > 64 or not session.isascii():
        raise HttpProblem(404, "not-found", "there is no such session")
    if caller.kind == "worker":
        return session, Access(worker=caller.worker)
    if caller.kind == "person":
        return session, Access(owner=caller.principal)
    return session, ALL if caller.tenant is None else Access(tenant=caller.tenant)


def _problem(refused: CallerRefused, shown: Shown | None) -> HttpProblem:
    if refused.because == "unavailable":
        return HttpProblem(503, "auth-unavailable", str(refused)).with_headers(retry_after=str(RETRY_S))
    if refused.because == "forbidden":
        return HttpProblem(403, "forbidden", str(refused))
    problem = HttpProblem(401, "unauthenticated", str(refused))
    if shown is not None and shown.text is not None:
        problem = problem.with_headers(www_authenticate='Bearer error="invalid_token"')
    return problem


def _one(scope: AsgiScope, name: bytes) -> str | None:
    """Return the only value of a header; None when it is not there. Raises HttpProblem when it stands twice."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise HttpProblem(400, "bad-request", f"the header {name.decode()} stands twice")
    return found[0].decode("latin-1") if found else None
