"""The contract of the three stores: operations in, results out, in one batch.

A store is asked with frozen operations, many at a time (`Store.execute`), and answers each with its result. That is the
whole contract: `tests/store/test_contract.py` holds every twin to it.

Rules all operations share:

* **Safe to repeat.** Sending an operation a second time after its outcome was lost gives the same answer and changes
  nothing more: appends by their seq, claims by their `nonce`, the rest by nature. So a batch whose outcome is unknown
  is simply sent again, and nobody is answered in between.
* **Fenced.** What writes on behalf of a party carries the epoch of its claim and the name of its node; an older epoch
  is answered `Fenced` and changes nothing.
* **Waking.** When a change concerns a party attached at *another* node, the store wakes that node, in the same atomic
  step. A wake-up names what to look at and carries nothing else (see `Wake`): losing one costs time, never data.
* **Damage** hurts one session or worker only. A record that cannot be read is as one that has lost everything: `Behind(0)`, claims
  are `Refused("unreadable")`, `Reseed` begins it anew, and `EndSession` removes it. A message that cannot be read is a hole
  in its log, and what is listed is listed without it.
* **Time** is the caller's: `now_ms` in every operation is `Store.now_ms()`, milliseconds since 1970 by the store's clock.

Keys fall in two groups, each atomic in itself: everything of one session, and the registry (nodes, workers, pairings,
the waiting line, the index of living sessions). No operation spans both.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from msgspec import Struct

from signald.core.head import Head as Head
from signald.core.head import Party as Party
from signald.core.log import Entry as Entry
from signald.wire.messages import SEQ_MAX

Secret32 = bytes
"""A SHA-256 of a recovery token's secret; the store never sees the secret."""


CLOCK_SET_MS = 60_000
"""Times that lie further ahead than this were taken before somebody set the store's clock back, and tell nothing. Nodes
differ about the time by less, and nothing that was asked for a minute ago is still on its way. So a party may have to wait
a minute after the clock was set back, and not for as long as it was set."""


# --- operations on one session ------------------------------------------------------------------------------------


class Op(Struct, frozen=True, gc=False):
    """Base of every operation."""


class SessionOp(Op, frozen=True):
    """Base of the operations on one session."""

    session: str


class CreateSession(SessionOp, frozen=True):
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


class ClaimClient(SessionOp, frozen=True):
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


class ClaimWorkerSide(SessionOp, frozen=True):
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


class AcceptSession(SessionOp, frozen=True):
    """The worker accepted: state `paired`. → `Done` | `Fenced` | `Behind` | `NoSession`. Wakes the client's node."""

    node: str
    epoch: int


class Unpair(SessionOp, frozen=True):
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


class RetrySession(SessionOp, frozen=True):
    """Clear the count of a session that is set aside; any other is left as it is. → `Unpaired` | `NoSession`

    Raises the worker's epoch, so that a node or store that still knows the count does not give it back. Wakes both nodes.
    """

    node: str


class Append(SessionOp, frozen=True):
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


class Ack(SessionOp, frozen=True):
    """`party` has received everything up to `seq` of the other's log; trims it. → `Done` | `Fenced` | `Behind` | `NoSession`

    Wakes the sender's node if the session wants receipts (a `seq` above last counts as last).
    """

    party: Party
    node: str
    epoch: int
    seq: int


class Look(SessionOp, frozen=True):
    """Read the session as `party` needs it: its head, and up to `limit` entries for it after `after`.

    → `Looked` | `Behind` | `NoSession`
    """

    party: Party
    after: int
    limit: int


class ReadHistory(SessionOp, frozen=True):
    """Read the last `limit` messages of the chat history, oldest first. → `History` (empty when there is no session)"""

    limit: int


class Detach(SessionOp, frozen=True):
    """The connection of `party` is gone. → `Done` (also when fenced or no session). Wakes the other party's node."""

    party: Party
    node: str
    epoch: int
    now_ms: int


class ConfirmToken(SessionOp, frozen=True):
    """The client has shown that it holds the token issued under `epoch`: the previous one is retired. → `Done`"""

    epoch: int


class EndSession(SessionOp, frozen=True):
    """Remove every trace of the session. → `Ended` | `NoSession`. Wakes both parties' nodes (other than `node`)."""

    node: str


class ExpireSession(SessionOp, frozen=True):
    """`EndSession`, but only if its client has been detached for `ttl_ms`, or is attached to a node not in `nodes`.

    → `Ended` | `Done` (it lives, or there is none) | `Behind` (that cannot be told).
    """

    node: str
    nodes: tuple[str, ...]
    now_ms: int
    ttl_ms: int


class Mark(SessionOp, frozen=True):
    """Add `steps` (JSON each) to the session's trail, of which the last `keep_max` are kept for `keep_ms`. → `Done`

    Not fenced, and kept beyond the session's end: it is what is known of a session's life, not a part of it. Repeating it
    after an unknown outcome tells a step twice. With `keep_ms` 0 the trail is removed.
    """

    steps: tuple[bytes, ...]
    keep_max: int
    keep_ms: int
    now_ms: int


class ReadTrail(SessionOp, frozen=True):
    """Read the session's trail. → `Trail`"""


class Reseed(SessionOp, frozen=True):
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


# --- operations on the registry -----------------------------------------------------------------------------------


class RegistryOp(Op, frozen=True):
    """Base of the operations on nodes, workers, pairings and the waiting line."""


class NodeInfo(Struct, frozen=True, gc=False):
    """One node as the others see it. A node is live until `lease_until_ms`."""

    id: str
    release: str
    state: Literal["starting", "ready", "draining"]
    started_ms: int
    lease_until_ms: int
    connections: int = 0
    lag_ms: float = 0.0
    target: str = ""
    renewed_ms: int = 0
    """When it last said so itself."""
    format: int = 1
    """The format it writes (`store/formats.py`); release 0.1.0 says none and writes 1."""
    incarnation: str = ""
    """Random name of the process that holds the id; "" in an entry of release 0.1.0, whose holder lives while its lease runs."""


class PutNode(RegistryOp, frozen=True):
    """Write this node's entry, renewing its lease. → `Done` | `NodeTaken`. A change of state wakes every other live node (`nodes`).

    With an `incarnation` it is fenced: while the lease of another incarnation's entry runs (by `info.renewed_ms`), that entry
    stays and the answer is `NodeTaken`. So taking an id and renewing it are one operation, and of two processes one wins.
    `over` and `over_ms` (0: none) name the `incarnation` and the `renewed_ms` of an entry whose process is known to be dead: that
    entry is replaced although its lease runs.
    """

    info: NodeInfo
    over: str = ""
    over_ms: int = 0


class DropNode(RegistryOp, frozen=True):
    """Remove a node's entry, if `incarnation` ("": any) holds it. → `Done`. Wakes every other live node."""

    node: str
    incarnation: str = ""


class ListNodes(RegistryOp, frozen=True):
    """Read the live nodes; forgets those whose lease ended over a minute ago. → `Nodes`"""

    now_ms: int


class Incarnation(RegistryOp, frozen=True):
    """Name this life of the store: returns the existing name, or sets `candidate`. → `Named`

    A name other than the one remembered means that the store came back without its data.
    """

    candidate: str


class RaiseFormat(RegistryOp, frozen=True):
    """Raise the store's format number to `format` if it is lower (0: only read it). → `Format`, with the number it has then.

    A store without a number was written by release 0.1.0 alone: `FORMAT_UNSAID`. See `store/formats.py`.
    """

    format: int


class RegisterWorker(RegistryOp, frozen=True):
    """A worker announces itself. → `WorkerClaimed` (epoch 1, no sessions). The same `nonce` again gives the same."""

    worker: str
    node: str
    nonce: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    token: Secret32
    now_ms: int


class ClaimWorker(RegistryOp, frozen=True):
    """A worker resumes at `node`. → `WorkerClaimed` | `Refused`; slots, nonce, `attempt`, refusals and their order as in
    `ClaimClient`.

    Returns the sessions the registry has paired with it. Wakes its previous node (`worker`). It is ready again even if it
    was leaving.
    """

    worker: str
    node: str
    nonce: str
    principal: str
    presented: Secret32
    issued: Secret32
    labels: dict[str, str]
    capacity: int
    now_ms: int
    attempt: int = 0


class UpdateWorker(RegistryOp, frozen=True):
    """New capacity, load or `leaving`. → `Done` | `Fenced` | `Behind` | `NoWorker`"""

    worker: str
    epoch: int
    capacity: int
    leaving: bool


class ConfirmWorkerToken(RegistryOp, frozen=True):
    """As `ConfirmToken`, for a worker. → `Done`"""

    worker: str
    epoch: int


class DetachWorker(RegistryOp, frozen=True):
    """The worker's connection is gone. → `Done` (also when fenced)."""

    worker: str
    epoch: int
    now_ms: int


class RemoveWorker(RegistryOp, frozen=True):
    """Give a worker up and forget it. → `Released` with the sessions it had.

    With `epoch` (0: any) only if nobody has claimed it since. With `requeue` its sessions go back into the waiting line at
    their old places, in the same step; otherwise they are just unpaired. Wakes the worker's node (`worker`), if other
    than `node`.
    """

    worker: str
    node: str
    epoch: int
    requeue: bool


class ReseedWorker(RegistryOp, frozen=True):
    """Give a live worker and its pairings back after the store came back empty. → `Done`

    Creates the worker if it is missing (with `epoch` and tokens as given) and pairs it with those of `sessions` that are
    not paired with another.
    """

    worker: str
    node: str
    epoch: int
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    tokens: tuple[bytes, ...]
    sessions: tuple[tuple[str, dict[str, str], int], ...]
    """(session, want, order_ms)"""
    now_ms: int


class WorkerInfo(Struct, frozen=True, gc=False):
    """One worker as the matchmaker sees it. `node` is `""` and `away_since_ms` set while it is detached."""

    id: str
    node: str
    epoch: int
    labels: dict[str, str]
    capacity: int
    assigned: int
    leaving: bool
    away_since_ms: int
    instance: str = ""
    principal: str = ""


class ListWorkers(RegistryOp, frozen=True):
    """Read every worker. → `Workers`"""


class WorkerSessions(RegistryOp, frozen=True):
    """Read which sessions the registry has paired with `worker`. → `Released` (nothing is released)."""

    worker: str


class Enqueue(RegistryOp, frozen=True):
    """Put a session in the waiting line (FIFO by `order_ms`, then by session id). → `Enqueued`

    A session that is already paired stays so (`Enqueued.worker`), unless the worker is gone. Renews its life until
    `alive_until_ms`.
    """

    session: str
    want: dict[str, str]
    order_ms: int
    alive_until_ms: int


class ListWaiting(RegistryOp, frozen=True):
    """Read the first `limit` waiting sessions in order. → `Waiting`"""

    limit: int


class ListSuited(RegistryOp, frozen=True):
    """Read the first waiting sessions that one of `offers` suits, `limit` at most. → `Waiting`, in order

    Each want has a line of its own. Of the lines that an offer suits (`core.wants.suited`, `edges_max` questions for each) those
    with the oldest heads are read, and of each an equal share. What it costs depends on the offers and on `limit`, not on how
    many sessions wait. `Waiting.behind`: an earlier release has changed the waiting line since, see `MendLine`.
    """

    offers: tuple[tuple[str, ...], ...]
    """As `core.wants.offer` gives them."""
    limit: int
    edges_max: int


class MendLine(RegistryOp, frozen=True):
    """Enter in the lines by want what earlier releases have put in the waiting line, `limit` sessions from `cursor`. → `Mended`

    Earlier releases write the waiting line and not the lines by want. The waiting line is what holds.
    """

    cursor: int
    limit: int


class Leave(RegistryOp, frozen=True):
    """Take a session out of the waiting line; one that is paired stays so. → `Done`. `Enqueue` puts it back in its old place."""

    session: str


class Reserve(RegistryOp, frozen=True):
    """Pair waiting sessions with workers. → `Reserved`, one bool for each pair

    A pair holds if the session still waits, and the worker is attached, not leaving and has room. Wakes the worker's node
    (`worker`), unless it is `node`.
    """

    node: str
    pairs: tuple[tuple[str, str], ...]


class Release(RegistryOp, frozen=True):
    """Undo the pairing of `session` with `worker`, if it is that. With `requeue` the session waits again. → `Done`"""

    session: str
    worker: str
    requeue: bool


class Forget(RegistryOp, frozen=True):
    """Remove a session from the registry: pairing, waiting line, index of the living, counts. → `Done`"""

    session: str


class Hold(RegistryOp, frozen=True):
    """Count a new session for its `holders`, and let it live until `until_ms`. → `Done` | `Refused`

    A holder is an address or a principal; a session with none is counted in all only. Refusals: `sessions` (as many as
    `sessions_max` live already, those of releases that do not count by holder included), `holder` (one of the holders has
    `holder_max`). The same session again is `Done`. `Forget` gives the place back. A node that dies, or an older release
    that forgets a session, leaves a count behind: each call looks at a few that are older than they were to live.
    """

    session: str
    holders: tuple[str, ...]
    sessions_max: int
    holder_max: int
    until_ms: int
    now_ms: int


class CountTrails(RegistryOp, frozen=True):
    """Count the bytes by which trails grow, and name those to be removed with `Mark`. → `Released` (nothing is released yet)

    All trails together have `bytes_max`; beyond it those whose last step is the oldest give way, `TRAILS_DROPPED` in one call at
    most. `grown` has each session once, with the bytes of its steps. A trail counts for what was added to it, at most for
    `trail_bytes_max`, because it keeps its last steps only; it counts until `until_ms`, when the store forgets it by itself.
    What is named here counts no more. A caller that dies before it has removed a trail leaves it until that time.
    """

    grown: tuple[tuple[str, int], ...]
    bytes_max: int
    trail_bytes_max: int
    until_ms: int
    now_ms: int


class KeepAlive(RegistryOp, frozen=True):
    """Renew the life of `sessions` in the index until `until_ms`. → `Done`"""

    sessions: tuple[str, ...]
    until_ms: int


class ListOverdue(RegistryOp, frozen=True):
    """Read up to `limit` sessions whose life in the index has passed. → `Released` (nothing is released)."""

    now_ms: int
    limit: int


class TakePace(RegistryOp, frozen=True):
    """Ask the cluster's budget for `tokens` moves at `rate_per_s`. → `Paced`

    A token bucket that saves up next to nothing; a request above what is there is granted by going into debt, and `wait_ms` says
    how long to wait before acting on it. Repeating it after an unknown outcome costs pace, never correctness.
    """

    tokens: int
    rate_per_s: float
    now_ms: int


class PutReceipt(RegistryOp, frozen=True):
    """Keep the ledger of a drain (JSON). The last 100 are kept. → `Done`"""

    node: str
    body: bytes
    now_ms: int


class GetReceipt(RegistryOp, frozen=True):
    """Read the ledger of a node's last drain. → `Text` (empty: none)"""

    node: str


class ListReceipts(RegistryOp, frozen=True):
    """List the nodes that have left a receipt, the latest first. → `Receipts`"""


class ClusterSecret(RegistryOp, frozen=True):
    """Return the cluster's shared secret for tickets, or set `candidate`. → `Secret`"""

    candidate: bytes


class Signal(RegistryOp, frozen=True):
    """Send `wake` to `node` over the backplane: at most once, kept nowhere. → `Done`"""

    node: str
    wake: bytes


# --- results ------------------------------------------------------------------------------------------------------


class Result(Struct, frozen=True, gc=False):
    """Base of every answer."""


class Done(Result, frozen=True):
    """It is so now."""


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


class Refused(Result, frozen=True):
    """The claim fails; `reason` is one of the words of the operation."""

    reason: str


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


class Fenced(Result, frozen=True):
    """A newer claim, of `epoch`, holds this party."""

    epoch: int


class Behind(Result, frozen=True):
    """The store knows only an older epoch: it has lost what was written since."""

    epoch: int


class NoSession(Result, frozen=True):
    """There is no such session: it ended, or the store came back empty (see `Incarnation`)."""


class NoWorker(Result, frozen=True):
    """There is no such worker."""


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


class Receipts(Result, frozen=True):
    """(node, when its drain ended in ms), the latest first."""

    receipts: tuple[tuple[str, int], ...]


class Ended(Result, frozen=True):
    """The session is gone; this is what it was."""

    head: Head


class Nodes(Result, frozen=True):
    """The live nodes."""

    nodes: tuple[NodeInfo, ...]


class Named(Result, frozen=True):
    """The name of this life of the store."""

    name: str


class WorkerClaimed(Result, frozen=True):
    """The worker is this node's under `epoch`; the registry has it paired with `sessions`."""

    epoch: int
    sessions: tuple[str, ...]
    previous_node: str = ""


class Released(Result, frozen=True):
    """Sessions."""

    sessions: tuple[str, ...]


class Workers(Result, frozen=True):
    """Every worker."""

    workers: tuple[WorkerInfo, ...]


class Enqueued(Result, frozen=True):
    """`worker` is the one the session is paired with already, or `""`: it waits."""

    worker: str


class WaitingSession(Struct, frozen=True, gc=False):
    """One place in the waiting line."""

    session: str
    want: dict[str, str]
    order_ms: int


class Waiting(Result, frozen=True):
    """The head of the waiting line."""

    sessions: tuple[WaitingSession, ...]
    behind: bool = False
    """The lines by want are not known to hold the whole waiting line."""


class Mended(Result, frozen=True):
    """Where to go on; 0: all of the line has been looked at."""

    cursor: int


class Reserved(Result, frozen=True):
    """Which pairs hold."""

    held: tuple[bool, ...]


class Paced(Result, frozen=True):
    """Act after `wait_ms`."""

    wait_ms: float


class Format(Result, frozen=True):
    """The highest format number that a node has written with."""

    number: int


class NodeTaken(Result, frozen=True):
    """Another process holds the id of this node: which, when it last renewed its lease, and until when that runs."""

    incarnation: str
    renewed_ms: int
    lease_until_ms: int


class Text(Result, frozen=True):
    """Stored JSON, or nothing."""

    body: bytes


class Secret(Result, frozen=True):
    """The cluster's secret."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


# --- wake-ups and the store itself --------------------------------------------------------------------------------

Wake = bytes
"""What a node is told over the backplane, at most once:

`s` + session id   look at the session again: messages, peer, superseded claim, end
`w` + worker id    look at the worker again: superseded claim, new pairings
`o` + session id   the session's life has passed, and its client is said to be here: renew it, or say that it is gone
`n`                look at the nodes again
`*`                wake-ups may have been lost: look at everything
`r` + anything     a realtime message, made and read by service/relay; losing it is allowed
"""

WAKE_SESSION = b"s"
WAKE_WORKER = b"w"
WAKE_OVERDUE = b"o"
WAKE_NODES = b"n"
WAKE_ALL = b"*"
WAKE_REALTIME = b"r"
WAKE_PROBE = b"p"


class Store(Protocol):
    """One of the three twins, open."""

    @property
    def lives(self) -> int:
        """Return how many servers, or lives of one, have been met behind the store's address.

        It grows when another one answers, after a failover or a restart: what the one before had may be lost. A connection that
        is made anew to the same life adds nothing. A store that cannot lose its tail without its process has one.
        """

    def now_ms(self) -> int:
        """Milliseconds since 1970 by the store's clock."""

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out `ops` in order and return their results, once all of it is as durable as `store.ack` promises.

        Raises:
            StoreUnavailable: some or all of `ops` may not have happened. Send the batch again.
            StoreMisused: the store can not serve; the text says what to change.
        """

    def wakes(self) -> AsyncIterator[list[Wake]]:
        """Yield wake-ups for this node as they come, many at a time; `*` first, and after every interruption."""

    async def check(self) -> None:
        """Prove that the store answers. Raises as `execute` does."""


class OpenStore(Protocol):
    """How a store is opened: `async with open_store(url, ...) as store`."""

    def __call__(self, url: str, node: str) -> AbstractAsyncContextManager[Store]:
        """Open the store at `url` for `node`. Raises StoreMisused, StoreUnavailable."""
