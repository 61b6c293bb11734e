"""A model of one room, and of connections that lose what is under way. Only what the wire says; the members are the SDK's own cores.

The order that the wire promises holds: what a connection is told follows the positions. The rest is as bad as it may be: a node tells late,
leaves out what `published` tells later, forgets its log, its room, or a member that is slow.
"""

import json
import random
from collections import deque
from typing import Any

from signald.core.rooms import Properties, Publication, fold, properties_of, welcome
from signald.ids import SeededEntropy
from signald.sdk.bounds import DEFAULT_BOUNDS
from signald.sdk.core import SessionCore
from signald.sdk.decoding import decode_for_client
from signald.sdk.room_core import RoomCore
from signald.sdk.room_events import PublicationRefused, RecordsChanged, RoomPublication, RoomReset
from signald.sdk.rooms_core import OfRooms, Rooms
from signald.sdk.writing import Batch

ROOM = "canvas:42"


class Wire:
    """One connection: frames under way in both directions."""

    def __init__(self) -> None:
        self.up: deque[dict[str, Any]] = deque()
        self.down: deque[dict[str, Any]] = deque()
        self.told = 0
        """The position up to which it was told."""
        self.confirmed = 0
        """The seq that was confirmed on it."""
        self.is_in = False


class Member:
    """A party, and what it has seen."""

    def __init__(self, name: str, *, state: bool) -> None:
        self.name = name
        self.rooms = Rooms(SessionCore(None, SeededEntropy(1)), lambda: DEFAULT_BOUNDS)
        self.room: RoomCore = self.rooms.join(ROOM, state=state)
        self.wires: list[Wire] = []
        self.current: Wire | None = None
        self.owner: Wire | None = None
        """The connection that has its seat."""
        self.seen: list[int] = []
        """The positions of what others published, since the last reset."""
        self.begins_at: int | None = None
        self.made: dict[int, int] = {}
        """Number of a publication → its token."""
        self.refused: set[int] = set()

    def read(self) -> None:
        """Take the events, as an application does."""
        while (event := self.room.news.take()) is not None:
            match event:
                case RoomPublication() | RecordsChanged():
                    self.seen.append(event.position)
                case RoomReset(position, _):
                    self.seen, self.begins_at = [], position
                case PublicationRefused(number, _):
                    self.refused.add(self.made[number])


class Model:
    """The room and its members."""

    def __init__(self, rng: random.Random, names: str) -> None:
        self.rng = rng
        self.now = 0.0
        self.members = [Member(name, state=index != 1) for index, name in enumerate(names)]
        self.logs: list[list[tuple[str, int, dict[str, Any]]]] = []
        """What the room has stored, in each of its epochs: member, seq, publication."""
        self.lose_the_room()

    # --- the room ---------------------------------------------------------------------------------------------------

    def lose_the_room(self) -> None:
        """The store has lost it: the next one has another epoch."""
        self.log: list[tuple[str, int, dict[str, Any]]] = []
        self.logs.append(self.log)
        self.floor = 0
        self.next_seqs: dict[str, int] = {}
        self.faults: dict[str, list[int]] = {}
        self.records: dict[str, tuple[int, Properties | None]] = {}
        for member in self.members:
            member.owner = None

    def trim(self) -> None:
        """Forget some of the log."""
        self.floor = self.rng.randint(self.floor, len(self.log))

    def _store(self, name: str, seq: int, said: dict[str, Any]) -> None:
        self.log.append((name, seq, said))
        put, patch = (
            [(key, properties_of(value)) for key, value in said.get(part, {}).items()] for part in ("put", "patch")
        )
        publication = Publication(seq, b"", tuple(put), tuple(patch), tuple(said.get("remove", ())))
        now = fold(publication, lambda key: self.records.get(key, (0, None))[1])
        self.records.update({key: (len(self.log), value) for key, value in now.items()})

    def truth(self) -> dict[str, Any]:
        """The records as they are."""
        return {
            key: {name: json.loads(one) for name, one in value}
            for key, (_, value) in self.records.items()
            if value is not None
        }

    # --- the node ---------------------------------------------------------------------------------------------------

    def serve(self, member: Member, wire: Wire) -> None:
        """Act on one frame of a party."""
        frame = wire.up.popleft()
        kind = frame["type"]
        if kind == "restore_session":
            member.owner = wire
            wire.down.append({"type": "answer", "listed": [each["room"] for each in frame["rooms"]]})
            for position in frame["rooms"]:
                self._join(member, wire, position)
        elif wire is member.owner or (kind == "join" and wire is member.wires[-1]):
            member.owner = wire
            if kind == "join":
                self._join(member, wire, frame)
            elif kind == "publish" and wire.is_in:
                self._publish(member, wire, frame)

    def _join(self, member: Member, wire: Wire, said: dict[str, Any]) -> None:
        position = len(self.log)
        received = said.get("received", 0)
        answer = welcome(
            received, same=said.get("epoch") == str(len(self.logs)), position=position, floor=self.floor, horizon=0
        )
        for seq in self.faults.get(member.name, []):
            wire.down.append({"type": "room_error", "room": ROOM, "seq": seq, "code": "room_full"})
        joined: dict[str, Any] = {
            "type": "joined",
            "room": ROOM,
            "epoch": str(len(self.logs)),
            "position": position,
            "next_seq": self.next_seqs.setdefault(member.name, 1),
            "replaying": position - received if answer.recovered else 0,
            "recovered": answer.recovered,
            "wipe": answer.wipe,
            "members": [],
            "members_count": len(self.members),
        }
        if said.get("state"):
            new = {key: one for key, (at, one) in self.records.items() if answer.wipe or at > received}
            some = {
                key: {name: json.loads(value) for name, value in one} for key, one in new.items() if one is not None
            }
            head = dict(list(some.items())[: self.rng.randint(0, len(some))])
            wire.down.append({**joined, "records": head, "removed": [], "more": True})
            joined["records"] = {key: value for key, value in some.items() if key not in head}
            joined["removed"] = [key for key, one in new.items() if one is None]
        wire.down.append(joined)
        wire.is_in = True
        wire.confirmed = joined["next_seq"] - 1
        wire.told = position
        for at in range(received + 1, position + 1) if answer.recovered else ():
            name, seq, content = self.log[at - 1]
            own = {"seq": seq} if name == member.name else {}
            wire.down.append(self._message(at, name, content) | own)

    def _message(self, at: int, name: str, content: dict[str, Any]) -> dict[str, Any]:
        return {"type": "room_message", "room": ROOM, "position": at, "member": name, "at_ms": at, **content}

    def _publish(self, member: Member, wire: Wire, frame: dict[str, Any]) -> None:
        expected, seq = self.next_seqs[member.name], frame["seq"]
        content = {key: value for key, value in frame.items() if key in ("data", "put", "patch", "remove")}
        if seq > expected:
            wire.down.append({"type": "room_error", "room": ROOM, "seq": seq, "code": "gap", "expected": expected})
        elif seq == expected:
            self.next_seqs[member.name] += 1
            if self.rng.random() < 0.1:
                self.faults.setdefault(member.name, []).append(seq)
                wire.down.append({"type": "room_error", "room": ROOM, "seq": seq, "code": "room_full"})
            else:
                self._store(member.name, seq, content)

    def tell(self, member: Member, *, upto: int | None = None) -> None:
        """Tell a member what is new, or some of it."""
        wire = member.owner
        if wire is None or not wire.is_in:
            return
        upto = len(self.log) if upto is None else min(upto, len(self.log))
        last_own = max((at for at in range(wire.told + 1, upto + 1) if self.log[at - 1][0] == member.name), default=0)
        while wire.told < upto:
            wire.told += 1
            name, seq, content = self.log[wire.told - 1]
            if name != member.name:
                wire.down.append(self._message(wire.told, name, content))
            elif wire.told == last_own or self.rng.random() < 0.5:
                wire.confirmed = seq
                wire.down.append({"type": "published", "room": ROOM, "seq": seq, "position": wire.told})

    def drop_slow(self, member: Member) -> None:
        """A member does not take what comes: it is asked to join again, and what it was not told is left out."""
        if member.owner is not None and member.owner.is_in:
            member.owner.is_in = False
            member.owner.down.append({"type": "left", "room": ROOM, "reason": "slow"})

    # --- the parties ------------------------------------------------------------------------------------------------

    def dial(self, member: Member) -> None:
        """Open a connection, beside the one that is there."""
        if len(member.wires) < 2:
            wire = Wire()
            wire.up.append({"type": "restore_session", "rooms": member.rooms.positions()})
            member.wires.append(wire)

    def cut(self, member: Member) -> None:
        """Break the oldest connection."""
        if member.wires:
            wire = member.wires.pop(0)
            member.current = None if wire is member.current else member.current
            member.owner = None if wire is member.owner else member.owner

    def write(self, member: Member) -> None:
        """Let the party write what is due."""
        wire = member.current
        if wire is not None:
            batch = Batch()
            member.rooms.write(self.now, batch)
            wire.up.extend(json.loads(payload) for _, payload in batch.frames)

    def receive(self, member: Member, wire: Wire) -> None:
        """Let the party take one frame."""
        frame = wire.down.popleft()
        if frame["type"] == "answer":
            member.current = wire
            for old in member.wires[: member.wires.index(wire)]:
                member.wires.remove(old)
            member.rooms.attach(frozenset(frame["listed"]))
        elif wire is member.current:
            message, binary = decode_for_client(json.dumps(frame))
            assert isinstance(message, OfRooms)
            before = member.room.epoch
            member.rooms.receive(message, binary, 100, self.now)
            if not before and member.room.epoch:
                member.begins_at = member.room.at
        member.read()

    def settle(self) -> None:
        """Let everything come to rest, over whole connections."""
        for member in self.members:
            if not member.wires:
                self.dial(member)
        for _ in range(40):
            self.now += 40.0
            for member in self.members:
                for wire in list(member.wires):
                    while wire.up:
                        self.serve(member, wire)
                    while wire.down and wire in member.wires:
                        self.receive(member, wire)
                if member.current is not None and member.current is not member.owner and member.current.is_in:
                    self.cut(member)  # the room was lost under it: the node would ask for another join
                    self.dial(member)
                self.write(member)
                self.tell(member)
