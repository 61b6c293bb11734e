"""Who is in a room: what this node knows of it, and what its members are still to be told, the latest of each.

A room as a whole makes as many changes a second as its members may make together, whatever its size: `interval_s`.
"""

from collections.abc import Iterable, Mapping
from math import ceil

from signald.core.room_views import Came
from signald.core.rooms import Member

INTERVAL_S = 0.05
"""The shortest pause between two tellings of one room: twenty a second, as smooth as a pointer on a screen needs to look."""

FULL_RATE_MEMBERS = 50
"""A room with so many members is told at the full rate. In a larger one the pause grows with it, so that the whole room makes at most
1,000 changes a second, each of which goes to each member."""


def interval_s(members: int) -> float:
    """Return the pause between two tellings of a room of so many members, and between two presences of one of them."""
    return INTERVAL_S * max(1, ceil(members / FULL_RATE_MEMBERS))


class Roll:
    """The members of one room as this node knows them."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        """Member → presence as JSON; empty: it has said nothing."""
        self.bytes = 0
        """Of the names and the presences."""
        self.count = 0
        """How many members the room has, by its own word."""
        self.news = 0
        """How often something has changed."""
        self.told_upto = 0
        """The change up to which members here have been told. One that came later knows more."""
        self._untold: dict[str, tuple[int, bool]] = {}
        """Member → the change in which something was last new of it, and whether those who were told before know it."""

    @property
    def untold(self) -> bool:
        """Tell whether some members are still to be told of something."""
        return bool(self._untold)

    def clear(self) -> None:
        """Forget everything: the room is another one."""
        self.members.clear()
        self._untold.clear()
        self.bytes = self.count = 0

    def whole(self, members: Iterable[Member]) -> None:
        """Take the list of all members."""
        now = {one.member: one.presence for one in members}
        self.change(
            [Member(name, said, is_new=name not in self.members) for name, said in now.items()],
            set(self.members) - now.keys(),
        )

    def change(self, members: Iterable[Member], departed: Iterable[str]) -> None:
        """Take what is new of some members, and who has left."""
        self.news += 1
        for one in members:
            known = self.members.get(one.member)
            if known is None or known != one.presence or one.is_new:
                self._put(one.member, one.presence)
        for name in departed:
            if name in self.members:
                self._put(name, None)

    def _put(self, name: str, presence: bytes | None) -> None:
        known = self.members.get(name)
        _, was_known = self._untold.get(name, (0, known is not None))
        self._untold[name] = self.news, was_known
        if known is not None:
            self.bytes -= len(name) + len(known)
        if presence is None:
            del self.members[name]
        else:
            self.members[name] = presence
            self.bytes += len(name) + len(presence)

    def came(self, room: str, since: int = -1) -> Came:
        """Return what members are to be told that know everything up to the change `since`."""
        joined, changed, left = [], [], []
        for name, (news, was_known) in self._untold.items():
            if news <= since:
                continue
            presence = self.members.get(name)
            if presence is None:
                if was_known:
                    left.append(name)
            elif was_known:
                changed.append((name, presence))
            else:
                joined.append((name, presence))
        return Came(room, joined, changed, left)

    def told(self) -> None:
        """All members here have been told."""
        self._untold.clear()
        self.told_upto = self.news


def difference(room: str, before: Mapping[str, bytes], now: Mapping[str, bytes], *, but: str) -> Came:
    """Return what the member `but` is to be told of the others, when it knows `before`."""
    joined = [(name, said) for name, said in now.items() if name not in before and name != but]
    changed = [(name, said) for name, said in now.items() if name in before and before[name] != said and name != but]
    return Came(room, joined, changed, [name for name in before if name not in now and name != but])
