"""The operations on one session and their results: what a client and its worker ask of the store.

Everything of one session is one group of keys, atomic in itself. The rules are in rules.py, and once more in the scripts.
"""

from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.store.base import Behind, Done, Fenced, Refused, Result, Secret32, SessionOp, traits
from signald.wire.messages import SEQ_MAX

# --- results ------------------------------------------------------------------------------------------------------


class Unpaired(Done, frozen=True):
    """The session has no worker any more, or another one than was named; this is what it is."""

    head: Head


class Exists(Result, frozen=True):
    """Somebody else's session has this id."""


class Claimed(Result, frozen=True):
    """The party is this node's under `epoch` (also in `head`). `lost_*`: (from, to) of seqs the store has lost, by the word of
    this party alone.

    `away_ms` tells how long a client had been detached: 0 when it was attached, and for a worker. `agreed`: the other party had
    claimed seqs that the store did not have, and this one, which cannot have heard of them from here, claims them as well.
    """

    epoch: int
    head: Head
    previous_node: str = ""
    lost_up: tuple[int, int] | None = None
    lost_down: tuple[int, int] | None = None
    away_ms: int = 0
    agreed: bool = False


class Appended(Result, frozen=True):
    """Stored up to `last`; the receiver has acked up to `acked` and is attached to `receiver_node`."""

    last: int
    acked: int
    receiver_node: str


class Gap(Result, frozen=True):
    """The entries do not follow `last`."""

    last: int


class Full(Result, frozen=True):
    """Too much waits for the receiver; the sender is pushed back."""

    last: int
    acked: int


class NoSession(Result, frozen=True):
    """There is no such session: it ended, or the store came back empty (see `Incarnation`)."""


class Looked(Result, frozen=True):
    """The head, and entries dense from `after` + 1 or from the first one kept."""

    head: Head
    entries: tuple[Entry, ...]
    unreadable_to: int = 0
    """Nothing up to this seq can be read, though there are no `entries` and there may be more behind it."""


class History(Result, frozen=True):
    """Chat history, oldest first: (party, body)."""

    entries: tuple[tuple[str, bytes], ...]


class Trail(Result, frozen=True):
    """The steps of a session's trail, oldest first."""

    steps: tuple[bytes, ...]


class Ended(Result, frozen=True):
    """The session is gone; this is what it was."""

    head: Head


# --- operations ---------------------------------------------------------------------------------------------------


@traits(damaged=Exists())
class CreateSession(SessionOp[Head | Exists], frozen=True):
    """Begin a session with its client attached at `node` under epoch 1. → `Head` | `Exists`

    The same `nonce` again gives the same `Head`; another one `Exists`.
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


@traits(damaged=Refused("unreadable"))
class ClaimClient(SessionOp[Claimed | Refused], frozen=True):
    """A client resumes at `node`: check the token, raise the epoch. → `Claimed` | `Refused`

    `presented` moves to the previous slot and `issued` becomes current, by the two-slot rule (see core/tokens). Also
    acknowledges `down` up to `received`, as far as it is stored; an `acked` or `received` above what is stored shows
    that the store lost its tail, if the client tells the truth, and raises `last` to it (no seq is used twice):
    `Claimed.lost_up` / `lost_down`. Refusals, in the order in which they are judged: `unknown` (no such session), `principal`
    (whatever the token), `late` (the last claim that was granted was asked for after this one: its party has long gone on, and
    the token it shows may rightly be retired), `token_reuse` (and the tokens are revoked now), `revoked`, `unknown` (a token it
    never had), `expired`, `ahead`. Only `token_reuse` changes anything. Wakes the node the client was attached to before, and
    the worker's.

    `ahead`: `received` or `acked` lies more than `ahead_max` above what is stored, or leaves no seq to go on with. By default
    only the latter is refused.

    `attempt` (0: not told) is the party's own count of its claims. `late` is also one that shows the previous token and has a
    lower count than the last claim that was granted, if that was asked for within `CLOCK_SET_MS`: the party gave it up before
    it made that other one, and the network has delivered it only now. So is one that shows a retired token, if that last claim was
    asked for in the same moment: neither of them had been answered then.
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


@traits(damaged=Refused("unreadable"))
class ClaimWorkerSide(SessionOp[Claimed | Refused], frozen=True):
    """A worker takes its side of a session at `node`. → `Claimed` | `Refused`

    With `assign` the session is given to `worker`, whoever had it before (the registry has decided); the state
    becomes `assigned`, `said_before` becomes `down_last`, and `workers` grows when the id is new to the session; a session that
    is set aside is `Refused("set_aside")`. Without,
    `worker` must be the session's worker already (`Refused("not_yours")` otherwise; `late` as in `ClaimClient`) and the
    state is kept. `received`, `acked`, `ahead_max` and `Refused("ahead")` as in `ClaimClient`, for the other direction; but a
    `received` above what is stored raises nothing: it counts as acked once `up.last` is raised by the client or a node. Wakes
    the worker's previous node and the client's.
    """

    node: str
    nonce: str
    worker: str
    assign: bool
    received: int
    acked: int
    now_ms: int
    ahead_max: int = SEQ_MAX


@traits(damaged=Behind(0))
class AcceptSession(SessionOp[Done | Fenced | Behind | NoSession], frozen=True):
    """The worker accepted: state `paired`. → `Done` | `Fenced` | `Behind` | `NoSession`. Wakes the client's node."""

    node: str
    epoch: int


@traits(damaged=NoSession())
class Unpair(SessionOp[Done | Fenced | NoSession], frozen=True):
    """Take `worker` off the session if it still has it: raises the epoch, also above `epoch`. → `Done` | `Fenced` | `NoSession`

    With `epoch` (0: any) only if nobody has claimed the worker's side since: `Fenced` if the same worker has. Wakes the
    worker's node and the client's.
    """

    node: str
    worker: str
    epoch: int


IDLE_FAILURE_MS = 10_000
"""A hand-out with no message to handle fails by what came with it (`meta`, the chat history) if it ends this soon: a handler
reads these first. One that ends later was lost by chance, and counts nothing."""


class UnpairFailed(Unpair, frozen=True):
    """`Unpair` after a failed hand-out, which is counted in the same step. → `Unpaired` | `Fenced` | `NoSession`

    The failure counts at the first message that no worker has acked. When no message waits, it counts only if `ended_ms` (0:
    unknown) is at most `IDLE_FAILURE_MS` after the worker's last claim, and otherwise clears the count. From
    `failures_max` on the session is set aside: `ClaimWorkerSide` with `assign` is refused until that message is acked.
    A worker that no longer has the session changes nothing.
    """

    failures_max: int
    now_ms: int
    ended_ms: int


@traits(damaged=NoSession())
class RetrySession(SessionOp[Unpaired | NoSession], frozen=True):
    """Clear the count of a session that is set aside; any other is left as it is. → `Unpaired` | `NoSession`

    Raises the worker's epoch, so that a node or store that still knows the count does not give it back. Wakes both nodes.
    """

    node: str


@traits(later=True, damaged=Behind(0))
class Append(SessionOp[Appended | Gap | Full | Fenced | Behind | NoSession], frozen=True):
    """Append `entries` (dense, ascending) of `party` to its log. → `Appended` | `Gap` | `Full` | `Fenced` | `Behind` | `NoSession`

    Entries with a seq at or below the stored last are duplicates and count as success; the first of the others must
    be last + 1, or the answer is `Gap`. `Full` when more than `backlog_max` would be waiting for the receiver: nothing is
    stored then. `ack` (0: none) acknowledges the other direction in the same step. `Behind`: the store knows an older
    epoch than the caller's, so it has lost its tail. Wakes the receiver's node.
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
    """`party` has received everything up to `seq` of the other's log; trims it. → `Done` | `Fenced` | `Behind` | `NoSession`

    Wakes the sender's node if the session wants receipts (a `seq` above last counts as last).
    """

    party: Party
    node: str
    epoch: int
    seq: int


@traits(reads=True, later=True, damaged=Behind(0))
class Look(SessionOp[Looked | Behind | NoSession], frozen=True):
    """Read the session as `party` needs it: its head, and up to `limit` entries for it after `after`.

    → `Looked` | `Behind` | `NoSession`
    """

    party: Party
    after: int
    limit: int


@traits(reads=True, damaged=History(()))
class ReadHistory(SessionOp[History], frozen=True):
    """Read the last `limit` messages of the chat history, oldest first. → `History` (empty when there is no session)"""

    limit: int


@traits(damaged=Done())
class Detach(SessionOp[Done], frozen=True):
    """The connection of `party` is gone. → `Done` (also when fenced or no session). Wakes the other party's node."""

    party: Party
    node: str
    epoch: int
    now_ms: int


@traits(damaged=Done())
class ConfirmToken(SessionOp[Done], frozen=True):
    """The client has shown that it holds the token issued under `epoch`: the previous one is retired. → `Done`"""

    epoch: int


@traits(damaged=NoSession())
class EndSession(SessionOp[Ended | NoSession], frozen=True):
    """Remove every trace of the session. → `Ended` | `NoSession`. Wakes both parties' nodes (other than `node`)."""

    node: str


@traits(damaged=Behind(0))
class ExpireSession(SessionOp[Ended | Done | Behind], frozen=True):
    """`EndSession`, but only if its client has been detached for `ttl_ms`, or is attached to a node not in `nodes`.

    → `Ended` | `Done` (it lives, or there is none) | `Behind` (that cannot be told).
    """

    node: str
    nodes: tuple[str, ...]
    now_ms: int
    ttl_ms: int


@traits(later=True, damaged=Done())
class Mark(SessionOp[Done], frozen=True):
    """Add `steps` (JSON each) to the session's trail, of which the last `keep_max` are kept for `keep_ms`. → `Done`

    Not fenced, and kept beyond the session's end: it is what is known of a session's life, not a part of it. Repeating it
    after an unknown outcome tells a step twice. With `keep_ms` 0 the trail is removed.
    """

    steps: tuple[bytes, ...]
    keep_max: int
    keep_ms: int
    now_ms: int


@traits(reads=True, damaged=Trail(()))
class ReadTrail(SessionOp[Trail], frozen=True):
    """Read the session's trail. → `Trail`"""


class Reseed(SessionOp[Head | NoSession], frozen=True):
    """Give back to the store what a node knows of a live session, after the store lost something. → `Head` | `NoSession`

    Where both know a value the higher seq and epoch wins. `up_tail` and `down_tail` hold the entries the node still has,
    dense up to `head.up_last` / `down_last` or empty; those above the stored last are stored. `client_tokens` is (current,
    previous) or () when this node does not hold the client. A session that is absent is created with `create` only: a
    store that is behind has a record of it, or the session has ended while this was on its way.
    """

    node: str
    head: Head
    client_tokens: tuple[bytes, ...]
    up_tail: tuple[Entry, ...]
    down_tail: tuple[Entry, ...]
    now_ms: int
    create: bool
