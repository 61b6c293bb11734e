"""Credentials at a canvas: by a header, a cookie or a subprotocol; and what becomes of a socket that may not."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.dialects.canvas.sockets import ON, Socket
from tests.service.test_credentials import AUTH, token
from tests.service.test_reload import reload

PAGE = "https://app.example.com"
ALL = {"canvas:*": ["join", "publish", "state"]}
SECTIONS: dict[str, dict[str, object]] = {
    **ON,
    "auth": {**AUTH, "cookie_name": "signald"},
    "listen": {"allowed_origins": (PAGE, "*")},
}


async def dial(
    cluster: Cluster,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    path: str = "/ws/board-1",
) -> Socket:
    """Open a socket that shows something at its handshake."""
    node = cluster.nodes["one"]
    ours, theirs = trio.testing.memory_stream_pair()
    node.hub.spawn(node.server.serve_stream, theirs, "memory")
    shown = [(name.encode(), value.encode()) for name, value in headers]
    socket = await trio_websocket.wrap_client_stream(
        cluster._nursery,
        ours,
        "node",
        path,
        subprotocols=list(subprotocols) or None,
        extra_headers=shown,
    )
    return Socket(Peer(socket, ours))


def shown_as(how: str, credential: str) -> dict[str, Any]:
    """Return how a credential is shown."""
    coded = base64.urlsafe_b64encode(credential.encode()).decode().rstrip("=")
    return {
        "header": {"headers": [("Authorization", f"Bearer {credential}")]},
        "subprotocol": {"subprotocols": ["canvas", f"signald.bearer.{coded}"]},
        "cookie": {"headers": [("Cookie", f"a=b; signald={credential}"), ("Origin", PAGE)]},
    }[how]


@pytest.mark.parametrize("how", ["header", "subprotocol", "cookie"])
def test_a_credential_is_shown_at_the_handshake(how: str) -> None:
    """With the three rights a socket is in, however it shows them; the subprotocol that a browser needs is answered."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **SECTIONS)
        anna = await dial(cluster, **shown_as(how, token(500, rooms=ALL)))
        assert (await anna.restore())["canvas_state"] == {}
        assert anna.peer.socket.subprotocol == ("canvas" if how == "subprotocol" else None)

    play(scene)


@pytest.mark.parametrize(
    "rooms", [None, {}, {"canvas:*": ["join", "publish"]}, {"canvas:other": ["join", "publish", "state"]}]
)
def test_a_socket_needs_all_three_rights(rooms: Any) -> None:
    """Its program knows no error for a part of them, so it is told why and closed with a code that it knows."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **SECTIONS)
        anna = await dial(cluster, **shown_as("header", token(500, rooms=rooms)))
        assert (await anna.hear("error"))["code"] == "forbidden"
        assert await anna.peer.closed() == 1008
        await trio.sleep(1)
        assert not node.hub.sessions

    play(scene)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer nonsense")],
        [("Cookie", "signald={}")],  # of a program, which shows its credential in a header
        [("Cookie", "signald={}"), ("Origin", "https://evil.example.com")],  # `*` lets pages in without their cookies
        [("Cookie", "other={}"), ("Origin", PAGE)],
    ],
)
def test_without_a_credential_it_is_told_why(headers: list[tuple[str, str]]) -> None:
    """What does not count as a credential ends in an error and 1008, which is for good; a busy node says 1013."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **SECTIONS)
        good = token(500, rooms=ALL)
        anna = await dial(cluster, headers=[(name, value.format(good)) for name, value in headers])
        assert (await anna.hear("error"))["code"] == "unauthenticated"
        assert await anna.peer.closed() == 1008

    play(scene)


def test_a_right_that_is_withdrawn() -> None:
    """Without `join` the socket is closed; without `state` its edits are refused by their id, and others see none of them."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **{**SECTIONS, "rooms": {"default_rights": ("join", "publish", "state")}})
        anna = await dial(cluster, **shown_as("header", token(500)))
        ben = await dial(cluster, **shown_as("header", token(500)))
        await anna.restore()
        await ben.restore()
        reload(node, rooms={"default_rights": ("join", "publish")})
        await anna.say("canvas_update", patch={"a": 1}, id="e-1")
        refused = await anna.hear("error")
        assert (refused["code"], refused["id"]) == ("forbidden", "e-1")
        await anna.say("chat_message", message="still here")
        await ben.hear("chat_message")
        assert await ben.peer.quiet() == []
        reload(node, rooms={"default_rights": ("publish", "state")})
        assert (await anna.hear("error"))["code"] == "forbidden"
        assert await anna.peer.closed() == 1008

    play(scene)


def test_tenants_have_canvases_of_their_own() -> None:
    """Two tenants that call a canvas alike have two."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **SECTIONS)
        anna = await dial(cluster, **shown_as("header", token(500, rooms=ALL, tenant="acme")))
        evil = await dial(cluster, **shown_as("header", token(500, rooms=ALL, tenant="evil")))
        await evil.restore()
        await anna.say("chat_message", message="secret", id="m-1")
        await anna.hear("chat_message")
        await anna.say("cursor", x=1)
        assert await evil.peer.quiet() == []
        assert (await evil.restore())["chat_history"] == []

    play(scene)


def test_a_credential_that_runs_out_ends_with_1008() -> None:
    """The socket may renew it by `auth`, which is passed on to no other socket; else it is closed."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **SECTIONS)
        anna = await dial(cluster, **shown_as("header", token(30, rooms=ALL)))
        ben = await dial(cluster, **shown_as("header", token(500, rooms=ALL)))
        await anna.restore()
        await ben.restore()
        assert (await anna.hear("error"))["code"] == "auth_expiring"
        await anna.say("auth", auth=token(60, rooms=ALL))
        assert (await anna.hear("error"))["code"] == "auth_expiring"
        assert await anna.peer.closed() == 1008
        assert await ben.peer.quiet() == []

    play(scene)
