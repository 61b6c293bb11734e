"""What waits for the store, in two lines: parties that open, resume or leave go before messages.

The way of a message (`Op.later`) has as many operations under way as there are sessions, and its senders are held back by the acks
that do not come. Everything else is rare, and somebody waits for it with a timeout: behind ten thousand messages it would
be given up, asked again, and so make the line longer that it waits in.

The rule that makes this safe: **the operations of one session all stand in the same line**. What comes for the first line takes
along what the session has in the second, ahead of itself; what comes for the second joins the first while the session has
something there. So each session's operations reach the store in the order in which they were handed over: an append
before the claim that fences it, an ack before the detach behind it. An operation goes ahead only of messages of *other* sessions,
which it has nothing in common with (see `store.base`: what concerns one session is atomic in itself, and no such operation
touches the registry). The first line as a whole keeps its order too, whatever it concerns: the life of a session is renewed
before it is made, and a worker is detached behind its sessions.

While both lines wait, a quarter of each batch is for messages: no crowd at the door stops those who are inside.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from signald.store.base import Op, SessionOp

LATER_SHARE = 4
"""One part in this many of a batch is for operations that go later."""


class Call:
    """Somebody awaits operations, `wanted` of them."""

    __slots__ = ("begun", "done", "given_up", "results", "wanted", "worth")

    def __init__(self, wanted: int, worth: Callable[[], bool] = lambda: True) -> None:
        self.done = trio.Event()
        self.wanted = wanted
        self.worth = worth
        self.results: dict[int, Any] = {}
        self.given_up = False
        self.begun = False
        """Some of it was sent."""

    def goes(self) -> bool:
        """Tell whether it is to be sent now."""
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
"""An operation, who takes its result, and the call it belongs to."""


class Lines:
    """See the module."""

    def __init__(self) -> None:
        self._first: deque[Item] = deque()
        self._sessions: dict[str, int] = {}
        """Session → how many of its operations stand in the first line."""
        self._later: dict[str, list[Item]] = {}
        """Session → its operations in the second line; who came first goes first."""
        self._later_count = 0

    def __len__(self) -> int:
        return len(self._first) + self._later_count

    def put(self, item: Item) -> None:
        """Stand in line behind everything of the same session."""
        op = item[0]
        if not isinstance(op, SessionOp):
            self._first.append(item)
            return
        session = op.session
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
        """Take the next `count`, or all; without those that nobody waits for any more."""
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
        for session, items in self._later.items():
            room = count - len(batch)
            if not room:
                break
            batch += items[:room]
            self._later_count -= min(room, len(items))
            if room < len(items):
                del items[:room]
            else:
                through.append(session)
        for session in through:
            del self._later[session]

    def _leaves(self, op: Op) -> None:
        if isinstance(op, SessionOp):
            self._sessions[op.session] -= 1
            if not self._sessions[op.session]:
                del self._sessions[op.session]
