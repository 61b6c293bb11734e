"""Every way in which a party stops being attached at a node, as one table: cause → the steps that are done for it.

An *attachment* is a party of a session on a connection of this node. It begins with `attach` and ends with one
`release(link, cause)` (`service.attachments`), which does the steps that `EXITS` names for the cause, and no others. Where
a step is left out and the cause does not say why, the reason stands beside the row.

The exit codes of the process are another matter: `signald.exit_codes`.
"""

from collections.abc import Mapping
from enum import Enum

import attrs

from signald.wire.close_codes import CloseCode


class Cause(Enum):
    """Why a party stops being attached here: with its connection, or in one session of several."""

    CLIENT_GONE = "the client's connection is over"
    WORKER_GONE = "the worker's connection is over"
    CLIENT_CLAIMED = "a newer claim holds the client"
    SESSION_CLAIMED = "a newer claim holds the worker's side of one session"
    SESSION_REASSIGNED = "a newer claim of another worker holds the session"
    WORKER_CLAIMED = "the worker has been claimed at another node"
    WORKER_REPLACED = "the worker has resumed here on another connection"
    REGRANTED = "another worker here was granted the same claim by a store that had lost the first"
    REFUSED = "the worker refuses the session before it has accepted it, or leaves"
    HANDED_ON = "the worker leaves, and hands on the session that it has accepted"
    HANDED_BACK = "the worker gives the session back after it has accepted it"
    LATE = "the worker has not accepted the session in time"
    SPOILED = "the worker has sent a wrong frame in the session"
    OVERTAKEN = "the worker began too early in a log whose tail the store had lost"
    USURPED = "the store had forgotten the worker's claim and has given the session to another"
    GIVEN_UP = "the worker was given up by the policy"
    REMOVED = "the registry has forgotten the worker, which is still connected"
    CLIENT_ENDED = "the session has ended: its client"
    CLIENT_BYE = "the client has ended the session"
    WORKER_ENDED = "the session has ended: its worker"


class StoreStep(Enum):
    """What the store is told of the exit."""

    NOTHING = "nothing"
    """It knows: it has granted a newer claim, or has ended or unpaired the session."""
    DETACH = "detach"
    """The party is attached nowhere and may come back; a worker is detached in the registry as well."""
    UNPAIR = "unpair"
    """The session is taken from this worker and waits for another one, after a pause."""
    UNPAIR_FAILED = "unpair, failed"
    """As `UNPAIR`, and the hand-out counts as failed (`core.failures`)."""


class Handover(Enum):
    """Whether the exit of a party that was told to go counts as a handover, which lasts since GOAWAY."""

    ALWAYS = "always"
    BY_PEER = "if the peer closed"
    """It left by itself before it came back elsewhere. A close by this node is no handover."""
    NEVER = "never"


class Holding(Enum):
    """What becomes of the share that a client's session has in the bytes of its address."""

    UNCHANGED = "unchanged"
    AWAY = "away"
    """It counts on until the session expires."""
    FORGOTTEN = "forgotten"


class Detail(Enum):
    """What the trail says beside its words."""

    NONE = "nothing"
    HOW_OVER = "how the connection ended"
    EPOCH = "the epoch"
    WORKER = "the worker"
    REASON = "the worker and the reason"


GIVEN = "as given"
"""Stands in the table for the reason that the caller gives."""

CLAIMED = "moved or superseded"
"""Stands in the table for the words, and the close code, of a party that a newer claim holds: `of_claim`."""


def of_claim(*, told_to_go: bool) -> tuple[CloseCode, str]:
    """Return the close code of a party that a newer claim holds, and the words for it.

    A party that was told to go has moved, as it was asked to. Otherwise it was superseded, by itself or by a thief.
    """
    return (CloseCode.MOVED, "moved") if told_to_go else (CloseCode.SUPERSEDED, "superseded")


@attrs.frozen
class Exit:
    """One row of the table: what is done when a party stops being attached here. Each field is one step."""

    settles: bool = False
    """What the party has offered before is handed to the store."""
    stores_acks: bool = False
    """Acks that wait are handed to the store first: from a party that is detached they would be refused."""
    detaches: bool = True
    """The session has the party's connection no more."""
    holding: Holding = Holding.UNCHANGED
    trail: str = ""
    """The words of the session's trail, or `CLAIMED`; empty for none."""
    detail: Detail = Detail.NONE
    store: StoreStep = StoreStep.NOTHING
    says: str = ""
    """The reason of the `session_ended` that the party gets, or `GIVEN`; empty for no such message."""
    checks: bool = False
    """The registry is read again for the worker: it may have moved with all its sessions, or have new ones."""
    looks: bool = False
    """The session is read again, which tells its peer here."""
    if_idle: bool = True
    """A session with no party here is forgotten."""
    ends_link: bool = False
    """The whole link is done: it leaves the tables of the node at once, before its connection has ended."""
    handover: Handover = Handover.NEVER
    tells_drain: bool = False
    """A drain under way hears that the party is here no more."""
    close: CloseCode | str | None = None
    """The code that the connection is closed with, or `CLAIMED`; None: it has ended, or goes on."""
    error: tuple[str, str] | None = None
    """The code and the text of the fatal `error` in front of the close. Without one the close has a reason: that of
    `CLAIMED`, or the caller's."""

    def words(self, *, told_to_go: bool) -> str:
        """Return the words of the trail."""
        return of_claim(told_to_go=told_to_go)[1] if self.trail == CLAIMED else self.trail


_CLAIMED = Exit(
    # No acks first: the store refuses them under the older epoch, and the claim has brought the party's own word.
    trail=CLAIMED,
)

_CLAIMED_AND_CLOSED = attrs.evolve(_CLAIMED, close=CLAIMED, ends_link=True, handover=Handover.ALWAYS, tells_drain=True)

_TAKEN_BACK = Exit(stores_acks=True, trail="refused", detail=Detail.REASON, store=StoreStep.UNPAIR)
"""The session waits for another worker. What this one has finished with is not for the next one: hence its acks first."""

EXITS: Mapping[Cause, Exit] = {
    Cause.CLIENT_GONE: Exit(
        stores_acks=True,
        holding=Holding.AWAY,
        trail="connection over",
        detail=Detail.HOW_OVER,
        store=StoreStep.DETACH,
        # No look: a worker is told nothing of its client's connections.
        ends_link=True,
        handover=Handover.BY_PEER,
        tells_drain=True,
    ),
    Cause.WORKER_GONE: Exit(
        stores_acks=True,
        trail="connection over",
        detail=Detail.HOW_OVER,
        store=StoreStep.DETACH,
        looks=True,
        ends_link=True,
        handover=Handover.BY_PEER,
        tells_drain=True,
    ),
    Cause.CLIENT_CLAIMED: attrs.evolve(_CLAIMED_AND_CLOSED, holding=Holding.FORGOTTEN, detail=Detail.EPOCH, looks=True),
    # The worker's link goes on: with its other sessions, or until the check finds that all of it has moved. So the handover is
    # counted, and the drain hears of it, once for the worker: by `WORKER_CLAIMED`.
    Cause.SESSION_CLAIMED: attrs.evolve(_CLAIMED, detail=Detail.EPOCH, checks=True, looks=True),
    Cause.SESSION_REASSIGNED: attrs.evolve(_CLAIMED, detail=Detail.EPOCH, says="reassigned", checks=True, looks=True),
    Cause.WORKER_CLAIMED: attrs.evolve(_CLAIMED_AND_CLOSED, detail=Detail.WORKER, looks=True),
    Cause.WORKER_REPLACED: attrs.evolve(
        _CLAIMED_AND_CLOSED,
        # Its sessions are not detached here. Those that the newer connection goes on with leave this one by their newer claim
        # (`SESSION_CLAIMED`), which notes it and looks. The worker is asked again for any other, and that is a newer claim too.
        detaches=False,
        trail="",
        if_idle=False,
        # The worker is here again: it has handed nothing over, and the drain hears of it as of one that comes.
        handover=Handover.NEVER,
        tells_drain=False,
    ),
    # The session is attached to the other worker at once, whose answer to its opening says what becomes of it.
    Cause.REGRANTED: Exit(says="reassigned", if_idle=False),
    # Of these six the session is looked at when the store has answered: until then it tells of the pair as it was.
    Cause.REFUSED: attrs.evolve(_TAKEN_BACK, settles=True),
    Cause.HANDED_ON: attrs.evolve(_TAKEN_BACK, settles=True, trail="handed on"),
    Cause.HANDED_BACK: attrs.evolve(_TAKEN_BACK, settles=True, store=StoreStep.UNPAIR_FAILED),
    # What the worker has offered since is of a session it was not given.
    Cause.LATE: attrs.evolve(_TAKEN_BACK, says="not accepted in time"),
    Cause.SPOILED: attrs.evolve(_TAKEN_BACK, settles=True, says="bad message"),
    # What it has offered has numbers that others have: it must not be stored.
    Cause.OVERTAKEN: attrs.evolve(_TAKEN_BACK, says="log lost"),
    # Not unpaired: the store has it at the other worker. No acks: they are of a claim that the store has forgotten. No look: it is
    # by one that the node has heard of the other worker.
    Cause.USURPED: Exit(trail="gave way", detail=Detail.WORKER, says="log lost"),
    # No acks: the store has removed the worker, and all claims of it, before this. `GivingUp` notes it in the trail of every session
    # of the worker, attached here or not, and looks at each; the link ends when the worker has been told, or resumes elsewhere.
    Cause.GIVEN_UP: Exit(says="reassigned"),
    # The node that gave the worker up has noted it in the trails, and the store wakes the nodes of the clients. The close ends the
    # link, as `WORKER_GONE`: handover and drain follow then.
    Cause.REMOVED: Exit(
        says="reassigned",
        close=CloseCode.NOTHING_TO_RESUME,
        error=("given_up", "this worker was given up; register again"),
    ),
    # Of these three nothing is told to the store, which has ended the session, nor looked at: nothing is left of it. The trail, and
    # the drain, hear of the end once for the session (`SessionGone`). Its share of an address ends with it, wherever its client
    # is. A link goes on until its close: of a worker with its other sessions.
    Cause.CLIENT_ENDED: Exit(says=GIVEN, if_idle=False, close=CloseCode.SESSION_ENDED),
    # Its connection is closed with 1000 when the store has heard of the end.
    Cause.CLIENT_BYE: Exit(if_idle=False),
    Cause.WORKER_ENDED: Exit(says=GIVEN, if_idle=False),
}
"""The table. `docs/architecture.md` shows it; a test walks every row."""
