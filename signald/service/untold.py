"""The queues of events that this node knows to hold something: their names, until the agenda of the cluster has them.

An event is stored in the same step as what it tells, in the queue of its session. That the queue waits is a second step, in the
registry (`telling/scheduling.py`), because no step spans both. A name gets lost with a node that is killed between the two. Then another
node finds the queue again:

* the client or the worker resumes elsewhere, and the head of the session tells of more events than that node knows (`Head.events`);
* the peer's node looks at the session, which the step has woken, and finds the same;
* the store may have lost its tail, and with it what the agenda knew: with the next renewal of lives each node names the queues of all
  sessions whose client it has (`doubted`);
* the session is over: the node that lets the registry forget it schedules its queue before that, in the same batch. A session whose
  node is killed between the end and that batch stays in the index of the living, and its sweep does the same.

So each event is scheduled at last. A name that is noted for nothing costs one look into an empty queue.
"""

from collections.abc import Callable, Iterable

import trio

NAMES_MAX = 100_000
"""Names that wait here: one for each session that a node can hold. A name beyond it is left out and counted; its queue
is found as those of a killed node are."""


class Untold:
    """See the module."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        """`wanted`: a core server is named. Without one nothing is noted."""
        self._wanted = wanted
        self._names: dict[str, None] = {}
        self._noted = trio.Event()
        self.left_out = 0
        self.doubted = False
        """The store has shown that it may have lost something since the last renewal of lives."""

    def note(self, name: str) -> None:
        """The queue of a session may hold an event."""
        if not self._wanted():
            return
        if len(self._names) >= NAMES_MAX and name not in self._names:
            self.left_out += 1
            return
        self._names[name] = None
        self._noted.set()

    def __len__(self) -> int:
        return len(self._names)

    async def wait(self) -> None:
        """Wait until a name is here."""
        await self._noted.wait()

    def take(self, limit: int) -> tuple[str, ...]:
        """Take out up to `limit` names, the oldest first."""
        names = tuple([name for name, _ in zip(self._names, range(limit), strict=False)])
        for name in names:
            del self._names[name]
        if not self._names:
            self._noted = trio.Event()
        return names

    def put_back(self, names: Iterable[str]) -> None:
        """Keep `names` for later: the agenda has no room for them now."""
        for name in names:
            self.note(name)
