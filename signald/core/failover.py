"""How a node finds out, from the head of a session, that the store has lost something of it.

A store that fails over to a replica, or comes back from a snapshot, has an older state of the session than its nodes. A
node compares each head with the session it holds. Five nouns:

forgotten claim   The head is older than a claim of a party that is attached here, or than the acceptance of its worker.
                  The node gives the claim back. The head's worker and pairing are not believed: an epoch half believed
                  would be combined with the worker of another epoch.
lost messages     The head ends before the log here. The node gives the messages back that it still has. The seqs of the
                  others are not used again.
overtaken worker  The worker here numbered its messages from a seq that was already used, because the store had lost the messages
                  behind it. These messages count as duplicates of the earlier ones. The worker is told `log_lost`, and
                  the session is assigned again.
usurper           Another worker, which was given the session after the store had forgotten the claim of the worker known here. It
                  has used seqs of that worker again. The node gives way: its worker loses the session.
void seqs         Seqs of a usurper that its client must not get: it knows some of them as messages of the worker before.
                  The client is told `log_lost` for those that it has not received.

How a usurper appears, direction `down`; the client is attached here and has received 1 and 2::

    seq                      1   2   3   4   5   6
    worker w2, known here    a   b   c
    store after its failover a                          has forgotten b, c and the claim of w2
    usurper w3                   d   e   f   g          its `said_before` is 1: it uses 2 and 3 again
    void for the client              └───────┘          `void_to` is 5; `log_lost` received 3 to 5
    w2 is told                       c                  `log_lost` sent 3 to 3
    given up                                     6      no message gets this seq

Seq 6 is given back to the store as used. The node of w3 then finds w3 overtaken. So w3 learns that its messages were not
received, and the session is assigned again, from a seq that was never used.
"""

from typing import Protocol

from msgspec import Struct

from signald.core.head import Head
from signald.core.log import Log
from signald.core.pairing import Pairing
from signald.ids import WorkerId

Seqs = tuple[int, int]
"""A range of seqs (first, last), both included; first > last: none."""


class Side(Protocol):
    """The part of a session's side that the comparison reads; see `session.Side`."""

    epoch: int
    node: str
    sent: int

    @property
    def is_here(self) -> bool:
        """True while the party is attached to this node."""
        ...

    def forgets(self, epoch: int, node: str) -> bool:
        """True when a head with this epoch and node does not know the claim that this node knows."""
        ...


class Known(Protocol):
    """The part of a session that the comparison reads; see `session.Session`."""

    down: Log
    up: Log
    pairing: Pairing
    worker_id: WorkerId
    known_worker: str
    said_before: int
    void_to: int
    jobs: int
    events: int

    @property
    def client(self) -> Side:
        """The client's side."""
        ...

    @property
    def worker(self) -> Side:
        """The worker's side."""
        ...


class Overtaken(Struct, frozen=True):
    """The worker here is an overtaken worker."""

    said: Seqs
    """Its messages that count as duplicates of earlier ones."""
    by_claim: bool
    """True when a claim of the client is the only evidence of the earlier ones."""


class Loss(Struct, frozen=True):
    """The loss of a store that a node can make good."""

    claim: bool = False
    """The store has a forgotten claim: see the module."""
    messages: bool = False
    """The store has lost messages, changes of jobs or events, whose numbers must not be given again: see the module."""

    def __bool__(self) -> bool:
        return self.claim or self.messages


NO_LOSS = Loss()


def is_outdated(known: Known, head: Head) -> bool:
    """Tell whether the worker and the pairing of `head` are older than those of the session."""
    if head.worker_epoch != known.worker.epoch:
        return head.worker_epoch < known.worker.epoch
    # An acceptance does not raise the epoch. The node of the worker knows best whether there was one.
    return (
        known.worker.is_here
        and head.worker == known.worker_id
        and head.worker_state == "assigned"
        and known.pairing in (Pairing.PAIRED, Pairing.AWAY)
    )


def find_loss(known: Known, head: Head) -> Loss:
    """Return what the store has lost, as `head` shows."""
    forgotten = (
        (known.client.is_here and known.client.forgets(head.client_epoch, head.client_node))
        or (known.worker.is_here and known.worker.forgets(head.worker_epoch, head.worker_node))
        or is_outdated(known, head)
    )
    lost = (
        head.up_last < known.up.last
        or head.down_last < known.down.last
        or head.jobs < known.jobs
        or head.events < known.events
    )
    return Loss(forgotten, lost) if forgotten or lost else NO_LOSS


def find_overtaken(known: Known, head: Head) -> Overtaken | None:
    """Return whether the worker here is overtaken; None: it is not.

    Only the worker of a session adds to `down`. So a head beyond every append of this node holds messages of an earlier worker.
    """
    down = known.down
    if (
        known.worker.is_here
        and head.worker_epoch == known.worker.epoch
        and head.worker == known.worker_id
        and head.down_last > max(down.last, down.asked)
    ):
        return Overtaken((down.acked + 1, down.last), by_claim=head.down_claimed[1] >= head.down_last)
    return None


def is_usurped(known: Known, head: Head) -> bool:
    """Tell whether the worker of `head` is a usurper.

    A store that has lost nothing names another worker only under a newer epoch, and that worker numbers from a seq behind
    everything known here. So does the same worker when it is assigned anew, which raises `said_before`. A store that has only lost
    something holds nothing that is unknown here.
    """
    if head.worker == "":
        return False
    if head.worker == known.worker_id:
        return head.worker_epoch > known.worker.epoch and known.said_before < head.said_before < known.down.last
    if head.worker_epoch > known.worker.epoch:
        return head.said_before < known.down.last
    if head.worker == known.known_worker:
        return False  # the store has forgotten its release: it continues as if it had kept the session
    if known.client.is_here:
        return head.down_last > known.down.last
    # Where the client is attached elsewhere, it may have received messages of the usurper.
    return known.worker.is_here and head.down_last > max(known.said_before, known.down.acked)


def give_way(known: Known, head: Head) -> Seqs:
    """Let the usurper that `head` names keep the session. Returns the messages of the worker before that became void.

    These are its last messages, those that the client has not received: the usurper has used some of their seqs again.
    """
    received = known.client.sent if known.client.is_here else known.down.acked
    void = max(received, min(head.said_before, known.down.last)) + 1, known.down.last
    known.down.forget_pending()
    if head.down_last > known.down.last:
        known.void_to = head.down_last
    # This gives up a single seq. The head then seems to have lost messages, so the store is told. The node of the usurper
    # then finds its worker overtaken.
    known.down.pass_over(head.down_last + 1)
    known.worker.epoch = head.worker_epoch
    known.worker.node = head.worker_node
    known.said_before = head.said_before
    return void
