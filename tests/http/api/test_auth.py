"""Callers over HTTP: credentials in the header and in a cookie, the pages that may send them, sessions, kinds and scopes."""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from signald.config import Config
from signald.core.callers import ALL, Access, Caller, CallerRefused
from signald.core.wants import SEPARATOR
from signald.http.api.app import Api
from signald.http.api.auth import Authentication, allow, caller_of, session_of
from signald.http.api.cors import EXPOSED, Cors
from signald.http.problem_details import HttpProblem

ORIGIN, OTHER = "https://app.example", "https://evil.example"
SESSION = "s_" + "a" * 24

CALLERS = {
    "client": Caller("client", "ann", "ann", session=SESSION),
    "guest": Caller("client", "", "", session=SESSION),
    "worker": Caller("worker", "wes", "wes", worker="w_1"),
    "service": Caller("service", "backend", "backend"),
    "tenant": Caller("service", f"acme{SEPARATOR}backend", "backend", "acme"),
    "jobs": Caller("service", "backend", "backend", scopes=frozenset({"jobs"})),
    "person": Caller("person", "ann", "ann"),
}
ANONYMOUS = Caller("person", "", "")


class Known:
    """Callers by the word that they show. `late` is known only when it is verified."""

    def __init__(self) -> None:
        self.verified = 0
        self.anonymous = False

    def known(self, shown: str | None, *, cookie: bool) -> Caller | None:
        """See `Callers`."""
        if shown is None:
            if self.anonymous:
                return ANONYMOUS
            raise CallerRefused("unauthenticated")
        self.verified += 1
        if shown == "late":
            return None
        if shown == "away":
            raise CallerRefused("unavailable")
        if cookie and shown != "person":
            raise CallerRefused("forbidden")
        if shown not in CALLERS:
            raise CallerRefused("unauthenticated")
        return CALLERS[shown]

    async def verify(self, shown: str | None, *, cookie: bool) -> Caller:
        """See `Callers`."""
        caller = self.known(shown, cookie=cookie)
        await trio.lowlevel.checkpoint()
        return CALLERS["worker"] if caller is None else caller


async def who(request: Request) -> Response:
    """Say which caller it is."""
    caller = await caller_of(request)
    return JSONResponse({"kind": caller.kind, "payer": caller.payer})


@attrs.frozen
class Answer:
    """An answer of the application."""

    status: int
    headers: dict[str, str]
    body: Any


class Application:
    """The API with one route, asked without a network."""

    def __init__(self, origins: Sequence[str] = (ORIGIN,), cookie_name: str = "jwt") -> None:
        config = Config()
        config = attrs.evolve(
            config,
            listen=attrs.evolve(config.listen, allowed_origins=tuple(origins)),
            auth=attrs.evolve(config.auth, cookie_name=cookie_name),
        )
        self.known = Known()
        authentication = Authentication(self.known, lambda: config)
        routes = [Route("/who", who, methods=["GET", "POST", "DELETE"])]
        self.key_of = authentication.key_of
        api = Api(
            routes,
            draining=trio.Event(),
            key_of=authentication.key_of,
            more_state={"authentication": authentication},
        )
        self._app = Cors(api, lambda: config)

    def scope(self, method: str = "GET", **headers: str) -> dict[str, Any]:
        """A request; the names of headers are written with `_`."""
        raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        return {
            "type": "http", "method": method, "path": "/who", "raw_path": b"/who", "query_string": b"", "headers": raw,
            "client": ("192.0.2.7", 5), "state": {},
        }  # fmt: skip

    async def ask(self, method: str = "GET", **headers: str) -> Answer:
        """Send a request and return its answer."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(self.scope(method, **headers), receive, send)
        body = b"".join([message.get("body", b"") for message in sent[1:]])
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, msgspec.json.decode(body) if body else None)


Refusal = tuple[int, str]


def refusal(answer: Answer) -> Refusal:
    """Status and word of a problem."""
    return answer.status, answer.body["type"].removeprefix("urn:signald:problem:")


@pytest.mark.parametrize("shown", ["client", "worker", "service", "person"])
async def test_a_caller_shows_a_bearer_token(shown: str) -> None:
    """Each kind of caller is the one that its token names; the scheme is written in any case; it is verified once."""
    app = Application()
    for scheme in ("Bearer", "bearer", "BEARER "):
        answer = await app.ask(authorization=f"{scheme} {shown}")
        assert (answer.status, answer.body["kind"]) == (200, CALLERS[shown].kind)
    assert app.known.verified == 3


@pytest.mark.parametrize(
    "header", ["client", "Basic Y2xpZW50", "Bearer", "Bearer  ", "", "Bearer nobody", "Bearer client x"]
)
async def test_what_is_no_credential(header: str) -> None:
    """401 with WWW-Authenticate, and nothing about the reason."""
    answer = await Application().ask(authorization=header)
    assert refusal(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_no_credential() -> None:
    """401 without an error code where one is asked for; an anonymous person where none is."""
    app = Application()
    answer = await app.ask()
    assert refusal(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    app.known.anonymous = True
    assert (await app.ask()).body == {"kind": "person", "payer": ""}


async def test_a_token_that_is_no_good_says_so() -> None:
    """RFC 6750: a client that has shown a token learns that it is the token, and asks for another."""
    answer = await Application().ask(authorization="Bearer nobody")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "nobody" not in str(answer)


async def test_a_credential_that_cannot_be_judged_now() -> None:
    """503 with Retry-After: the caller is not refused, and comes again."""
    answer = await Application().ask(authorization="Bearer away")
    assert refusal(answer) == (503, "auth-unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_caller_that_only_the_store_knows() -> None:
    """A key that this node does not know yet is asked for; until then the request counts for its address."""
    app = Application()
    assert app.key_of(app.scope(authorization="Bearer late")) == "192.0.2.7"
    assert (await app.ask(authorization="Bearer late")).body["kind"] == "worker"


async def test_a_header_that_stands_twice() -> None:
    """Two credentials are none: programs between may each have meant another one."""
    app = Application()
    scope = app.scope(authorization="Bearer client")
    scope["headers"] += [(b"authorization", b"Bearer service")]
    assert app.key_of(scope) == "192.0.2.7"
    with pytest.raises(HttpProblem) as raised:
        await caller_of(Request({**scope, "app": app._app._app}))
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("shown", "holder"),
    [
        ("client", "principal ann"),
        ("person", "principal ann"),
        ("guest", f"principal {SESSION}"),
        ("service", "service backend"),
        ("nobody", "192.0.2.7"),
        ("", "192.0.2.7"),
    ],
)
async def test_a_request_counts_for_its_principal(shown: str, holder: str) -> None:
    """All tokens of a principal share its rate; an anonymous session has one of its own, and what is not verified none."""
    app = Application()
    assert app.key_of(app.scope(authorization=f"Bearer {shown}")) == holder


# --- cookies and origins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "taken"),
    [
        ("GET", {"sec_fetch_site": "same-origin"}, True),
        ("GET", {"sec_fetch_site": "none"}, True),
        ("GET", {"sec_fetch_site": "same-site"}, False),
        ("GET", {"sec_fetch_site": "cross-site"}, False),
        ("GET", {}, False),
        ("GET", {"origin": ORIGIN}, True),
        ("GET", {"origin": ORIGIN, "sec_fetch_site": "cross-site"}, True),
        ("GET", {"origin": OTHER, "sec_fetch_site": "same-origin"}, False),
        ("GET", {"origin": "null", "sec_fetch_site": "none"}, False),
        ("POST", {"origin": ORIGIN}, True),
        ("POST", {"sec_fetch_site": "same-origin"}, False),
        ("POST", {"sec_fetch_site": "none"}, False),
        ("POST", {}, False),
        ("DELETE", {"origin": OTHER}, False),
        ("POST", {"origin": ORIGIN.upper()}, False),
        ("POST", {"origin": ORIGIN + "/"}, False),
    ],
)
async def test_a_cookie_counts_for_listed_pages(method: str, headers: dict[str, str], taken: bool) -> None:
    """Unsafe methods need a listed Origin; a GET without one needs the browser's word that no other site has made it."""
    answer = await Application().ask(method, cookie="jwt=person", **headers)
    assert answer.status == (200 if taken else 403)
    if not taken:
        assert refusal(answer) == (403, "origin")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_origin_lends_no_cookie(method: str) -> None:
    """`*` admits pages to what they show themselves, and not to what a browser adds for them."""
    app = Application(("*",))
    assert refusal(await app.ask(method, cookie="jwt=person", origin=OTHER)) == (403, "origin")
    assert (await app.ask(method, authorization="Bearer person", origin=OTHER)).status == 200
    both = Application(("*", ORIGIN))
    assert (await both.ask(method, cookie="jwt=person", origin=ORIGIN)).status == 200


async def test_a_page_that_is_not_listed_gets_nothing() -> None:
    """As with WebSockets, also with a good token in the header."""
    answer = await Application().ask(authorization="Bearer client", origin=OTHER)
    assert refusal(answer) == (403, "origin")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("cookie", "status"),
    [
        ("jwt=person", 200),
        ('a=b; jwt="person"; c=d', 200),
        ("a=b;jwt=person", 200),
        ("jwt=person; jwt=", 200),
        ("jwt=person; jwt=person", 401),
        ("jwtx=person", 401),
        ("JWT=person", 401),
        ("jwt", 401),
        ("jwt=", 401),
        ("", 401),
        ("jwt=client", 403),
        ("jwt=service", 403),
    ],
)
async def test_which_cookie_counts(cookie: str, status: int) -> None:
    """The one of the configured name, once; a person's only."""
    assert (await Application().ask(cookie=cookie, origin=ORIGIN)).status == status


async def test_the_header_goes_before_the_cookie_and_without_a_name_no_cookie_counts() -> None:
    """A program that shows a token means that one."""
    assert (await Application().ask(authorization="Bearer service", cookie="jwt=person")).body["kind"] == "service"
    assert (await Application(cookie_name="").ask(cookie="jwt=person", origin=ORIGIN)).status == 401


# --- CORS ------------------------------------------------------------------------------------------------------------


async def test_a_listed_page_reads_answers() -> None:
    """Also refusals; with the headers that it needs, and with cookies."""
    app = Application()
    for shown in ("client", "nobody"):
        answer = await app.ask(authorization=f"Bearer {shown}", origin=ORIGIN)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == EXPOSED
        assert "Origin" in answer.headers["vary"]
    assert set(EXPOSED.split(", ")) == {
        "Location", "Retry-After", "ETag", "Idempotency-Replayed", "Preference-Applied", "Content-Range", "Repr-Digest",
    }  # fmt: skip
    assert "Origin" in (await app.ask(authorization="Bearer client")).headers["vary"]


async def test_without_cookies_no_credentials_are_lent() -> None:
    """A node that reads no cookie tells no browser to send one."""
    answer = await Application(cookie_name="").ask(authorization="Bearer client", origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_any_origin_is_never_named(method: str) -> None:
    """With `*` the answer says `*`: named, a page of any site could read with the user's cookie."""
    headers = {"access_control_request_method": "GET"} if method == "OPTIONS" else {"authorization": "Bearer client"}
    answer = await Application(("*",)).ask(method, origin=OTHER, **headers)
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(("origin", "status"), [(ORIGIN, 204), (OTHER, 403), ("null", 403)])
async def test_a_preflight(origin: str, status: int) -> None:
    """It is answered for every path without a credential, and lets a listed page send what the API reads."""
    answer = await Application().ask(
        "OPTIONS", origin=origin, access_control_request_method="POST", access_control_request_headers="authorization"
    )
    assert answer.status == status
    assert ("access-control-allow-origin" in answer.headers) is (status == 204)
    if status == 204:
        methods, names = answer.headers["access-control-allow-methods"], answer.headers["access-control-allow-headers"]
        assert {"POST", "DELETE", "PATCH"} <= set(methods.split(", "))
        assert {"Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID"} <= set(names.split(", "))


async def test_options_that_is_no_preflight() -> None:
    """Another OPTIONS is a method like any other, which the path does not have."""
    assert (await Application().ask("OPTIONS", origin=ORIGIN)).status == 405


# --- sessions, kinds, scopes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "asked", "access"),
    [
        ("client", None, Access(owner="ann")),
        ("client", SESSION, Access(owner="ann")),
        ("guest", None, Access(owner="")),
        ("person", SESSION, Access(owner="ann")),
        ("worker", SESSION, Access(worker="w_1")),
        ("service", SESSION, ALL),
        ("tenant", SESSION, Access(tenant="acme")),
    ],
)
def test_the_session_of_a_request(caller: str, asked: str | None, access: Access) -> None:
    """A client has its own; the others name one, which the store judges by their principal, tenant or worker."""
    assert session_of(CALLERS[caller], asked) == (SESSION, access)


@pytest.mark.parametrize(
    ("caller", "asked", "status"),
    [
        (CALLERS["client"], "s_" + "b" * 24, 403),
        (CALLERS["client"], "", 403),
        (CALLERS["person"], None, 400),
        (CALLERS["worker"], None, 400),
        (CALLERS["service"], None, 400),
        (CALLERS["service"], "w_1", 404),
        (CALLERS["service"], "s_" + "b" * 100, 404),
        (CALLERS["service"], "s_é", 404),
        (ANONYMOUS, SESSION, 401),
        (ANONYMOUS, None, 401),
    ],
)
def test_a_session_that_is_refused(caller: Caller, asked: str | None, status: int) -> None:
    """Another session than its own, none, what is no session; and any, for one without a credential."""
    with pytest.raises(HttpProblem) as raised:
        session_of(caller, asked)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("caller", "kinds", "scope", "status"),
    [
        (CALLERS["client"], {"client"}, "jobs", None),
        (CALLERS["client"], {"service"}, None, 403),
        (CALLERS["worker"], {"client", "service"}, "jobs", 403),
        (CALLERS["service"], {"service"}, "users", None),
        (CALLERS["jobs"], {"service"}, "jobs", None),
        (CALLERS["jobs"], {"service"}, "sessions", 403),
        (CALLERS["jobs"], set(), None, None),
        (CALLERS["jobs"], set(), "rooms", 403),
        (ANONYMOUS, {"service"}, None, 401),
        (ANONYMOUS, set(), None, None),
    ],
)
def test_kinds_and_scopes(caller: Caller, kinds: Any, scope: Any, status: int | None) -> None:
    """An operation names the kinds that may ask, and the scope that a service needs."""
    if status is None:
        allow(caller, kinds, scope)
        return
    with pytest.raises(HttpProblem) as raised:
        allow(caller, kinds, scope)
    assert raised.value.status == status


async def test_an_operation_that_is_described_is_judged_by_its_description() -> None:
    """The caller of a request must be one that its operation names."""

    class Described:
        callers = frozenset({"worker"})
        scope = None

    app = Application()
    api = app._app._app
    for shown, status in (("worker", None), ("client", 403)):
        scope = {**app.scope(authorization=f"Bearer {shown}"), "app": api, "signald.operation": Described()}
        if status is None:
            assert (await caller_of(Request(scope))).kind == "worker"
        else:
            with pytest.raises(HttpProblem) as raised:
                await caller_of(Request(scope))
            assert raised.value.status == status
