"""Pairs waiting sessions with workers: in their order, each to the least loaded worker whose labels match.

Pure: given waiting sessions and the workers, `match` says which pairs to try. The store then grants or refuses each
(`store.base.Reserve`), so two nodes that match at the same time cannot give one session to two workers.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from signald.core.wants import TENANT


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
