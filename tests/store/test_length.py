"""What only length shows: hundreds of acks, dozens of claims, full histories, long lines. The same rules of the contract, on every store.

A stream of Redis keeps its entries in blocks of a hundred and trims whole blocks; epochs become longer than one digit with the
tenth claim; what is counted along, as the bytes of a history, shows a mistake only when much has come and gone.
"""

from collections import deque
from collections.abc import Callable

import pytest
from msgspec import structs
from redis import Redis

from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.wants import offer
from signald.store.base import Behind, Fenced, Result
from signald.store.registry.ops import (
    DetachWorker,
    Leave,
    ListSuited,
    ListWaiting,
    Release,
    RemoveWorker,
    Reserve,
    Reserved,
    UpdateWorker,
    Waiting,
    WorkerClaimed,
)
from signald.store.session.ops import (
    AcceptSession,
    Ack,
    Append,
    Appended,
    Claimed,
    ClaimWorkerSide,
    Detach,
    History,
    Look,
    Looked,
    ReadHistory,
    Unpair,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    WORKER,
    ack,
    append,
    claim_client,
    claim_side,
    claim_worker,
    create,
    enqueue,
    entries,
    head,
    register,
    reseed,
    reseed_worker,
)
from tests.store.scenes import said
from tests.store.worlds import World

ACKS = 320
"""Three blocks of a stream, and some."""
UNACKED = 3
CLAIMS = 24
PARTIES: tuple[Party, Party] = ("client", "worker")
OTHER: dict[Party, Party] = {"client": "worker", "worker": "client"}


def _by_ack(reader: Party, seq: int) -> list[Ack | Append]:
    return [ack(seq, party=reader)]


def _by_append(reader: Party, seq: int) -> list[Ack | Append]:
    return [append(entries(seq, seq), party=reader, ack=seq, backlog_max=10_000)]


@pytest.mark.parametrize("reader", PARTIES)
@pytest.mark.parametrize("acks", [_by_ack, _by_append], ids=["ack", "append"])
async def test_no_ack_of_hundreds_takes_more_than_it_covers(
    world: World, reader: Party, acks: Callable[[Party, int], list[Ack | Append]]
) -> None:
    """After each of hundreds of acks, alone or on an append, all that is not acked is still there, from the first to the last."""
    await world.do(create(), claim_side(), append(entries(1, UNACKED), party=OTHER[reader]))
    for seq in range(1, ACKS + 1):
        newest = entries(seq + UNACKED, seq + UNACKED)
        _, *_, looked = await world.do(
            append(newest, party=OTHER[reader]), *acks(reader, seq), Look(SESSION, reader, 0, 100)
        )
        assert isinstance(looked, Looked)
        assert looked.entries == entries(seq + 1, seq + UNACKED)


async def test_no_claim_of_hundreds_takes_more_than_it_covers(world: World) -> None:
    """After each of hundreds of claims of a worker, which ack what it has received, all that it has not is still there."""
    await world.do(create(), append(entries(1, UNACKED)))
    for seq in range(1, ACKS + 1):
        newest = entries(seq + UNACKED, seq + UNACKED)
        _, claimed, looked = await world.do(
            append(newest),
            claim_side(nonce=f"n{seq}", assign=seq == 1, received=seq),
            Look(SESSION, "worker", 0, 100),
        )
        assert isinstance(claimed, Claimed)
        assert isinstance(looked, Looked)
        assert looked.entries == entries(seq + 1, seq + UNACKED)


@pytest.mark.parametrize("bounds", [(20, 10_000), (1000, 300), (10, 120)], ids=["messages", "bytes", "both"])
async def test_a_full_history_stays_exact(world: World, bounds: tuple[int, int]) -> None:
    """After hundreds of messages of all sizes a history holds the last of them that its bounds have room for, and no other."""
    most, most_bytes = bounds
    await world.do(create(), claim_side())
    kept: deque[tuple[str, bytes]] = deque()
    for seq in range(1, 251):
        for party in PARTIES:
            body = b"t" + b"%d" % seq * (1 + (seq * (7 if party == "client" else 11)) % 13)
            _, _, found = await world.do(
                append((Entry(seq, body, history=True),), party=party, history_max=most, history_bytes_max=most_bytes),
                ack(seq, party=OTHER[party]),
                ReadHistory(SESSION, 1000),
            )
            kept.append((party, body))
            while len(kept) > most or sum(len(one) for _, one in kept) > most_bytes:
                kept.popleft()
            assert isinstance(found, History)
            assert said(found) == list(kept)


async def test_epochs_of_two_digits_are_numbers(world: World) -> None:
    """Of dozens of claims each fences all before it and no later one: the tenth is above the ninth, and the hundredth would be."""
    await world.do(create(), claim_side(), AcceptSession(SESSION, "b", 1))
    for epoch in range(2, CLAIMS + 1):
        node = "ab"[epoch % 2]
        client, worker = await world.do(
            claim_client(f"t{epoch - 1}", f"t{epoch}", nonce=f"c{epoch}", node=node, now_ms=NOW_MS + epoch),
            ClaimWorkerSide(SESSION, node, f"w{epoch}", WORKER, False, 0, 0, NOW_MS + epoch, 1000),
            at=node,
        )
        assert isinstance(client, Claimed)
        assert isinstance(worker, Claimed)
        assert (client.epoch, worker.epoch) == (epoch, epoch)
        for asked in range(1, CLAIMS + 3):
            expected: Result | None = None
            if asked != epoch:
                expected = Fenced(epoch) if asked < epoch else Behind(epoch)
            for party in PARTIES:
                appended, acked = await world.do(
                    append(entries(1, 1), party=party, node=node, epoch=asked),
                    ack(0, party=party, node=node, epoch=asked),
                    at=node,
                )
                if expected is None:
                    assert isinstance(appended, Appended)
                else:
                    assert (appended, acked) == (expected, expected), (party, asked, epoch)
            if asked < epoch:
                assert await world.ask(Unpair(SESSION, node, WORKER, asked)) == Fenced(epoch)
            if asked != epoch:
                assert await world.ask(AcceptSession(SESSION, node, asked)) == Fenced(epoch)
                await world.do(Detach(SESSION, "client", node, asked, NOW_MS), at=node)
                given = reseed(
                    head(
                        client_epoch=min(asked, epoch), client_node="z", worker=WORKER, worker_epoch=min(asked, epoch)
                    ),
                    node="z",
                    create=False,
                )
                if asked < epoch:
                    known = await world.ask(given)
                    assert isinstance(known, Head)
                    assert (known.client_epoch, known.client_node) == (epoch, node), asked
                    assert (known.worker_epoch, known.worker_node) == (epoch, node), asked


async def test_epochs_of_a_worker_are_numbers(world: World) -> None:
    """As those of a session: the twentieth claim of a worker fences the ninth and is not fenced by it."""
    await world.ask(register(), at="b")
    for epoch in range(2, CLAIMS + 1):
        node = "ab"[epoch % 2]
        claimed = await world.ask(
            claim_worker(f"w{epoch - 1}", f"w{epoch}", nonce=f"n{epoch}", node=node, now_ms=NOW_MS + epoch), at=node
        )
        assert isinstance(claimed, WorkerClaimed)
        assert claimed.epoch == epoch
        for asked in range(1, epoch):
            assert await world.ask(UpdateWorker(WORKER, asked, 2, leaving=False)) == Fenced(epoch)
            await world.do(
                DetachWorker(WORKER, asked, NOW_MS), RemoveWorker(WORKER, node, asked, requeue=True),
                reseed_worker(node="z", epoch=asked),
            )  # fmt: skip
        assert not isinstance(await world.ask(UpdateWorker(WORKER, epoch, 2, leaving=False)), Fenced)


async def test_a_long_line_is_read_as_far_as_is_asked(world: World) -> None:
    """A line of dozens is read in its order as far as is asked, by all of it and by what one worker suits."""
    count = 40
    wants = [{"lang": "en"}, {"lang": "en", "size": "big"}]
    names = [f"s_{number:02}" for number in range(count)]
    await world.do(*[enqueue(name, want=wants[place % 2], order_ms=NOW_MS + place) for place, name in enumerate(names)])
    for limit in (1, 4, 6, 13, 39, 40, 60):
        found = await world.ask(ListWaiting(limit))
        assert isinstance(found, Waiting)
        assert [one.session for one in found.sessions] == names[:limit]
    everything = (offer({"lang": "en", "size": "big"}),)
    for limit in (2, 12, 30, 80):
        found = await world.ask(ListSuited(everything, limit, 100))
        assert isinstance(found, Waiting)
        assert sorted(one.session for one in found.sessions) == sorted(
            [*names[::2][: limit // 2], *names[1::2][: limit // 2]]
        )
    found = await world.ask(ListSuited((offer({"lang": "en"}),), 17, 100))
    assert [one.session for one in found.sessions] == names[::2][:17]


@pytest.mark.parametrize("how", ["removed", "released", "given back, then removed"])
async def test_a_session_that_waits_again_wants_what_it_wanted(world: World, how: str) -> None:
    """A session that was taken from its worker waits for what it wanted before, and no other worker suits it."""
    want = {"lang": "en", "size": "big"}
    await world.do(register(), enqueue(want=want))
    if how.startswith("given back"):
        given = structs.replace(reseed_worker(epoch=5), sessions=((SESSION, want, NOW_MS),))
        await world.do(RemoveWorker(WORKER, "b", 0, requeue=False), Leave(SESSION), given)
    else:
        assert await world.ask(Reserve("a", ((SESSION, WORKER),))) == Reserved((True,))
    await world.ask(
        Release(SESSION, WORKER, requeue=True) if how == "released" else RemoveWorker(WORKER, "b", 0, requeue=True)
    )
    for labels, suited in (({}, 0), ({"lang": "en"}, 0), ({"lang": "fr", "size": "big"}, 0), (want, 1)):
        found = await world.ask(ListSuited((offer(labels),), 10, 100))
        assert isinstance(found, Waiting)
        assert len(found.sessions) == suited, labels
        assert all(one.want == want for one in found.sessions)
    (waits,) = (await world.ask(ListWaiting(10))).sessions
    assert (waits.session, waits.want) == (SESSION, want)


async def test_a_want_leaves_nothing_behind(world: World, request: pytest.FixtureRequest) -> None:
    """When the last session that wanted something has gone, no search is led to it: lines come and go without a trace."""
    for turn in range(12):
        names = [f"s_{turn}_{number}" for number in range(3)]
        await world.do(*[enqueue(name, want={"of": str(turn)}, order_ms=NOW_MS + turn) for name in names])
        found = await world.ask(ListSuited((offer({"of": str(turn)}),), 10, 100))
        assert [one.session for one in found.sessions] == names
        await world.do(*[Leave(name) for name in names])
        assert await world.ask(ListSuited((offer({"of": str(turn)}),), 10, 100)) == Waiting((), behind=False)
    if request.node.callspec.params["fresh"] == "redis":
        with Redis.from_url(request.getfixturevalue("redis_url")) as client:
            left = [client.hlen("signald:{signald}:" + name) for name in ("wanted", "spots", "line")]
        assert left == [0, 0, 0]
