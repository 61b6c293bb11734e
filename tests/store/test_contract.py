"""What every store must do whatever it is asked, by the rules of `signald/store/base.py`. The operations: session/, registry/.

The nodes `a` and `b` look at one fresh store.
"""

from signald.core.callers import ALL
from signald.core.head import Head
from signald.store.base import Done, Op, Refused, Result
from signald.store.registry.ops import (
    Signal,
)
from signald.store.session.ops import (
    Appended,
    ConfirmToken,
    Detach,
    Ended,
    EndSession,
    ExpireSession,
    Look,
    Looked,
    NoSession,
    ReadHistory,
    ReadSession,
    RetrySession,
    Unpair,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    TTL_MS,
    WORKER,
    ack,
    append,
    claim_client,
    claim_side,
    create,
    entries,
)
from tests.store.scenes import ACCEPT, failed, seqs
from tests.store.worlds import World


class TestStore:
    """What concerns all operations."""

    async def test_empty_batch(self, world: World) -> None:
        """A batch of nothing is answered with nothing."""
        assert await world.do() == []

    async def test_order(self, world: World) -> None:
        """Operations take effect in the order of their batch, and each gets its answer at its own place."""
        results = await world.do(
            ReadHistory("s_2", 5),
            create(),
            append(entries(1, 2)),
            Look(SESSION, "worker", 0, 9),
            EndSession(SESSION, "a"),
        )
        assert [type(result) for result in results] == [NoSession, Head, Appended, Looked, Ended]

    async def test_shared(self, world: World) -> None:
        """What one node wrote, every other node reads at once."""
        await world.do(create(), append(entries(1, 1)), at="a")
        await world.do(append(entries(2, 2)), at="b")
        assert await seqs(world, "worker") == [1, 2]

    async def test_no_session(self, world: World) -> None:
        """On a session that does not exist every operation says so, and none brings it into being."""
        ops: list[tuple[Op, Result]] = [
            (claim_client(), Refused("unknown")),
            (claim_side(), Refused("unknown")),
            (ACCEPT, NoSession()),
            (Unpair(SESSION, "a", WORKER, 0), NoSession()),
            (failed(), NoSession()),
            (RetrySession(SESSION, "a"), NoSession()),
            (append(entries(1, 1)), NoSession()),
            (ack(1), NoSession()),
            (Look(SESSION, "client", 0, 5), NoSession()),
            (ReadHistory(SESSION, 5), NoSession()),
            (ReadSession(SESSION, ALL), NoSession()),
            (Detach(SESSION, "client", "a", 1, NOW_MS), Done()),
            (ConfirmToken(SESSION, 1), Done()),
            (EndSession(SESSION, "a"), NoSession()),
            (ExpireSession(SESSION, "a", (), NOW_MS, TTL_MS), Done()),
        ]
        for _ in range(2):
            assert await world.do(*(op for op, _ in ops)) == [result for _, result in ops]

    async def test_signal(self, world: World) -> None:
        """A signal reaches the node it names, in order, however often the same is sent, and no other."""
        await world.do(Signal("b", b"rone"), Signal("b", b"rtwo"), Signal("b", b"rone"), Signal("nobody", b"rx"))
        assert await world.woken() == {"a": [], "b": [b"rone", b"rtwo", b"rone"]}

    async def test_signal_to_itself(self, world: World) -> None:
        """A node may signal itself."""
        await world.do(Signal("a", b"rme"))
        assert await world.woken() == {"a": [b"rme"], "b": []}

    async def test_check(self, world: World) -> None:
        """A store that answers passes its check."""
        await world.stores["a"].check()

    async def test_clock(self, world: World) -> None:
        """The store's clock is one of milliseconds since 1970, and does not run backwards."""
        first = world.stores["a"].now_ms()
        assert first > 1_500_000_000_000
        assert world.stores["a"].now_ms() >= first
