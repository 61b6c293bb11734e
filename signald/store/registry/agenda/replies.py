"""What Redis answers to the operations on the agenda, read as their results. A damaged item is due at once, so the scripts read it."""

from signald.store.base import Op
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_replies import read_name
from signald.store.registry.agenda.ops import AgendaItem, AgendaPage, AgendaRead, Due, DueItem


def read_due(_op: Op, reply: Reply) -> Due:
    """When the next one may be due, and what was taken."""
    next_ms, *taken = reply
    found = []
    for kept, ticket, failures, since_ms, damaged in taken:
        name = read_name(kept)
        if damaged == 1:
            REPORTS.tell("agenda item", name)
        found.append(DueItem(name, ticket, failures, since_ms))
    return Due(tuple(found), next_ms)


def read_agenda(_op: Op, reply: Reply) -> AgendaRead:
    """The sums."""
    return AgendaRead(*reply)


def read_page(_op: Op, reply: Reply) -> AgendaPage:
    """Items by name."""
    return AgendaPage(
        tuple([AgendaItem(read_name(name), at, n, since, taken == 1) for name, at, n, since, taken in reply])
    )
