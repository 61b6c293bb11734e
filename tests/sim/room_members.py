"""A scripted member of a room: it joins, publishes, says its presence, leaves, and goes on over each new connection of its party.

It keeps what the protocol says that a member keeps: its position and the epoch, the records as a fold of what it was told, who is here, and
its own publications until they are `published`.
"""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.network import CarrierClosed

if TYPE_CHECKING:
    from tests.sim.habits import Tapped
    from tests.sim.rooms import MemberPlan, Rooming

Records = dict[str, dict[str, Any]]

AGAIN_S = 0.5
"""The pause before a member joins again that was turned away, or was too slow."""
ACCEPTED_S = 0.05
"""By then what a worker says in answer to its assignment is written, and what it says of rooms comes behind it."""
LEFT_S = 5.0


@attrs.define
class Publication:
    """Something that a member publishes, as it stands in the frame."""

    seq: int
    said: dict[str, Any]
    position: int = 0
    """Where it was told to be stored; 0: it was not."""


def fold(records: Records, said: dict[str, Any]) -> None:
    """Apply a change of records."""
    for name, record in said.get("put", {}).items():
        records[name] = dict(record)
    for name, patch in said.get("patch", {}).items():
        record = records.setdefault(name, {})
        for key, value in patch.items():
            if value is None:
                record.pop(key, None)
            else:
                record[key] = value
    for name in said.get("remove", ()):
        records.pop(name, None)


class RoomMember:
    """See the module."""

    def __init__(self, rooming: "Rooming", party: str, plan: "MemberPlan", session: str | None = None) -> None:
        self.rooming = rooming
        self.scene = rooming.scene
        self.party = party
        self.plan = plan
        self._session = session
        """Of a worker's member."""
        self.over = False
        self.inside = False
        """It wants to be in the room."""
        self.leaving = False
        """Its `leave` is not answered yet."""
        self.epoch = ""
        self.received = 0
        """Its position."""
        self.stands_at = 0
        """The records stand here."""
        self.records: Records = {}
        self.roster: dict[str, Any] = {}
        """Member → what is seen of it."""
        self.presence: Any = None
        """What it has said last."""
        self.pending: dict[int, Publication] = {}
        self.next_seq = 1
        self.wire: Tapped | None = None
        """The connection on which it is a member."""
        self.asked: Tapped | None = None
        """The connection on which an answer to its join is to come."""
        self.slow = False
        self.replayed_upto = 0
        """Up to here its own come as messages too."""
        self._asked_received = 0
        self._named: dict[Tapped, tuple[int, str]] = {}
        self._is_new = True
        """It has left, or was never there: it publishes under seqs of a new seat."""
        self._refused_until = 0.0
        self._page: dict[str, Any] | None = None
        self._news = trio.Event()
        self._count = 0
        self._random = self.scene.chance.random(f"room {party} {plan.room} {session}")

    def __repr__(self) -> str:
        return f"{self.name} in {self.plan.room}"

    @property
    def session(self) -> str:
        """The session whose party it is; empty: there is none yet."""
        if self._session is not None:
            return self._session
        return next(one.session for one in self.scene.clients if one.name == self.party)

    @property
    def name(self) -> str:
        """What others call it."""
        return self.session if self._session is None else f"{self._session}/worker"

    @property
    def is_named(self) -> bool:
        """It is in the room, and says so when its party resumes."""
        return self.inside and bool(self.epoch)

    def named(self, tapped: "Tapped") -> dict[str, Any]:
        """Return its position, as it is said to resume on `tapped`."""
        self._named[tapped] = self.received, self.epoch
        return {"room": self.plan.room, "received": self.received, "epoch": self.epoch, "state": self.plan.state}

    def let_in(self, tapped: "Tapped") -> None:
        """The party has a new connection."""
        if tapped in self._named and self.inside:
            self.asked, (self._asked_received, _) = tapped, self._named[tapped]
            self._page = None
        elif tapped in self._named:
            # It was named before it left, so it has its seat again, whatever the old connection says of its `leave`.
            self.leaving, self.wire = True, None
        self._named.clear()
        self._wake()

    def assigned(self) -> None:
        """The session is assigned anew to its worker, also over the same connection: no room was named with that."""
        self.wire = self.asked = self._page = None
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- what it does -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled."""
        await trio.sleep_until(self.scene.began_at + self.plan.at)
        while self._session is not None and (self.party, self._session) not in self.rooming.accepted:  # noqa: ASYNC110
            await trio.sleep(ACCEPTED_S)
        if self._session is not None:
            await trio.sleep(ACCEPTED_S)
        self.inside = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk)
            if self.plan.stays_s:
                nursery.start_soon(self._come_and_go)
            while True:
                news = self._news
                pause_s = await self._go_on()
                with trio.move_on_after(pause_s):
                    await news.wait()

    async def _go_on(self) -> float:
        """Do what is to be done now; return how long nothing is, unless there is news."""
        tapped = self.rooming.current.get(self.party)
        if tapped is None or tapped._closed or self.over:
            return 1000.0
        if self._session is not None and (self.party, self._session) not in self.rooming.accepted:
            self._refused_until = trio.current_time() + 2 * ACCEPTED_S
            return ACCEPTED_S
        if self.leaving and self.wire is not tapped:
            if trio.current_time() < self._refused_until:
                return self._refused_until - trio.current_time()
            self.wire = tapped
            await self._leave(tapped)
            return LEFT_S
        if not self.inside or self.leaving or self.asked is tapped or (self.wire is tapped and not self.slow):
            return 1000.0
        if trio.current_time() < self._refused_until:
            return self._refused_until - trio.current_time()
        self.asked, self._asked_received, self._page = tapped, self.received, None
        said = {"type": "join", "received": self.received, "epoch": self.epoch, "state": self.plan.state}
        if not self.plan.quiet:
            self.presence = self.presence if self.presence is not None else {"n": 0}
            said["presence"] = self.presence
        await self._say(tapped, said)
        return 1000.0

    async def _talk(self) -> None:
        for _ in range(self.plan.publications):
            await trio.sleep(self._random.uniform(0.0, 2 * self.plan.every_s))
            while self.scene.chaos and (not self.inside or not self.epoch):  # noqa: ASYNC110
                await trio.sleep(0.25)
            if not self.scene.chaos or self.over:
                return
            if not self.plan.quiet and self._random.random() < 0.3:
                await self._say_presence()
            elif self.inside:
                await self._publish()

    async def _publish(self) -> None:
        self._count += 1
        said = self._drawn()
        one = self.pending[self.next_seq] = Publication(self.next_seq, said)
        self.next_seq += 1
        if self.wire is not None and self.asked is None:
            await self._say(self.wire, {"type": "publish", "seq": one.seq, **said})

    def _drawn(self) -> dict[str, Any]:
        value = f"{self.party}.{self._count}"
        shape = f"s{self._random.randrange(4)}"
        other = f"s{self._random.randrange(4)}"
        how = self._random.random()
        if how < 0.4:
            return {"data": {"by": value}}
        if how < 0.6:
            return {"put": {shape: {"x": value, "y": self._count}}}
        if how < 0.8:
            return {"patch": {shape: {"x": value}, other: {"y": None, "z": value}}}
        if how < 0.9:
            return {"remove": [shape]}
        return {"put": {shape: {"y": value}}, "patch": {shape: {"x": value}}, "remove": [other]}

    async def _say_presence(self) -> None:
        self.presence = {"n": self._random.randrange(1000)}
        if self.wire is not None and self.asked is None:
            await self._say(self.wire, {"type": "presence", "presence": self.presence})

    async def _come_and_go(self) -> None:
        while True:
            await trio.sleep(self.plan.stays_s)
            if not self.scene.chaos or self.over:
                return
            if not self.inside or not self.epoch:
                continue
            self.scene.reached("member left a room")
            self.inside, self.leaving, self._is_new = False, True, True
            self.pending.clear()
            self.asked = None
            if self.wire is not None:
                await self._leave(self.wire)
            await trio.sleep(self.plan.away_s)
            while self.leaving and not self.over:  # noqa: ASYNC110
                await trio.sleep(0.25)
            self.inside = True
            self._wake()

    async def _leave(self, tapped: "Tapped") -> None:
        self.scene.check.room_order.leaves(self)
        await self._say(tapped, {"type": "leave"})

    async def _say(self, tapped: "Tapped", said: dict[str, Any]) -> None:
        if tapped._closed:
            return
        whole = {**said, "room": self.plan.room}
        if self._session is not None:
            whole["session"] = self._session
        kept = json.dumps(whole, separators=(",", ":")).encode()
        # Where it does not go out, its party comes again.
        with suppress(CarrierClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await tapped.say([(True, kept)])

    # --- what it is told --------------------------------------------------------------------------------------------

    def takes(self, tapped: "Tapped", kind: str, said: dict[str, Any]) -> None:
        """Take a frame of its room."""
        if self.over or tapped not in (self.rooming.current.get(self.party), self.wire):
            return
        if self.leaving:
            if kind == "left" and tapped is self.wire:
                self._turned_away(said)
        elif kind == "joined":
            if tapped is self.asked or tapped is self.wire:
                self._joined_page(tapped, said)
        elif tapped is self.asked and tapped is not self.wire:
            # In front of `joined`: what was refused before, or that there will be none.
            if kind == "left":
                self._turned_away(said)
            elif kind == "room_error":
                self._refused(said)
        elif tapped is self.wire:
            {"published": self._published, "room_message": self._message, "room_error": self._refused,
             "room_presence": self._came, "left": self._turned_away}[kind](said)  # fmt: skip

    def _joined_page(self, tapped: "Tapped", said: dict[str, Any]) -> None:
        page = self._page
        if page is None:
            page = self._page = said
        else:
            page["members"] += said["members"]
            page.setdefault("records", {}).update(said.get("records", {}))
            page.setdefault("removed", []).extend(said.get("removed", []))
        if said.get("more"):
            return
        self._page = None
        if not self.inside:
            return
        asked = self._asked_received if tapped is self.asked else self.received
        self.wire, self.asked, self.slow = tapped, None, False
        self._joined(page, asked)
        self.rooming.scene.later(0.0, self._after_join, tapped)

    def _joined(self, said: dict[str, Any], asked: int) -> None:
        check = self.scene.check.room_order
        check.joined(self, said, asked)
        same = said["epoch"] == self.epoch and not self._is_new
        self._is_new = False
        self.epoch, recovered = said["epoch"], said["recovered"]
        self.received = asked if recovered else said["position"]
        self.replayed_upto = said["position"]
        if self.plan.state:
            if said["wipe"]:
                self.records = {}
            for name, record in said["records"].items():
                self.records[name] = record
            for name in said["removed"]:
                self.records.pop(name, None)
            self.stands_at = said["position"]
        self.roster = {one["member"]: one["presence"] for one in said["members"]}
        waiting, self.pending = list(self.pending.values()), {}
        if same:
            waiting = [one for one in waiting if one.seq >= said["next_seq"]]
        self.next_seq = said["next_seq"]
        # A session that has just ended has lost its seats, and a node that has not heard of its end takes them again.
        lives = self.rooming.scene.world.rows.session(self.session) is not None
        for one in waiting:
            if same and lives and one.seq != self.next_seq and not check.may_lose:
                check.broken(f"{self!r} was `published` up to {one.seq - 1}, and is to begin at {said['next_seq']}")
            one.seq = self.next_seq
            self.pending[one.seq] = one
            self.next_seq += 1

    async def _after_join(self, tapped: "Tapped") -> None:
        if tapped is not self.wire or not self.inside:
            return
        await self._again(1)
        if self.presence is not None and self.roster.get(self.name) != self.presence and tapped is self.wire:
            await self._say(tapped, {"type": "presence", "presence": self.presence})
        self._wake()

    async def _again(self, seq: int) -> None:
        """Publish again from `seq` on what is not `published`."""
        wire = self.wire
        for one in [one for one in self.pending.values() if one.seq >= seq]:
            if self.wire is wire and wire is not None and self.pending.get(one.seq) is one:
                await self._say(wire, {"type": "publish", "seq": one.seq, **one.said})

    def _turned_away(self, said: dict[str, Any]) -> None:
        reason = said["reason"]
        self.scene.reached(f"left {reason}")
        if reason == "left":
            if self.leaving:
                self.leaving, self.wire = False, None
                self.scene.check.room_order.has_left(self)
        elif reason == "slow":
            self.slow, self.asked = True, None
            self._refused_until = trio.current_time() + AGAIN_S
        else:
            self.scene.check.room_order.turned_away(self, reason)
            self.asked = self.wire = None
            self._refused_until = trio.current_time() + AGAIN_S
        self._wake()

    def not_accepted(self, tapped: "Tapped") -> None:
        """Something that was said of the session does not count: its worker accepts it again, and each member joins behind that."""
        if tapped in (self.asked, self.wire):
            self.scene.reached("room joined before the session was accepted")
            self.asked = None
            self.slow = self.wire is tapped
            if self.leaving:
                self.wire = None
            self._refused_until = trio.current_time() + ACCEPTED_S
            self._wake()

    def _refused(self, said: dict[str, Any]) -> None:
        self.scene.reached(f"publication refused: {said['code']}")
        if said["code"] == "gap":
            self.scene.later(0.0, self._again, said["expected"])
            return
        self.scene.check.room_order.refused(self, said)
        self.pending.pop(said["seq"], None)

    def _message(self, said: dict[str, Any]) -> None:
        position = said["position"]
        check = self.scene.check.room_order
        check.shown(self, said)
        if position <= self.received:
            return check.broken(f"{self!r} has {self.received}, and gets {position} once more")
        own = said["member"] == self.name and "seq" in said
        if position > self.replayed_upto:
            self._own_upto(position - 1, said)
        elif position != self.received + 1:
            return check.broken(f"{self!r} has {self.received}, and a replay brings {position}")
        if own and position > self.replayed_upto:
            return check.broken(f"{self!r} gets its own publication {said}")
        self.received = position
        self._apply(position, said)
        return None

    def _own_upto(self, position: int, said: dict[str, Any]) -> None:
        """What lies in front of a message and was not told is one's own, in order of seq."""
        waiting = [one for one in self.pending.values() if not one.position]
        while self.received < position:
            if not waiting:
                self.scene.check.room_order.broken(f"{self!r} has {self.received}, gets {said}, and has not published")
                return
            self.received += 1
            one = waiting.pop(0)
            one.position = self.received
            self.scene.check.room_order.own(self, one)
            self._apply(self.received, one.said)

    def _apply(self, position: int, said: dict[str, Any]) -> None:
        if self.plan.state and position > self.stands_at:
            fold(self.records, said)
            self.stands_at = position

    def _published(self, said: dict[str, Any]) -> None:
        check = self.scene.check.room_order
        check.published(self, said)
        upto = [one for one in self.pending.values() if one.seq <= said["seq"]]
        if not self.slow and said["position"] > self.received:
            if said["position"] <= self.replayed_upto:
                return check.broken(f"{self!r} has {self.received}, and is told {said} within a replay")
            new = [one for one in upto if not one.position]
            if len(new) != said["position"] - self.received:
                return check.broken(f"{self!r} has {self.received}, and is told {said} of {[one.seq for one in new]}")
            self._own_upto(said["position"], said)
        for one in upto:
            del self.pending[one.seq]
        return None

    def _came(self, said: dict[str, Any]) -> None:
        self.scene.check.room_order.came(self, said)
        for one in said.get("joined", []) + said.get("changed", []):
            self.roster[one["member"]] = one["presence"]
        for name in said.get("left", []):
            self.roster.pop(name, None)
