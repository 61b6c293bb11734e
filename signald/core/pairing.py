"""The pairing of a session with a worker: its states, their transitions, and the match of waiting sessions with workers.

*States.* The states are what a client is told about its worker. Nodes do not send each other events: a node reads the
session's head and works out which event must have happened (`core.session`). Several events may be seen as one, so the
table has a row for each such short cut.

*Match.* Each waiting session, in order, gets the least loaded worker whose labels match. Given waiting sessions and the
workers, `match` says which pairs to try. The store then grants or refuses each (`store.base.Reserve`), so two nodes that
match at the same time cannot give one session to two workers.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

from msgspec import Struct

from signald.core.wants import TENANT
from signald.wire.messages import PeerState


class Pairing(Enum):
    """How far a session is paired."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    PAIRED = "paired"
    AWAY = "away"
    ENDED = "ended"
    NONE = "none"
    """The session wants no worker."""


class PairingEvent(Enum):
    """What happened to a pairing."""

    ASSIGN = "assign"
    """A worker has been chosen and asked."""
    ACCEPT = "accept"
    """The first worker of this session accepted."""
    REPLACE = "replace"
    """A worker accepted that is not the one the client knew."""
    DETACH = "detach"
    """The worker's connection is gone; it may resume."""
    ATTACH = "attach"
    """The worker resumed."""
    RELEASE = "release"
    """The session has no worker any more."""
    END = "end"


_P, _E = Pairing, PairingEvent

PAIRING: Mapping[tuple[Pairing, PairingEvent], tuple[Pairing, PeerState | None]] = {
    (_P.WAITING, _E.ASSIGN): (_P.ASSIGNED, None),
    (_P.WAITING, _E.ACCEPT): (_P.PAIRED, "paired"),
    (_P.WAITING, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.WAITING, _E.DETACH): (_P.AWAY, "away"),
    (_P.WAITING, _E.END): (_P.ENDED, "gone"),
    (_P.ASSIGNED, _E.ACCEPT): (_P.PAIRED, "paired"),
    (_P.ASSIGNED, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.ASSIGNED, _E.DETACH): (_P.AWAY, "away"),
    (_P.ASSIGNED, _E.RELEASE): (_P.WAITING, None),
    (_P.ASSIGNED, _E.END): (_P.ENDED, "gone"),
    (_P.PAIRED, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.PAIRED, _E.DETACH): (_P.AWAY, "away"),
    (_P.PAIRED, _E.ASSIGN): (_P.ASSIGNED, "waiting"),
    (_P.PAIRED, _E.RELEASE): (_P.WAITING, "waiting"),
    (_P.PAIRED, _E.END): (_P.ENDED, "gone"),
    (_P.AWAY, _E.ATTACH): (_P.PAIRED, "paired"),
    (_P.AWAY, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.AWAY, _E.ASSIGN): (_P.ASSIGNED, "waiting"),
    (_P.AWAY, _E.RELEASE): (_P.WAITING, "waiting"),
    (_P.AWAY, _E.END): (_P.ENDED, "gone"),
    (_P.NONE, _E.END): (_P.ENDED, None),
}
"""(state, event) → (next state, what the client is told)."""


class Candidate(Struct):
    """A worker that may be given sessions. Its labels hold its tenant (`core.wants.within_tenant`)."""

    id: str
    labels: Mapping[str, str]
    capacity: int
    assigned: int

    @property
    def load(self) -> float:
        """The share of its capacity in use."""
        return self.assigned / self.capacity if self.capacity else 1.0


def wants(want: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether `labels` include every label of `want` with the same value, and both are of one tenant, or of none."""
    return want.get(TENANT) == labels.get(TENANT) and all(labels.get(name) == value for name, value in want.items())


def match(
    waiting: Sequence[tuple[str, Mapping[str, str]]],
    workers: Sequence[Candidate],
    refused: Collection[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """Pair sessions with workers: [(session, worker)].

    First come, first served among sessions that can be served at all: a session that no worker suits delays no other. Ties go
    to the lower id, so that the answer does not depend on the order of `workers`. A pair in `refused` (the worker said no
    lately) is tried only if no other worker matches. The work is one comparison for each pair of distinct want and worker, and
    one look at the workers that suit for each pair made.
    """
    free = [Candidate(worker.id, worker.labels, worker.capacity, worker.assigned) for worker in with_room(workers)]
    pairs: list[tuple[str, str]] = []
    suitable: dict[frozenset[tuple[str, str]], list[Candidate]] = {}
    for session, want in waiting:
        key = frozenset(want.items())
        options = suitable.get(key)
        if options is None:
            options = suitable[key] = [worker for worker in free if wants(want, worker.labels)]
        options[:] = [worker for worker in options if worker.assigned < worker.capacity]
        if not options:
            continue
        chosen = min(options, key=lambda worker: ((session, worker.id) in refused, worker.load, worker.id))
        pairs.append((session, chosen.id))
        chosen.assigned += 1
    return pairs


def with_room(workers: Sequence[Candidate]) -> list[Candidate]:
    """Those that can take at least one more session."""
    return [worker for worker in workers if worker.assigned < worker.capacity]
