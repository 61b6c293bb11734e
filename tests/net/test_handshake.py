"""The opening handshake: which request earns which answer, and that nothing else can come out."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake

from signald.addresses import ProxyTrust
from signald.net.admission import Refusal
from signald.net.handshake import Handshake, HandshakeReader, HandshakeRefused, refuse
from signald.net.settings import NetSettings
from signald.testing.websocket import ACCEPT, request, text
from tests.net.settings import settings_of

SETTINGS = settings_of()


def shake(data: bytes, net: NetSettings = SETTINGS) -> Handshake:
    """Feed a whole request; return the handshake."""
    handshake = HandshakeReader(net).feed(data)
    assert handshake is not None
    return handshake


def answer(data: bytes, net: NetSettings = SETTINGS) -> bytes:
    """Feed a request that is refused; return the response."""
    with pytest.raises(HandshakeRefused) as raised:
        HandshakeReader(net).feed(data)
    assert raised.value.response.startswith(b"HTTP/1.1 %d " % raised.value.status)
    assert b"\r\nConnection: close\r\n" in raised.value.response
    return raised.value.response


class TestAccepting:
    """Requests that open a WebSocket."""

    def test_the_example_of_the_rfc(self) -> None:
        """The answer carries the accept token RFC 6455 computes, and no extension."""
        reader = HandshakeReader(SETTINGS)
        handshake = reader.feed(request())
        assert handshake is not None
        head = reader.accept(handshake)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in head
        assert b"xtension" not in head
        assert b"Sec-WebSocket-Protocol" not in head

    def test_wsproto_as_a_client_is_content(self) -> None:
        """Another implementation opens against us, with its extension offer unanswered."""
        client = H11Handshake(ConnectionType.CLIENT)
        asked = client.send(
            Request(host="signald.example", target="/v1/worker", subprotocols=["signald.v2", "signald.v1"])
        )
        reader = HandshakeReader(SETTINGS)
        handshake = reader.feed(asked)
        assert handshake is not None
        assert (handshake.path, handshake.subprotocol) == ("/v1/worker", "signald.v1")
        client.receive_data(reader.accept(handshake))
        (event,) = client.events()
        assert isinstance(event, AcceptConnection)
        assert (event.subprotocol, event.extensions) == ("signald.v1", [])

    def test_byte_by_byte_and_with_frames_behind_it(self) -> None:
        """However it arrives, the request ends at its blank line, and what follows is kept for the frames."""
        reader = HandshakeReader(SETTINGS)
        for byte in request()[:-1]:
            assert reader.feed(bytes((byte,))) is None
        handshake = reader.feed(b"\n" + text("early"))
        assert handshake is not None
        assert handshake.remainder == text("early")

    def test_a_query_without_credentials_is_let_be(self) -> None:
        """The path is judged without its query."""
        assert shake(request("/v1/client?trace=1&v=2")).path == "/v1/client"

    def test_an_unknown_subprotocol_is_not_echoed(self) -> None:
        """Only `signald.v1` is ever selected; whether to serve without it is the handler's decision."""
        assert shake(request("/v1/client", (b"Sec-WebSocket-Protocol", b"chat, superchat"))).subprotocol is None


class TestCredentials:
    """Where a credential may stand, and where it may not."""

    def test_in_the_authorization_header(self) -> None:
        """`Authorization: Bearer` is for SDKs and workers; another scheme belongs to a proxy."""
        assert shake(request("/v1/client", (b"Authorization", b"bearer a.b.c "))).bearer == "a.b.c"
        assert shake(request("/v1/client", (b"Authorization", b"Basic dTpw"))).bearer is None
        assert shake(request("/v1/client", (b"Authorization", b"Bearer"))).bearer is None

    def test_in_the_subprotocols_for_browsers(self) -> None:
        """`signald.bearer.<base64url>` carries it; it is not echoed."""
        coded = base64.urlsafe_b64encode("tökén?>".encode()).rstrip(b"=")
        reader = HandshakeReader(SETTINGS)
        offered = (b"Sec-WebSocket-Protocol", b"signald.v1, signald.bearer." + coded)
        handshake = reader.feed(request("/v1/client", offered))
        assert handshake is not None
        assert (handshake.bearer, handshake.subprotocol) == ("tökén?>", "signald.v1")
        assert coded not in reader.accept(handshake)

    @pytest.mark.parametrize("coded", [b"!!!!", b"a", b"_w"])
    def test_unreadable_in_the_subprotocols(self, coded: bytes) -> None:
        """A credential that cannot be decoded is 400, without repeating it."""
        said = answer(request("/v1/client", (b"Sec-WebSocket-Protocol", b"signald.bearer." + coded)))
        assert b" 400 " in said
        assert b"bearer." not in said

    @pytest.mark.parametrize(
        "query", ["token=x", "a=1&access_token=x", "recovery%5Ftoken=x", "JWT=x", "auth", "%74oken=x"]
    )
    def test_in_the_query(self, query: str) -> None:
        """URLs end up in logs: a credential there is refused, however its name is written."""
        said = answer(request(f"/v1/client?{query}"))
        assert b" 400 " in said
        assert query.encode() not in said

    def test_no_repr_shows_them(self) -> None:
        """Neither the bearer nor the headers that carry it appear in a repr."""
        handshake = shake(request("/v1/client", (b"Authorization", b"Bearer the-secret")))
        assert handshake.bearer == "the-secret"
        assert "the-secret" not in repr(handshake)


class TestRefusing:
    """Requests that do not, each with its answer."""

    @pytest.mark.parametrize(
        ("data", "status", "also"),
        [
            pytest.param(request(method=b"POST"), 405, b"Allow: GET", id="not-get"),
            pytest.param(request(without=(b"Upgrade",)), 426, b"Upgrade: websocket", id="no-upgrade"),
            pytest.param(
                request("/v1/client", (b"Sec-WebSocket-Version", b"8"), without=(b"Sec-WebSocket-Version",)),
                426,
                b"Sec-WebSocket-Version: 13",
                id="other-version",
            ),
            pytest.param(request(without=(b"Sec-WebSocket-Key",)), 400, b"", id="no-key"),
            pytest.param(request(without=(b"Connection",)), 400, b"", id="no-connection"),
            pytest.param(request(without=(b"Host",)), 400, b"", id="no-host"),
            pytest.param(
                request("/v1/client", (b"Sec-WebSocket-Key", b"short"), without=(b"Sec-WebSocket-Key",)),
                400,
                b"",
                id="bad-key",
            ),
            pytest.param(request("/v1/client", (b"Origin", b"a"), (b"Origin", b"b")), 400, b"", id="two-origins"),
            pytest.param(request("/v1/client", (b"Content-Length", b"5")), 400, b"", id="a-body"),
            pytest.param(request("/v1/client", (b"Transfer-Encoding", b"chunked")), 400, b"", id="a-chunked-body"),
            pytest.param(request("/"), 404, b"", id="unknown-path"),
            pytest.param(request("/v1/client/"), 404, b"", id="almost-a-path"),
            pytest.param(b"\x16\x03\x01 hello\n\n", 400, b"", id="not-http"),
            pytest.param(b"GET /v1/client HTTP/1.1 \xff\r\n\r\n", 400, b"", id="bad-request-line"),
        ],
    )
    def test_each_mistake_has_its_answer(self, data: bytes, status: int, also: bytes) -> None:
        """The status says what was wrong, with the header that says how to do it right."""
        said = answer(data)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert also in said

    def test_sizes_are_judged_before_the_end(self) -> None:
        """Target, headers and their number are refused as soon as they pass the limit, ended or not."""
        assert b" 414 " in answer(b"GET /" + b"x" * 8192)
        assert b" 414 " in answer(b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\n\r\n")
        assert b" 431 " in answer(request()[:-2] + b"X: " + b"y" * 16384)
        assert b" 431 " in answer(request()[:-2] + b"X: y\r\n" * 97)
        assert b" 431 " in answer(request()[:-2] + b"X: y\r\n" * 96 + b"\r\n")
        assert shake(request()[:-2] + b"X: y\r\n" * 95 + b"\r\n").path == "/v1/client"

    @pytest.mark.parametrize(
        ("allowed", "origin", "ok"),
        [
            ((), None, True),
            ((), b"https://app.example.com", False),
            (("https://app.example.com",), b"https://app.example.com", True),
            (("https://app.example.com",), b"https://app.example.com.evil.io", False),
            (("https://app.example.com",), b"https://APP.example.com", False),
            (("https://app.example.com",), b"null", False),
            (("https://app.example.com",), None, True),
            (("*",), b"https://anyone.example", True),
        ],
    )
    def test_origins_are_matched_exactly(self, allowed: tuple[str, ...], origin: bytes | None, ok: bool) -> None:
        """A browser's page must be on the list, letter for letter; a request without an Origin comes from no browser."""
        net = settings_of(allowed_origins=allowed)
        data = request("/v1/client", *([(b"Origin", origin)] if origin is not None else []))
        if ok:
            assert shake(data, net).origin == (origin.decode() if origin is not None else None)
        else:
            assert b" 403 " in answer(data, net)

    def test_a_refusal_carries_its_hints(self) -> None:
        """Retry-After is in whole seconds, rounded up; 401 says how to authenticate."""
        assert b"\r\nRetry-After: 2\r\n" in refuse(Refusal(503, "busy", 1001)).response
        assert b"Retry-After" not in refuse(Refusal(403, "no")).response
        assert b"\r\nWWW-Authenticate: Bearer " in refuse(Refusal(401, "no")).response


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda at, new, cut: request()[: at % 150] + new + request()[(at + cut) % 150 :],
            st.integers(0, 149),
            st.binary(max_size=5),
            st.integers(0, 5),
        ),
        st.builds(
            lambda name, value: request("/v1/client", (name, value)),
            st.sampled_from(
                [
                    b"Host",
                    b"Origin",
                    b"Connection",
                    b"Upgrade",
                    b"Sec-WebSocket-Extensions",
                    b"Sec-WebSocket-Protocol",
                    b"Sec-WebSocket-Key",
                    b"Authorization",
                    b"X-Forwarded-For",
                    b"Content-Length",
                ]
            ),
            st.binary(max_size=40),
        ),
        st.builds(lambda target: request("/" + target), st.text(max_size=40)),
    )
)
def test_nothing_but_a_handshake_or_an_answer_comes_out(data: bytes) -> None:
    """Whatever a peer sends, the reader waits for more, accepts, or refuses with an HTTP status; it never fails."""
    reader = HandshakeReader(SETTINGS)
    status = 101
    try:
        handshake = reader.feed(data)
        if handshake is not None:
            assert reader.accept(handshake).startswith(b"HTTP/1.1 101 ")
    except HandshakeRefused as refused:
        status = refused.status
    assert status == 101 or 400 <= status < 500


@pytest.mark.parametrize(
    ("peer", "forwarded", "remote"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, not an address", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("local", "203.0.113.9", "local"),
        ("10.0.0.1", "203.0.113.9:51000", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2:8080", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:port", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_forwarded_addresses_are_believed_as_far_as_proxies_are_trusted(
    peer: str, forwarded: str | None, remote: str
) -> None:
    """Only what a trusted proxy wrote counts, read from its end; what a client made up in front of it does not."""
    assert ProxyTrust(["10.0.0.0/8"]).remote(peer, forwarded) == remote


COOKIES = settings_of(cookie_name="signald", allowed_origins=("https://app.example.com", "*"))


def with_cookie(cookie: str, *more: tuple[bytes, bytes]) -> bytes:
    """Return a request that has a cookie."""
    return request("/v1/client", (b"Cookie", cookie.encode()), *more)


def test_a_cookie_is_a_credential_of_a_listed_page() -> None:
    """A browser adds it to requests of any page, so only a listed origin lends it; what else is shown comes first."""
    listed = (b"Origin", b"https://app.example.com")
    assert shake(with_cookie('a=b; signald="good"', listed), COOKIES).bearer == "good"
    assert shake(with_cookie("signald=good", listed, (b"Authorization", b"Bearer better")), COOKIES).bearer == "better"
    assert shake(with_cookie("signald=good", (b"Origin", b"https://evil.example.com")), COOKIES).bearer is None
    assert shake(with_cookie("signald=good"), COOKIES).bearer is None
    assert shake(with_cookie("signald=", listed), COOKIES).bearer is None
    assert shake(with_cookie("signald=good", listed), settings_of(allowed_origins=("*",))).bearer is None
    assert b"the cookie stands twice" in answer(with_cookie("signald=good; signald=bad", listed), COOKIES)
