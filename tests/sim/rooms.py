"""Rooms in a simulation: who is in which, and what is said in them, drawn here; and where it goes over the carriers.

The parties' SDK speaks of messages alone, so the members stand beside it: they look at what its carriers bring, and speak over the same
ones. `room-order` judges them.
"""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.core.callers import Caller
from signald.core.rooms import Publication, properties_of
from signald.errors import StoreUnavailable
from signald.http.api.room_views import Asking, Post
from signald.sdk.writing import Frame
from signald.service.api.rooms import HttpRooms
from signald.wire.records import publication_body
from tests.sim.room_members import RoomMember

if TYPE_CHECKING:
    from tests.sim.habits import Tapped
    from tests.sim.scene import Scene

ANSWER_S = 5.0
"""How long a service waits for an answer; a node that was killed gives none."""

OPENED = frozenset({"session_started", "session_restored", "app_accepted", "reconnection_ack"})
"""The answers from which on a connection is that of its party."""

OF_ROOMS = frozenset({"joined", "published", "room_message", "room_error", "room_presence", "left"})


@attrs.frozen
class MemberPlan:
    """One member, which is the client of its number, or the worker of that client's session."""

    room: str
    client: int
    worker: bool
    at: float
    """When it joins, in seconds after the start; a worker not before it has the session."""
    state: bool
    """It wants the records."""
    publications: int
    every_s: float
    stays_s: float
    """After so long it leaves, and joins again at once or after a while; 0: it stays."""
    away_s: float
    quiet: bool
    """It says no presence."""


@attrs.frozen
class PostPlan:
    """One publication of a service."""

    at: float
    room: str
    state: bool
    """It changes a record."""
    again: bool
    """It is posted once more when it is answered, with the same key."""


@attrs.frozen
class Rooms:
    """What a plan has of rooms."""

    members: tuple[MemberPlan, ...]
    history: int
    """`rooms.history_messages_max`: with few, a member that comes back is told that it has missed some."""
    tombstones: int
    """`rooms.tombstones_max`."""
    posts: tuple[PostPlan, ...] = ()


def draw_rooms(r: random.Random, clients: int, lasts_s: float) -> Rooms | None:
    """Return the rooms of a plan with so many clients, or None: most plans have none."""
    if r.random() >= 0.25:
        return None
    rooms = ("r:1", "r:2")[: r.choice((1, 1, 2))]
    members = tuple(
        _draw_member(r, room, client, worker=worker, lasts_s=lasts_s)
        for room in rooms
        for client in range(min(clients, 6))
        for worker in (False, True)
        if r.random() < (0.4 if worker else 0.9)
    )
    history, tombstones = r.choice((1, 5, 1000)), r.choice((0, 1, 1000))
    posts = [
        PostPlan(round(r.uniform(1.0, lasts_s - 2), 3), r.choice(rooms), r.random() < 0.3, r.random() < 0.3)
        for _ in range(r.choice((0, 0, 3, 8)))
    ]
    return Rooms(members, history, tombstones, tuple(posts))


def _draw_member(r: random.Random, room: str, client: int, *, worker: bool, lasts_s: float) -> MemberPlan:
    return MemberPlan(
        room,
        client,
        worker,
        round(r.choice((0.0, r.uniform(0.0, lasts_s / 2))), 3),
        r.random() < 0.7,
        r.choice((0, 3, 10, 20)),
        r.choice((0.05, 0.3, 1.0)),
        round(r.choice((0.0, 0.0, 0.0, r.uniform(0.2, lasts_s / 2))), 3),
        r.choice((0.0, 0.5, 3.0)),
        r.random() < 0.4,
    )


def rooms_section(rooms: Rooms) -> dict[str, object]:
    """Return the section `rooms` of a plan."""
    return {
        "history_messages_max": rooms.history,
        "tombstones_max": rooms.tombstones,
        "default_rights": ("join", "publish", "state"),
        "keep_s": KEEP_S,
    }


KEEP_S = 20.0
"""`rooms.keep_s`: beyond the time for which all members of a room may be away in a run, and soon over at its end."""


class Rooming:
    """The members of a scene whose plan has rooms, and their part in what its carriers carry."""

    def __init__(self, scene: "Scene", rooms: Rooms) -> None:
        self.scene = scene
        self.rooms = rooms
        self.current: dict[str, Tapped] = {}
        """Party → the connection on which it was let in last."""
        self.accepted: set[tuple[str, str]] = set()
        """Worker and session that it has accepted: before that it may say nothing of it."""
        self.members: list[RoomMember] = []
        self._of_clients = {
            one.name: [
                RoomMember(self, one.name, member)
                for member in rooms.members
                if (member.client, member.worker) == (number, False)
            ]
            for number, one in enumerate(scene.plan.clients)
        }
        self._at_workers: dict[tuple[str, str], list[RoomMember]] = {}
        """Worker and session → its members."""
        for members in self._of_clients.values():
            self.members += members

    def begin(self, nursery: trio.Nursery) -> None:
        """Let the members of clients live."""
        for one in self.members:
            nursery.start_soon(one.run)
        for number, post in enumerate(self.rooms.posts):
            nursery.start_soon(self._post, number, post)

    async def _post(self, number: int, plan: PostPlan) -> None:
        """Publish as a service, as often as it takes to be answered."""
        scene, random = self.scene, self.scene.chance.random(f"post {number}")
        await trio.sleep_until(scene.began_at + plan.at)
        said = {"by": f"service.{number}"}
        record = (("s0", properties_of({"x": f"service.{number}"})),)
        body = b"" if plan.state else publication_body(None, json.dumps(said).encode(), None)
        post = Post(Publication(0, body, (), record if plan.state else ()), sha256(f"key {number}".encode()).digest())
        left = 1 + plan.again
        while left:
            nodes = [one for one in scene.listening() if one.ready.is_set()]
            node = random.choice(nodes) if nodes else None
            if node is not None and node.node is not None:
                api = HttpRooms(node.node.hub.parts)
                with trio.move_on_after(ANSWER_S) as waiting:
                    try:
                        posted = await api.post(Asking(Caller("service", "", ""), None), plan.room, post)
                    except StoreUnavailable:
                        scene.reached("post in a room without an answer")
                    else:
                        scene.trace("post", f"{number} in {plan.room} at {node.name}: {posted.position}")
                        scene.check.room_order.posted(plan.room, post.key, posted.position)
                        left -= 1
                if waiting.cancelled_caught:
                    scene.reached("post in a room without an answer")
            await trio.sleep(random.uniform(0.1, 1.0))

    def knows(self, party: str) -> bool:
        """Tell whether members stand beside it."""
        return party in self._of_clients or (
            party.startswith("w") and any(one.name == party and not one.old for one in self.scene.plan.workers)
        )

    def _members(self, party: str, session: str | None) -> list[RoomMember]:
        return self._of_clients.get(party, []) if session is None else self._at_workers.get((party, session), [])

    @asynccontextmanager
    async def of_worker(self, worker: str, session: str) -> AsyncIterator[None]:
        """A worker has a session for the time of the block, and is in the rooms of the plan meanwhile."""
        client = self.scene.sessions.get(session)
        number = self.scene.clients.index(client) if client is not None else -1
        members = [
            RoomMember(self, worker, one, session)
            for one in self.rooms.members
            if (one.client, one.worker) == (number, True)
        ]
        self._at_workers[worker, session] = members
        self.members += members
        error: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                for one in members:
                    nursery.start_soon(one.run)
                try:
                    yield
                except Exception as raised:
                    error = raised  # as it is: an application has no groups to look at
                nursery.cancel_scope.cancel(reason="the session is over here")
            if error is not None:
                raise error
        finally:
            for one in members:
                one.over = True
                self.members.remove(one)
            if self._at_workers.get((worker, session)) is members:
                del self._at_workers[worker, session]

    # --- over the carriers ------------------------------------------------------------------------------------------

    def sends(self, tapped: "Tapped", party: str, kind: str, frame: Frame) -> Frame:
        """Return a frame as it goes over the wire: one that resumes names the rooms."""
        text, payload = frame
        if kind == "restore_session":
            said = json.loads(payload)
            said["rooms"] = [one.named(tapped) for one in self._members(party, None) if one.is_named]
            return text, dumped(said)
        if kind == "session_accept":
            self.accepted.add((party, json.loads(payload)["session"]))
        if kind == "app_ready":
            said = json.loads(payload)
            for position in said.get("sessions", ()):
                members = self._members(party, position["session"])
                position["rooms"] = [one.named(tapped) for one in members if one.is_named]
            return text, dumped(said)
        return frame

    def takes(self, tapped: "Tapped", party: str, kind: str, frame: Any) -> Any:
        """Return a frame as the SDK gets it; None: it is of rooms, and a member has taken it."""
        if kind in OPENED:
            self.current[party] = tapped
            for one in self.members:
                if one.party == party:
                    one.let_in(tapped)
            return frame
        if kind == "session_assigned":
            session = json.loads(frame)["session"]
            self.accepted.discard((party, session))
            for one in self._members(party, session):
                one.assigned()
        if kind == "error":
            said = json.loads(frame)
            for one in self._members(party, said.get("session")) if said["code"] == "not_accepted" else ():
                one.not_accepted(tapped)
        if kind not in OF_ROOMS:
            return frame
        said = json.loads(frame)
        for one in self._members(party, said.get("session")):
            if one.plan.room == said["room"]:
                one.takes(tapped, kind, said)
        return None

    def waiting(self) -> list[str]:
        """Each member that has not everything yet, or of which others do not see what it says."""
        return [text for one in self.members if (text := self.scene.check.room_order.lacks(one))]


def dumped(said: dict[str, Any]) -> bytes:
    """Return a frame."""
    return json.dumps(said, separators=(",", ":")).encode()
