"""Rooms: what a client, and a worker in one of its sessions, publishes and sees in them."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from signald.sdk.errors import RoomGone
from signald.sdk.front.waiting import Lot
from signald.sdk.room_core import RoomCore
from signald.sdk.room_events import Record, RecordsChanged, RoomEvent, RoomPublication
from signald.sdk.rooms_core import Records, Rooms
from signald.sdk.values import read, readable

NONE: Records = {}


class Room:
    """A room that the party is in; made by `Client.room` and `WorkerSession.room`.

    Own publications are kept until signald has confirmed them, and sent again after a reconnect. They are never handed out as events; an
    own change of records is shown at once.
    """

    def __init__(self, hall: "Hall", core: RoomCore) -> None:
        self._hall = hall
        self._core = core
        self._lot = Lot()
        core.changed = self._changed

    def _changed(self) -> None:
        self._lot.unpark_all()

    def __repr__(self) -> str:
        return f"Room({self.name!r}, position={self.position}, ended={self.ended!r})"

    @property
    def name(self) -> str:
        """The room's name."""
        return self._core.name

    @property
    def member(self) -> str:
        """What this party is called in rooms."""
        return self._hall.member()

    @property
    def epoch(self) -> str:
        """Another one when the store has lost the room; "" before the first join is answered."""
        return self._core.epoch

    @property
    def position(self) -> int:
        """Everything up to here is in `records`, and was told or is queued as an event."""
        return self._core.at

    @property
    def records(self) -> Mapping[str, Record]:
        """The records by id, with own changes over them; empty unless `state` asked for them. It shows at any time what is so then."""
        return self._core.records

    @property
    def members(self) -> dict[str, Any]:
        """What is seen of each member, by its id: `<session>` or `<session>/worker`, this party included; None: it has said nothing.

        Of a presence that cannot be read here the value is None as well.
        """
        known = self._core.members.known
        own = {} if self._core.said is None or self.member not in known else {self.member: self._core.said}
        return {name: _presence(said) for name, said in {**known, **own}.items()}

    @property
    def members_count(self) -> int:
        """How many there are; `members` may not have all of them."""
        return self._core.members.count

    @property
    def history(self) -> list[RoomPublication | RecordsChanged]:
        """The last publications when it was joined, own ones included, if `history` asked for them."""
        return self._core.history

    @property
    def unconfirmed(self) -> int:
        """How many own publications signald has not confirmed."""
        return len(self._core.out)

    @property
    def ended(self) -> str | None:
        """Why the party is not in the room any more; None while it is."""
        return self._core.ended

    async def publish(self, data: Any, *, kind: str | None = None) -> int:
        """Publish `data`, any JSON value or bytes; return its number, by which `PublicationRefused` names it.

        Bytes of kind `update` are an opaque update. Waits only while too much is unconfirmed.

        Raises:
            RoomGone: the party is not in the room any more.
            SessionGone: the session is over.
            ValueError: signald would refuse it, as for a message; nothing was published.
        """
        await self._wait_for_place()
        return self._said(self._hall.rooms.publish(self._core, data, kind))

    async def put(self, name: str, record: Mapping[str, Any]) -> int:
        """Set a record to these properties alone. Raises as `publish`."""
        return await self.change(put={name: record})

    async def patch(self, name: str, properties: Mapping[str, Any]) -> int:
        """Set some properties of a record, which is made if it is missing; None removes a property. Raises as `publish`."""
        return await self.change(patch={name: properties})

    async def remove(self, *names: str) -> int:
        """Remove records. Raises as `publish`."""
        return await self.change(remove=names)

    async def change(self, *, put: Records = NONE, patch: Records = NONE, remove: tuple[str, ...] = ()) -> int:
        """Change several records in one step, in the order put, patch, remove. Raises as `publish`."""
        await self._wait_for_place()
        return self._said(self._hall.rooms.change(self._core, put, patch, remove))

    async def _wait_for_place(self) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        while self._core.ended is None and not self._core.out.room:
            await self._lot.park()
        if self._core.ended is not None:
            raise self._hall.gone(self._core)

    def _said(self, number: int) -> int:
        self._hall.touched()
        return number

    def set_presence(self, presence: Any) -> None:
        """Say what others see of this party, any JSON of up to 4 KiB. The latest counts, and it may be thinned.

        Raises:
            ValueError: longer or deeper than signald takes, or not JSON.
        """
        self._core.set_presence(self._hall.rooms.presence_of(presence))
        self._hall.touched()

    def snapshot(self, position: int, data: bytes) -> None:
        """Let `data` stand for all opaque updates up to `position`, so that signald may drop them.

        It may be lost with a connection, which does no harm.

        Raises:
            ValueError: longer than signald takes, or `position` is one to come.
        """
        self._hall.rooms.snapshot(self._core, position, data)
        self._hall.touched()

    def resync(self) -> None:
        """Have the room tell all anew, as to one that has just joined: the answer to `RoomLagged` where each publication counts."""
        self._core.resync()
        self._hall.touched()

    async def flush(self) -> None:
        """Wait until all that was published is stored or refused.

        Raises:
            RoomGone: the party left the room before that.
            SessionGone: the session was over before that.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        while len(self._core.out):
            await self._lot.park()
        if self._core.ended is not None:
            raise self._hall.gone(self._core)

    def __aiter__(self) -> AsyncIterator[RoomEvent]:
        return self

    async def __anext__(self) -> RoomEvent:
        """Return the next event, in the order of the room. One reader.

        Raises:
            RoomGone: signald has put the party out of the room.
            SessionGone: the session was lost rather than ended.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        while (event := self._core.news.take()) is None:
            if self._core.ended is not None:
                failure = self._hall.failure(self._core)
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            await self._lot.park()
        return event


class Hall:
    """The rooms of one session, with their fronts."""

    def __init__(
        self,
        rooms: Rooms,
        member: Callable[[], str],
        touched: Callable[[], None],
        over: Callable[[], str | None],
        failure: Callable[[], Exception | None],
        gone: Callable[[], Exception],
    ) -> None:
        """`member`: what the party is called. `touched`: something is to be written.

        `over`: why the session is over, with which `failure`; `gone` is what a sender is told.
        """
        self.rooms = rooms
        self.member = member
        self.touched = touched
        self._over = over
        self._failure = failure
        self._gone = gone
        self._lot = Lot()
        self._of_the_user: Room | None = None
        rooms.changed = self._changed

    def _changed(self) -> None:
        self._lot.unpark_all()

    @property
    def of_the_user(self) -> Room | None:
        """The room that signald has joined unasked, or None."""
        core = self.rooms.of_the_user
        if core is not None and (self._of_the_user is None or self._of_the_user._core is not core):
            self._of_the_user = Room(self, core)
        return self._of_the_user

    def gone(self, core: RoomCore) -> Exception:
        """Return the error for a call about a room in which the party is not any more."""
        return self._gone() if self._over() is not None else RoomGone(core.name, core.ended or "left")

    def failure(self, core: RoomCore) -> Exception | None:
        """Return the error that ends the events of a room, or None."""
        if self._over() is not None:
            return self._failure()
        return None if core.leaving else RoomGone(core.name, core.ended or "left")

    @asynccontextmanager
    async def join(self, name: str, presence: Any, state: bool, history: int) -> AsyncIterator[Room]:
        """Be in a room for the time of the block; see `Client.room`."""
        while (before := self.rooms.get(name)) is not None and before.leaving:
            await self._lot.park()
        if self._over() is not None:
            raise self._gone()
        core = self.rooms.join(name, state=state, history=history, presence=presence)
        room = Room(self, core)
        try:
            self.touched()
            while not core.epoch:
                if core.ended is not None:
                    raise self.gone(core)
                await room._lot.park()
            yield room
        finally:
            self.rooms.leave(core)
            self.touched()


def _presence(said: bytes) -> Any:
    value = read(said)
    try:
        return readable(value)
    except ValueError:
        return None
