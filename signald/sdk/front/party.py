"""Carries a `PartyCore` over connections: what the client's and the worker's front share.

running                         one nursery per party, left with the party's `async with`
├── supervise                   asks the core what to open, and when
├── connection (1, or 2 or 3 while moving)
│   ├── reader                  frames to the core; ends the connection
│   ├── writer                  the only sender
│   └── clock                   heartbeat and the deadlines of the core
└── what the application runs   a worker's handlers
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext

import anyio
from anyio.abc import TaskGroup, TaskStatus

from signald.sdk.backoff import without_login
from signald.sdk.core import NEVER
from signald.sdk.dialing import DialFailed
from signald.sdk.errors import LinkBroken
from signald.sdk.front.api import Api
from signald.sdk.front.waiting import Lot
from signald.sdk.link import Link
from signald.sdk.network import Carrier, CarrierClosed, Dial, network
from signald.sdk.party_core import PartyCore
from signald.wire.close_codes import CloseCode

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

Urls = str | Sequence[str]
Auth = str | Callable[[], str] | None
"""A credential, or a function that returns a fresh one for every connection."""


def url_list(urls: Urls) -> list[str]:
    """Return one URL or several as a list."""
    return [urls] if isinstance(urls, str) else list(urls)


class _Ending:
    """How one connection ended: the first to say so is believed."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.said = False
        self.code: int | None = None
        self.reason = "the connection broke"

    def end(self, code: int | None, reason: str) -> None:
        if not self.said:
            self.said = True
            self.code, self.reason = code, reason
            self.scope.cancel(reason=reason)


class FrontParty(ABC):
    """A party at work. The subclasses define the view of the application."""

    _api: Api

    def __init__(self, core: PartyCore, *, ssl_context: SSLContext | None, dial: Dial | None) -> None:
        self._core = core
        self._ssl_context = ssl_context
        self._dial = dial
        self._endings: dict[Link, _Ending] = {}
        self._standing: set[Link] = set()
        """The links whose transport is not closed yet."""
        self._replanned = Lot()
        self._room = Lot()
        core.replan = self._replan

    @abstractmethod
    def _drain(self) -> None:
        """Pass what the core has to tell on to the application."""

    def renew_auth(self, auth: str) -> None:
        """Show a new credential on the connection that serves, and on those to come: the answer to `AuthExpiring`.

        Where `auth` is a function, it goes on giving the credentials of later connections, and is asked by itself when one runs out.

        Raises:
            ValueError: it is no text that can be a credential.
        """
        self._core.renew_auth(auth)

    # --- waiting ---------------------------------------------------------------------------------------------------

    async def _wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, looked at whenever connections come or go."""
        while not condition():
            await self._replanned.park()

    def _replan(self) -> None:
        self._replanned.unpark_all()
        if self._core.over is not None:
            for ending in self._endings.values():
                ending.end(CloseCode.NORMAL, "the session is over")

    async def _closed(self) -> None:
        """Wait until the connections of a party that is over have closed with 1000; at most as long as a closing handshake may take.

        Signald would take a connection that is cut for a break.
        """
        if self._core.over is not None:
            with anyio.move_on_after(self._core.timing.close_s):
                await self._wait(lambda: not self._standing)

    # --- connections -----------------------------------------------------------------------------------------------

    async def supervise(self) -> None:
        """Open connections as the core plans them, until the party's life is over."""
        core = self._core
        async with anyio.create_task_group() as connections:
            while core.over is None:
                now = anyio.current_time()
                attempt = core.plan(now)
                if attempt is None:
                    await self._replanned.park()
                elif attempt.at > now:
                    with anyio.CancelScope(deadline=attempt.at):
                        await self._replanned.park()
                else:
                    await connections.start(self._connection, attempt.url)
        self._drain()

    def _open(self, url: str) -> AbstractAsyncContextManager[Carrier]:
        if self._dial is not None:
            return self._dial(url)
        return network().dial(url, self._ssl_context, self._core.timing)

    async def _check_health(self, url: str) -> None:
        """Ask for the health of the node first, where the party was told to, and is away.

        In a move a successor is ready. The page might be that of the node which goes away, whose answer costs the wait of a failed try.
        """
        core = self._core
        health = core.schedule.health
        if health is not None and core.opened_count and core.current is None and not core.is_moving:
            await self._api.check_health(url, health)

    async def _connection(self, url: str, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Live through one connection: dial, carry, tell the core how it ended, close."""
        core = self._core
        link: Link | None = None
        try:
            await self._check_health(url)
            async with self._open(url) as carrier:
                if core.over is not None:
                    task_status.started()
                    return
                link = core.opened(url, anyio.current_time())
                self._standing.add(link)
                task_status.started()
                ending = await self._carry(link, carrier)
                # The core is told before the closing handshake, because another connection may be due at once.
                core.lost(link, ending.code, ending.reason, anyio.current_time())
                self._drain()
                if core.over is not None or link.retired_at != NEVER:
                    with anyio.move_on_after(core.timing.close_s):
                        await carrier.aclose(CloseCode.NORMAL, "")
                carrier.abort()
        except DialFailed as failed:
            # Until a connection has stood, the URL itself may be the fault; later it is a deploy or the network, and mends itself.
            level = logging.INFO if core.opened_count else logging.WARNING
            log.log(level, "%s: %s", without_login(url), failed.reason)
            core.unreachable(
                anyio.current_time(),
                failed.code,
                failed.reason,
                failed.retry_after_ms,
                url=url,
                wrong_url=failed.wrong_url,
            )
            self._drain()
            task_status.started()
        finally:
            if link is not None:
                self._standing.discard(link)
                self._replanned.unpark_all()
        if link is not None and link.state != "closed":
            # The carrier broke beneath the block and ended it: not a word came from it.
            core.lost(link, None, "the connection broke", anyio.current_time())
            self._drain()

    async def _carry(self, link: Link, carrier: Carrier) -> _Ending:
        async with anyio.create_task_group() as nursery:
            ending = _Ending(nursery.cancel_scope)
            self._endings[link] = ending
            nursery.start_soon(self._write, link, carrier, ending)
            nursery.start_soon(self._clock, link, ending)
            try:
                await self._read(link, carrier)
                ending.end(CloseCode.NORMAL, "the session is over")
            except CarrierClosed as closed:
                ending.end(closed.code, closed.reason)
            except LinkBroken as broken:
                log.warning("connection to %s cut: %s", without_login(link.url), broken)
                ending.end(None, str(broken))
            finally:
                del self._endings[link]
        return ending

    async def _read(self, link: Link, carrier: Carrier) -> None:
        core = self._core
        while core.over is None:
            data = await carrier.receive()
            core.receive(link, data, anyio.current_time())
            self._drain()
            while core.blocked():
                await self._room.park()
                link.last_received_at = anyio.current_time()

    async def _write(self, link: Link, carrier: Carrier, ending: _Ending) -> None:
        core = self._core
        lot = Lot()
        link.changed = _unpark(lot)
        try:
            while True:
                now = anyio.current_time()
                frames = core.write(link, now)
                if frames:
                    await carrier.send(frames)
                    continue
                with anyio.CancelScope(deadline=core.wake_at(link, now)):
                    await lot.park()
        except CarrierClosed as closed:
            # The frames before the close are still to be read. Without a close the reader would wait for ever.
            if closed.code is None:
                ending.end(None, closed.reason)

    async def _clock(self, link: Link, ending: _Ending) -> None:
        core = self._core
        lot = Lot()
        link.turned = _unpark(lot)
        try:
            while True:
                with anyio.CancelScope(deadline=core.due(link, anyio.current_time())):
                    await lot.park()
        except LinkBroken as broken:
            ending.end(None, str(broken))


def _unpark(lot: Lot) -> Callable[[], None]:
    def unpark() -> None:
        lot.unpark_all()

    return unpark


@asynccontextmanager
async def running(party: FrontParty, established: Callable[[], bool]) -> AsyncIterator[TaskGroup]:
    """Run `party` for the time of the block, which begins when it is established.

    An exception of the block comes out as it is, not in a group. Raises `Refused` when signald does not take the party.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(party.supervise)
        try:
            core = party._core
            await party._wait(lambda: established() or core.over is not None)
            refused = core.failure()
            if refused is not None:
                raise refused  # noqa: TRY301
            yield nursery
        except Exception as error:  # noqa: BLE001 - it is raised again below, outside the nursery that would wrap it
            failure = error
        await party._closed()
        nursery.cancel_scope.cancel(reason="the party's block was left")
    if failure is not None:
        raise failure
