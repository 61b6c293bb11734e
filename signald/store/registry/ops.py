"""The operations on the registry and their results: nodes, workers, pairings, the waiting line, the index of living sessions.

The registry is one group of keys, atomic in itself. The rules are in rules.py, and once more in the scripts.
"""

from typing import Literal

from msgspec import Struct, field

from signald.core.api_keys import ApiKey
from signald.core.head import Party
from signald.store.base import Behind, Done, Fenced, Refused, RegistryOp, Result, Secret32, traits

# --- results ------------------------------------------------------------------------------------------------------


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
    """When the node last renewed its lease."""
    format: int = 1
    """The format that the node writes (`store/formats.py`); release 0.1.0 names none and writes 1."""
    incarnation: str = ""
    """Random name of the process that holds the id; "" in an entry of release 0.1.0, whose holder lives while its lease runs."""
    seal_keys: str = ""
    """Ids of the keys that the node opens values by, with blanks between them; "" in an entry of a release that opens none."""


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


class WaitingSession(Struct, frozen=True, gc=False):
    """One place in the waiting line."""

    session: str
    want: dict[str, str]
    order_ms: int


class Revocation(Struct, frozen=True, gc=False):
    """The tokens of `principal` that were issued before `at_ms` are void. Known until `until_ms`, when all of them have run out."""

    principal: str
    number: int
    """Grows with each revocation: what a node has not seen yet is above what it has seen."""
    at_ms: int
    until_ms: int


class Revoked(Result, frozen=True):
    """The principal is revoked, under this number."""

    number: int


class RevokedPage(Result, frozen=True):
    """Some revocations, in order of number."""

    revocations: tuple[Revocation, ...]
    upto: int
    """All up to this number have been looked at."""
    last: int
    """The highest number that is kept; 0: none."""


class NoWorker(Result, frozen=True):
    """There is no such worker."""


class Receipts(Result, frozen=True):
    """(node, when its drain ended in ms), the latest first."""

    receipts: tuple[tuple[str, int], ...]


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
    granted: dict[str, str] = field(default_factory=dict)
    """As it was registered with."""
    rooms: bytes = b""
    """Likewise."""


class Sessions(Result, frozen=True):
    """Ids of sessions; which ones, the operation says."""

    sessions: tuple[str, ...]


class Workers(Result, frozen=True):
    """Every worker."""

    workers: tuple[WorkerInfo, ...]


class Enqueued(Result, frozen=True):
    """`worker` has the session already; `""`: the session waits."""

    worker: str


class Waiting(Result, frozen=True):
    """The head of the waiting line."""

    sessions: tuple[WaitingSession, ...]
    behind: bool = False
    """The lines by want are not known to hold the whole waiting line."""


class Mended(Result, frozen=True):
    """Go on at `cursor`; 0: the whole line has been read."""

    cursor: int


class Reserved(Result, frozen=True):
    """For each pair, whether it holds."""

    held: tuple[bool, ...]


class Paced(Result, frozen=True):
    """Act after `wait_ms`."""

    wait_ms: float


class Format(Result, frozen=True):
    """The highest format number that a node has written with."""

    number: int


class NodeTaken(Result, frozen=True):
    """Another process holds the id of this node: its incarnation, when it last renewed its lease, and when that ends."""

    incarnation: str
    renewed_ms: int
    lease_until_ms: int


class Text(Result, frozen=True):
    """Stored JSON, or nothing."""

    body: bytes


class Keys(Result, frozen=True):
    """The keys of API tokens, in order of their first signature."""

    keys: tuple[ApiKey, ...]


class KeptKeySet(Result, frozen=True):
    """The key set of an issuer, and when it was fetched; an empty body: none is kept."""

    body: bytes
    fetched_ms: int = 0


class SealKeys(Result, frozen=True):
    """Ids of the keys under which the store holds sealed values, in the order in which they came into use."""

    ids: tuple[str, ...]


class Secret(Result, frozen=True):
    """The cluster's secret."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


# --- operations ---------------------------------------------------------------------------------------------------


class PutNode(RegistryOp[Done | NodeTaken], frozen=True):
    """Write this node's entry, renewing its lease. A change of state wakes every other live node (`nodes`).

    With an `incarnation` it is fenced: while the lease of another incarnation's entry runs (by `info.renewed_ms`), that entry
    stays and the answer is `NodeTaken`. So an operation that takes an id also renews it, and of two processes one wins.
    `over` and `over_ms` (0: none) name the `incarnation` and the `renewed_ms` of an entry whose process is known to be dead: that
    entry is replaced although its lease runs.
    """

    info: NodeInfo
    over: str = ""
    over_ms: int = 0


class DropNode(RegistryOp[Done], frozen=True):
    """Remove a node's entry, if `incarnation` ("": any) holds it. Wakes every other live node."""

    node: str
    incarnation: str = ""


class ListNodes(RegistryOp[Nodes], frozen=True):
    """Read the live nodes, and forget nodes whose lease ended more than a minute ago."""

    now_ms: int


class Incarnation(RegistryOp[Named], frozen=True):
    """Name this life of the store: return the existing name, or set `candidate`.

    A name other than the remembered one means that the store came back without its data.
    """

    candidate: str


class RaiseFormat(RegistryOp[Format], frozen=True):
    """Raise the store's format number to `format` if it is lower (0: only read it), and return it.

    A store without a number was written by release 0.1.0 alone: `FORMAT_UNSAID`. See `store/formats.py`.
    """

    format: int


@traits(damaged=Refused("exists"))
class RegisterWorker(RegistryOp[WorkerClaimed | Refused], frozen=True):
    """Enter a new worker, attached at `node` under epoch 1. Repeated with the same `nonce`, it gives the same answer.

    Tells `worker.registered` with `events_max` above 0, see `queues/ops.py`.
    """

    worker: str
    node: str
    nonce: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    token: Secret32
    now_ms: int
    events_max: int = 0
    """How many events may wait in a worker's queue; 0: nothing is told."""
    granted: dict[str, str] = field(default_factory=dict)
    """Labels that the core server gives the worker: merged over those that it says, now and at each claim."""
    rooms: bytes = b""
    """What the core server lets it do in rooms, as JSON; empty: it says nothing of them, as nodes of earlier releases had it."""


@traits(damaged=Refused("unreadable"))
class ClaimWorker(RegistryOp[WorkerClaimed | Refused], frozen=True):
    """Resume a worker at `node`. Slots, nonce, `attempt`, refusals and their order are as in `ClaimClient`.

    Returns the sessions that the registry has paired with the worker. Wakes its previous node (`worker`). A worker that was leaving is
    ready again.
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


@traits(damaged=Refused("unreadable"))
class ClaimNamed(RegistryOp[WorkerClaimed | Refused], frozen=True):
    """Claim a worker that has no token, whose id follows from its name (`ids.named_worker`): a newer claim supersedes the one before.

    `create`: a worker that is not known is entered, as `RegisterWorker` does, under epoch 1; otherwise it is `unknown`. A worker of
    another principal is refused (`principal`), and so is a claim that was asked for before the last one that was granted (`late`).
    Repeated with the same `nonce`, it gives the same answer. Wakes the previous node (`worker`).
    """

    worker: str
    node: str
    nonce: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    create: bool
    now_ms: int
    events_max: int = 0
    """As in `RegisterWorker`, and so are the next two; all three count for a worker that is entered."""
    granted: dict[str, str] = field(default_factory=dict)
    rooms: bytes = b""


@traits(damaged=Behind(0))
class UpdateWorker(RegistryOp[Done | Fenced | Behind | NoWorker], frozen=True):
    """Set the capacity of a worker, and whether it is leaving."""

    worker: str
    epoch: int
    capacity: int
    leaving: bool


@traits(damaged=Done())
class ConfirmWorkerToken(RegistryOp[Done], frozen=True):
    """As `ConfirmToken`, for a worker."""

    worker: str
    epoch: int


@traits(damaged=Done())
class DetachWorker(RegistryOp[Done], frozen=True):
    """Note that the worker's connection is over. `Done` also when fenced."""

    worker: str
    epoch: int
    now_ms: int


class RemoveWorker(RegistryOp[Sessions], frozen=True):
    """Give a worker up and forget it; return the sessions it had. Wakes the worker's node (`worker`), if other than `node`.

    With `epoch` (0: any) only if that is still the worker's epoch. With `requeue` its sessions go back into the waiting line at their
    old places, in the same step; otherwise they are only unpaired. Tells `worker.lost` with its `reason`, with `events_max` above 0: see
    `queues/ops.py`.
    """

    worker: str
    node: str
    epoch: int
    requeue: bool
    reason: str = ""
    events_max: int = 0
    """As in `RegisterWorker`."""
    now_ms: int = 0
    """Needed for what is told only."""


class ReseedWorker(RegistryOp[Done], frozen=True):
    """Give a live worker and its pairings back after the store came back empty.

    Creates the worker if it is missing (with `epoch` and tokens as given) and pairs it with those of `sessions` that are
    not paired with another. `asked_ms` and `attempt` are as in `Reseed`, of the claim by which the worker has got these tokens.
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
    asked_ms: int = 0
    attempt: int = 0
    granted: dict[str, str] = field(default_factory=dict)
    """As in `RegisterWorker`; they are in `labels` as well."""
    rooms: bytes = b""
    """As in `RegisterWorker`."""


@traits(reads=True)
class ListWorkers(RegistryOp[Workers], frozen=True):
    """Read every worker."""


@traits(reads=True)
class WorkerSessions(RegistryOp[Sessions], frozen=True):
    """Read which sessions the registry has paired with `worker`."""

    worker: str


class Enqueue(RegistryOp[Enqueued], frozen=True):
    """Put a session in the waiting line (FIFO by `order_ms`, then by session id).

    A session that is already paired stays so (`Enqueued.worker`), unless the worker is gone. Renews its life until
    `alive_until_ms`.
    """

    session: str
    want: dict[str, str]
    order_ms: int
    alive_until_ms: int


@traits(reads=True)
class ListWaiting(RegistryOp[Waiting], frozen=True):
    """Read the first `limit` waiting sessions in order."""

    limit: int


@traits(reads=True)
class ListSuited(RegistryOp[Waiting], frozen=True):
    """Read the first waiting sessions that one of `offers` suits, `limit` at most, in order.

    Each want has a line of its own. Of the lines that an offer suits (`core.wants.suited`, `edges_max` questions for each), the lines
    with the oldest heads are read, an equal share of each. The cost depends on the offers and on `limit`, not on how many sessions
    wait. `Waiting.behind`: an earlier release has changed the waiting line since, see `MendLine`.
    """

    offers: tuple[tuple[str, ...], ...]
    """As `core.wants.offer` gives them."""
    limit: int
    edges_max: int


class MendLine(RegistryOp[Mended], frozen=True):
    """Enter in the lines by want what earlier releases have put in the waiting line, `limit` sessions from `cursor`.

    Earlier releases write the waiting line and not the lines by want. Where the two differ, the waiting line is right.
    """

    cursor: int
    limit: int


class Leave(RegistryOp[Done], frozen=True):
    """Take a session out of the waiting line; a paired session stays paired. `Enqueue` puts it back in its old place."""

    session: str


class Reserve(RegistryOp[Reserved], frozen=True):
    """Pair waiting sessions with workers.

    A pair holds if the session still waits, and the worker is attached, not leaving and has room. Wakes the worker's node
    (`worker`), unless it is `node`.
    """

    node: str
    pairs: tuple[tuple[str, str], ...]


class Release(RegistryOp[Done], frozen=True):
    """Undo the pairing of `session` with `worker`, if that holds. With `requeue` the session waits again."""

    session: str
    worker: str
    requeue: bool


class Forget(RegistryOp[Done], frozen=True):
    """Remove a session from the registry: pairing, waiting line, index of the living, counts."""

    session: str


class Hold(RegistryOp[Done | Refused], frozen=True):
    """Count a new session for its `holders`, and let it live until `until_ms`.

    A holder is an address or a principal (`core.holders`); a session with none is counted in all only. Refusals: `sessions` (as
    many as `sessions_max` live already, those of releases that do not count by holder included), `holder` (one of the holders has
    `holder_max`). The same session again is `Done`. `Forget` gives the place back. A node that dies, or an older release
    that forgets a session, leaves a count behind: each call looks at a few that are older than they were to live.
    `ListSessionsOf` lists what is counted.
    """

    session: str
    holders: tuple[str, ...]
    sessions_max: int
    holder_max: int
    until_ms: int
    now_ms: int


class CountTrails(RegistryOp[Sessions], frozen=True):
    """Count the bytes by which trails grow, and return the sessions whose trails the caller is to remove with `Mark`.

    All trails together have `bytes_max`; beyond it the trails whose last step is the oldest give way, at most `TRAILS_DROPPED` in
    one call. `grown` has each session once, with the bytes of its new steps. A trail counts for the bytes that were added to it, at
    most for `trail_bytes_max`, because it keeps its last steps only. It counts until `until_ms`, when the store forgets it by itself.
    A trail that is returned here counts no more; if the caller dies before it removes the trail, the trail stays until that time.
    """

    grown: tuple[tuple[str, int], ...]
    bytes_max: int
    trail_bytes_max: int
    until_ms: int
    now_ms: int


class KeepAlive(RegistryOp[Done], frozen=True):
    """Renew the life of `sessions` in the index until `until_ms`.

    `holders` is empty, or has the holder of each session ("": none is known). A session that is counted for no holder is counted
    for that one from now on: release 0.1.0 made it, or the store has lost its count.
    """

    sessions: tuple[str, ...]
    until_ms: int
    holders: tuple[str, ...] = ()


@traits(reads=True)
class ListSessionsOf(RegistryOp[Sessions], frozen=True):
    """Read up to `limit` sessions that are counted for `holder`, behind `after` in order of their ids.

    It may name a session that has ended, until its count is looked at (`Hold`): the caller asks each session itself.
    """

    holder: str
    after: str
    limit: int


@traits(reads=True)
class ListOverdue(RegistryOp[Sessions], frozen=True):
    """Read up to `limit` sessions whose life in the index has passed."""

    now_ms: int
    limit: int


class TakePace(RegistryOp[Paced], frozen=True):
    """Ask the cluster's budget for `tokens` moves of parties of one kind at `rate_per_s`.

    A token bucket that saves up next to nothing. A request beyond the balance is granted by going into debt, and `wait_ms` says
    how long to wait before acting on it. Repeating the operation after an unknown outcome costs pace, never correctness.
    """

    tokens: int
    rate_per_s: float
    now_ms: int
    party: Party = "client"
    """Each kind has a budget of its own. A node of release 0.1.0 has one for both: that of clients."""


class PutReceipt(RegistryOp[Done], frozen=True):
    """Keep the ledger of a drain (JSON). The last `RECEIPTS_MAX` are kept."""

    node: str
    body: bytes
    now_ms: int


class GetReceipt(RegistryOp[Text], frozen=True):
    """Read the ledger of a node's last drain; empty: none."""

    node: str


@traits(reads=True)
class ListReceipts(RegistryOp[Receipts], frozen=True):
    """List the nodes that have left a receipt, the latest first."""


class Revoke(RegistryOp[Revoked | Refused], frozen=True):
    """Void the tokens of `principal` issued before `at_ms`. Wakes every other live node (`revoked`).

    The later of two moments holds, and the later of two ends; what is known already changes nothing and has its number. Refusal:
    `full` (`revoked_max` principals are revoked). Drops a few whose time is over.
    """

    principal: str
    at_ms: int
    until_ms: int
    now_ms: int
    revoked_max: int
    node: str


@traits(reads=True)
class ListRevoked(RegistryOp[RevokedPage], frozen=True):
    """Read the revocations with a number above `after`, of the first `limit` those whose time is not over."""

    after: int
    limit: int
    now_ms: int


class UseSealKey(RegistryOp[SealKeys], frozen=True):
    """Note that values are sealed under the key with the id `key` (`store/seals.py`); empty: note nothing.

    A node asks before it seals under a key, so a node without that key is refused at its start. Keys that are `retired` are forgotten,
    other than `key` itself.
    """

    key: str
    retired: tuple[str, ...] = ()


class ClusterSecret(RegistryOp[Secret], frozen=True):
    """Return the cluster's shared secret for tickets, or set `candidate`."""

    candidate: bytes


class ReadApiKeys(RegistryOp[Keys], frozen=True):
    """Read the keys of API tokens, and make or replace them when it is time: see `core.api_keys.renewed`.

    It gives back to the store what that has lost of `known`. Keys that cannot be read count as lost.
    """

    known: tuple[ApiKey, ...]
    candidate: bytes
    """Drawn by the node; empty: it makes no key."""
    rotate_ms: int
    life_ms: int
    now_ms: int

    def __repr__(self) -> str:
        return f"ReadApiKeys(known={self.known}, now_ms={self.now_ms})"


class KeepKeySet(RegistryOp[Done], frozen=True):
    """Keep the key set of an issuer for nodes that start while it is away. An older one of the same issuer changes nothing.

    One set is kept; `source` says whose it is, a word without blanks.
    """

    source: str
    body: bytes
    fetched_ms: int


@traits(reads=True)
class GetKeySet(RegistryOp[KeptKeySet], frozen=True):
    """Read the key set that is kept of `source`."""

    source: str


class Signal(RegistryOp[Done], frozen=True):
    """Send `wake` to `node` over the backplane: at most once, kept nowhere."""

    node: str
    wake: bytes
