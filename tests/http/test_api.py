"""The application of the HTTP API: errors, rates, bodies, headers and counts that hold for every route."""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from signald.http.api.app import ApiRoute, ApiSettings, trace_of
from signald.http.api.bodies import read_body
from signald.http.api.reading import JsonBody
from signald.http.problem_details import HttpProblem
from tests.http.publicly import GET, ROUTES, Answer, public
from tests.net.clients import simulated

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Wanted(msgspec.Struct):
    """A body."""

    kind: str
    count: int = 0


async def take(request: Request) -> Response:
    """Say what was read."""
    wanted = await JsonBody(Wanted).read(request, depth_max=8)
    return JSONResponse({"kind": wanted.kind})


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    """Return a POST with a length."""
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"POST %s HTTP/1.1\r\nhost: a\r\n%scontent-length: %d\r\n\r\n" % (path, lines, len(body)) + body


def problem(answer: Answer) -> tuple[int, str]:
    """Return status and word of a problem document, of which all parts are there."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(document)
    assert document["status"] == answer.status
    return answer.status, str(document["type"]).removeprefix("urn:signald:problem:")


class TestProblems:
    """Every error is a problem document, and is kept in no cache."""

    @simulated
    async def test_an_unknown_path_and_a_wrong_method(self) -> None:
        """404 for the first; 405 with the methods that there are for the second. A final slash makes another path."""
        async with public() as port:
            peer = port.dial()
            for path in (b"/", b"/hello/", b"/docs", b"/%00", b"/hello/a/b"):
                answer = await peer.ask(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path)
                assert problem(answer) == (404, "not-found")
                assert answer.headers["cache-control"] == "no-store"
            answer = await peer.ask(post(b"/hello", b""))
            assert problem(answer) == (405, "method-not-allowed")
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}

    @simulated
    async def test_problems_of_handlers_keep_their_members_and_headers(self) -> None:
        """What a handler raises is answered with all that it says."""

        async def refuse(_: Request) -> Response:
            raise HttpProblem(409, "in-progress", "wait", job="j_1").with_headers(retry_after="7")

        async def wrapped(_: Request) -> Response:
            async with trio.open_nursery():
                raise HttpProblem(410, "gone", "kept no longer")

        async def starlettes(_: Request) -> Response:
            raise HTTPException(415, "no", headers={"accept": "application/json"})

        async with public(
            [Route("/refuse", refuse), Route("/starlette", starlettes), Route("/wrapped", wrapped)]
        ) as port:
            peer = port.dial()
            assert problem(await peer.ask(GET.replace(b"/hello", b"/wrapped"))) == (410, "gone")
            answer = await peer.ask(GET.replace(b"/hello", b"/refuse"))
            assert problem(answer) == (409, "in-progress")
            assert (answer.headers["retry-after"], answer.json()["job"]) == ("7", "j_1")
            answer = await peer.ask(GET.replace(b"/hello", b"/starlette"))
            assert problem(answer) == (415, "http")
            assert answer.headers["accept"] == "application/json"

    @simulated
    async def test_a_field_that_is_wrong_is_named(self) -> None:
        """`errors` names the field and what is wrong with it; text that is no JSON has a word of its own."""
        async with public([Route("/take", take, methods=["POST"])]) as port:
            peer = port.dial()
            answer = await peer.ask(post(b"/take", b'{"kind":"a","count":"b"}'))
            assert problem(answer) == (400, "bad-field")
            assert answer.json()["errors"] == [{"field": "count", "message": "Expected `int`, got `str`"}]
            assert problem(await peer.ask(post(b"/take", b"{}"))) == (400, "bad-field")
            for body in (b"{", b"\xff", b"nothing"):
                assert problem(await peer.ask(post(b"/take", body))) == (400, "bad-json")
            assert (await peer.ask(post(b"/take", b'{"kind":"a"}'))).json() == {"kind": "a"}


class TestHeaders:
    """What each answer carries."""

    @simulated
    async def test_a_cache_is_allowed_by_routes_only(self) -> None:
        """A route that says how long its answer may be kept is heeded."""

        async def kept(_: Request) -> Response:
            return Response("x", headers={"cache-control": "private, max-age=60"})

        async with public([*ROUTES, Route("/kept", kept)]) as port:
            peer = port.dial()
            assert (await peer.ask(GET)).headers["cache-control"] == "no-store"
            assert (await peer.ask(GET.replace(b"hello", b"kept"))).headers["cache-control"] == "private, max-age=60"

    @pytest.mark.parametrize(("trace", "said"), [(TRACE, TRACE), ("garbage", None), ("00-" + "0" * 32 + "-1-01", None)])
    @simulated
    async def test_a_traceparent_is_repeated_if_it_is_one(self, trace: str, said: str | None) -> None:
        """Other text is dropped: it is in no answer and reaches no worker."""
        heard: list[str | None] = []

        async def listen(request: Request) -> Response:
            heard.append(trace_of(request.scope))
            return Response()

        async with public([Route("/hello", listen)]) as port:
            answer = await port.dial().ask(GET[:-2] + b"traceparent: " + trace.encode() + b"\r\n\r\n")
            assert answer.headers.get("traceparent") == said
            assert heard == [said]


class TestRates:
    """`requests_per_s` and `requests_burst`, for each principal."""

    @simulated
    async def test_a_principal_has_its_rate(self) -> None:
        """Beyond the burst 429 with the wait until the next one is let through; others are not concerned."""
        async with public(api=ApiSettings(requests_per_s=0.5, requests_burst=3)) as port:
            peer, other = port.dial("192.0.2.1"), port.dial("192.0.2.2")
            assert [(await peer.ask(GET)).status for _ in range(3)] == [200, 200, 200]
            refused = await peer.ask(GET)
            assert problem(refused) == (429, "rate")
            assert refused.headers["retry-after"] == "2"
            assert (await other.ask(GET)).status == 200
            await trio.sleep(2)
            assert (await peer.ask(GET)).status == 200
            assert port.api.counts.refused["rate"] == 1

    @simulated
    async def test_addresses_of_one_subscriber_are_one(self) -> None:
        """An IPv6 /64 has one rate."""
        async with public(api=ApiSettings(requests_per_s=0.5, requests_burst=1)) as port:
            assert (await port.dial("2001:db8::1").ask(GET)).status == 200
            assert (await port.dial("2001:db8::2").ask(GET)).status == 429

    @simulated
    async def test_the_holder_can_be_another(self) -> None:
        """`key_of` names whoever the rate belongs to, and "" has none."""
        async with public(api=ApiSettings(requests_per_s=0.5, requests_burst=1)) as port:
            port.api._key_of = lambda scope: dict(scope["headers"]).get(b"x-who", b"").decode()
            peer = port.dial()
            one, two = (GET[:-2] + b"x-who: " + name + b"\r\n\r\n" for name in (b"one", b"two"))
            assert [(await peer.ask(ask)).status for ask in (one, two, one, two)] == [200, 200, 429, 429]
            assert [(await peer.ask(GET)).status for _ in range(3)] == [200, 200, 200]

    @simulated
    async def test_a_reload_changes_the_rate(self) -> None:
        """Buckets that exist reckon with the new one."""
        async with public(api=ApiSettings(requests_per_s=0.5, requests_burst=1)) as port:
            peer = port.dial()
            assert [(await peer.ask(GET)).status for _ in range(2)] == [200, 429]
            port.api.renew(ApiSettings(requests_per_s=0, requests_burst=1))
            assert (await peer.ask(GET)).status == 200


class TestBodies:
    """What a request may bring."""

    @simulated
    async def test_a_length_beyond_the_bound_is_refused_before_anything(self) -> None:
        """The handler is not asked, however the length is written."""
        entered: list[str] = []

        async def never(request: Request) -> Response:
            entered.append(request.url.path)
            return Response()

        async with public([Route("/size", never, methods=["POST"])], api=ApiSettings(body_bytes_max=10)) as port:
            for length in (b"11", b"0011", b"9" * 19, b"9" * 20):
                answer = await port.dial().ask(
                    b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: " + length + b"\r\n\r\n"
                )
                assert problem(answer) == (413, "too-large")
            assert entered == []
            assert (await port.dial().ask(post(b"/size", b"x" * 10))).status == 200
            assert port.api.counts.refused["body"] == 4

    @simulated
    async def test_chunks_are_counted(self) -> None:
        """A body without a length is refused when it has passed the bound."""
        async with public(api=ApiSettings(requests_per_s=0, body_bytes_max=10)) as port:
            head = b"POST /size HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            answer = await port.dial().ask(head + b"6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n")
            assert problem(answer) == (413, "too-large")
            assert (await port.dial().ask(head + b"6\r\nabcdef\r\n4\r\nghij\r\n0\r\n\r\n")).json() == {"size": 10}

    @simulated
    async def test_a_route_may_have_a_bound_of_its_own(self) -> None:
        """Larger or smaller than the one of all routes, as it is when the request comes."""
        bound = [20]

        async def count(request: Request) -> Response:
            return JSONResponse({"size": len(await read_body(request))})

        route = ApiRoute("/big", count, methods=["POST"])
        route.body_bytes_max = lambda: bound[0]
        async with public([*ROUTES, route], api=ApiSettings(requests_per_s=0, body_bytes_max=10)) as port:
            peer = port.dial()
            assert (await peer.ask(post(b"/big", b"x" * 20))).json() == {"size": 20}
            assert (await peer.ask(post(b"/size", b"x" * 11))).status == 413
            bound[0] = 5
            assert (await peer.ask(post(b"/big", b"x" * 6))).status == 413

    @simulated
    async def test_all_bodies_have_one_budget(self) -> None:
        """Beyond it 503 with a time to come again; what was held is given back with the end of each request."""
        settings = ApiSettings(requests_per_s=0, body_bytes_max=100, bodies_bytes_max=150)
        async with public(api=settings) as port:
            first, second = port.dial(), port.dial()
            await first.send(post(b"/size", b"x" * 100)[:-1])
            await trio.testing.wait_all_tasks_blocked()
            refused = await second.ask(post(b"/size", b"x" * 100))
            assert problem(refused) == (503, "busy")
            assert refused.headers["retry-after"] == "1"
            assert (await first.ask(b"x")).json() == {"size": 100}
            assert (await second.ask(post(b"/size", b"x" * 100))).json() == {"size": 100}
            await trio.testing.wait_all_tasks_blocked()
            assert port.api.counts.bodies_held == 0
            assert port.api.counts.refused["bodies"] == 1


class TestCounts:
    """What the metrics are made of."""

    @simulated
    async def test_requests_are_counted_by_method_route_and_class(self) -> None:
        """Routes are templates, unknown methods and paths are one each: no label takes a client's words."""
        async with public() as port:
            peer = port.dial()
            asked: list[tuple[bytes, bytes]] = [
                (b"GET", b"/hello/anna"), (b"GET", b"/hello/bert"), (b"HEAD", b"/hello"), (b"GET", b"/secret"),
                (b"BREW", b"/hello"), (b"GET", b"/fail"),
            ]  # fmt: skip
            for method, path in asked:
                await peer.ask(method + b" " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n", head=method == b"HEAD")
            await trio.testing.wait_all_tasks_blocked()
            assert port.api.counts.answered == {
                ("GET", "/hello/{name}", "2xx"): 2,
                ("HEAD", "/hello", "2xx"): 1,
                ("GET", "none", "4xx"): 1,
                ("other", "/hello", "4xx"): 1,
                ("GET", "/fail", "5xx"): 1,
            }
            counted: dict[str, Any] = {name: sum(one.counts) for name, one in port.api.counts.seconds.items()}
            assert counted == {"/hello/{name}": 2, "/hello": 2, "none": 1, "/fail": 1}

    @simulated
    async def test_requests_in_flight_are_known(self) -> None:
        """From the head to the end of the answer."""
        leave = trio.Event()

        async def wait(_: Request) -> Response:
            await leave.wait()
            return Response()

        async with public([Route("/wait", wait)]) as port:
            peer = port.dial()
            await peer.send(GET.replace(b"/hello", b"/wait"))
            await trio.testing.wait_all_tasks_blocked()
            assert port.api.counts.in_flight == 1
            leave.set()
            assert (await peer.answer()).status == 200
            await trio.testing.wait_all_tasks_blocked()
            assert port.api.counts.in_flight == 0


@simulated
async def test_what_was_sent_during_a_pause_of_the_node_is_no_burst() -> None:
    """A node that stood still for a while allows for the requests of that time."""
    async with public(api=ApiSettings(requests_per_s=1, requests_burst=1)) as port:
        peer = port.dial()
        assert [(await peer.ask(GET)).status for _ in range(2)] == [200, 429]
        await trio.sleep(5)
        port.api._owed_s = lambda _: 4.0
        assert [(await peer.ask(GET)).status for _ in range(6)] == [200] * 5 + [429]
