"""The page's own server: what it serves, what it refuses, and that the page needs no other host."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from signald.demo.web.server import FILES, assets, page_app, security_headers

PAGE = Path(__file__).resolve().parents[3] / "signald/demo/web/page"
HOST = "127.0.0.1:8787"
SWITCH = "ws://127.0.0.1:45678"
START = {"url": SWITCH, "run": "a1b2c3"}


async def ask(path: str, *, method: str = "GET", host: str = HOST) -> tuple[int, dict[str, str], bytes]:
    """Ask the application, and return status, headers and body."""
    said: list[dict[str, Any]] = []

    async def receive() -> Any:
        raise AssertionError("no request has a body that is read")

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"host", host.encode())]}
    await page_app(assets(START), frozenset({HOST}), SWITCH)(scope, receive, send)
    begin, end = said
    return begin["status"], {name.decode(): value.decode() for name, value in begin["headers"]}, end["body"]


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served(name: str) -> None:
    """As it lies in the package, with its type, to be asked for again each time."""
    status, headers, body = await ask("/" if name == "index.html" else f"/{name}")
    assert status == 200
    assert body == (PAGE / name).read_bytes()
    assert headers["content-length"] == str(len(body))
    assert (
        headers["content-type"].partition(";")[0]
        == {
            "html": "text/html",
            "css": "text/css",
            "js": "text/javascript",
            "svg": "image/svg+xml",
        }[name.rpartition(".")[2]]
    )
    assert headers["cache-control"] == "no-cache"


def test_nothing_is_forgotten() -> None:
    """Each file of the folder is served, and none is named that is not there."""
    assert sorted(FILES) == sorted(path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file())


async def test_a_page_is_told_where_the_nodes_are() -> None:
    """`start.json` says it, and the policy lets the page connect there and nowhere else."""
    _, headers, body = await ask("/start.json")
    assert json.loads(body) == START
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == f"'self' {SWITCH}"
    assert policy["script-src"] == policy["style-src"] == policy["img-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


async def test_a_head_has_no_body() -> None:
    """And says how long it would be."""
    status, headers, body = await ask("/style.css", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == (PAGE / "style.css").stat().st_size


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/index.htm", "GET", HOST, 404),
        ("/../server.py", "GET", HOST, 404),
        ("/sdk/", "GET", HOST, 404),
        ("/", "POST", HOST, 405),
        ("/", "GET", "evil.example", 421),
        ("/start.json", "GET", "127.0.0.1:1", 421),
        ("/", "GET", "", 421),
    ],
)
async def test_what_is_refused(path: str, method: str, host: str, status: int) -> None:
    """An unknown path, another method, and a page of a foreign site that made its name lead here; always with the headers."""
    said, headers, body = await ask(path, method=method, host=host)
    assert (said, body) == (status, b"")
    for name, value in security_headers(SWITCH):
        assert headers[name.decode()] == value.decode()


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    """Nothing is loaded from elsewhere: the only URL is the name of SVG's language."""
    named = set(re.findall(r"(?:https?|wss?):?//[\w.]+", (PAGE / name).read_text()))
    assert named <= {"http://www.w3.org"}


def test_the_policy_holds_for_the_page() -> None:
    """No script, style or handler stands in the page itself: the browser would drop it, and say so on the console only."""
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert set(re.findall(r'(?:src|href)="(?!#|/")([^"]+)"', page)) <= set(FILES)
    for name in FILES:
        if name.endswith(".js"):
            text = (PAGE / name).read_text()
            imported = re.findall(r'from\s*"\./([^"]+)"', text)
            assert set(imported) <= set(FILES), name
