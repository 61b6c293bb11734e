"""Rooms: each member sees one order, and ends with the records and the members of all others.

What the store has carried out is the truth: each frame of a member is held to it.
"""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from signald.core.rooms import Properties, Publication
from signald.store.base import Done, Op, Result, RoomOp
from signald.store.room.ops import (
    DropMembers,
    Joined,
    JoinRoom,
    LeaveRoom,
    Post,
    Posted,
    Publish,
    Published,
    RoomOver,
)
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.room_members import Publication as Said
    from tests.sim.room_members import RoomMember
    from tests.sim.scene import Scene


@attrs.define
class _Truth:
    """A room, from one epoch to the next."""

    epoch: str
    position: int = 0
    log: dict[int, tuple[str, Publication]] = attrs.field(factory=dict)
    seqs: dict[str, int] = attrs.field(factory=dict)
    """Member with a seat → its last seq."""
    refused: dict[tuple[str, int], str] = attrs.field(factory=dict)
    keys: dict[bytes, int] = attrs.field(factory=dict)
    left: Counter[str] = attrs.field(factory=Counter)
    """Member → how often its seat was taken."""


class RoomOrder(Checker):
    """All members see one order and end with the same records; presence never flaps in a handover."""

    name = "room-order"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._rooms: dict[str, _Truth] = {}
        self._before: dict[tuple[str, str], _Truth] = {}
        """Rooms that were lost, by name and epoch."""
        self._leaves: Counter[tuple[str, str]] = Counter()
        """Room and member → how often the store has carried out a `leave` of it, in whatever epoch."""
        self._leaving: dict[tuple[str, str], int] = {}
        """Room and member → how often that was when it asked last."""
        self.may_lose = scene.plan.store_may_lose
        self.goes_back = any(step.what == "fail_over" for step in scene.plan.steps)
        """A failover takes a room back to what it was, under its epoch: nothing of it is promised then."""

    def broken(self, text: str) -> None:
        """See `Checker`."""
        if not self.goes_back:
            super().broken(text)

    # --- the store --------------------------------------------------------------------------------------------------

    def applied(self, op: Op, result: Result) -> None:
        """The store has carried out an operation."""
        if not isinstance(op, RoomOp) or self.goes_back:
            return
        if isinstance(result, Joined) and isinstance(op, JoinRoom):
            self._has_joined(op, result)
        elif isinstance(result, Published) and isinstance(op, Publish):
            self._has_published(op, result)
        elif isinstance(result, Posted) and isinstance(op, Post):
            self._has_posted(op, result)
        elif isinstance(op, LeaveRoom) and isinstance(result, Done | RoomOver):
            # Of one that may not be in the room, a seat is taken that it may have: it never had one in a plan.
            had = op.room in self._rooms and op.member in self._rooms[op.room].seqs
            if had and (op.room, op.member) not in self._leaving:
                self.broken(f"{op.member} did not ask to leave {op.room}: {op}")
            self._leaves[op.room, op.member] += 1
            self._drop(op.room, op.member)
        elif isinstance(op, DropMembers):
            record = self.scene.world.rows.session(op.session)
            if record is not None and op.session not in self.scene.brought_back and not self.may_lose:
                self.broken(f"{op.session} lives, and its seats in {op.room} are taken")
            for member in (op.session, f"{op.session}/worker"):
                self._drop(op.room, member)

    def _drop(self, room: str, member: str) -> None:
        truth = self._rooms.get(room)
        if truth is not None and truth.seqs.pop(member, None) is not None:
            truth.left[member] += 1

    def _has_joined(self, op: JoinRoom, result: Joined) -> None:
        truth = self._rooms.get(op.room)
        if truth is None or truth.epoch != result.epoch:
            if truth is not None:
                self.scene.reached("room lost")
                self._before[op.room, truth.epoch] = truth
            truth = self._rooms[op.room] = _Truth(result.epoch)
        if result.position != truth.position:
            self.broken(f"{op.room} is at {result.position}, and had {truth.position}")
        known = truth.seqs.setdefault(op.member, 0)
        if result.next_seq != known + 1:
            self.broken(f"{op.member} in {op.room} is to go on with {result.next_seq}, and has {known}")

    def _has_published(self, op: Publish, result: Published) -> None:
        truth = self._rooms.get(op.room)
        if truth is None:
            return self.broken(f"{op.room} was never joined, and has {result}")
        refused, known = dict(result.refused), truth.seqs.get(op.member, 0)
        for offer in op.offers:
            said = offer.publication
            if not known < said.seq <= result.seq:
                continue
            if said.seq != known + 1:
                self.broken(f"{op.member} in {op.room} has {known}, and {said.seq} was stored")
            known = said.seq
            if said.seq in refused:
                truth.refused[op.member, said.seq] = refused[said.seq]
                continue
            truth.position += 1
            truth.log[truth.position] = op.member, said
        if result.seq != known or (result.position and truth.log.get(result.position, ("", None))[0] != op.member):
            self.broken(f"{op.member} in {op.room}: {result}, and the log has {known} up to {truth.position}")
        truth.seqs[op.member] = known
        return None

    def _has_posted(self, op: Post, result: Posted) -> None:
        truth = self._rooms.get(op.room)
        head = self.scene.world.rows.room(op.room)
        if truth is None or (head is not None and head.epoch != truth.epoch and result.position == 1):
            if truth is not None:
                self._before[op.room, truth.epoch] = truth
            truth = self._rooms[op.room] = _Truth("" if head is None else head.epoch)
        known = truth.keys.get(op.key) if op.key else None
        if known is not None:
            self.scene.reached("post in a room replayed")
            if known != result.position:
                self.broken(f"{op.room} has {op.publication} at {known}, and again at {result.position}")
            return
        truth.position += 1
        truth.keys[op.key] = truth.position
        truth.log[truth.position] = op.member, op.publication
        if result.position != truth.position:
            self.broken(f"{op.room} is at {truth.position}, and {result}")

    def posted(self, room: str, key: bytes, position: int) -> None:
        """A service is told where its publication stands."""
        truth = self._rooms.get(room)
        if self.goes_back or self.may_lose or truth is None:
            return
        if truth.keys.get(key) != position:
            self.broken(f"a service is told {position} in {room}, and has {truth.keys.get(key)}")

    # --- what members are told --------------------------------------------------------------------------------------

    def _of(self, member: "RoomMember") -> _Truth | None:
        now = self._rooms.get(member.plan.room)
        if now is not None and now.epoch == member.epoch:
            return now
        return self._before.get((member.plan.room, member.epoch))

    def leaves(self, member: "RoomMember") -> None:
        """A member asks to leave."""
        key = member.plan.room, member.name
        self._leaving[key] = self._leaves[key]

    def joined(self, member: "RoomMember", said: dict[str, Any], asked: int) -> None:
        """A member is told `joined`, and had asked with the position `asked`."""
        scene = self.scene
        same = said["epoch"] == member.epoch
        if member.epoch and not same:
            scene.reached("room joined under another epoch")
        if member.epoch and same and not said["recovered"]:
            scene.reached("room joined with a hole")
        if said["recovered"]:
            if asked:
                scene.reached("room joined again")
            if not same or said["replaying"] != said["position"] - asked:
                self.broken(f"{member!r} had {asked} of {member.epoch}, and is told {said}")
            if said["replaying"]:
                scene.reached("room replayed")
        elif said["replaying"]:
            self.broken(f"{member!r} has not recovered, and is told {said}")
        names = [one["member"] for one in said["members"]]
        if member.name not in names or len(set(names)) != len(names) or said["members_count"] != len(names):
            self.broken(f"{member!r} is told of the members {said['members']}")

    def shown(self, member: "RoomMember", said: dict[str, Any]) -> None:
        """A member gets a publication."""
        self._is(member, said["position"], said["member"], said)

    def own(self, member: "RoomMember", one: "Said") -> None:
        """A member has learned where its own publication stands."""
        self._is(member, one.position, member.name, one.said)

    def _is(self, member: "RoomMember", position: int, author: str, said: dict[str, Any]) -> None:
        truth = self._of(member)
        if self.goes_back or truth is None:
            return
        stored = truth.log.get(position)
        if stored is None:
            self.broken(f"{member!r} has {said} at {position}, where the store has nothing")
        elif stored[0] != author or _said(stored[1]) != _said_in(said):
            self.broken(f"{member!r} has {said} of {author!r} at {position}, and the store {stored}")

    def published(self, member: "RoomMember", said: dict[str, Any]) -> None:
        """A member is told that its publications are stored."""
        truth = self._of(member)
        if self.goes_back or truth is None:
            return
        if said["seq"] > truth.seqs.get(member.name, 0) and not truth.left[member.name]:
            self.broken(f"{member!r} is told {said}, and the store has {truth.seqs.get(member.name)} of it")

    def refused(self, member: "RoomMember", said: dict[str, Any]) -> None:
        """A member is told that a publication of its is refused."""
        truth = self._of(member)
        if self.goes_back or truth is None:
            return
        if truth.refused.get((member.name, said["seq"])) != said["code"]:
            self.broken(f"{member!r} is told {said}, and that was not refused")

    def turned_away(self, member: "RoomMember", reason: str) -> None:
        """A member is not let in."""
        if reason != "unavailable":
            self.broken(f"{member!r} is turned away: {reason}")

    def has_left(self, member: "RoomMember") -> None:
        """A member is told that it has left.

        It may have a seat all the same: the room is another one since, or another connection has named the room before it left.
        """
        key = member.plan.room, member.name
        if self._leaves[key] == self._leaving[key]:
            self.broken(f"{member!r} is told that it has left, and the store has not been told so since it asked")

    def came(self, member: "RoomMember", said: dict[str, Any]) -> None:
        """A member is told of arrivals, changes and departures."""
        for one in said.get("joined", []):
            if one["member"] in member.roster and one["member"] != member.name:
                self.broken(f"{member!r} knows {one['member']}, and is told {said}")
        for one in said.get("changed", []):
            if one["member"] not in member.roster:
                self.broken(f"{member!r} does not know {one['member']}, and is told {said}")
        truth = self._of(member)
        for name in said.get("left", []):
            if name not in member.roster:
                self.broken(f"{member!r} does not know {name}, and is told {said}")
            if truth is not None and not self.goes_back and not truth.left[name]:
                self.broken(f"{member!r} is told that {name} has left, which has its seat")
            self.scene.reached("member seen leaving")

    # --- the end ----------------------------------------------------------------------------------------------------

    def lacks(self, member: "RoomMember") -> str:
        """Say what a member has not; empty: it has everything."""
        scene = self.scene
        if self.goes_back or member.over or not member.session or member.session in scene.stolen:
            return ""
        client = scene.sessions.get(member.session)
        if client is None or client.is_over() or client.session in scene.liars or not member.inside:
            return ""
        current = member.rooming.current.get(member.party)
        room, rows = member.plan.room, scene.world.rows
        text = f"{member!r} at {member.received} of {member.epoch}, on {member.wire and member.wire._wire}"
        if member.wire is not current or member.slow or member.asked or member.leaving:
            return f"{text}: it is not on {current and current._wire} (asked on {member.asked and member.asked._wire})"
        head = rows.room(room)
        if head is None or head.epoch != member.epoch or head.position != member.received or member.pending:
            return f"{text}: the store has {head}; pending {list(member.pending.values())}"
        members = {name: _presence(rows.presence(room, name)) for name in rows.members_after(room, 0, 1000)}
        others = {name: said for name, said in member.roster.items() if name != member.name}
        mine = members.pop(member.name, "no seat")
        if others != members or (member.presence is not None and mine != member.presence):
            return f"{text}, which has said {member.presence}: it sees {others}, and the store has {members} and {mine}"
        if member.plan.state:
            changes, _ = rows.room_changes(room, 0, 100_000)
            kept = {name: _record(one.properties) for name, one in changes if one.properties is not None}
            if kept != member.records:
                return f"{text}: it has the records {member.records}, and the store {kept}"
        return ""

    def ghosts(self) -> list[str]:
        """Return what is left of rooms when all sessions are over."""
        if self.scene.rooming is None:
            return []
        rows = self.scene.world.rows
        plan = self.scene.rooming.rooms
        rooms = sorted({one.room for one in plan.members} | {one.room for one in plan.posts})
        left = [f"room {room}: {rows.room(room)}" for room in rooms if rows.room(room) is not None]
        for node in self.scene.alive():
            if node.node is not None:
                left += [f"room {name} in {node.name}" for name in node.node.hub.rooms.hall.rooms]
        return left


def _presence(kept: Any) -> Any:
    return None if kept is None or not kept.presence else json.loads(kept.presence)


def _record(properties: Properties | None) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in properties or ()}


def _said(publication: Publication) -> dict[str, Any]:
    """Return what the store has of a publication, as it was said."""
    if publication.body:
        return {"data": json.loads(b"{" + publication.body[1:])["data"]}
    said: dict[str, Any] = {}
    if publication.puts:
        said["put"] = {name: _record(record) for name, record in publication.puts}
    if publication.patches:
        said["patch"] = {name: _record(record) for name, record in publication.patches}
    if publication.removes:
        said["remove"] = list(publication.removes)
    return said


def _said_in(frame: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in frame.items() if key in ("data", "put", "patch", "remove")}
