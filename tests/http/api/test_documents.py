"""The documents as they are served: two of JSON and a page, each checked by its version, none with anything from elsewhere."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from starlette.routing import BaseRoute

from signald.dialects.v1.paths import PATHS
from signald.http.api.describe import DescribedRoute, operations
from signald.http.api.documents import document_routes
from signald.http.api.openapi import Published
from signald.node import api_routes
from signald.testing.cluster import Cluster, config_for, play
from signald.wire.catalogue import SENT_BY
from tests.http.api import toy
from tests.http.api.asking import ask, ask_app
from tests.http.api.schemas import ASYNCAPI, OPENAPI
from tests.http.api.test_openapi import PUBLISHED

ADDRESSES = ("/openapi.json", "/asyncapi.json", "/docs")


class Settings:
    """What the node publishes now."""

    def __init__(self) -> None:
        self.now = PUBLISHED

    def __call__(self) -> Published:
        """Return it."""
        return self.now


def served(settings: Settings | None = None) -> list[BaseRoute]:
    """The routes of the toy, and of its documents."""
    routes = toy.routes()
    return [*routes, *document_routes(routes, settings or Settings(), PATHS)]


async def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    """Each operation of each route has its place, those of the documents included, and the document has no other."""
    document = (await ask(served(), "GET", "/openapi.json")).json()
    OPENAPI.validate(document)
    told = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert told == {(one.path, one.method) for one in operations(served())}
    assert {path for path, _ in told} == {"/toys", "/toys/{toy}", *ADDRESSES}
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("profiles", [{}, {"deepstream": True, "canvas": True}], ids=["plain", "profiles"])
def test_every_route_of_a_node_is_described(profiles: dict[str, object]) -> None:
    """Each route that a node serves describes itself, under a path and a name of its own, and stands in what it serves."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", profiles=profiles)
        routes = api_routes(node.hub)
        assert all(isinstance(route, DescribedRoute) for route in routes)
        document = (await ask_app(node.api, "GET", "/openapi.json")).json()
        OPENAPI.validate(document)
        told = [(path, method.upper()) for path, methods in document["paths"].items() for method in methods]
        assert sorted(told) == sorted((one.shown_path, one.method) for one in operations(routes))
        assert len({one.name for one in operations(routes)}) == len(told)
        assert set(ADDRESSES) <= set(document["paths"])
        assert ("/deepstream/health" in document["paths"]) is bool(profiles)
        names = document["components"]["schemas"]
        assert not [name for name in names if "_" in name or "." in name], "two structs of one name"
        assert (await ask_app(node.api, "GET", "/docs")).status == 200

    play(scene)


def test_a_node_publishes_its_settings() -> None:
    """What the document says of limits is what the node has, also after a reload."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", limits={"requests_per_s": 7.0})
        first = (await ask_app(node.api, "GET", "/openapi.json")).json()
        assert "7 times a second" in first["info"]["description"]
        node.hub.renew(config_for("n1", limits={"requests_per_s": 8.0}), node.hub.parts.auth)
        second = (await ask_app(node.api, "GET", "/openapi.json")).json()
        assert "8 times a second" in second["info"]["description"]

    play(scene)


async def test_the_messages_are_served() -> None:
    """`/asyncapi.json` is the document of the wire, of this release."""
    document = (await ask(served(), "GET", "/asyncapi.json")).json()
    ASYNCAPI.validate(document)
    assert document["info"]["version"] == PUBLISHED.version
    assert document["channels"]["client"]["address"] == PATHS["client"]


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_copy_is_checked_by_its_version(address: str) -> None:
    """The version in `If-None-Match`, weak or among others, gets 304 without a body; any other gets the document."""
    told = await ask(served(), "GET", address)
    etag = told.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    assert told.headers["cache-control"] == "public, no-cache"
    assert told.headers["x-content-type-options"] == "nosniff"
    for match in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await ask(served(), "GET", address, [("If-None-Match", match)])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert (await ask(served(), "GET", address, [("If-None-Match", '"other"')])).body == told.body


async def test_a_changed_setting_is_another_version() -> None:
    """A reload that changes what is published makes the documents anew; anything else does not."""
    settings = Settings()
    routes = served(settings)
    first = await ask(routes, "GET", "/openapi.json")
    assert (await ask(routes, "GET", "/openapi.json")).headers["etag"] == first.headers["etag"]
    settings.now = msgspec.structs.replace(PUBLISHED, key_life_s=60)
    second = await ask(routes, "GET", "/openapi.json")
    assert second.headers["etag"] != first.headers["etag"]
    assert second.json()["x-idempotency-key-life-ms"] == 60_000


class _Page(HTMLParser):
    """The tags, the text and the anchors of a page; fails on a tag that is not closed in order."""

    VOID = frozenset({"meta", "br", "!doctype"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._open and self._open[-1] == "style":
            self.styles.append(data)
        else:
            self.text += data


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No script, no image, no frame, no inline style; one style sheet, which the policy allows by its hash; links inside alone."""
    told = await ask(served(), "GET", "/docs")
    page = _Page(told.body.decode())
    assert told.headers["content-type"] == "text/html; charset=utf-8"
    assert page.tags <= {
        "html", "head", "meta", "title", "style", "body", "nav", "h1", "h2", "h3", "p", "ul", "li", "a", "code", "strong", "br",
        "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert page.attributes <= {"lang", "charset", "name", "content", "id", "href"}
    (style,) = page.styles
    policy = told.headers["content-security-policy"]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "://" not in told.body.decode()
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link in ADDRESSES or link.removeprefix("#") in page.ids, link


async def test_the_page_shows_both_documents() -> None:
    """Each operation, parameter, object, message, error code and close code is there as text."""
    page = _Page((await ask(served(), "GET", "/docs")).body.decode())
    for word in (
        "GET /toys/{toy}",
        "limit",
        "Toys of a page.",
        "Idempotency-Key",
        "NewToy",
        "Retry-After",
        "too_far_ahead",
        "4404",
    ):
        assert word in page.text, word
    for kinds in SENT_BY.values():
        assert all(kind.__name__ in page.text for kind in kinds)


async def test_text_of_a_document_is_no_markup() -> None:
    """What stands in a document is escaped: a setting cannot write into the page."""
    settings = Settings()
    settings.now = msgspec.structs.replace(PUBLISHED, version="<script>1</script>", cookie='"><b>')
    page = _Page((await ask(served(settings), "GET", "/docs")).body.decode())
    assert not page.tags & {"script", "b"}
    assert "<script>1</script>" in page.text
