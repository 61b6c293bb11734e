"""The records of a session in memory and SQLite, beside its messages."""

from typing import Literal

from msgspec import Struct, field

from signald.core.failures import NO_FAILURES, Failures
from signald.core.head import Head, Party
from signald.core.tokens import Slots
from signald.store.claims import Side

WORKERS_REMEMBERED = 16
"""How many of its workers a session remembers, so that a worker that comes back is not counted again."""

NO_TTL_MS = 1 << 52
"""The time to live of a session that a node gave back: it comes with the next claim."""

Way = Literal["up", "down"]


class Log(Struct, array_like=True, gc=False):
    """The two numbers of one direction. Messages between them wait for the receiver; there may be holes."""

    last: int = 0
    acked: int = 0


class Ahead(Struct, array_like=True, frozen=True, gc=False):
    """The seqs by which claims of a party have raised `last` of one direction."""

    first: int = 0
    last: int = 0
    """The seqs, `first` to `last`; those that the receiver has acked may be forgotten. 0: none."""
    lone: str = ""
    """The party that claimed them while the other party was detached, until that one comes back."""
    lone_first: int = 0
    """The first seq that party claimed since the other left. If the other claims it too, it knew of it independently."""


class Past(Struct, array_like=True, frozen=True, gc=False):
    """What is known of an ended session whose chat history is kept: which callers may read that, and until when."""

    session: str
    principal: str
    worker: str
    """The worker that had the session at its end."""
    until_ms: int


class Record(Struct, array_like=True):
    """Everything about a session but its messages. `worker_side` may outlive a worker: its epoch goes on."""

    session: str
    created_ms: int
    principal: str
    want: dict[str, str]
    meta: bytes
    receipts: bool
    ttl_ms: int
    slots: Slots = field(default_factory=Slots)
    client: Side = field(default_factory=Side)
    client_away_ms: int = 0
    """Since when the client is detached; meaningless while it is attached."""
    worker_side: Side = field(default_factory=Side)
    worker: str = ""
    worker_state: str = ""
    workers: int = 0
    workers_had: tuple[str, ...] = ()
    up: Log = field(default_factory=Log)
    down: Log = field(default_factory=Log)
    history_first: int = 0
    history_next: int = 0
    history_bytes: int = 0
    said_before: int = 0
    """`down.last` when the session was last assigned."""
    up_ahead: Ahead = field(default_factory=Ahead)
    down_ahead: Ahead = field(default_factory=Ahead)
    failed: Failures = NO_FAILURES
    """The failed hand-outs; records of releases that do not count them have none."""
    up_heard: int = 0
    """The seq up to which the worker says it has the client's messages, where that is more than is stored; 0: no more.

    When the client's own claim or a node raises `up.last`, the log counts as acked up to it.
    """
    pair: bool = True
    jobs: int = 0
    """See `Head.jobs`."""
    streams: int = 0
    """See `Head`."""
    hand_outs: int = 0
    """How often the session has been assigned since a worker last acked something."""
    hand_outs_at: int = 0
    """`up.acked` at the last assignment."""
    state: bytes = b""
    """What a worker has left for the next one, as JSON; empty for nothing."""
    history_parts: int = 0
    """How many items of the chat history begin no entry of it (`core.chat_history`)."""
    events: int = 0
    """See `Head.events`."""
    events_max: int = 0
    """See `Head.events_max`."""
    settings: bytes = b""
    """See `Head`; so are the next two."""
    rooms: bytes = b""
    asked_until_ms: int = 0

    def side(self, party: Party) -> Side:
        """Return where `party` is."""
        return self.client if party == "client" else self.worker_side

    def log(self, way: Way) -> Log:
        """Return the numbers of one direction."""
        return self.up if way == "up" else self.down

    def hear_claim(self, way: Way, party: Party, known: int) -> tuple[tuple[int, int] | None, bool]:
        """Raise `last` of one direction to `known`, because `party` claims to know that seq.

        A worker's claim about its client's messages is noted and raises nothing: a lie would make the client's next messages pass for
        duplicates. The client's own claim raises `last`; the worker recognizes a message that it gets twice by its seq.

        Returns the seqs that the store must have lost if that is true, and whether the other party has said so independently.
        """
        log, ahead = self.log(way), self.up_ahead if way == "up" else self.down_ahead
        agreed = ahead.lone not in ("", party) and known >= ahead.lone_first
        lone, lone_first = (ahead.lone, ahead.lone_first) if ahead.lone == party else ("", 0)
        first, last, lost = ahead.first, ahead.last, None
        if known > log.last:
            lost = log.last + 1, known
            if not self.side("worker" if party == "client" else "client").node:
                lone, lone_first = party, lone_first or lost[0]
            else:
                lone, lone_first = "", 0
            if way == "down" or party == "client":
                first, last = lost[0] if log.acked >= last else first, known
                log.last = known
        ahead = Ahead(first, last, lone, lone_first)
        if way == "up":
            self.up_ahead = ahead
        else:
            self.down_ahead = ahead
        return lost, agreed

    def head(self) -> Head:
        """Return what the contract shows of the session."""
        return Head(
            session=self.session,
            created_ms=self.created_ms,
            principal=self.principal,
            want=self.want,
            meta=self.meta,
            receipts=self.receipts,
            client_epoch=self.client.epoch,
            client_node=self.client.node,
            worker=self.worker,
            worker_state=self.worker_state,
            worker_epoch=self.worker_side.epoch,
            worker_node=self.worker_side.node,
            workers=self.workers,
            up_last=self.up.last,
            up_acked=self.up.acked,
            down_last=self.down.last,
            down_acked=self.down.acked,
            said_before=self.said_before,
            up_claimed=(self.up_ahead.first, self.up_ahead.last),
            down_claimed=(self.down_ahead.first, self.down_ahead.last),
            failed=self.failed,
            pair=self.pair,
            jobs=self.jobs,
            streams=self.streams,
            events=self.events,
            events_max=self.events_max,
            settings=self.settings,
            rooms=self.rooms,
            asked_until_ms=self.asked_until_ms,
        )
