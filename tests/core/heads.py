"""Heads of one session in the states that its tests compare, and the session with its client attached to node `a`."""

import msgspec

from signald.core.head import Head
from signald.core.session import Session

NEW = Head("s_1", 5, "ann", {"lang": "en"}, b"{}", True, 1, "a", "", "", 0, "", 0, 0, 0, 0, 0)


def head(**changes: object) -> Head:
    """The head of a new session, client at node `a`, with `changes`."""
    return msgspec.structs.replace(NEW, **changes)


ASSIGNED = head(worker="w1", worker_state="assigned", worker_epoch=1, worker_node="a", workers=1)
PAIRED = msgspec.structs.replace(ASSIGNED, worker_state="paired")
AWAY = msgspec.structs.replace(PAIRED, worker_node="")
ELSEWHERE = msgspec.structs.replace(PAIRED, worker_epoch=2, worker_node="b")
UNPAIRED = head(worker_epoch=2, workers=1)
ASKED_2 = head(worker="w2", worker_state="assigned", worker_epoch=3, worker_node="a", workers=2)
PAIRED_2 = msgspec.structs.replace(ASKED_2, worker_state="paired")
AWAY_2 = msgspec.structs.replace(PAIRED_2, worker_node="")


def session(first: Head = NEW) -> Session[str]:
    """A session with its client attached here."""
    made: Session[str] = Session(first, 10, 100)
    made.attach("client", "client link", first.client_epoch, "a", first.down_acked)
    return made
