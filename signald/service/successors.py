"""Tells workers that leave when other workers have room for the sessions that they have.

A worker that hands its sessions over before that would leave their clients without any worker. What is told is a hint: the room may be
taken by another session meanwhile, and then the session waits in line as every other one.
"""

from collections.abc import Iterable, Sequence

from signald.core.pairing import Candidate, match
from signald.core.wants import within_tenant
from signald.service.seats import SeatState
from signald.service.worker_like import WorkerLike

TOLD_MAX = 500
"""Sessions for which room is looked for in one go: as many as one pass of the matchmaker pairs, so that what is told can be carried out."""


def asking(workers: Iterable[WorkerLike]) -> list[WorkerLike]:
    """Return the workers that have asked, and have not heard of all their sessions."""
    return [one for one in workers if one.asks_successor and not one.over and _has_news(one)]


def tell(leaving: Sequence[WorkerLike], others: Sequence[Candidate]) -> None:
    """Tell each of `leaving` for which of its sessions there is room among `others`; the first time also that there is none."""
    names = {one.worker for one in leaving}
    open_to_all = [one for one in others if one.id not in names]
    line = [
        (name, within_tenant(seat.session.want, seat.session.principal))
        for one in leaving
        for name, seat in one.seats.items()
        if seat.state is SeatState.ACCEPTED and name not in (one.told_successor or ())
    ]
    taken = {session for session, _ in match(line[:TOLD_MAX], open_to_all)}
    for one in leaving:
        first, told = one.told_successor is None, one.told_successor or set()
        told &= one.seats.keys()
        new = [name for name in one.seats if name in taken]
        one.told_successor = told.union(new)
        if new or first:
            one.successor(new)


def _has_news(one: WorkerLike) -> bool:
    told = one.told_successor
    return told is None or any(name not in told for name in one.seats)
