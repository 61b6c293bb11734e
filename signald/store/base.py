"""The contract of the three stores: operations in, results out, in one batch.

A store takes frozen operations, many at a time (`Store.execute`), and gives each of them its result. That is the whole contract;
the files `test_contract.py` in `tests/store` hold every twin to it. The operations are sorted by aggregate, which is what one atomic
step may change: everything of one session (`session/ops.py`), the blobs of one owner (`shelf/ops.py`), one room (`room/ops.py`), and the
registry (`registry/ops.py`): nodes, workers, pairings, the waiting line, the index of living sessions. No operation spans two of them.

Rules all operations share:

* **Safe to repeat.** Sending an operation a second time after its outcome was lost gives the same answer and changes
  nothing more: appends by their seq, claims by their `nonce`, the rest by nature. So a batch whose outcome is unknown
  is sent again, and none of its operations is answered in between.
* **Fenced.** What writes on behalf of a party carries the epoch of its claim and the name of its node; an older epoch
  is answered `Fenced` and changes nothing.
* **Waking.** When a change concerns a party attached at *another* node, the store wakes that node, in the same atomic
  step. A wake-up names what to look at and carries nothing else (see `Wake`): losing one costs time, never data.
* **Damage** hurts one session, worker, blob or room only. A record that cannot be read counts as one that has lost everything: the
  operation gets the answer it declares (`Op.damaged`), `Reseed` replaces the record, and `EndSession` removes it. A message that cannot
  be read is a hole in its log, and lists leave out what cannot be read.
* **Time** is the caller's: `now_ms` in every operation is `Store.now_ms()`, milliseconds since 1970 by the store's clock.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    # The default lets `Op` stand for an operation with any result. Only the type checker needs it, and Python 3.11 does not know it.
    from typing_extensions import TypeVar as TypeVarWithDefault

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)
OpT = TypeVar("OpT", bound="Op")

Secret32 = bytes
"""A SHA-256 of a recovery token's secret; the store never sees the secret."""

CLOCK_SET_MS = 60_000
"""A stored time that lies further ahead than this was taken before the store's clock was set back, and is ignored. The clocks of
nodes differ by less, and no request is in flight for a minute. So a party may have to wait a minute after the clock was set
back, and not for as long as it was set."""


# --- operations ---------------------------------------------------------------------------------------------------


class Op(Struct, Generic[R_co], frozen=True, gc=False):
    """Base of every operation: `R_co` are the results it can give. What else the stores need to know of it, `traits` declares."""

    reads: ClassVar[bool] = False
    """It never changes anything: a batch of such operations alone does not ask for SQLite's one write lock."""
    later: ClassVar[bool] = False
    """It goes behind others unless a caller awaits it (`lines.py`): any number of parties have it in flight at once."""
    damaged: ClassVar["Result | None"] = None
    """The answer when the record it is about cannot be read; None: it needs none, or it repairs the record."""


def traits(
    *, reads: bool = False, later: bool = False, damaged: "Result | None" = None
) -> Callable[[type[OpT]], type[OpT]]:
    """Declare the traits of an operation, see `Op`. A subclass has them too, until it declares its own.

    It is a decorator and not a metaclass, by which the operations of the hot path would be made more slowly.
    """

    def declare(kind: type[OpT]) -> type[OpT]:
        kind.reads, kind.later, kind.damaged = reads, later, damaged
        return kind

    return declare


class SessionOp(Op[R_co], Generic[R_co], frozen=True):
    """Base of the operations on one session."""

    session: str


class ShelfOp(Op[R_co], Generic[R_co], frozen=True):
    """Base of the operations on the blobs of one owner."""

    shelf: str


class RoomOp(Op[R_co], Generic[R_co], frozen=True):
    """Base of the operations on one room."""

    room: str


class RegistryOp(Op[R_co], Generic[R_co], frozen=True):
    """Base of the operations on nodes, workers, pairings and the waiting line."""


# --- results of all aggregates ------------------------------------------------------------------------------------


class Result(Struct, frozen=True, gc=False):
    """Base of every answer."""


class Done(Result, frozen=True):
    """The state is now as the operation asked."""


class Refused(Result, frozen=True):
    """The claim fails; `reason` is one of the words of the operation."""

    reason: str


class Fenced(Result, frozen=True):
    """A newer claim, of `epoch`, holds this party."""

    epoch: int


class Behind(Result, frozen=True):
    """The store knows only an older epoch: it has lost what was written since."""

    epoch: int


# --- wake-ups -----------------------------------------------------------------------------------------------------

Wake = bytes
"""What a node is told over the backplane, at most once:

`s` + session id   look at the session again: messages, peer, superseded claim, end
`w` + worker id    look at the worker again: superseded claim, new pairings
`o` + session id   the session's life has passed, and its client is said to be here: renew it, or say that it is gone
`n`                look at the nodes again
`m` + room         look at the room again: messages, members, presence; nodes of earlier releases ignore it
`v`                look at the revoked principals again; nodes of earlier releases ignore it
`*`                wake-ups may have been lost: look at everything
`t` + worker id    ask the worker to clean up and end; nodes of earlier releases ignore it
`p` + anything     a probe of the backplane by the node itself (service/probe.py)
`r` + anything     a realtime message, made and read by service/relay; losing it is allowed
"""

WAKE_SESSION = b"s"
WAKE_WORKER = b"w"
WAKE_ROOM = b"m"
WAKE_OVERDUE = b"o"
WAKE_NODES = b"n"
WAKE_REVOKED = b"v"
WAKE_ALL = b"*"
WAKE_REALTIME = b"r"
WAKE_PROBE = b"p"
WAKE_TERMINATE = b"t"


# --- the store itself ---------------------------------------------------------------------------------------------


class Store(Protocol):
    """One of the three twins, open."""

    @property
    def lives(self) -> int:
        """Return how many servers, or lives of one, have been met behind the store's address.

        It grows when another server or life answers, after a failover or a restart: the new one may lack what the last one had. A
        reconnection to the same life adds nothing. A store that cannot lose its tail without its process has one life.
        """

    def now_ms(self) -> int:
        """Milliseconds since 1970 by the store's clock."""

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out `ops` in order and return their results, once all of it is as durable as `store.ack` promises.

        Raises:
            StoreUnavailable: some or all of `ops` may not have happened. Send the batch again.
            StoreMisused: the store cannot serve; the text says what to change.
        """

    def wakes(self) -> AsyncIterator[list[Wake]]:
        """Yield wake-ups for this node as they come, many at a time; `*` first, and after every interruption."""

    async def check(self) -> None:
        """Prove that the store answers. Raises as `execute` does."""
