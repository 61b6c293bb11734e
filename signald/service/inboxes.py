"""Inboxes: what parts of a node leave for its keepers, and each keeper empties in its own task.

An inbox is made before its producers and its keeper, so neither needs to know the other.

    producers                                   inbox                    keeper
    endings, workers, openings, retries, …      Inboxes.line             Matchmaker
    wakes, mender, drain                        Inboxes.nodes            Lease
    relay, workers, openings, lease, wakes      Inboxes.doubts           Mender
    wakes                                       Inboxes.revoked          RevocationKeeper
    committer, wakes                            Inboxes.store_refused    Reloader
"""

import attrs
import trio

from signald.service.attached import LiveSession
from signald.service.worker_like import WorkerLike


class Poke:
    """A wish that a keeper does its work now. Any number of them before it begins count as one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def __call__(self) -> None:
        """Have the keeper do its work."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """True when the keeper has been poked since it last cleared this."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until the keeper is poked; at once when it has been."""
        await self._event.wait()

    def clear(self) -> None:
        """The keeper begins its work: what comes from here on is work for its next turn."""
        self._event = trio.Event()


class Doubts:
    """Sessions and workers of which the store seems to know less than this node does; the mender judges them."""

    def __init__(self) -> None:
        self.check = Poke()
        """Look at everything here, and find out whether the store has come back empty."""
        self.missing: dict[str, LiveSession] = {}
        """Sessions that the store does not know."""
        self.behind: dict[str, LiveSession] = {}
        """Sessions of which the store knows less."""
        self.workers_behind: dict[str, WorkerLike] = {}
        """Links of workers of which the store knows an older claim."""

    def session_missing(self, session: LiveSession) -> None:
        """The store does not know `session`."""
        self.missing[session.id] = session
        self.check()

    def session_behind(self, session: LiveSession) -> None:
        """The store knows less of `session` than this node."""
        self.behind[session.id] = session
        self.check()

    def worker_behind(self, link: WorkerLike) -> None:
        """The store knows an older claim of the worker of `link` than the claim that holds here."""
        self.workers_behind[link.worker] = link
        self.check()

    def clear(self) -> None:
        """All that was doubted has been given back."""
        self.missing.clear()
        self.behind.clear()
        self.workers_behind.clear()


@attrs.frozen
class Inboxes:
    """The inboxes of one node. See the module."""

    line: Poke = attrs.field(factory=Poke)
    """A session waits for a worker, or a worker has room."""
    nodes: Poke = attrs.field(factory=Poke)
    """Nodes may have come, gone or changed their state."""
    store_refused: Poke = attrs.field(factory=Poke)
    """The store refuses the login: the file of its URL may hold another by now."""
    revoked: Poke = attrs.field(factory=Poke)
    """Principals may have been revoked."""
    revoked_anew: Poke = attrs.field(factory=Poke)
    """Wake-ups may have been lost: read all revocations anew with the next look."""
    doubts: Doubts = attrs.field(factory=Doubts)
