"""How a worker leaves: its sessions are handed over one by one, and it goes the moment it holds nothing.

    GRACEFUL    each session waits for a worker with room for it, and then for a good moment: a handler that waits for the next
                message, a piece of a stream that the next worker can go on with, or `WorkerSession.hand_over`
    URGENT      no session waits for another worker, and only a few seconds for a good moment
    IMMEDIATE   all sessions are given back now

At the end of its time each mode gives back what is left, as IMMEDIATE does.
"""

import logging
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Protocol

import anyio
from attrs import frozen

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

ANSWER_S = 2.0
"""How long a node has to say that it tells of room elsewhere. One of an earlier release says nothing; then no session waits for it."""

SAY_S = 5.0
"""How often a worker that waits for a successor says so: often enough for one who watches a deploy, and few lines for the log."""

CLEAN_UP_S = 2.0
"""How long a cancelled handler may clean up before its worker leaves without waiting for it."""

BYE_S = 5.0
"""How long signald has to confirm that the worker has left. Longer than a node takes to write to its store; one that is being deployed at
the same moment may need all of it, and after that its sessions go to others by `worker.resume_timeout_s`."""


class Mode(IntEnum):
    """How much a worker that leaves waits for. A higher one is quicker."""

    GRACEFUL = 1
    URGENT = 2
    IMMEDIATE = 3


@frozen
class Leave:
    """How a worker leaves.

    The defaults end within 27 s, below the 30 s that Kubernetes gives a pod. Give a worker with long answers more, and its supervisor too.
    """

    mode: Mode = Mode.GRACEFUL
    graceful_s: float = 20.0
    urgent_s: float = 5.0

    def limit_s(self, mode: Mode) -> float:
        """How long sessions may wait for a good moment."""
        return {Mode.GRACEFUL: self.graceful_s, Mode.URGENT: min(self.urgent_s, self.graceful_s), Mode.IMMEDIATE: 0.0}[
            mode
        ]

    @property
    def whole_s(self) -> float:
        """How long the worker takes at most, from the first word to the end."""
        return self.limit_s(self.mode) + CLEAN_UP_S + BYE_S


DEFAULT_LEAVE = Leave()


class LeavingSession(Protocol):
    """What is needed of a session of a worker that leaves."""

    @property
    def leaving(self) -> anyio.Event:
        """Set when it is being handed over."""

    def leave(self) -> None:
        """Begin to hand the session over at the next good moment."""

    def hand_over_now(self, reason: str) -> None:
        """Give it to another worker without a wait."""


class LeavingWorker(Protocol):
    """What is needed of a worker that leaves."""

    @property
    def sessions(self) -> Mapping[str, LeavingSession]:
        """Its sessions, by id."""

    @property
    def over(self) -> bool:
        """True when it has left."""

    @property
    def connected(self) -> bool:
        """True while a connection serves it."""

    def ask_for_successor(self) -> None:
        """Take no more sessions, and ask to be told when others have room."""

    async def changed(self) -> None:
        """Wait until connections or sessions have come or gone."""

    async def say_bye(self, reason: str) -> None:
        """Leave for good; return when signald has confirmed it."""

    def finish(self, reason: str) -> None:
        """End here, whatever signald has heard."""


class Departure:
    """The departure of one worker; see the module."""

    def __init__(self) -> None:
        self.mode: Mode | None = None
        """None: it stays."""
        self._suited: set[str] = set()
        """Sessions for which another worker has had room; those of the worker, each once."""
        self._told = False
        """A node has said that it tells of room elsewhere."""
        self._began_at = 0.0
        self._silent_since: float | None = None
        self._said_at = -SAY_S
        self._over = anyio.Event()
        self._quicker = anyio.Event()

    def room_elsewhere(self, sessions: Sequence[str]) -> None:
        """Note that other workers have room for `sessions`."""
        self._told = True
        self._suited.update(sessions)

    async def left(self) -> None:
        """Wait until a departure that has begun is over."""
        if self.mode is not None:
            await self._over.wait()

    async def run(self, worker: LeavingWorker, leave: Leave, reason: str) -> None:
        """Hand over what the worker holds, and leave; see `Worker.drain`."""
        if self.mode is not None:
            self.mode = max(self.mode, leave.mode)
            self._quicker.set()
            await self._over.wait()
            return
        self.mode, self._began_at = leave.mode, anyio.current_time()
        held = len(worker.sessions)
        if held:
            log.info("leaving (%s): %d sessions are handed over", self.mode.name.lower(), held)
        worker.ask_for_successor()
        try:
            await self._hand_over(worker, leave)
            await self._end(worker, reason)
        finally:
            self._over.set()
        log.info("left after %.1f s", anyio.current_time() - self._began_at)

    async def _hand_over(self, worker: LeavingWorker, leave: Leave) -> None:
        while worker.sessions and not worker.over:
            assert self.mode is not None, "it leaves"
            now = anyio.current_time()
            until = self._began_at + leave.limit_s(self.mode)
            if now >= until:
                return
            waiting = self._begin(worker, now)
            if waiting:
                self._say(waiting, len(worker.sessions), until - now, now)
            await self._pause(worker, min(until, now + (ANSWER_S / 4 if waiting else SAY_S)))

    def _begin(self, worker: LeavingWorker, now: float) -> int:
        """Begin to hand over what can be; return how many sessions wait for a worker with room."""
        if self._told or not worker.connected:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        silent = self._silent_since is not None and now - self._silent_since >= ANSWER_S
        waiting = 0
        for name, session in worker.sessions.items():
            if session.leaving.is_set():
                continue
            if silent or name in self._suited or self.mode is not Mode.GRACEFUL:
                session.leave()
            else:
                waiting += 1
        return waiting

    def _say(self, waiting: int, held: int, left_s: float, now: float) -> None:
        if self._told and now - self._said_at >= SAY_S:
            self._said_at = now
            log.warning(
                "no other worker has room for %d of %d sessions: waiting for a successor, %.0f s at most",
                waiting,
                held,
                left_s,
            )

    async def _pause(self, worker: LeavingWorker, until: float) -> None:
        """Wait for a change, for a quicker mode, or until then."""
        with anyio.CancelScope(deadline=until):
            async with anyio.create_task_group() as tasks:

                async def woken() -> None:
                    await worker.changed()
                    tasks.cancel_scope.cancel(reason="something has changed")

                tasks.start_soon(woken)
                await self._quicker.wait()
                self._quicker = anyio.Event()
                tasks.cancel_scope.cancel(reason="a quicker mode")

    async def _end(self, worker: LeavingWorker, reason: str) -> None:
        left = list(worker.sessions.values())
        if left and not worker.over:
            log.warning("%d sessions are given back as they are: the time to leave is over", len(left))
        for session in left:
            session.hand_over_now("the worker leaves")
        with anyio.move_on_after(CLEAN_UP_S):
            while worker.sessions:
                await worker.changed()
        if worker.over:
            return
        # A worker that is cancelled here would leave without a word, and its sessions would wait for it.
        with anyio.CancelScope(deadline=anyio.current_time() + BYE_S, shield=True):
            await worker.say_bye(reason)
        if not worker.over:
            log.warning("signald has not confirmed that the worker has left")
            worker.finish(reason)
