"""People at one canvas, on the SDK as a program would use it: each draws, chats, moves its cursor, and notes what it sees."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import trio
from attrs import define, field, frozen

from signald.sdk.network import Carrier
from signald.sdk.party_records import DEFAULT_TIMING
from signald.sdk.trio import Backoff, Client, Room, RoomReset, open_client
from signald.sdk.trio_carrier import dial
from tests.real.harness import until
from tests.systems.drawing import Content, Sight, content_of, plain

ROOM = "canvas:42"
RIGHTS = {"canvas:*": ["join", "publish", "state"]}
SHAPES = 60
"""So few that most of them are changed by several people at a time."""
COLOURS = ("red", "green", "blue", None)
UNCONFIRMED_MAX = 8
"""Of one person: with more of them it waits for its connection. All that come back at once publish so many."""
HURRY = 4.0
"""How much faster than before, when a room is to forget its oldest publications."""
LEFT_S = 10.0
"""Within them signald has taken a seat. A session without a word of that is still a member."""
PAGE = 200
RETRY_S = 0.2
RETRIED = (401, 429, 503)
"""A node that comes or goes; an API token that is about to be replaced."""


@frozen
class Pace:
    """Seconds between two doings of one person, on average."""

    edit_s: float
    chat_s: float
    cursor_s: float


@define(eq=False)
class Book:
    """What all people share."""

    pace: Pace
    begun: trio.Event = field(factory=trio.Event)
    """All that were there from the beginning are in."""
    quiet: trio.Event = field(factory=trio.Event)
    """No one draws any more."""
    hurry: bool = False
    said_at: dict[str, float] = field(factory=dict)
    """When what was published with a mark was said (trio time)."""


class Lid:
    """The lid of a laptop: closed, its connection breaks, and there is no other one."""

    def __init__(self) -> None:
        self._carrier: Carrier | None = None
        self._open = trio.Event()
        self._open.set()

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Carrier]:
        """Connect for the SDK."""
        await self._open.wait()
        async with dial(url, None, DEFAULT_TIMING) as carrier:
            self._carrier = carrier
            if not self.is_open:
                carrier.abort()
            yield carrier

    def close(self) -> None:
        """Break the connection."""
        if self.is_open:
            self._open = trio.Event()
        if self._carrier is not None:
            self._carrier.abort()

    def open(self) -> None:
        """Let it connect again."""
        self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether it may connect."""
        return self._open.is_set()


class Person:
    """One member."""

    room: Room
    client: Client

    def __init__(self, name: str, book: Book, seed: int, backoff: Backoff) -> None:
        self.sight = Sight(name)
        self.lid = Lid()
        self.failure: Exception | None = None
        self.longest_s = 0.0
        """From the moment in which another one has published to that in which it was shown here."""
        self.slept = False
        self._book = book
        self._backoff = backoff
        self._rng = random.Random(seed)
        self._marks = 0
        self._over = trio.Event()
        self._ended = trio.Event()

    @property
    def seen(self) -> int:
        """How many publications it was shown."""
        return len(self.sight.shown)

    @property
    def is_in(self) -> bool:
        """Whether it has come in."""
        return bool(self.sight.member)

    def __repr__(self) -> str:
        if not self.is_in:
            return f"{self.sight.name}: {self.failure!r}"
        return (
            f"{self.sight.name}: {self.seen} shown, at {self.sight.at}, {self.client.connections} connections, "
            f"{self.room!r}, {self.failure!r}"
        )

    async def live(self, url: str, credential: str, history: int) -> None:
        """Be in the room until `leave`."""
        name, self._url = self.sight.name, url
        try:
            async with open_client(
                url, auth=credential, pair=False, api=True, backoff=self._backoff, dial=self.lid.dial
            ) as self.client:
                cursor = {"name": name, "at": [0, 0]}
                async with self.client.room(ROOM, state=True, history=history, presence=cursor) as self.room:
                    self._come_in(self.room)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._look)
                        for doing in (self._draw, self._chat, self._move):
                            nursery.start_soon(doing)
                        await self._over.wait()
                        nursery.cancel_scope.cancel(reason="it leaves")
                await until(lambda: self.room.ended is not None, LEFT_S)
        except Exception as error:
            self.failure = error
        finally:
            self._ended.set()

    async def leave(self) -> None:
        """Leave the room, and end the session."""
        self._over.set()
        await self._ended.wait()

    def _come_in(self, room: Room) -> None:
        sight = self.sight
        sight.member = room.member
        for old in room.history:
            before = Sight(sight.name)
            before.take(old)
            sight.found |= before.shown
        # What came with the answer stands in no event: the first event is behind the history.
        sight.begin(max(sight.found, default=0))

    async def _look(self) -> None:
        async for event in self.room:
            self.sight.take(event)
            for mark in _marks_of(event):
                if not self.slept and mark in self._book.said_at:
                    self.longest_s = max(self.longest_s, trio.current_time() - self._book.said_at[mark])
            if isinstance(event, RoomReset):
                self.sight.find(await history_of(self._url, lambda: self.client.api_token))

    # --- what it does -----------------------------------------------------------------------------------------------

    def _mark(self) -> str:
        self._marks += 1
        mark = f"{self.sight.name} {self._marks}"
        if not self.slept:
            self._book.said_at[mark] = trio.current_time()
        return mark

    async def _goes_on(self, every_s: float) -> bool:
        """Wait for the next doing; False when all is over."""
        await self._book.begun.wait()
        with trio.move_on_after(every_s * self._rng.uniform(0.5, 1.5) / (HURRY if self._book.hurry else 1.0)):
            await self._book.quiet.wait()
        return not self._book.quiet.is_set()

    async def _draw(self) -> None:
        rng, room = self._rng, self.room
        while await self._goes_on(self._book.pace.edit_s):
            if room.unconfirmed >= UNCONFIRMED_MAX:
                continue
            shape = f"shape:{rng.randrange(SHAPES)}"
            draw = rng.random()
            if draw < 0.55:
                change = {rng.choice("xy"): rng.randrange(1000), "fill": rng.choice(COLOURS), "by": self._mark()}
                self._note({"patch": {shape: change}})
                await room.patch(shape, change)
            elif draw < 0.9:
                record = {"x": rng.randrange(1000), "y": 0, "by": self._mark()}
                self._note({"put": {shape: record}})
                await room.put(shape, record)
            else:
                self._note({"remove": [shape]})
                await room.remove(shape)

    async def _chat(self) -> None:
        while await self._goes_on(self._book.pace.chat_s):
            if self.room.unconfirmed < UNCONFIRMED_MAX:
                line = {"text": "so it is", "by": self._mark()}
                self._note({"data": line})
                await self.room.publish(line, kind="chat")

    def _note(self, content: Content) -> None:
        self.sight.said.append(content_of(content))

    async def _move(self) -> None:
        while await self._goes_on(self._book.pace.cursor_s):
            self.room.set_presence({"name": self.sight.name, "at": [self._rng.randrange(1000), 0]})

    # --- the end ----------------------------------------------------------------------------------------------------

    @property
    def last_presence(self) -> dict[str, Any]:
        """What it says of itself at the end."""
        return {"name": self.sight.name, "at": "rest"}

    async def rest(self) -> None:
        """Wait until all that it has published is stored, and say so."""
        await self.room.flush()
        self.room.set_presence(self.last_presence)

    def close_book(self) -> None:
        """Note what is to be compared."""
        self.sight.records, self.sight.members = plain(self.room.records), self.room.members


def _marks_of(event: object) -> list[str]:
    data = getattr(event, "data", None)
    records = [*getattr(event, "put", {}).values(), *getattr(event, "patch", {}).values()]
    return [one["by"] for one in [data, *records] if isinstance(one, Mapping) and "by" in one]


async def history_of(url: str, bearer: Callable[[], str]) -> list[Mapping[str, Any]]:
    """Return all that the room keeps of its publications, oldest first, as a page loads it that was away for long."""
    found: list[Mapping[str, Any]] = []
    query = f"limit={PAGE}"
    while True:
        page = await fetch(url, f"/v1/rooms/{ROOM}/history?{query}", bearer)
        found = [*page["entries"], *found]
        if "next" not in page:
            return found
        query = f"limit={PAGE}&before={page['next']}"


async def fetch(url: str, path: str, bearer: Callable[[], str]) -> Any:
    """Read from a node, and ask again while it comes or goes."""
    base = url.replace("ws://", "http://")
    while True:
        with suppress(httpx2.TransportError):
            async with httpx2.AsyncClient(base_url=base, timeout=10) as http:
                answer = await http.get(path, headers={"Authorization": f"Bearer {bearer()}"})
            if answer.status_code == httpx2.codes.OK:
                return answer.json()
            assert answer.status_code in RETRIED, f"{path}: {answer.status_code} {answer.text}"
        await trio.sleep(RETRY_S)
