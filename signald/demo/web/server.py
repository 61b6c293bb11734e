"""The page's own web server: a handful of files of this package, read once, on loopback.

It has nothing to do with signald: the page would lie on any web server. Its answers let the browser load nothing from elsewhere, and
connect nowhere but to this server and to the switch before the nodes.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import trio
from attrs import frozen
from starlette.types import ASGIApp, Receive, Scope, Send

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES: Final = (
    "index.html",
    "style.css",
    "icon.svg",
    "app.js",
    "beats.js",
    "call.js",
    "canvas.js",
    "chat.js",
    "client.js",
    "emitter.js",
    "link.js",
    "room.js",
    "strip.js",
    "video.js",
)
"""Everything that is served: what is not listed is not there, so no path is ever put together from a request."""


@frozen
class Asset:
    """One file of the page."""

    content_type: str
    body: bytes


def assets(start: Mapping[str, object]) -> dict[str, Asset]:
    """Return what is served, by path; `start` is what the page has to know when it begins."""
    folder = files("signald.demo.web") / "page"
    served = {}
    for name in FILES:
        body = folder.joinpath(*name.split("/")).read_bytes()
        served[f"/{name}"] = Asset(TYPES[name[name.rindex(".") :]], body)
    served["/"] = served.pop("/index.html")
    served["/start.json"] = Asset("application/json", json.dumps(start).encode())
    return served


def security_headers(websocket_url: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of each answer: everything that a page can be denied and does not need is denied."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {websocket_url}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return [
        (b"content-security-policy", "; ".join(f"{key} {value}" for key, value in policy.items()).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        # A page of an earlier run must not meet files of this one. `no-store` would keep it out of the back/forward cache.
        (b"cache-control", b"no-cache"),
    ]


def page_app(served: Mapping[str, Asset], hosts: frozenset[str], websocket_url: str) -> ASGIApp:
    """Return the application: GET and HEAD of `served`, for requests that name one of `hosts`.

    A page of a foreign site can make its own name lead to this machine (DNS rebinding); its requests name that site.
    """
    common = security_headers(websocket_url)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        assert scope["type"] == "http"
        named = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        asset = served.get(scope["path"])
        if named not in hosts:
            status, asset = 421, None
        elif scope["method"] not in ("GET", "HEAD"):
            status, asset = 405, None
        else:
            status = 404 if asset is None else 200
        asset = asset or Asset("text/plain; charset=utf-8", b"")
        length = str(len(asset.body)).encode()
        headers = [(b"content-type", asset.content_type.encode()), (b"content-length", length), *common]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else asset.body})

    return app


async def open_port(port: int) -> list[trio.SocketListener]:
    """Listen on loopback at `port`, 0 for any. Raises OSError when it is taken."""
    return await trio.open_tcp_listeners(port, host="127.0.0.1")
