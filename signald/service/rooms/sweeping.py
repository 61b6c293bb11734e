"""The seats of sessions that have ended, and rooms whose time is over: found by whichever node.

A session that ends takes its seats along (`desk`). One that ends while no node knows its rooms leaves them: its node was killed, or its
client has resumed elsewhere without naming them. So each room that gets a member at a node stands in the agenda of the registry, and each
one that is made over HTTP, which may never have a member. A node takes what is due, asks of each member whether its session lives, and
takes the seats of those that do not. It comes again as long as there are members; afterwards the room is removed when it has been without
any for as long as it is kept.
"""

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.ids import new_nonce
from signald.service.context import Context
from signald.service.rooms.bounds import bounds_of
from signald.store.base import Op
from signald.store.registry.agenda.ops import Due, DueItem, Schedule, Settle, TakeDue
from signald.store.registry.agenda.records import Kind
from signald.store.room.ops import DropMembers, ReadRoom, RoomRead, RoomSwept, SweepRoom
from signald.store.session.ops import Look, NoSession

log = structlog.get_logger(__name__)

KIND: Kind = "r"

AGAIN_S = 900.0
"""The pause between two sweeps of a room: so long others see a member whose session has ended with its node. A room of a thousand members
costs a read a second."""

POLL_S, POLL_LEAST_S = 30.0, 1.0
"""The longest and the shortest pause between two looks at the agenda."""

ROOMS_MAX = 8
"""Rooms that are taken at once, and swept one after the other within the lease."""

LEASE_S = 120.0
"""How long a room is this node's: `ROOMS_MAX` of the largest, at a slow store."""

MEMBERS_MAX = 1000
"""Members of one room that are asked about in a sweep: those of whom nothing was heard for longest."""

LOOKS_MAX = 100
"""Sessions that are read in one step: other operations come in between."""


class RoomSweeps:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.dropped = 0
        """Sessions that had ended, and whose seats this node has taken."""

    def watch(self, room: str) -> None:
        """Have a room swept, which has its first member here, or was made here over HTTP."""
        now_ms = self._context.now_ms()
        self._context.submit(Schedule(KIND, (room,), now_ms + round(AGAIN_S * 1000), now_ms))

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            pause_s = await self._round()
            # Nodes do not come together.
            await trio.sleep(pause_s * self._context.entropy.uniform(1.0, 1.25))

    async def _round(self) -> float:
        """Sweep the rooms that are due; return how long there is nothing to do."""
        context = self._context
        nonce, now_ms = new_nonce(context.entropy), context.now_ms()
        take = TakeDue(KIND, context.node, nonce, now_ms, round(LEASE_S * 1000), ROOMS_MAX)
        try:
            due: Due = await context.committer.call(take)
            for item in due.items:
                await self._sweep(item)
        except StoreUnavailable:
            return POLL_S  # what was taken is due again when the lease ends
        if len(due.items) == ROOMS_MAX:
            return POLL_LEAST_S
        next_s = (due.next_ms - context.now_ms()) / 1000 if due.next_ms else POLL_S
        return max(POLL_LEAST_S, min(next_s, POLL_S))

    async def _sweep(self, item: DueItem) -> None:
        context, room = self._context, item.name
        swept: RoomSwept = await context.committer.call(SweepRoom(room, context.now_ms()))
        due_ms = swept.next_ms
        if swept.members:
            await self._take_seats(room)
            due_ms = context.now_ms() + round(AGAIN_S * 1000)
        now_ms = context.now_ms()
        await context.committer.call(Settle(KIND, room, item.ticket, due_ms, 0, 0, now_ms))

    async def _take_seats(self, room: str) -> None:
        """Take the seats of sessions that the store does not know any more."""
        context = self._context
        read = await context.committer.call(ReadRoom(room, MEMBERS_MAX, context.now_ms()))
        if not isinstance(read, RoomRead):
            return
        sessions = list(dict.fromkeys([one.member.partition("/")[0] for one in read.members]))
        for start in range(0, len(sessions), LOOKS_MAX):
            part = sessions[start : start + LOOKS_MAX]
            looks: list[Op] = [Look(session, "client", 0, 0) for session in part]
            found = await context.committer.call_many(looks)
            gone = [session for session, looked in zip(part, found, strict=True) if isinstance(looked, NoSession)]
            if not gone:
                continue
            keep_ms, now_ms = bounds_of(context.config.rooms).keep_ms, context.now_ms()
            # Under the name of no node, so that each one with members is woken, and this one too.
            drops: list[Op] = [DropMembers(room, session, "", keep_ms, now_ms) for session in gone]
            await context.committer.call_many(drops)
            self.dropped += len(gone)
            log.info("room_seats_taken", room=room, sessions=len(gone))
