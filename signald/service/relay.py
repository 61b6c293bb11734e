"""The way of a message: offered by its sender, appended to its log, delivered, acked. In that order, always.

    frames ▸ accept() ▸ settle() ▸ committer ▸ _appended() ▸ deliver() ▸ the receiver's connection
                                                          ▸ ack_later() ▸ the sender's connection

Everything here is synchronous: a batch of frames goes through without a task switch, and the committer calls back with
the results of a batch of operations. A receiver attached at another node is woken by the store, and `look` reads there
what the log has for it: the same path serves replay after a resume, a lost wake-up, and a receiver that was too slow.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf

import structlog
import trio
from msgspec import UNSET, UnsetType

from signald.core.head import Head, Party, other
from signald.core.log import Entry, Log, Offer
from signald.core.session import Side
from signald.core.streams import StreamFault, is_piece, mark_of
from signald.ids import job_of
from signald.service import traced
from signald.service.attached import LiveSession, PartyLink
from signald.service.holes import check_dense, pass_over
from signald.service.outgoing import PendingWrites
from signald.service.relay_needs import RelayEvents, RelaySettings
from signald.service.telemetry import Spans
from signald.store.base import Behind, Fenced, Result
from signald.store.committer import Committer
from signald.store.session.ops import Ack, Append, Appended, Full, Gap, Look, Looked, NoSession, StreamRefused
from signald.tally import Histogram
from signald.wire import records
from signald.wire.messages import Message

log = structlog.get_logger(__name__)

LOOK_LIMIT = 256
"""Entries read at once: at 64 KiB each 16 MiB, the most one look may hold in memory."""

RETRY_BACKLOG_MS = 250
"""When to offer a refused message again: a few round trips of a slow receiver, below what a user notices."""

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for the way of a message: from an idle node on memory to a store that was away for a while."""

LOGS_RECOUNT_S = 0.25
"""How often the logs of all sessions are added up while they are over their budget: milliseconds each time, and as often as
senders that were pushed back try again."""

SMALL_LOG_BYTES = 16384
"""What the log of one direction may always hold: a few messages of usual size."""

GAP_QUIET_MS = 125
"""How long a gap is told once only: a whole window may be under way behind the message that is missing."""


class Relay:
    """See the module."""

    def __init__(
        self,
        settings: RelaySettings,
        committer: Committer,
        writes: PendingWrites,
        events: RelayEvents,
        now_ms: Callable[[], int],
        spans: Spans | None = None,
    ) -> None:
        """`spans`, if any, are told of messages that carry a sampled trace."""
        self.settings = settings
        """Replaced when the configuration is reloaded."""
        self._committer = committer
        self._writes = writes
        self._events = events
        self._now_ms = now_ms
        self._spans = spans
        self._acks_due: dict[tuple[str, Party], LiveSession] = {}
        self._logs_bytes = 0
        self._logs_counted_at = -inf
        self.refused: Counter[str] = Counter()
        """Pieces of streams that the store has refused, by code."""
        self.accepted = 0
        self.acks: dict[Party, int] = {"client": 0, "worker": 0}
        """Frames with an ack, by the party that sent them."""
        self.delivered = 0
        self.hops = 0
        """Messages delivered here whose sender is attached at another node."""
        self.seconds = Histogram(SECONDS)
        """From the read that brought a message to its receiver's send queue, where both parties are here."""

    # --- from a sender ----------------------------------------------------------------------------------------------

    def accept(self, session: LiveSession, party: Party, message: Message, binary: bytes | None) -> None:
        """Take one message from `party`; `settle` must follow when the batch is through."""
        target = session.log_from(party)
        in_history = records.in_history(message, binary)
        if is_piece(message):
            job = job_of(session.id, message.stream or "") if party == "worker" else 0
            try:
                mark = mark_of(message, binary, job)
            except StreamFault as fault:
                self._refuse_piece(session, party, "bad_message", str(fault), at=message.seq)
                return
            session.streams = session.streams or 1
            entry = Entry(message.seq, records.message_body(message, binary), in_history, mark)
        else:
            at_ms = self._now_ms() if in_history else 0
            entry = Entry(message.seq, records.message_body(message, binary, at_ms), in_history)
        offer = target.offer(entry) if self._has_room(target, entry) else Offer.FULL
        if offer is Offer.ACCEPTED:
            self.accepted += 1
            if message.trace is not None and self._spans is not None:
                traced.follow(session.side(party), message)
            return
        link = session.side(party).link
        if link is None:
            return
        if offer is Offer.DUPLICATE:
            # Stored already: say so again, the first ack may have been lost. Only pending: its ack is on the way.
            if message.seq <= target.last:
                link.ack_later(session.id, target.last)
        elif offer is Offer.GAP:
            if target.tell_gap(self._now_ms(), GAP_QUIET_MS):
                link.error("gap", "a message is missing before this one", session=session.id, expected=target.expected)
        elif offer is Offer.SPENT:
            link.error("numbers_spent", "there is no number left for a message", session=session.id)
            self._events.spent(session)
        else:
            self.push_back(session, party, link)
            self.look(session)  # the receiver may have acked at another node; find out before the sender tries again

    def _refuse_piece(
        self, session: LiveSession, party: Party, code: str, why: str, *, at: int, stream: str | UnsetType = UNSET
    ) -> None:
        """Refuse the message `at` for what it is of its stream. What was sent behind it is passed over, and numbered anew."""
        target, link = session.log_from(party), session.side(party).link
        if link is None:
            return
        if at < target.expected:
            if at <= target.last:
                link.ack_later(session.id, target.last)
            return
        is_told = target.tell_gap(self._now_ms(), GAP_QUIET_MS)
        if at == target.expected:
            link.error(code, why, session=session.id, expected=target.expected, stream=stream)
        elif is_told:
            link.error("gap", "a message is missing before this one", session=session.id, expected=target.expected)

    def _has_room(self, target: Log, entry: Entry) -> bool:
        """Tell whether the logs of all sessions here may grow by `entry`; small logs and what is offered again always may."""
        size = len(entry.body)
        self._logs_bytes += size  # too high by what was acked since it was counted
        if self._logs_bytes <= self.settings.logs_bytes_max:
            return True
        now = trio.current_time()
        if now - self._logs_counted_at >= LOGS_RECOUNT_S:
            self._logs_counted_at = now
            self._logs_bytes = self._events.logs_bytes() + size
        if self._logs_bytes <= self.settings.logs_bytes_max or target.bytes_held + size <= SMALL_LOG_BYTES:
            return True
        return entry.seq != target.expected

    def push_back(self, session: LiveSession, party: Party, link: PartyLink) -> None:
        """Tell `party` to offer its next message again, once for each seq."""
        target = session.log_from(party)
        if not target.tell_refusal(self._now_ms(), RETRY_BACKLOG_MS):
            return
        link.error(
            "backlog",
            "too much waits for the peer; offer this message again",
            session=session.id,
            expected=target.expected,
            retry_after_ms=RETRY_BACKLOG_MS,
        )

    def settle(self, session: LiveSession, party: Party) -> None:
        """Hand what `party` has offered to the committer, unless an append is under way (its answer does it then)."""
        target = session.log_from(party)
        entries = target.take()
        side = session.side(party)
        link = side.link
        if not entries:
            if link is not None and side.waiting_since < 0 and target.in_flight < len(target.pending):
                side.waiting_since = link.conn.last_received_at
            return
        came_at = side.waiting_since
        side.waiting_since = -1.0
        if came_at < 0 and link is not None:
            came_at = link.conn.last_received_at
        due = side.ack_due if side.ack_due > side.ack_stored else 0
        side.ack_stored = max(side.ack_stored, due)
        epoch = side.epoch
        settings = self.settings
        self._committer.submit(
            Append(
                session.id,
                party,
                settings.node,
                epoch,
                entries,
                due,
                settings.backlog_messages_max,
                settings.history_messages_max,
                self._events.history_bytes_max(session),
                self._now_ms(),
            ),
            partial(self._appended, session, party, epoch, came_at),
        )

    def _appended(self, session: LiveSession, party: Party, epoch: int, came_at: float, result: Result) -> None:
        side = session.side(party)
        if side.epoch != epoch:
            return  # a claim came between: the party offers again whatever was not stored before it
        target = session.log_from(party)
        link = side.link
        if side.traced and self._spans is not None:
            traced.tell(self._spans, session, party, result, self._committer.answered_at)
        if type(result) is Appended and party == "worker" and result.last > target.asked:
            # The client has claimed to know of numbers above these, so what was appended now may have passed for duplicates.
            # It is not acked: the look finds that the worker was overtaken.
            target.retry()
            self.look(session)
        elif type(result) is Appended:
            new = target.stored(result.last, result.acked)
            if session.streams:
                _note_streams(side, new)
            if link is not None:
                link.ack_later(session.id, target.last)
            else:
                self._events.last_words(session)
            self._hand_on(session, other(party), new, result.receiver_node, came_at)
            if session.streams and any(entry.mark is not None and entry.mark.job and entry.mark.end for entry in new):
                self._events.job_over(session)
            if target.pending:
                self.settle(session, party)
        elif type(result) is Fenced:
            if result.epoch > epoch:
                target.forget_pending()
                self._fenced(session, party)
            else:
                # The store knows our claim but not that the party is attached here: it has lost that.
                target.retry()
                self._events.behind(session)
        elif isinstance(result, Full | StreamRefused):
            side.waiting_since = -1.0
            self._turned_down(session, party, came_at, result)
        elif type(result) is NoSession:
            target.retry()
            self._events.missing(session)
        elif isinstance(result, Gap | Behind):
            target.retry()
            self._events.behind(session)

    def _turned_down(self, session: LiveSession, party: Party, came_at: float, result: Full | StreamRefused) -> None:
        """The store has not taken all that was offered: the sender offers the rest again, or numbers it anew."""
        target, side = session.log_from(party), session.side(party)
        link = side.link
        if isinstance(result, Full):
            target.forget_pending()
            target.absorb(result.last, result.acked)
            if link is not None:
                self.push_back(session, party, link)
            return
        self.refused[result.code] += 1
        new = target.stored(result.last, result.acked)
        _note_streams(side, new)
        target.forget_pending()
        if new and link is not None:
            link.ack_later(session.id, target.last)
        elif new:
            self._events.last_words(session)
        why = "the stream takes no more" if result.code == "stream_over" else "a higher attempt has begun"
        self._refuse_piece(session, party, result.code, why, at=target.expected, stream=result.stream)
        self._hand_on(session, other(party), new, result.receiver_node, came_at)

    def _hand_on(self, session: LiveSession, party: Party, new: list[Entry], node: str, came_at: float) -> None:
        """Give `party`, attached at `node`, what was just stored for it."""
        side = session.side(party)
        if side.link is None:
            return
        if node != self.settings.node:
            # The receiver has been claimed elsewhere or given up while this node was too slow to hear of it. What was
            # appended after that is not for the party attached here any more.
            self.look(session)
        elif new and side.sent == new[0].seq - 1 and not side.link.blocked:
            if self._send(session, party, side.link, new) and came_at >= 0:
                # By the oldest of the batch: an observation for each message would cost more than it tells.
                self.seconds.observe(self._committer.answered_at - came_at, len(new))
        else:
            self.deliver(session, party)

    # --- to a receiver ----------------------------------------------------------------------------------------------

    def deliver(self, session: LiveSession, party: Party) -> None:
        """Send `party` what it has not been sent, as far as its send queue has room."""
        side = session.side(party)
        link = side.link
        if link is None or not link.delivering(session):
            return
        source = session.log_to(party)
        pass_over(session, party, self._events)
        while side.sent < source.last:
            entries = source.after(side.sent)
            if entries is None:
                self.look(session)
                return
            if not self._send(session, party, link, entries):
                return

    def _send(self, session: LiveSession, party: Party, link: PartyLink, entries: list[Entry]) -> bool:
        side = session.side(party)
        if not link.delivering(session):
            return False
        front = link.message_front(session.id)
        conn = link.conn
        sent = 0
        for entry in entries:
            if not conn.room:
                link.block(session.id)
                break
            link.send_body(front, entry.body)
            side.sent = entry.seq
            sent += 1
        self.delivered += sent
        sender = session.side(other(party))
        if sender.link is None and sender.node:
            self.hops += sent
        return sent == len(entries)

    def unblock(self, link: PartyLink) -> None:
        """The connection has room again: go on with the sessions that waited for it."""
        for session in link.unblock():
            if session.side(link.party).link is link:
                self.deliver(session, link.party)

    def ack(self, session: LiveSession, party: Party, seq: int) -> bool:
        """`party` has everything up to `seq`. The store is told with the next append, or soon.

        False when it claims far more than there is: that is no ack, and nothing has happened.
        """
        self.acks[party] += 1
        side = session.side(party)
        if seq <= side.ack_due:
            return True
        source = session.log_to(party)
        if seq > source.last + self.settings.claim_ahead_max:
            return False
        seq = min(seq, source.last)
        side.ack_due = seq
        side.sent = max(side.sent, seq)
        self._acks_due[session.id, party] = session
        if source.ack(seq) and session.receipts and party == "worker":
            self.receipt(session)
        return True

    def receipt(self, session: LiveSession) -> None:
        """Tell the client what its worker has."""
        link = session.client.link
        if link is not None:
            link.receipt(session.up.acked)

    @property
    def has_acks(self) -> bool:
        """True when `store_acks` has something to do."""
        return bool(self._acks_due)

    def store_acks(self) -> None:
        """Tell the store the acks that found no append to ride with."""
        due, self._acks_due = self._acks_due, {}
        for (_, party), session in due.items():
            side = session.side(party)
            if side.ack_due <= side.ack_stored or side.link is None:
                continue
            side.ack_stored = side.ack_due
            epoch = side.epoch
            self._committer.submit(
                Ack(session.id, party, self.settings.node, epoch, side.ack_due),
                partial(self._acked, session, party, epoch),
            )

    def _acked(self, session: LiveSession, party: Party, epoch: int, result: Result) -> None:
        if session.side(party).epoch != epoch:
            return
        if type(result) is Fenced and result.epoch > epoch:
            self._fenced(session, party)
        elif type(result) is NoSession:
            self._events.missing(session)
        elif isinstance(result, Behind | Fenced):
            self._events.behind(session)

    def _fenced(self, session: LiveSession, party: Party) -> None:
        if party == "client":
            self._events.superseded(session, party)
        else:
            # It was claimed elsewhere, or its session was given to another: it is told accordingly by what is read now.
            self.look(session)

    # --- from the store ---------------------------------------------------------------------------------------------

    def look(self, session: LiveSession) -> None:
        """Read again what the store has of `session`, for each party that is attached here."""
        if session.looks.running:
            session.looks.again = True
            return
        parties: list[Party] = [party for party in ("client", "worker") if session.side(party).link is not None]
        if not parties:
            return
        session.looks.begin()
        for party in parties:
            side = session.side(party)
            after, told = side.sent, (side.epoch, side.ack_stored)
            self._committer.submit(
                Look(session.id, party, after, LOOK_LIMIT),
                partial(self._looked, session, party, after, told, party == parties[-1]),
            )

    def _looked(
        self, session: LiveSession, party: Party, after: int, told: tuple[int, int], final: bool, result: Result
    ) -> None:
        if final:
            session.looks.end()
        if isinstance(result, NoSession | Behind):
            if final and isinstance(result, Behind):
                self._events.behind(session)
            elif final:
                self._events.missing(session)
            return
        assert isinstance(result, Looked)
        head = result.head
        side = session.side(party)
        lost_to = 0
        if side.link is not None and side.sent == after:
            lost_to = check_dense(session, party, after, result, self._events)
        self._events.news(session, session.observe(head, result.entries, party))
        self._ack_again(session, party, told, head)
        pass_over(session, party, self._events)
        source = session.log_to(party)
        if side.link is not None and side.sent < source.last:
            entries = source.after(side.sent)
            if entries is None:
                # What was read does not join the tail; deliver it as it is.
                fresh = [entry for entry in result.entries if entry.seq > side.sent]
                went = (
                    fresh[0].seq == side.sent + 1 and self._send(session, party, side.link, fresh) if fresh else lost_to
                )
                if went:
                    session.looks.again = session.looks.again or side.sent < source.last
            else:
                self.deliver(session, party)
        if final and session.looks.again:
            self.look(session)

    def _ack_again(self, session: LiveSession, party: Party, told: tuple[int, int], head: Head) -> None:
        """Tell the store an ack once more that it was told before this look and does not know: it has lost it.

        The receiver has no reason to, and the sender's backlog would stay full.
        """
        side = session.side(party)
        epoch, ack_stored = told
        known = head.down_acked if party == "client" else head.up_acked
        last = head.down_last if party == "client" else head.up_last
        if last < session.log_to(party).last:
            return  # messages are lost as well, and what has their numbers now may be others: the mender sees to that
        if side.link is not None and side.epoch == epoch and known < ack_stored:
            self._committer.submit(
                Ack(session.id, party, self.settings.node, epoch, ack_stored),
                partial(self._acked, session, party, epoch),
            )


def _note_streams(side: Side[PartyLink], stored: list[Entry]) -> None:
    """Note which streams of this party are open, by what was just stored of them."""
    for entry in stored:
        if entry.mark is not None:
            (side.streams.discard if entry.mark.end else side.streams.add)(entry.mark.stream)
