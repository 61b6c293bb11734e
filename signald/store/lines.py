"""Two lines of operations that wait for the store: openings, resumes and departures go before messages.

Operations with `Op.later` carry messages and publications. As many of them are in flight as there are parties, and missing acks hold
their senders back. All other operations are rare, and a caller awaits them with a timeout. Behind ten thousand messages such a call
would time out and be retried, which makes its own line longer.

The rule that makes this safe: **all operations of one session stand in the same line**, and so do those of one room. An operation for
the first line takes along the operations that its session has in the second, ahead of itself. An operation for the second line joins the
first while its session has others there. So the operations of a session reach the store in the order of their submission: an append
before the claim that fences it, an ack before the detach after it. An operation overtakes only messages of *other* sessions. It has
nothing in common with them, because a session is atomic in itself and no such message touches the registry (`store/base.py`).
The first line keeps its order as a whole: the life of a session is renewed before the session is created, and a worker is detached
after its sessions.

While both lines wait, a quarter of each batch is for messages: openings never starve messages. A room whose publications do not fit into
a batch goes on behind all others: it may have a thousand members, where a session has two parties.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from signald.store.base import Op, RoomOp, SessionOp

LATER_SHARE = 4
"""One part in this many of a batch is for operations that go later."""


class Call:
    """A caller awaits the results of `wanted` operations."""

    __slots__ = ("begun", "done", "given_up", "results", "wanted", "worth")

    def __init__(self, wanted: int, worth: Callable[[], bool] = lambda: True) -> None:
        self.done = trio.Event()
        self.wanted = wanted
        self.worth = worth
        self.results: dict[int, Any] = {}
        self.given_up = False
        self.begun = False
        """Some of its operations were sent."""

    def goes(self) -> bool:
        """Tell whether its operations are to be sent now."""
        if not self.begun and not self.given_up and not self.worth():
            self.given_up = True
            self.done.set()
        self.begun = not self.given_up
        return self.begun

    def put(self, index: int, result: Any) -> None:
        """Take one of the results."""
        self.results[index] = result
        if len(self.results) == self.wanted:
            self.done.set()


Item = tuple[Op, Callable[[Any], None], Call | None]
"""An operation, the function that takes its result, and the call it belongs to."""


def _whose(op: Op) -> str:
    """Return the session or the room of an operation, empty for all others. No id of a session has a colon."""
    if isinstance(op, SessionOp):
        return op.session
    return f"room:{op.room}" if isinstance(op, RoomOp) else ""


class Lines:
    """See the module. What is said of a session holds for a room as well."""

    def __init__(self) -> None:
        self._first: deque[Item] = deque()
        self._sessions: dict[str, int] = {}
        """Session → how many of its operations stand in the first line."""
        self._later: dict[str, list[Item]] = {}
        """Session → its operations in the second line; sessions in order of arrival."""
        self._later_count = 0

    def __len__(self) -> int:
        return len(self._first) + self._later_count

    def put(self, item: Item) -> None:
        """Stand in line behind everything of the same session."""
        op = item[0]
        session = _whose(op)
        if not session:
            self._first.append(item)
            return
        if op.later and item[2] is None and session not in self._sessions:
            self._later.setdefault(session, []).append(item)
            self._later_count += 1
            return
        before = self._later.pop(session, ())
        self._later_count -= len(before)
        self._first.extend(before)
        self._first.append(item)
        self._sessions[session] = self._sessions.get(session, 0) + len(before) + 1

    def take(self, count: int) -> list[Item]:
        """Take the next `count`, or all; without those whose caller has given up."""
        batch: list[Item] = []
        room = count - min(self._later_count, count // LATER_SHARE)
        while self._first and len(batch) < room:
            item = self._first.popleft()
            self._leaves(item[0])
            if item[2] is None or item[2].goes():
                batch.append(item)
        self._take_later(batch, count)
        return batch

    def _take_later(self, batch: list[Item], count: int) -> None:
        through: list[str] = []
        cut = ""
        for session, items in self._later.items():
            room = count - len(batch)
            if not room:
                break
            batch += items[:room]
            self._later_count -= min(room, len(items))
            if room < len(items):
                del items[:room]
                cut = session
            else:
                through.append(session)
        for session in through:
            del self._later[session]
        if cut:
            self._later[cut] = self._later.pop(cut)

    def _leaves(self, op: Op) -> None:
        session = _whose(op)
        if session:
            self._sessions[session] -= 1
            if not self._sessions[session]:
                del self._sessions[session]
