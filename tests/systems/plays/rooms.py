"""B5: people draw at one canvas, chat and see each other, and notice nothing of deploys and kills.

Half of them enter at each node, where there are several. Some come late, one naps through each move, and one sleeps until the room has
forgotten where it was.
"""

from collections.abc import Callable
from typing import Any

import trio

from signald.sdk.trio import Backoff, Room
from tests.real.harness import PATIENCE, until
from tests.systems.drawing import judge
from tests.systems.people import RIGHTS, ROOM, Book, Pace, Person, fetch, history_of
from tests.systems.play import Play
from tests.systems.service import credential

CHAT = 0.25
"""Lines of the chat for each edit."""
SOON = Backoff(cap_s=2.0)
"""By default a person waits up to 20 s behind a kill, and the story with it."""
CURSOR = 0.2
"""Changes of presence for each edit."""
HISTORY = 50
"""So many of the last publications a latecomer asks for."""
MORE = 3
"""Publications of others that show that a member goes on."""
WITHIN_S = 30.0


class Rooms(Play):
    """One canvas."""

    name = "rooms"

    def __init__(self, people: int = 12, edits_per_s: float = 20.0, kept: int = 600, backoff: Backoff = SOON) -> None:
        """`edits_per_s` in all; the room keeps `kept` publications for those that come back."""
        super().__init__()
        self._backoff = backoff
        self.settings = {"rooms": {"history_messages_max": kept}}
        edit_s = people / edits_per_s
        self.book = Book(Pace(edit_s, edit_s / CHAT, edit_s / CURSOR))
        self.people: list[Person] = []
        self.last = 0
        self.state: Any = None
        self._count = people
        self._kept = kept
        self._late: list[Person] = []

    @property
    def _awake(self) -> list[Person]:
        return [one for one in self.people if one.lid.is_open and one.is_in]

    @property
    def _sleeper(self) -> Person:
        return self.people[0]

    @property
    def _napper(self) -> Person:
        return self.people[1]

    async def start(self) -> None:
        """Have all but the latecomers come in; then they begin."""
        for _ in range(self._count):
            self._enter(history=0)
        await self._until(lambda: all(one.is_in for one in self.people))
        self.book.begun.set()

    def _enter(self, history: int) -> None:
        number = len(self.people)
        name = f"person {number + 1}"
        person = Person(name, self.book, number, self._backoff)
        self.people.append(person)
        urls = self.service.urls
        shown = credential("client", name, rooms=RIGHTS)
        self.cast.play(person.live, urls[number % len(urls)], shown, history)

    async def goes_on(self) -> None:
        """Wait until each member has seen more, the one that has napped and the latecomers included."""
        self._napper.lid.open()
        await self._until(lambda: all(one.is_in for one in self.people))
        await self._all_see_more()

    async def _all_see_more(self) -> None:
        before = {one: one.seen for one in self._awake}
        await self._until(lambda: all(one.seen >= seen + MORE for one, seen in before.items()))

    async def _until(self, holds: Callable[[], object], why: Callable[[], str] = str) -> None:
        try:
            await until(lambda: holds() or self._broken, WITHIN_S)
        except AssertionError:
            raise AssertionError(f"the room does not go on: {why()}\n{self.account()}") from None
        assert not self._broken, self.account()

    @property
    def _broken(self) -> list[Person]:
        return [one for one in self.people if one.failure is not None]

    async def during_move(self) -> None:
        """One naps, another one falls asleep, and one comes late."""
        for one in (self._napper, self._sleeper):
            one.slept = True
            one.lid.close()
        self._enter(HISTORY)

    async def finish(self) -> None:
        """Wake the sleeper when its place is forgotten; then all rest, and one leaves."""
        awake = self._napper
        self.book.hurry = True
        await self._until(lambda: awake.sight.at > self._sleeper.sight.at + self._kept)
        self.book.hurry = False
        self._sleeper.lid.open()
        await self._until(lambda: self._sleeper.sight.holes)
        await self._all_see_more()
        self.book.quiet.set()
        with trio.fail_after(WITHIN_S * PATIENCE):
            for one in self.people:
                await one.rest()
        rooms = [one.room for one in self.people]
        await self._until(lambda: len({room.position for room in rooms}) == 1)
        await self._until(
            lambda: not any(map(self._unseen, rooms)), lambda: str({room.member: self._unseen(room) for room in rooms})
        )
        self.last = rooms[0].position
        await self._compare()

    def _unseen(self, room: Room) -> dict[str, Any]:
        """Return what is not seen yet of the presences at the end, and what is seen in its place."""
        last = {one.sight.member: one.last_presence for one in self.people}
        return {
            name: room.members.get(name)
            for name in last.keys() | room.members
            if room.members.get(name) != last.get(name)
        }

    async def _compare(self) -> None:
        """Read what the store has, note what all have, and have one leave."""
        shown = credential("service", self.name, scope=["rooms"])
        self.state = await fetch(self.service.url, f"/v1/rooms/{ROOM}/state", lambda: shown)
        self.people[2].sight.find(await history_of(self.service.url, lambda: shown))
        for one in self.people:
            one.close_book()
        leaver = self.people[-1]
        await leaver.leave()
        others = [one for one in self.people if one is not leaver]
        await self._until(lambda: all(one.sight.left for one in others))
        self.left = leaver.sight.member

    def judge(self) -> None:
        """All have seen all, their records are those of the store, and each departure was one."""
        for one in self.people:
            assert one.failure is None, repr(one)
        records = judge([one.sight for one in self.people], self.last, leavers=[self.left])
        assert (self.state["position"], self.state["records"]) == (self.last, records)
        for one in self.people:
            assert bool(one.sight.holes) == (one is self._sleeper), repr(one)
        # What the sleeper was not shown it has read, as far as the room had it when the pages were asked for, one after the other.
        found = sorted(self._sleeper.sight.found)
        assert found == list(range(found[0], found[-1] + 1)), found
        assert found[-1] >= self._sleeper.sight.holes[0][-1], found
        assert len(found) > self._kept // 2, found
        for one in self.people[self._count :]:
            assert len(one.sight.found) >= min(HISTORY, one.sight.begun_at), self.account()

    def account(self) -> str:
        """Tell how far each is."""
        return "\n".join(map(repr, self.people))

    def figures(self) -> str:
        """Return what was done and seen, counted."""
        said = [content for one in self.people for content in one.sight.said]
        chat = sum("data" in content for content in said)
        shown = sum(one.seen for one in self.people)
        connections = sum(one.client.connections for one in self.people)
        longest = sorted((one.longest_s for one in self.people), reverse=True)
        return (
            f"{len(self.people)} people, {len(said) - chat} edits, {chat} lines of chat, shown {shown} times, {self.last} positions; "
            f"{connections - len(self.people)} reconnects; the longest waits {', '.join(f'{wait:.1f}' for wait in longest[:3])} s"
        )
