"""Rooms over HTTP, on nodes in memory: published in, read and changed at any node, by each kind of caller."""

import json
from typing import Any

import pytest
import trio

from signald.core.room_names import stored_name
from signald.core.wants import SEPARATOR
from signald.node import Node
from signald.service.api import room_states
from signald.service.api.room_states import RoomStates
from signald.service.rooms import sweeping
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.counts import RESULTS
from signald.store.room.ops import Joined, JoinRoom
from signald.testing.cluster import Cluster, play
from tests.http.publicly import Answer, HttpPeer
from tests.service.api.test_jobs import Api
from tests.service.test_credentials import AUTH, token

BINARY = "application/octet-stream"


class Rooms(Api):
    """A program with one credential."""

    async def get(self, path: str, at: str = "n1") -> Answer:
        """Read something of a room."""
        return await self.ask(at, "GET", f"/v1/rooms/{path}")

    async def read(self, path: str, at: str = "n1") -> Any:
        """Return something of a room."""
        answer = await self.get(path, at)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def post(self, path: str, body: Any, at: str = "n1", **headers: str) -> Answer:
        """Publish."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask(at, "POST", f"/v1/rooms/{path}", data, **headers)

    async def posted(self, room: str, body: Any, at: str = "n1", **headers: str) -> int:
        """Publish, and return the position."""
        answer = await self.post(f"{room}/messages", body, at, **headers)
        assert answer.status == 201, answer.body
        position: int = json.loads(answer.body)["position"]
        return position

    async def patch(self, path: str, body: Any, at: str = "n1", **headers: str) -> Answer:
        """Change records."""
        return await self.ask(at, "PATCH", f"/v1/rooms/{path}/state", json.dumps(body).encode(), **headers)


def service(cluster: Cluster, **claims: Any) -> Rooms:
    """A backend."""
    return Rooms(cluster, token(10_000, "service", **{"sub": "backend", **claims}))


def person(cluster: Cluster, **claims: Any) -> Rooms:
    """A user with a credential of its own."""
    return Rooms(cluster, token(10_000, **claims))


async def two_nodes(cluster: Cluster, **rooms: Any) -> Node:
    """Start two nodes that demand credentials."""
    await cluster.start("n2", auth=AUTH, rooms=rooms)
    return await cluster.start("n1", auth=AUTH, rooms=rooms)


async def party(cluster: Cluster, role: str = "client", **claims: Any) -> tuple[Rooms, str]:
    """Let a party come in at n1; returns it as a program with its API token, and its session or worker."""
    if role == "client":
        _, opened = await cluster.client("n1", auth=token(10_000, **claims), api=True)
        return Rooms(cluster, opened["api_token"]), opened["session"]
    _, opened = await cluster.worker("n1", auth=token(10_000, "worker", **claims), api=True)
    return Rooms(cluster, opened["api_token"]), opened["worker"]


async def join(node: Node, room: str, member: str, presence: bytes = b"") -> None:
    """Seat a member."""
    context = node.hub.context
    bounds = bounds_of(context.config.rooms)
    op = JoinRoom(room, member, node.hub.node, 1, member, "e", "", 0, presence, bounds, context.now_ms())
    assert isinstance(await context.committer.call(op), Joined)


def test_a_room_that_never_has_a_member_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made over HTTP, and stands in the agenda as one with members does: it goes when it is kept no longer."""
    monkeypatch.setattr(sweeping, "AGAIN_S", 60.0)

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster, keep_s=90.0)
        await service(cluster).posted("r", {"data": 1})
        await trio.sleep(85)
        assert cluster.world.rows.room("r") is not None
        await trio.sleep(100)
        assert cluster.world.rows.room("r") is None

    play(scene)


def test_a_backend_publishes_and_reads() -> None:
    """At one node, and reads it at the other: in the form of a `room_message`, with its position and time."""

    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster)
        backend = service(cluster)
        assert (await backend.get("lobby")).status == 404
        assert await backend.posted("lobby", {"data": {"text": "hi"}, "kind": "chat"}) == 1
        assert await backend.posted("lobby", {"put": {"a": {"x": 1, "y": [2]}}, "remove": ["b"]}, "n2") == 2
        answer = await backend.post("lobby/messages?kind=voice", b"\x00\xff", content_type=BINARY)
        assert (answer.status, json.loads(answer.body)) == (201, {"position": 3})
        at_ms = node.hub.context.now_ms()
        told = await backend.read("lobby/history", "n2")
        common = {"type": "room_message", "room": "lobby", "member": "", "at_ms": told["entries"][0]["at_ms"]}
        assert abs(common["at_ms"] - at_ms) < 1000
        assert told == {
            "entries": [
                {**common, "position": 1, "kind": "chat", "data": {"text": "hi"}},
                {
                    **common,
                    "position": 2,
                    "at_ms": told["entries"][1]["at_ms"],
                    "put": {"a": {"x": 1, "y": [2]}},
                    "remove": ["b"],
                },
                {**common, "position": 3, "at_ms": told["entries"][2]["at_ms"], "kind": "voice", "data_b64": "AP8="},
            ]
        }
        shown = await backend.read("lobby", "n2")
        assert shown == {"room": "lobby", "epoch": shown["epoch"], "position": 3, "members_count": 0, "members": []}
        assert shown["epoch"]

    play(scene)


def test_pages_of_the_history() -> None:
    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend = service(cluster)
        for n in range(1, 6):
            await backend.posted("lobby", {"data": n})
        page = await backend.read("lobby/history?limit=2")
        assert [one["data"] for one in page["entries"]] == [4, 5]
        page = await backend.read(f"lobby/history?limit=2&before={page['next']}")
        assert [one["data"] for one in page["entries"]] == [2, 3]
        page = await backend.read(f"lobby/history?limit=2&before={page['next']}")
        assert [one["data"] for one in page["entries"]] == [1]
        assert "next" not in page

    play(scene)


def test_members_are_shown() -> None:
    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster)
        for n in range(3):
            await join(node, "lobby", f"s_{n}", b'{"name":"x"}' if n else b"")
        backend = service(cluster)
        shown = await backend.read("lobby", "n2")
        assert shown["members_count"] == 3
        assert shown["members"][:2] == [
            {"member": "s_0", "presence": None},
            {"member": "s_1", "presence": {"name": "x"}},
        ]
        assert len((await backend.read("lobby?limit=1"))["members"]) == 1
        assert len((await backend.read("lobby?limit=0"))["members"]) == 0

    play(scene)


def test_records() -> None:
    """A patch makes, changes and removes properties; what is shown is the store's fold at one position."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend = service(cluster)
        answer = await backend.patch("canvas:1", {"a": {"x": 1, "y": 2}, "b": {}})
        assert (answer.status, json.loads(answer.body)) == (200, {"position": 1})
        await backend.patch("canvas:1", {"a": {"x": None, "z": "ü\u2028"}}, "n2")
        await backend.posted("canvas:1", {"put": {"c": {"q": [1.5, {"r": None}]}}, "remove": ["b"]})
        state = await backend.read("canvas:1/state", "n2")
        epoch = (await backend.read("canvas:1"))["epoch"]
        assert state == {
            "room": "canvas:1", "epoch": epoch, "position": 3,
            "records": {"a": {"y": 2, "z": "ü\u2028"}, "c": {"q": [1.5, {"r": None}]}},
        }  # fmt: skip
        assert (await backend.get("canvas:2/state")).status == 404
        await backend.posted("canvas:2", {"data": 1})
        assert (await backend.read("canvas:2/state"))["records"] == {}

    play(scene)


def test_many_records_are_one_document() -> None:
    """More than a page of the store and a piece of the answer, while the room goes on changing."""

    async def change(other: Rooms) -> None:
        await other.posted("canvas:1", {"remove": ["r0"]})
        for n in range(5):
            await other.patch("canvas:1", {"r1": {"v": n}})

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend, other = service(cluster), service(cluster)
        for start in range(0, 900, 300):
            await backend.posted("canvas:1", {"put": {f"r{n}": {"v": "x" * 100} for n in range(start, start + 300)}})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change, other)
            state = await backend.read("canvas:1/state")
        assert state["records"].keys() >= {f"r{n}" for n in range(1, 900)}
        assert ("r0" in state["records"]) == (state["position"] < 4)
        async with cluster.plain("n1") as stream:
            head = f"HEAD /v1/rooms/canvas:1/state HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {backend.token}\r\n\r\n"
            answer = await HttpPeer(stream).ask(head.encode(), head=True)
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 900 * 100

    play(scene)


def test_the_same_request_is_stored_once() -> None:
    """With an idempotency key, at any node; another key, caller, content, room or method is another publication."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend = service(cluster)
        first = await backend.posted("lobby", {"data": 1}, idempotency_key="k")
        assert await backend.posted("lobby", {"data": 1}, "n2", idempotency_key="k") == first
        assert await backend.posted("lobby", {"data": 2}, idempotency_key="k") == 2
        assert await backend.posted("lobby", {"data": 1}, idempotency_key="l") == 3
        another = service(cluster, sub="other")
        assert await another.posted("lobby", {"data": 1}, idempotency_key="k") == 4
        assert await backend.posted("lobby", {"data": 1}) == 5
        assert await backend.posted("hall", {"data": 1}, idempotency_key="k") == 1
        for _ in range(2):
            assert json.loads((await backend.patch("lobby", {"a": {"x": 1}}, idempotency_key="k")).body) == {
                "position": 6
            }

    play(scene)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "data"),
        ({"kind": "chat"}, "data"),
        ({"data": 1, "put": {}}, "data"),
        ({"put": {"a": {}}, "kind": "chat"}, "kind"),
        ({"data": 1, "kind": "x" * 65}, "kind"),
        ({"put": {"a": 1}}, "put[...]"),
        ({"put": {"": {}}}, ""),
        ({"patch": {"a": None}}, "patch[...]"),
        ({"remove": ["x" * 129]}, "remove[0]"),
        ({"remove": [1]}, "remove[0]"),
    ],
)
def test_a_wrong_publication(body: Any, field: str) -> None:
    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        answer = await service(cluster).post("lobby/messages", body)
        assert answer.status == 400
        (error,) = json.loads(answer.body)["errors"]
        assert error["field"] == field
        assert (await service(cluster).get("lobby")).status == 404, "nothing was stored, and no room made"

    play(scene)


def test_nothing_is_no_publication() -> None:
    """It would be a frame without content to each member."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend = service(cluster)
        nothing: tuple[dict[str, Any], ...] = ({"put": {}}, {"patch": {}, "remove": []})
        for body in nothing:
            answer = await backend.post("lobby/messages", body)
            assert (answer.status, json.loads(answer.body)["type"]) == (400, "urn:signald:problem:bad-record")
        assert (await backend.patch("lobby", {})).status == 400
        assert (await backend.get("lobby")).status == 404
        assert (await backend.post("lobby/messages?kind=x", b"", content_type=BINARY)).status == 201
        assert (await backend.read("lobby/history"))["entries"][0]["data_b64"] == ""

    play(scene)


def test_bounds() -> None:
    """A record and a room have theirs, and the names of rooms."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster, record_bytes_max=256, records_max=2)
        backend = service(cluster)
        answer = await backend.patch("lobby", {"a": {"x": "y" * 300}})
        assert (answer.status, json.loads(answer.body)["type"]) == (413, "urn:signald:problem:too-large")
        assert (await backend.patch("lobby", {"a": {}, "b": {}})).status == 200
        answer = await backend.patch("lobby", {"c": {}})
        assert (answer.status, json.loads(answer.body)["type"]) == (409, "urn:signald:problem:room-full")
        many = {"remove": [f"r{n}" for n in range(2001)]}
        assert (await backend.post("lobby/messages", many)).status == 413
        for name in ("a%20b", "x" * 129, "%C3%BC", "a/b"):
            assert (await backend.get(name)).status == 404
            assert (await backend.patch(name, {"a": {}})).status == 404
        assert (await backend.patch("x" * 128, {"a": {}})).status == 200
        assert (await backend.post("lobby/messages", b"[", content_type="application/json")).status == 400
        assert (await backend.ask("n1", "PATCH", "/v1/rooms/lobby/state", b"{}", content_type=BINARY)).status == 415

    play(scene)


def test_a_service_has_its_scope_and_tenant() -> None:
    """Two tenants have two rooms of one name. The room of a user needs the scope `users`, any other `rooms`."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        everything, acme = service(cluster), service(cluster, tenant="acme")
        await everything.posted("lobby", {"data": "none"})
        await acme.posted("lobby", {"data": "acme"})
        for asking, path, said in (
            (everything, "lobby", "none"),
            (acme, "lobby", "acme"),
            (everything, "lobby/history?tenant=acme", "acme"),
            (acme, "lobby/history?tenant=acme", "acme"),
        ):
            told = await asking.read(path if "/" in path else f"{path}/history")
            assert [one["data"] for one in told["entries"]] == [said]
            assert told["entries"][0]["room"] == "lobby"
        assert (await acme.get("lobby?tenant=")).status == 403
        assert (await everything.get("lobby?tenant=")).status == 404
        for scope, room, status in (
            (["rooms"], "lobby", 201),
            (["users"], "lobby", 403),
            (["users"], "user:ann", 201),
            (["rooms"], "user:ann", 403),
        ):
            answer = await service(cluster, scope=scope).post(f"{room}/messages", {"data": 1})
            assert answer.status == status, (scope, room)
        assert stored_name("lobby", "acme") == f"acme{SEPARATOR}lobby"

    play(scene)


RIGHTS = {"lobby": ["join"], "hall": ["publish"], "canvas:*": ["state"]}
MATRIX = [
    ("GET", "{room}", {"lobby"}, 200),
    ("GET", "{room}/history", {"lobby"}, 200),
    ("GET", "{room}/state", {"lobby"}, 200),
    ("POST", "{room}/messages", {"hall"}, 201),
    ("PATCH", "{room}/state", {"canvas:1"}, 200),
]


@pytest.mark.parametrize("kind", ["client", "person", "worker"])
def test_a_party_may_what_its_claim_says(kind: str) -> None:
    """Each operation needs one right; 403 without it. A party's own room may be read, and nothing published there."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        for room in ("lobby", "hall", "canvas:1", "user:ann", "user:bob"):
            await service(cluster).posted(room, {"data": 1})
        asking, session = await party(cluster, rooms=RIGHTS)
        if kind == "worker":
            peer, opened = await cluster.worker("n1", auth=token(10_000, "worker", rooms=RIGHTS), api=True)
            await peer.accept()
            asking = Rooms(cluster, opened["api_token"])
        elif kind == "person":
            asking = person(cluster, rooms=RIGHTS)
        query = "" if kind == "client" else f"?session={session}"
        for method, path, allowed, status in MATRIX:
            for room in ("lobby", "hall", "canvas:1", "user:ann", "user:bob"):
                body = b"" if method == "GET" else b'{"data":1}' if method == "POST" else b'{"a":{}}'
                answer = await asking.ask("n1", method, f"/v1/rooms/{path.format(room=room)}{query}", body)
                own = room == "user:ann" and method == "GET" and kind != "worker"
                assert answer.status == (status if own or room in allowed else 403), (method, path, room)
        answer = await asking.post(f"canvas:1/messages{query}", {"remove": ["a"]})
        assert answer.status == 201, "a change of records needs the right `state`, however it is asked for"
        assert (await asking.post(f"hall/messages{query}", {"remove": ["a"]})).status == 403

    play(scene)


def test_a_session_is_named_and_known() -> None:
    """A person and a worker name one of theirs. What belongs to another, or has ended, is not there."""

    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster)
        everything: dict[str, Any] = {"rooms": {"*": ["join", "publish", "state"]}}
        client, session = await party(cluster, **everything)
        _, another = await party(cluster, sub="bob", **everything)
        asking = person(cluster, **everything)
        await client.posted("lobby", {"data": 1})
        assert (await asking.get("lobby")).status == 400
        assert (await asking.get(f"lobby?session={session}")).status == 200
        assert (await asking.get(f"lobby?session={another}")).status == 404
        assert (await client.get(f"lobby?session={another}")).status == 403
        worker, _ = await party(cluster, "worker", **everything)
        assert (await worker.get(f"lobby?session={session}")).status in (200, 404)
        await node.hub.parts.endings.by_order(session, "done", "api")
        assert (await client.post("lobby/messages", {"data": 1})).status == 404

    play(scene)


def test_rooms_of_a_tenant_over_http() -> None:
    """A client of a tenant has its tenant's rooms, and no other."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        everything: dict[str, Any] = {"rooms": {"*": ["join", "publish", "state"]}}
        ann, _ = await party(cluster, tenant="acme", **everything)
        plain, _ = await party(cluster, **everything)
        await ann.posted("lobby", {"data": 1})
        assert (await plain.get("lobby")).status == 404
        assert (await service(cluster, tenant="acme").read("lobby"))["position"] == 1
        await service(cluster).posted("user:ann", {"data": 1})
        assert (await ann.read("user:ann"))["position"] == 0
        await service(cluster, tenant="acme").posted("user:ann", {"data": 1})
        assert (await ann.read("user:ann"))["position"] == 1

    play(scene)


def test_without_auth_a_client_asks_with_its_token() -> None:
    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        _, opened = await cluster.client("n1", api=True)
        client = Rooms(cluster, opened["api_token"])
        assert await client.posted("lobby", {"data": 1}) == 1
        assert (await client.post("user:/messages", {"data": 1})).status == 403
        assert (await Rooms(cluster, "").get("lobby")).status == 401

    play(scene)


def test_readers_of_records_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller reads a few at a time, and all together no more than the budget: 429, 503. What was read frees its place."""

    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster, room_bytes_max=65_536)
        backend = service(cluster)
        await backend.posted("canvas:1", {"put": {"a": {"x": "y" * 60_000}}})
        states = RoomStates(node.hub.context)
        begun = []
        for payer in ("ann", "ann", "bob"):
            document = states.document(payer, "canvas:1", "canvas:1")
            assert int(await anext(document)) > 60_000
            begun.append(document)
        held = states.bytes_held
        assert 3 * 60_000 < held < 3 * 61_000
        with pytest.raises(Exception, match="too many") as refused:
            await anext(states.document("ann", "canvas:1", "canvas:1"))
        assert refused.value.because == "share"  # type: ignore[attr-defined]
        assert states.bytes_held == held
        monkeypatch.setattr(room_states, "room_states_bytes", lambda _: held + 100)
        with pytest.raises(Exception, match="too many") as refused:
            await anext(states.document("eve", "canvas:1", "canvas:1"))
        assert refused.value.because == "full"  # type: ignore[attr-defined]
        for document in begun:
            await document.aclose()
        assert states.bytes_held == 0
        document = states.document("ann", "canvas:1", "canvas:1")
        pieces = [piece async for piece in document]
        assert int(pieces[0]) == len(b"".join(pieces[1:]))
        assert states.bytes_held == 0

    play(scene)


def test_members_hear_of_it() -> None:
    """What is posted is told to the members at this node and at others; a session shows its rooms; a node counts."""

    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster, record_bytes_max=256)
        claim: dict[str, Any] = {"rooms": {"*": ["join"]}}
        members = []
        for at in ("n1", "n2"):
            peer, opened = await cluster.client(at, auth=token(10_000, **claim))
            await peer.ask({"type": "join", "room": "lobby"}, "joined")
            members.append((peer, opened["session"]))
        backend = service(cluster)
        await backend.posted("lobby", {"data": 1})
        await backend.patch("lobby", {"a": {"x": 1}}, "n2")
        for peer, _ in members:
            first, second = await peer.expect("room_message"), await peer.expect("room_message")
            assert (first["position"], first["data"], first["member"]) == (1, 1, "")
            assert (second["position"], second["patch"]) == (2, {"a": {"x": 1}})
        shown = json.loads((await backend.ask("n1", "GET", f"/v1/sessions/{members[0][1]}")).body)
        assert shown["rooms"] == ["lobby"]
        assert (await backend.post("lobby/messages", {"put": {"a": {"x": "y" * 300}}})).status == 413
        hall = node.hub.rooms.hall
        assert hall.counts.publications == {**dict.fromkeys(RESULTS, 0), "stored": 1, "too_big": 1}
        assert (hall.counts.deliveries, sum(hall.counts.fanouts.counts), hall.members) == (2, 2, 1)

    play(scene)


def test_a_publication_of_a_member_is_counted() -> None:
    async def scene(cluster: Cluster) -> None:
        node = await two_nodes(cluster)
        claim: dict[str, Any] = {"rooms": {"*": ["join", "publish"]}}
        peer, _ = await cluster.client("n1", auth=token(10_000, **claim))
        await peer.ask({"type": "join", "room": "lobby"}, "joined")
        for seq, said in ((1, {"data": 1}), (2, {"remove": ["a"]}), (4, {"data": 1})):
            await peer.send({"type": "publish", "room": "lobby", "seq": seq, **said})
        await trio.sleep(1)
        counts = node.hub.rooms.hall.counts
        assert {name: count for name, count in counts.publications.items() if count} == {
            "stored": 1,
            "forbidden": 1,
            "gap": 1,
        }

    play(scene)


def test_the_author_of_a_publication() -> None:
    """A service has no name. A party has that of a member, need not be one, and hears of it on its connection as others do."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        everything: dict[str, Any] = {"rooms": {"*": ["join", "publish", "state"]}}
        peer, opened = await cluster.client("n1", auth=token(10_000, **everything), api=True)
        session = opened["session"]
        assert (await peer.expect("joined"))["room"] == "user:ann"
        joined = await peer.ask({"type": "join", "room": "lobby"}, "joined")
        worker, accepted = await cluster.worker("n2", auth=token(10_000, "worker", **everything), api=True)
        await worker.accept()
        client = Rooms(cluster, opened["api_token"])
        await client.posted("lobby", {"data": 1}, "n2")
        await peer.send({"type": "publish", "room": "lobby", "seq": joined["next_seq"], "data": 2})
        assert (await peer.expect("room_message")).items() >= {"position": 1, "member": session, "data": 1}.items()
        assert (await peer.expect("published")).items() >= {"position": 2, "seq": 1}.items()
        for asking in (Rooms(cluster, accepted["api_token"]), person(cluster, **everything)):
            assert (await asking.post(f"lobby/messages?session={session}", {"data": 3})).status == 201
        await service(cluster).posted("lobby", {"data": 4})
        told = await client.read("lobby/history")
        assert [one["member"] for one in told["entries"]] == [session, session, f"{session}/worker", session, ""]
        assert [(await peer.expect("room_message"))["position"] for _ in range(3)] == [3, 4, 5]

    play(scene)
