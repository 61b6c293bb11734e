"""A party (a client or a worker) over its connections. No I/O: the core decides, and a driver carries.

A *driver* owns the sockets, the tasks and the clock; `front.party.FrontParty` is one. At most one link is *current*: new messages and
acks go there. While a goaway is followed, another link is *opening* beside it. When its opening message is answered, it becomes
current. The old link is then *retiring*: still read (late deliveries are recognised by their seq), not written any more, closed by
signald with 4001.

The contract of a driver
------------------------

Time and calls. `now` is in seconds, of one monotonic clock, the same for every method. The driver makes one call at a time, from one
thread. No method blocks. A method raises only the errors that it names; the state is still valid after that.

Callbacks. The core calls `PartyCore.replan`, `Link.changed`, `Link.turned` and `SessionCore.changed` from within its methods. A
callback only wakes the task that waits for it. It must not call the core.

Notices. `receive`, `lost`, `unreachable` and `finish` may leave something for the application: `ClientCore.events` or
`WorkerCore.notices`. After each of them the driver must empty that queue, before it waits for anything.

Tasks. The driver runs these four loops; the first lives as long as the party, the others as long as a link:

    supervise    until `over`: attempt = plan(now); None: wait for `replan`; `attempt.at` not reached: wait for `replan` or that
                 time; else dial `attempt.url` (TCP, TLS, WebSocket, within `timing.connect_s`): `opened`, or `unreachable`
    read         receive(link, frame, now) for each frame; while `blocked()`: do not read, wait for `SessionCore.changed`; when
                 reading begins again, set `link.last_received_at` to the time
    write        write(link, now) and send it in order; when it is empty: wait for `link.changed`, or until wake_at(link, now)
    clock        deadline = due(link, now); wait for `link.turned`, or until the deadline

Sessions. The application speaks through a `SessionCore`: `room`, `send`, `take`, `finish`, `bye`. After `send`, after `finish` when it
returns True, and after `bye` was set, the driver must call `ClientCore.changed` or `WorkerCore.touched`.

The end of a connection. When it is closed or broken, or `receive` or `due` raises `LinkBroken`, the driver must call `lost` once.
It does so before any closing handshake, because another connection may be due at once. Then it closes the transport. If the party
is over or the link was retiring, it closes with 1000, within `timing.close_s`; in all other cases by force.

The end of the party. When `over` is set, the driver must hand on what is left in the queues, then end all its tasks. `failure()` is
the error for the application.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import UNSET

from signald.ids import Entropy
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff, Schedule, hint_ms, without_login
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.core import NEVER, SessionCore
from signald.sdk.credentials import AUTH_EXPIRING, AUTH_REFUSED, Credentials
from signald.sdk.errors import LinkBroken, PartyError, Refused, SessionGone
from signald.sdk.events import AuthExpiring
from signald.sdk.link import Link
from signald.sdk.party_records import DEADLINE_MAX_S, DEFAULT_TIMING, Attempt, Over, Timing
from signald.sdk.writing import Batch, Frame, realtime_frame
from signald.wire.close_codes import CloseCode, advice
from signald.wire.codec import PING, PONG
from signald.wire.messages import ErrorMessage, GoAway, NewApiToken, Ping

CONTROL_MAX = 256
"""Realtime messages are dropped while this many frames wait for a writer."""

FLOOD_MAX = 100_000
"""Answers that wait for a writer: one for each session of the largest worker. A service that asks for more and reads nothing of it
is cut."""

RETIRING_MAX = 2
"""Left connections that wait for signald to close them. An honest node closes one at once; a third is one too many."""

HEARTBEAT_MIN_S, HEARTBEAT_MAX_S = 0.05, 300.0
"""The bounds of the heartbeat that signald names: a shorter one is a flood, and with a longer one a dead connection stays."""


class Writer(Protocol):
    """What a session, or its rooms, is to a party."""

    def wake_at(self, now: float) -> float:
        """Return when a pause ends that keeps something from being written, or NEVER."""


class PartyCore(ABC):
    """The connections of one party. The module's text is the contract of its driver.

    Public attributes that a driver reads: `over`, `timing`, `schedule`, `credentials.api_token`; of a link `state`,
    `retired_at`. It writes the callbacks and `Link.last_received_at`, and nothing else.
    """

    path: str

    def __init__(
        self,
        urls: Sequence[str],
        *,
        entropy: Entropy,
        backoff: Backoff = DEFAULT_BACKOFF,
        timing: Timing = DEFAULT_TIMING,
        bounds: Bounds = DEFAULT_BOUNDS,
        auth: str | Callable[[], str] | None = None,
        api: bool = False,
    ) -> None:
        """With `api` the party asks for API tokens."""
        self.schedule = Schedule(urls, self.path, backoff, entropy)
        self.entropy = entropy
        self.timing = timing
        self.bounds = bounds
        self.credentials = Credentials(auth, api=api)
        self.token: str | None = None
        """The newest recovery token held. An older one is forgotten only when the answer with a newer one is here."""
        self.current: Link | None = None
        self.url = ""
        """The URL of the last link that was current: where the HTTP API is asked."""
        self.opening: Link | None = None
        self.retiring: list[Link] = []
        self.attempts: int | None = 0
        """Opening messages so far, by which signald tells a late one from the next one; None: unknown."""
        self.opened_count = 0
        """Connections that stood at the TCP and WebSocket level, so far."""
        self.over: Over | None = None
        self.last_close_code: int | None = None
        self._move: GoAway | None = None
        self._moved_away: tuple[int | None, str] | None = None
        """How the old connection ended while the answer of the new one was still expected."""
        self._ever_current = False
        self._wrong_urls: dict[str, str] = {}
        """What is not signald, of the URLs that were tried before the party was taken; and why. The targets of goaways are hints, and
        there is none before."""
        self.full: list[SessionCore] = []
        """Sessions with an inbox at its bound; see `blocked`."""
        self.replan: Callable[[], None] = lambda: None
        """A callback of the driver: `plan` must be called again, or `over` is set."""

    # --- what differs between a client and a worker ----------------------------------------------------------------

    @abstractmethod
    def _opening_message(self, link: Link) -> bytes:
        """Return the opening message of a new connection."""

    @abstractmethod
    def _dispatch(self, link: Link, data: str | bytes, now: float) -> None:
        """Act on one frame. Raises LinkBroken as `receive`."""

    @abstractmethod
    def _writers(self) -> Sequence[Writer]:
        """Return those with something to write, now or after a pause."""

    @abstractmethod
    def _write_sessions(self, now: float, batch: Batch) -> None:
        """Add to `batch` what the sessions have to write."""

    @abstractmethod
    def _disconnected(self, code: int | None, reason: str) -> None:
        """Leave a notice that the current connection is lost and another one will be opened."""

    @abstractmethod
    def _notice(self, notice: AuthExpiring) -> None:
        """Leave a notice for the application."""

    @abstractmethod
    def _nothing_to_resume(self, _now: float) -> None:
        """Give up what signald does not know any more, and begin again or finish."""

    @abstractmethod
    def _ended(self, over: Over) -> None:
        """Leave a notice of the end."""

    # --- connecting ------------------------------------------------------------------------------------------------

    def plan(self, now: float) -> Attempt | None:
        """Return the next connection to open, and when. None: none is to be opened now.

        After calling this method, you must dial the URL when its time has come, unless `replan` is called before; then call it
        again. It changes nothing, so it may be called at any time.
        """
        if self.over is not None or self.opening is not None:
            return None
        if self.current is not None and self._move is None:
            return None
        return Attempt(max(now, self.schedule.at), self.schedule.url(now))

    def opened(self, url: str, now: float) -> Link:
        """Note that a connection to `url` is open; return its link, on which the opening message is the first thing to write.

        After calling this method, you must set the link's callbacks, begin to read, to write and to watch its clock, and later
        call `lost` exactly once. Do not call it when `over` is set: close the connection instead.

        Raises:
            Exception: any that the application's `auth` raises; no link was made.
        """
        link = Link(url, now, moving=self.current is not None, token=self.token)
        if self.attempts is not None:
            self.attempts += 1
        link.control.append((True, self._opening_message(link)))
        self.opened_count += 1
        self.opening = link
        if self.current is not None:
            self.current.moving = True  # from here on, its being moved away or superseded is our own doing
        return link

    def unreachable(
        self,
        now: float,
        code: int | None,
        reason: str,
        retry_after_ms: int | None = None,
        *,
        url: str = "",
        wrong_url: bool = False,
    ) -> None:
        """Note that no connection came about: TCP was refused, a handshake failed, or `timing.connect_s` is over.

        `code` is the close code that says the same as the status of the handshake's answer (401: UNAUTHENTICATED, 403:
        FORBIDDEN), or None. `retry_after_ms` is the answer's `Retry-After`. With `wrong_url` the other side at `url` has answered, and is
        not signald: no retry mends that, and a party that was never taken gives up as soon as each of its URLs is wrong. A party that
        was taken goes on: a proxy may answer so while its backends change.

        After calling this method, you must empty the notices, and call `plan` again.
        """
        if not self._ever_current:
            self._judge_url(url, reason, wrong=wrong_url)
        self._attempt_failed(now, code, reason, retry_after_ms, link=None)

    def _judge_url(self, url: str, reason: str, *, wrong: bool) -> None:
        """Finish when no URL is left that may be signald's."""
        if not wrong:
            self._wrong_urls.pop(url, None)
            return
        self._wrong_urls[url] = reason
        if self.schedule.urls <= self._wrong_urls.keys():
            found = "; ".join(f"{without_login(one)}: {why}" for one, why in self._wrong_urls.items())
            self.finish(Over(None, f"no URL is that of signald: {found}", orderly=False))

    def _attempt_failed(
        self, now: float, code: int | None, reason: str, retry_after_ms: int | None, link: Link | None
    ) -> None:
        if self.over is not None:
            return
        if self._moved_away is not None:
            self._disconnected(*self._moved_away)
            self._moved_away = None
        rule = advice(code)
        # While the old connection serves, no answer of another node ends the session: a new release that refuses
        # every party must not cost more than the move.
        final = self.current is None and code not in (None, CloseCode.MOVED, CloseCode.NORMAL)
        if final and code == CloseCode.NOTHING_TO_RESUME and link is not None and link.token is not None:
            self._nothing_to_resume(now)
        elif final and not rule.may_reconnect:
            self.finish(Over(code, reason or rule.meaning, orderly=False))
        else:
            hint = retry_after_ms if retry_after_ms is not None else hint_ms(reason)
            self.schedule.failed(now, code, hint)
            if self.schedule.exhausted and self.current is None:
                self.finish(
                    Over(code, f"no usable connection after {self.schedule.tries} tries: {reason}", orderly=False)
                )
        self.replan()

    # --- a connection's life ---------------------------------------------------------------------------------------

    def receive(self, link: Link, data: str | bytes, now: float) -> None:
        """Take one frame: `str` for text, `bytes` for binary, complete and unmasked.

        After calling this method, you must empty the notices. While `blocked` is true, you must not read.

        Raises:
            LinkBroken: you must cut the connection, and call `lost` with code None and this reason.
        """
        link.last_received_at = now
        link.pinged_at = None
        if len(link.control) > FLOOD_MAX:
            raise LinkBroken("the other side asks, and reads no answer")
        if self.over is None:
            self._dispatch(link, data, now)

    def blocked(self) -> bool:
        """Tell whether the application is so far behind that no connection may be read, until an inbox has room again."""
        if self.full:
            self.full = [session for session in self.full if session.full and session.ended is None]
        return bool(self.full)

    def write(self, link: Link, now: float) -> list[Frame]:
        """Return the frames to write on `link` now: (text?, payload), in order. Each is returned once for the same link.

        After calling this method, you must send all of it before you call it again. When it is empty, wait for `link.changed` or
        until `wake_at`. When it cannot be sent within `timing.write_s`, the connection is broken.
        """
        batch = Batch()
        for one in link.control:
            batch.add(one)
        link.control.clear()
        if link is self.current:
            self._write_sessions(now, batch)
        return batch.frames

    def wake_at(self, link: Link, now: float) -> float:
        """Return when `write` may have more for `link` without a call of `link.changed`, because a pause ends; or NEVER."""
        if link is not self.current:
            return NEVER
        return min((writer.wake_at(now) for writer in self._writers()), default=NEVER)

    def due(self, link: Link, now: float) -> float:
        """Do what the clock asks for on `link` (a ping); return when to call this method again.

        After calling this method, you must call it again at that time, and at once when `link.turned` is called.

        Raises:
            LinkBroken: no answer to the opening message or to a ping, or signald never closed a left connection. You must cut the
                connection, and call `lost` with code None and this reason.
        """
        if link.state == "opening":
            deadline = link.opened_at + self.timing.answer_s
            if now >= deadline:
                raise LinkBroken("no answer to the opening message")
            return deadline
        if link.state == "retiring":
            deadline = link.retired_at + self.timing.retire_s
            if now >= deadline:
                raise LinkBroken("left, and not closed by the other side")
            return deadline
        if self.blocked():
            return now + self.timing.pong_timeout_s  # nothing is read, so silence says nothing
        if link.pinged_at is not None:
            deadline = link.pinged_at + self.timing.pong_timeout_s
            if now >= deadline:
                raise LinkBroken("no sign of life after a ping")
            return deadline
        deadline = link.last_received_at + link.heartbeat_s
        if now >= deadline:
            link.pinged_at = now
            self._say(link, PING)
            return now + self.timing.pong_timeout_s
        return deadline

    def lost(self, link: Link, code: int | None, reason: str, now: float) -> None:
        """Note that `link` has ended: closed with `code` and `reason`, or broken (None). A second call does nothing.

        After calling this method, you must empty the notices, close the transport, and end the tasks of the link. `replan` was
        called.
        """
        was, link.state = link.state, "closed"
        if was == "closed":
            return
        refusal = link.refusal
        retry = None
        if refusal is not None:
            reason = reason if hint_ms(reason) is not None else f"{refusal.code}: {refusal.message}"
            retry = refusal.retry_after_ms if refusal.retry_after_ms is not UNSET else None
        if was == "retiring":
            self.retiring.remove(link)
        elif was == "opening":
            self.opening = None
            self._attempt_failed(now, code, reason, retry, link)
        else:
            self.current = None
            self._lost_current(link, code, reason, now)
        self.replan()

    def _lost_current(self, link: Link, code: int | None, reason: str, now: float) -> None:
        if self.over is not None:
            return
        self.last_close_code = code
        rule = advice(code)
        announced = self._move is not None or link.moving
        if code == CloseCode.NORMAL:
            self.finish(Over(code, reason or "ended", orderly=True))
            return
        ours = link.moving and code in (CloseCode.MOVED, CloseCode.SUPERSEDED)
        if ours and self.opening is not None:
            # The claim was granted and its answer is on the way, on another socket: this is no interruption yet.
            self._moved_away = (code, reason)
            return
        if code == CloseCode.NOTHING_TO_RESUME:
            self._nothing_to_resume(now)
            if self.over is None:
                self._disconnected(code, reason)
            return
        if not ours and not rule.may_reconnect:
            self.finish(Over(code, reason or rule.meaning, orderly=False))
            return
        self.schedule.broken(now, code, reason, announced=announced)
        self._disconnected(code, reason)

    def _promote(self, link: Link, heartbeat_ms: int, token: str, now: float) -> bool:
        """Make `link` current, because its opening message was answered. True when it took over without an interruption."""
        self.token = token
        self.opening = None
        old = self.current
        if old is not None:
            old.state = "retiring"
            old.retired_at = now
            self.retiring.append(old)
            old.turned()
            for one in self.retiring[:-RETIRING_MAX]:
                one.retired_at = -NEVER  # its clock cuts it
                one.turned()
        self.current = link
        self.url = link.url
        handed_over = old is not None or self._moved_away is not None
        self._move = None
        self._moved_away = None
        self._ever_current = True
        self.attempts = self.attempts or 0  # signald knows of none of another process any more
        link.state = "current"
        link.moving = False
        # A spread of a tenth, so that parties that came together stop pinging together.
        heartbeat_s = min(max(heartbeat_ms / 1000, HEARTBEAT_MIN_S), HEARTBEAT_MAX_S)
        link.heartbeat_s = heartbeat_s * self.entropy.uniform(0.9, 1.0)
        self.schedule.usable(now)
        link.changed()
        link.turned()
        self.replan()
        return handed_over

    # --- messages of both parties ----------------------------------------------------------------------------------

    def _say(self, link: Link | None, payload: bytes) -> None:
        if link is not None:
            link.control.append((True, payload))
            link.changed()

    def _of_the_connection(self, link: Link, message: Ping | NewApiToken) -> None:
        """Take a message that concerns no session."""
        if isinstance(message, Ping):
            self.pong(link)
        elif link is self.current:
            self.credentials.keep_api_token(message.api_token)

    def pong(self, link: Link) -> None:
        """Answer a ping; several at once are answered once."""
        if (True, PONG) not in link.control:
            self._say(link, PONG)

    def goaway(self, link: Link, message: GoAway, now: float) -> None:
        """The node goes away: open another connection while this one still serves."""
        link.goaway = message
        if link is not self.current or self._move is not None:
            return
        self._move = message
        target = message.target if message.target is not UNSET else None
        deadline_s = min(max(message.deadline_ms / 1000, 0.0), DEADLINE_MAX_S)
        not_before_s = min(max(message.not_before_ms / 1000, 0.0), deadline_s)
        self.schedule.moving(now, not_before_s, deadline_s, target)
        self.replan()

    @property
    def is_moving(self) -> bool:
        """True while the party has been told to go and has not come to another node yet."""
        return self._move is not None

    @property
    def ticket(self) -> str | None:
        """The admission ticket of the goaway that is being followed."""
        return self._move.ticket if self._move is not None and self._move.ticket is not UNSET else None

    def refusal(self, link: Link, error: ErrorMessage) -> bool:
        """Remember a fatal error; True when there is nothing more to do about `error`."""
        if error.fatal is True:
            link.refusal = error
            return True
        # An error on a left connection is about frames that were sent again on the current one.
        return link is not self.current

    def realtime(self, data: object, session: str | None = None) -> bool:
        """Send data that is carried now or not at all; False when it was dropped: no connection, or too much is waiting.

        Raises:
            ValueError: as for a message.
        """
        one = realtime_frame(data, session, self.bounds)
        link = self.current
        if link is None or len(link.control) >= CONTROL_MAX:
            return False
        link.control.append(one)
        link.changed()
        return True

    def renew_auth(self, auth: str) -> None:
        """Show `auth` on the current connection, and on each one to come, unless the application gave a function for that.

        Raises:
            ValueError: it is no text that can be a credential.
        """
        self._say(self.current, self.credentials.renew(auth))

    def auth_error(self, link: Link, error: ErrorMessage, now: float) -> bool:
        """Act on what signald says of the credential; True when `error` was about that.

        A function that gives credentials is asked for a fresh one. The application is told where there is none, or where it was refused.
        """
        if error.code not in (AUTH_EXPIRING, AUTH_REFUSED):
            return False
        if link is not self.current:  # a connection that is being left; the one that is opened shows its own
            return True
        answer = self.credentials.doubted(error, now)
        if isinstance(answer, AuthExpiring):
            self._notice(answer)
        elif answer is not None:
            self._say(link, answer)
        return True

    def changed(self) -> None:
        """There may be something to write on the current link."""
        if self.current is not None:
            self.current.changed()

    # --- the end ---------------------------------------------------------------------------------------------------

    def finish(self, over: Over) -> None:
        """End the party; a second call does nothing.

        After calling this method, you must empty the notices and end all tasks. `replan` was called.
        """
        if self.over is None:
            self.over = over
            self._ended(over)
            self.replan()

    def failure(self) -> PartyError | None:
        """Return the error an application is to see, or None after an orderly end (or none yet)."""
        if self.over is None or self.over.orderly:
            return None
        if not self._ever_current and self.over.code != CloseCode.NOTHING_TO_RESUME:
            return Refused(self.over.code, self.over.reason)
        return SessionGone(self.over.code, self.over.reason)
