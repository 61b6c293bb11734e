"""Scenes of the contract's tests: a session with both parties, and what is read of it.

Two nodes look at one fresh store: `a`, where the client usually is, and `b`, where the worker usually is.
"""

from signald.core.head import Party
from signald.store.base import Result
from signald.store.session.ops import (
    AcceptSession,
    Claimed,
    History,
    Look,
    Looked,
    ReadHistory,
    UnpairFailed,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    WORKER,
    claim_side,
    create,
)
from tests.store.worlds import World

NO_WAKES: dict[str, list[bytes]] = {"a": [], "b": []}
ACCEPT = AcceptSession(SESSION, "b", 1)


async def pair(world: World, *, receipts: bool = False) -> None:
    """A session with its client at `a` and its worker, paired, at `b`, both under epoch 1; no wake-up left over."""
    await world.do(create(receipts=receipts), claim_side(), ACCEPT)
    await world.woken()


async def look(world: World, party: Party = "client", *, after: int = 0, limit: int = 100) -> Looked:
    """Read the session, which is there, and looks the same from both nodes."""
    found = await world.ask(Look(SESSION, party, after, limit), at="a")
    assert isinstance(found, Looked)
    assert await world.ask(Look(SESSION, party, after, limit), at="b") == found
    return found


async def seqs(world: World, party: Party, *, after: int = 0, limit: int = 100) -> list[int]:
    """Return the seqs that wait for `party`."""
    return [entry.seq for entry in (await look(world, party, after=after, limit=limit)).entries]


async def history(world: World, limit: int = 100) -> list[tuple[str, bytes]]:
    """Return the plain messages of the chat history."""
    return said(await read_history(world, limit))


async def read_history(world: World, limit: int = 100, before: int = 0) -> History:
    """Read the chat history, which looks the same from both nodes."""
    found = await world.ask(ReadHistory(SESSION, limit, before), at="a")
    assert isinstance(found, History)
    assert await world.ask(ReadHistory(SESSION, limit, before), at="b") == found
    return found


def said(history: History) -> list[tuple[str, bytes]]:
    """Return (party, body) of the entries of a history."""
    return [(entry.party, entry.body) for entry in history.entries]


def failed(worker: str = WORKER, *, epoch: int = 0, failures_max: int = 3, ended_ms: int = 0) -> UnpairFailed:
    """A hand-out to `worker` has failed, as node `b` says."""
    return UnpairFailed(SESSION, "b", worker, epoch, failures_max, NOW_MS + 5, ended_ms)


def claimed(result: Result) -> Claimed:
    """Demand that a claim was granted."""
    assert isinstance(result, Claimed), result
    return result
