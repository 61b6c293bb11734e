"""The operations on one session and their results: what a client and its worker ask of the store.

Everything of one session is one group of keys, atomic in itself. The rules are in rules.py, and once more in the scripts.
"""

from signald.core.callers import ALL, Access
from signald.core.chat_history import HistoryEntry
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.streams import StreamView
from signald.store.base import CLOCK_SET_MS, Behind, Done, Fenced, Refused, Result, Secret32, SessionOp, traits
from signald.wire.fields import SEQ_MAX

# --- results ------------------------------------------------------------------------------------------------------


class Unpaired(Done, frozen=True):
    """The session does not have the named worker, and `head` is its state now."""

    head: Head


class Exists(Result, frozen=True):
    """Another session has this id."""


class Claimed(Result, frozen=True):
    """The party is attached to the claiming node under `epoch` (also in `head`).

    `lost_*` are (first, last) seqs that the store has lost, if this party tells the truth. `away_ms`: for how long a client had
    been detached; 0 when it was attached, and for a worker. `agreed`: the other party had claimed seqs that the store did
    not have, and this party, which did not learn of them from signald, claims them as well.
    """

    epoch: int
    head: Head
    previous_node: str = ""
    lost_up: tuple[int, int] | None = None
    lost_down: tuple[int, int] | None = None
    away_ms: int = 0
    agreed: bool = False
    history: tuple[HistoryEntry, ...] = ()
    """The chat history as it was with the claim, as far as it was asked for."""
    streams: tuple[StreamView, ...] = ()
    """As `OpenStreams` shows them."""
    hand_outs: int = 0
    """Of a worker: how often the session has been assigned since a worker last acked something, this time included."""
    state: bytes = b""
    """Of an assigned worker: what the worker before has left for it, as JSON; empty for nothing."""


class Appended(Result, frozen=True):
    """Stored up to `last`; the receiver has acked up to `acked` and is attached to `receiver_node`."""

    last: int
    acked: int
    receiver_node: str


class Gap(Result, frozen=True):
    """The entries do not follow `last`."""

    last: int


class Full(Result, frozen=True):
    """The backlog of the receiver is full; the sender is pushed back."""

    last: int
    acked: int


class StreamRefused(Result, frozen=True):
    """A piece was refused: the entries before it are stored up to `last`, and nothing from it on.

    `code` is `stream_over` or `stream_superseded`. `acked` and `receiver_node` are as in `Appended`.
    """

    code: str
    stream: str
    last: int
    acked: int
    receiver_node: str


class NoSession(Result, frozen=True):
    """There is no such session: it ended, or the store came back empty (see `Incarnation`)."""


class Looked(Result, frozen=True):
    """The head, and entries dense from `after` + 1 or from the first one kept."""

    head: Head
    entries: tuple[Entry, ...]
    unreadable_to: int = 0
    """When all that was read is damaged: no message up to this seq can be read, and there may be whole ones after it. Otherwise 0."""


class SessionRead(Result, frozen=True):
    """The head of a session, and when its client was there."""

    head: Head
    connected_ms: int
    """When the client has attached last; 0: it never has."""
    away_ms: int
    """Since when the client is detached; meaningless while it is attached."""


class History(Result, frozen=True):
    """Entries of the chat history, oldest first."""

    entries: tuple[HistoryEntry, ...]
    more: bool = False
    """There are older ones."""


class Trail(Result, frozen=True):
    """The steps of a session's trail, oldest first."""

    steps: tuple[bytes, ...]


class Ended(Result, frozen=True):
    """The session is removed; `head` was its last state. `streams` were open, and are interrupted."""

    head: Head
    streams: tuple[StreamView, ...] = ()
    history_bytes: int = -1
    """Of the chat history that is kept beyond the end, which may be empty; -1: none is kept."""
    events: int = 0
    """How many events of the session wait to be told (`events/ops.py`)."""


# --- operations ---------------------------------------------------------------------------------------------------


@traits(damaged=Exists())
class CreateSession(SessionOp[Head | Exists], frozen=True):
    """Begin a session with its client attached at `node` under epoch 1.

    Without a `node` no client is attached: its epoch is 0, and it has `ttl_ms` for its first claim. Repeated with the same
    `nonce`, it gives the same `Head`; with another one, `Exists`.
    """

    node: str
    nonce: str
    principal: str
    want: dict[str, str]
    meta: bytes
    receipts: bool
    token: Secret32
    now_ms: int
    ttl_ms: int
    pair: bool = True
    events_max: int = 0
    """How many events of the session may wait to be told; 0: it is not told. Told are its beginning and end, its pairings, the absences
    of its client, and the ends of its jobs: each in the step that makes it (`core.life`)."""
    settings: bytes = b""
    """See `Head`; so are the next two."""
    rooms: bytes = b""
    asked_until_ms: int = 0


@traits(damaged=Refused("unreadable"))
class ClaimClient(SessionOp[Claimed | Refused], frozen=True):
    """Resume a client at `node`: check the token, raise the epoch. Wakes the client's previous node and the worker's node.

    `presented` moves to the previous slot and `issued` becomes current, by the two-slot rule (core/tokens). The claim also
    acknowledges `down` up to `received`, as far as it is stored. An `acked` or `received` above what is stored shows, if the client
    tells the truth, that the store lost its tail: it raises `last`, so that no seq is used twice (`Claimed.lost_up`, `lost_down`).

    Refusals, in the order in which they are judged; only `token_reuse` changes anything:

    * `unknown`: there is no such session.
    * `principal`: the session belongs to another principal, whatever the token.
    * `late`: the last granted claim was asked for after this one, so the party has gone on, and its token may rightly be retired.
    * `token_reuse`: the token is retired. All tokens of the session are revoked now.
    * `revoked`: the tokens were revoked before.
    * `unknown`: the session never had this token.
    * `expired`: the client has been detached for the session's time to live.
    * `ahead`: `received` or `acked` lies more than `ahead_max` above what is stored, or leaves no seq to go on with. With the
      default only the latter is refused.

    `attempt` (0: unknown) is the party's own count of its claims. Two more claims are `late`. First, a claim with the previous token and
    a lower count than the last granted claim, when the two were asked for within `CLOCK_SET_MS`: the party gave it up, and the
    network delivered it late. Second, a claim with a retired token and a lower count, asked for at the same time as the last granted
    claim: the party had no answer to either.
    """

    node: str
    nonce: str
    principal: str
    presented: Secret32
    issued: Secret32
    received: int
    acked: int
    now_ms: int
    ttl_ms: int
    attempt: int = 0
    ahead_max: int = SEQ_MAX
    history: int = 0
    """How many entries of the chat history are read in the same step."""
    events_max: int = 0
    """As in `CreateSession`: what the claiming node is configured to holds for the session from now on."""


@traits(damaged=Refused("unreadable"))
class ClaimWorkerSide(SessionOp[Claimed | Refused], frozen=True):
    """Attach a worker to its side of a session at `node`. Wakes the worker's previous node and the client's node.

    With `assign` the session gets `worker` in place of any other, because the registry has decided so. Its state becomes
    `assigned`, `said_before` becomes `down_last`, and `workers` grows when the id is new to the session. The streams of its
    direction that are open count as found by this worker. `Refused("set_aside")` when the session is set aside.

    Without `assign`, `worker` must be the session's worker already, and the state is kept. `Refused("not_yours")` otherwise;
    `Refused("late")` as in `ClaimClient`.

    `received`, `acked`, `ahead_max` and `Refused("ahead")` are as in `ClaimClient`, for the other direction. But a `received` above
    what is stored raises nothing: it counts as acked once the client or a node raises `up.last`.
    """

    node: str
    nonce: str
    worker: str
    assign: bool
    received: int
    acked: int
    now_ms: int
    ahead_max: int = SEQ_MAX
    history: int = 0
    """As in `ClaimClient`."""
    events_max: int = 0
    """As in `ClaimClient`."""


@traits(damaged=Behind(0))
class AcceptSession(SessionOp[Done | Fenced | Behind | NoSession], frozen=True):
    """Note that the worker accepted: state `paired`. Forget what `HandOn` has left. Wakes the client's node."""

    node: str
    epoch: int
    now_ms: int = 0
    """For the event that tells it; 0: the time of the event before it."""


@traits(damaged=Behind(0))
class HandOn(SessionOp[Done | Fenced | Behind | NoSession], frozen=True):
    """Leave `state` (JSON) of this worker for the worker that is assigned next, until one accepts the session."""

    node: str
    epoch: int
    state: bytes


@traits(damaged=NoSession())
class Unpair(SessionOp[Done | Fenced | NoSession], frozen=True):
    """Take `worker` off the session, if the session still has it. Wakes the worker's node and the client's node.

    Raises the epoch of the worker's side above both its own and `epoch`. `Fenced` when the same worker has claimed its side under a
    later epoch than `epoch` (0: any epoch will do).
    """

    node: str
    worker: str
    epoch: int


OVER_MS = CLOCK_SET_MS
"""How much longer than it can be read stays in the store what is kept of an ended session: the clocks of nodes differ by less."""

PASTS_MAX = 32
"""How many chat histories that are kept no longer one end removes: more than it can add, so that they never gather."""

IDLE_FAILURE_MS = 10_000
"""When a hand-out without a message to handle ends within this time, its `meta` or chat history made it fail: a handler reads these
first. A hand-out that ends later was lost by chance, and does not count."""


class UnpairFailed(Unpair, frozen=True):
    """`Unpair` after a failed hand-out, and count the failure in the same step. Answers `Unpaired` instead of `Done`.

    The failure counts at the first message that no worker has acked. When no message waits, it counts only if `ended_ms` (0:
    unknown) is at most `IDLE_FAILURE_MS` after the worker's last claim, and otherwise clears the count. From
    `failures_max` on the session is set aside: `ClaimWorkerSide` with `assign` is refused until that message is acked.
    A worker that no longer has the session changes nothing.
    """

    failures_max: int
    now_ms: int
    ended_ms: int
    jobs_failures_max: int = 0
    """When its worker was lost, that is a failure of the jobs that it had: with so many a job fails. 0: none of them has failed."""


@traits(damaged=NoSession())
class RetrySession(SessionOp[Unpaired | NoSession], frozen=True):
    """Clear the count of failed hand-outs of a session that is set aside; leave any other session as it is. Wakes both nodes.

    Raises the worker's epoch, so that a node or store that still knows the count does not give it back.
    """

    node: str


@traits(later=True, damaged=Behind(0))
class Append(SessionOp[Appended | Gap | Full | StreamRefused | Fenced | Behind | NoSession], frozen=True):
    """Append `entries` (dense, ascending) of `party` to its log. Wakes the receiver's node.

    Entries with a seq at or below the stored last are duplicates and count as success. The first of the others must be last + 1,
    or the answer is `Gap`. `Full` when more than `backlog_max` messages would wait for the receiver: then no entry is stored. `ack`
    (0: none) acknowledges the other direction in the same step, also with `Gap` and `Full`.

    An entry with a `mark` is judged by the rule of its stream (`core.streams`). When it is refused, the entries before it are stored
    and those from it on are not. `history_max` bounds the items of the chat history, of which each piece of a text is one.
    """

    party: Party
    node: str
    epoch: int
    entries: tuple[Entry, ...]
    ack: int
    backlog_max: int
    history_max: int
    history_bytes_max: int
    now_ms: int


@traits(later=True, damaged=Behind(0))
class Ack(SessionOp[Done | Fenced | Behind | NoSession], frozen=True):
    """Note that `party` has received the other party's log up to `seq`, and trim that log. A `seq` above last counts as last.

    Wakes the sender's node if the session wants receipts.
    """

    party: Party
    node: str
    epoch: int
    seq: int


@traits(reads=True, later=True, damaged=Behind(0))
class Look(SessionOp[Looked | Behind | NoSession], frozen=True):
    """Read the session for `party`: its head, and up to `limit` entries of the log that the party reads, after `after`."""

    party: Party
    after: int
    limit: int


@traits(reads=True, damaged=Behind(0))
class ReadSession(SessionOp[SessionRead | Refused | Behind | NoSession], frozen=True):
    """Read the session for a caller of the HTTP API. `Refused("access")` when `access` does not allow it."""

    access: Access


@traits(reads=True, damaged=Behind(0))
class ReadHistory(SessionOp[History | Refused | Behind | NoSession], frozen=True):
    """Read the last `limit` entries of the chat history, oldest first; also after the session's end, as long as it is kept.

    With `before`, the number of an entry: the last ones that stand before it. Nothing stands before one that is kept no more.
    `Refused("access")` when `access` does not allow it; of a session that has ended, the last worker counts as its worker.
    """

    limit: int
    before: int = 0
    access: Access = ALL
    now_ms: int = 0
    """Judges whether the history of an ended session is still kept."""


@traits(damaged=Done())
class Detach(SessionOp[Done], frozen=True):
    """Note that the connection of `party` is over. `Done` also when fenced, or without a session. Wakes the other party's node."""

    party: Party
    node: str
    epoch: int
    now_ms: int


@traits(damaged=Done())
class ConfirmToken(SessionOp[Done], frozen=True):
    """Retire the previous token: the client has shown that it holds the token issued under `epoch`."""

    epoch: int


@traits(damaged=NoSession())
class EndSession(SessionOp[Ended | NoSession], frozen=True):
    """Remove every trace of the session but its jobs (`jobs/ops.py`), the events that wait (`events/ops.py`) and, for a while, its
    chat history. Wakes both parties' nodes, other than `node`.
    """

    node: str
    now_ms: int = 0
    """For its jobs and its event; 0: the time of the last operation on the jobs, and of the last event."""
    keep_ms: int = 0
    """For how long from `now_ms` on the chat history can still be read; 0: it goes at once."""
    reason: str = ""
    """Why it ends, as its event tells it."""


@traits(damaged=Behind(0))
class ExpireSession(SessionOp[Ended | Done | Behind], frozen=True):
    """`EndSession`, but only if the client has been detached for `ttl_ms`, or is attached to a node not in `nodes`.

    `Done` when the session lives, or when there is none. `Behind` when the record is too damaged to tell.
    """

    node: str
    nodes: tuple[str, ...]
    now_ms: int
    ttl_ms: int
    keep_ms: int = 0
    """As in `EndSession`."""
    reason: str = ""
    """As in `EndSession`."""


@traits(later=True, damaged=Done())
class Mark(SessionOp[Done], frozen=True):
    """Add `steps` (JSON each) to the session's trail, of which the last `keep_max` are kept for `keep_ms`; 0 removes the trail.

    Not fenced, and kept beyond the session's end: a trail describes the life of a session and is no part of it. Repeating the operation
    after an unknown outcome stores its steps twice.
    """

    steps: tuple[bytes, ...]
    keep_max: int
    keep_ms: int
    now_ms: int


@traits(reads=True, damaged=Trail(()))
class ReadTrail(SessionOp[Trail], frozen=True):
    """Read the session's trail."""


@traits(damaged=NoSession())
class KeepAnswer(SessionOp[Done | NoSession], frozen=True):
    """Keep what the core server has answered when it was asked again. Wakes no node: the next worker is told."""

    settings: bytes
    rooms: bytes
    asked_until_ms: int


class Reseed(SessionOp[Head | NoSession], frozen=True):
    """Give back to the store what a node knows of a live session, after the store lost something.

    Of two values for one field, that with the higher seq or epoch wins. `up_tail` and `down_tail` hold the entries that the node still
    has, dense up to `head.up_last` / `down_last`, or are empty; entries above the stored last are stored. `client_tokens` is
    (current, previous), or () when the client is not attached to this node. An absent session is created with `create` only:
    a store that has lost its tail still has a record, so without one the session has ended while this was in flight.

    `asked_ms` and `attempt` are those of the claim by which the client has got these tokens (0: not known). Without them, an earlier
    claim of the client that is late would pass for a later one.
    """

    node: str
    head: Head
    client_tokens: tuple[bytes, ...]
    up_tail: tuple[Entry, ...]
    down_tail: tuple[Entry, ...]
    now_ms: int
    create: bool
    asked_ms: int = 0
    attempt: int = 0
