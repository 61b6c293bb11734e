"""The event queue of a session: what is told of its life, in the step that makes it."""

from typing import Any

import pytest
from msgspec.structs import replace

from signald.core.callers import ALL
from signald.core.head import Head
from signald.core.life import Event
from signald.core.streams import Mark
from signald.core.wants import SEPARATOR
from signald.store.base import Done
from signald.store.session.events.ops import DropEvents, EventsLeft, EventsRead, ReadEvents, TellEvent
from signald.store.session.jobs.ops import CancelJob, SweepJobs, TakeJobs
from signald.store.session.ops import (
    AcceptSession,
    Detach,
    Ended,
    EndSession,
    ExpireSession,
    NoSession,
    Unpair,
    UnpairFailed,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    TTL_MS,
    append,
    claim_client,
    claim_side,
    create,
    create_job,
    entries,
    piece,
    reseed,
    token,
)
from tests.store.scenes import claimed, look
from tests.store.worlds import World

MAX = 5
LATER = NOW_MS + 5000
READ = ReadEvents(SESSION, 100)


async def told(world: World) -> list[tuple[int, str, int, dict[str, Any]]]:
    """Return the events that wait, seen alike by both nodes."""
    read = await world.ask(READ, at="a")
    assert isinstance(read, EventsRead)
    assert await world.ask(READ, at="b") == read
    assert read.waiting == len(read.events)
    assert read.upto == (read.events[-1].n if read.events else 0)
    return [(event.n, event.type, event.at_ms, event.fields) for event in read.events]


async def types(world: World) -> list[str]:
    """Return the types of the events that wait, whose numbers are dense."""
    found = await told(world)
    assert [n for n, *_ in found] == list(
        range(found[0][0] if found else 1, (found[0][0] if found else 1) + len(found))
    )
    return [kind for _, kind, *_ in found]


def read(*events: tuple[int, str, int, dict[str, Any]], dropped: int = 0) -> EventsRead:
    """What is read of a queue with these events."""
    return EventsRead(tuple(Event(*event) for event in events), len(events), dropped, events[-1][0] if events else 0)


async def begin(world: World, **changes: Any) -> None:
    """A told session whose beginning has been told already."""
    await world.do(create(**{"events_max": MAX, **changes}), DropEvents(SESSION, 1, NOW_MS))


async def test_a_life(world: World) -> None:
    """A session with a worker, an absence and an end tells each step once, in order, with what is known of it."""
    await world.do(
        create(events_max=MAX),
        claim_side(events_max=MAX),
        AcceptSession(SESSION, "b", 1, NOW_MS + 1),
        append(entries(1, 3)),
        Detach(SESSION, "client", "a", 1, NOW_MS + 2),
        claim_client(now_ms=NOW_MS + 9, events_max=MAX),
    )
    ended = await world.ask(EndSession(SESSION, "a", LATER, reason="finished"))
    assert isinstance(ended, Ended)
    assert (ended.events, ended.head.events, ended.head.events_max) == (5, 5, MAX)
    assert await told(world) == [
        (1, "session.started", NOW_MS, {"node": "a", "subject": "ann", "want": '{"lang":"en"}'}),
        (2, "session.paired", NOW_MS + 1, {"worker": "w_1"}),
        (3, "session.away", NOW_MS + 2, {"node": "a"}),
        (4, "session.resumed", NOW_MS + 9, {"node": "b", "away_ms": 7}),
        (5, "session.ended", LATER, {"reason": "finished", "duration_ms": 5000, "up": 3, "down": 0}),
    ]


@pytest.mark.parametrize(
    ("principal", "fields"),
    [
        ("", {}),
        ("ann", {"subject": "ann"}),
        (f"acme{SEPARATOR}ann", {"tenant": "acme", "subject": "ann"}),
        (f"a{SEPARATOR}b{SEPARATOR}ann", {"tenant": f"a{SEPARATOR}b", "subject": "ann"}),
        (f"{SEPARATOR}ann", {"tenant": "", "subject": "ann"}),
    ],
)
async def test_whose_it_is(world: World, principal: str, fields: dict[str, str]) -> None:
    """The beginning names the tenant and the subject, as far as there are any; no want is said where none is asked for."""
    begins = create(principal=principal, events_max=MAX, node="")
    assert not isinstance(begins, Head)
    await world.do(replace(begins, want={}))
    assert await told(world) == [(1, "session.started", NOW_MS, {"node": "", **fields})]


async def test_not_told(world: World) -> None:
    """Without a number a session tells nothing, and leaves nothing."""
    await world.do(
        create(), claim_side(), AcceptSession(SESSION, "b", 1), create_job(), Detach(SESSION, "client", "a", 1, NOW_MS)
    )
    ended = await world.ask(EndSession(SESSION, "a", LATER))
    assert (ended.events, ended.head.events, ended.head.events_max) == (0, 0, 0)
    assert await world.do(READ, DropEvents(SESSION, 9, LATER)) == [EventsRead(), EventsLeft(0)]


async def test_steps_are_told_once(world: World) -> None:
    """A step that is repeated, or changes nothing, tells nothing."""
    accept = AcceptSession(SESSION, "b", 1, NOW_MS)
    away = Detach(SESSION, "client", "a", 1, NOW_MS)
    back = claim_client(events_max=MAX)
    steps = [create(events_max=9), claim_side(events_max=9), accept, away, back]
    for step in steps:
        await world.do(step)
        await world.do(step)
    assert await types(world) == [
        "session.started", "session.paired", "session.away", "session.resumed",
    ]  # fmt: skip
    end = EndSession(SESSION, "a", LATER)
    assert isinstance(await world.ask(end), Ended)
    assert await world.do(end, create(nonce="other", events_max=0)) != []
    assert (await types(world))[-1] == "session.ended"


async def test_away(world: World) -> None:
    """Only a connection that held the client tells that it is away; the worker's says nothing."""
    await begin(world)
    await world.do(claim_side(events_max=MAX))
    for stale in (("client", "b", 1), ("client", "a", 0), ("client", "a", 2), ("client", "", 1), ("worker", "b", 1)):
        await world.do(Detach(SESSION, *stale, NOW_MS))
    assert await types(world) == []
    await world.do(Detach(SESSION, "client", "a", 1, LATER))
    assert await told(world) == [(2, "session.away", LATER, {"node": "a"})]


async def test_handover(world: World) -> None:
    """A client that claims before its old connection is over, as in a planned handover, is neither away nor resumed."""
    await begin(world)
    await world.do(claim_client(events_max=MAX), Detach(SESSION, "client", "a", 1, NOW_MS))
    assert await types(world) == []
    await world.do(Detach(SESSION, "client", "b", 2, NOW_MS), claim_client("t2", "t3", nonce="2", events_max=MAX))
    await world.do(claim_client("t3", "t4", node="a", nonce="3", events_max=MAX))
    assert await types(world) == ["session.away", "session.resumed"]


async def test_first_claim(world: World) -> None:
    """A session that was made without its client has nobody to come back: its first claim tells nothing."""
    await begin(world, node="")
    await world.do(claim_client(events_max=MAX))
    assert await types(world) == []


async def test_pairings(world: World) -> None:
    """The same worker again is paired; another one is a reassignment, which names the one before, also after a while without any."""
    await begin(world)
    first, again, other = (
        claim_side(name, nonce=nonce, events_max=MAX) for name, nonce in (("w_1", "1"), ("w_1", "2"), ("w_2", "3"))
    )
    await world.do(first, AcceptSession(SESSION, "b", 1, NOW_MS), Unpair(SESSION, "b", "w_1", 1))
    await world.do(again, AcceptSession(SESSION, "b", 3, NOW_MS + 1), Unpair(SESSION, "b", "w_1", 3))
    await world.do(claim_side("w_3", nonce="never accepted", events_max=MAX))
    await world.do(other, AcceptSession(SESSION, "b", 6, NOW_MS + 2))
    assert await told(world) == [
        (2, "session.paired", NOW_MS, {"worker": "w_1"}),
        (3, "session.paired", NOW_MS + 1, {"worker": "w_1"}),
        (4, "session.reassigned", NOW_MS + 2, {"worker": "w_2", "previous": "w_1"}),
    ]


async def test_expired(world: World) -> None:
    """A session that expires has ended; one that lives tells nothing of it."""
    await begin(world)
    nodes = ("a", "b")
    assert await world.ask(ExpireSession(SESSION, "b", nodes, NOW_MS, TTL_MS, 0, "expired")) == Done()
    ended = await world.ask(ExpireSession(SESSION, "b", ("b",), LATER, TTL_MS, 0, "expired"))
    assert (ended.events, ended.head.events) == (1, 2)
    assert await told(world) == [
        (2, "session.ended", LATER, {"reason": "expired", "duration_ms": 5000, "up": 0, "down": 0})
    ]


async def test_ends_without_a_time(world: World) -> None:
    """Where a step says no time, that of the event before it stands for it."""
    await begin(world)
    await world.do(Detach(SESSION, "client", "a", 1, LATER), claim_side(events_max=MAX), AcceptSession(SESSION, "b", 1))
    await world.do(EndSession(SESSION, "a"))
    assert [(kind, at_ms) for _, kind, at_ms, _ in await told(world)] == [
        ("session.away", LATER), ("session.paired", LATER), ("session.ended", LATER),
    ]  # fmt: skip


# --- jobs -----------------------------------------------------------------------------------------------------------


def ends(n: int, state: str, attempt: int = 0, error: str = "") -> dict[str, Any]:
    """What is told of the end of a job."""
    fields = {"job": f"j_1_{n}", "kind": "tts", "state": state, "attempt": attempt}
    return {**fields, "error": error} if error else fields


async def test_jobs(world: World) -> None:
    """Each way in which a job ends is told in its step: cancelled, expired, refused, done, failed, lost and with its session."""
    await begin(world, events_max=9)
    await world.do(claim_side(events_max=9))
    names = (b"cancelled", b"expired", b"refused", b"done", b"failed", b"lost", b"ended")
    await world.do(*[create_job(key=name, deadline_ms=NOW_MS + 10 if name == b"expired" else 0) for name in names[:3]])
    await world.do(CancelJob(SESSION, 1, ALL, "a", 50, NOW_MS), SweepJobs(SESSION, "a", NOW_MS + 10))
    await world.do(TakeJobs(SESSION, "b", 1, ("other",), (), 9, NOW_MS + 11))
    await world.do(
        *[create_job(key=name) for name in names[3:]], TakeJobs(SESSION, "b", 1, ("tts",), (), 3, NOW_MS + 12)
    )
    done, failed = (
        replace(
            piece(seq, end=end),
            mark=Mark("j", 1, b"", end, job=n, error=b'{"code":"no_luck","message":"m"}' if n == 5 else b""),
        )
        for seq, n, end in ((1, 4, "complete"), (2, 5, "failed"))
    )
    await world.do(*[append((entry,), party="worker") for entry in (done, failed)])
    await world.do(UnpairFailed(SESSION, "b", "w_1", 0, 3, NOW_MS + 14, 0, 1))
    assert (await look(world)).head.events == 7
    ended = await world.ask(EndSession(SESSION, "a", NOW_MS + 15))
    assert ended.head.events == 9
    assert [(kind, fields) for _, kind, _, fields in await told(world)] == [
        ("job.ended", ends(1, "cancelled")),
        ("job.ended", ends(2, "expired")),
        ("job.ended", ends(3, "failed", error="kind_not_taken")),
        ("job.ended", ends(4, "succeeded", 1)),
        ("job.ended", ends(5, "failed", 1, "no_luck")),
        ("job.ended", ends(6, "failed", 1, "worker_lost")),
        ("job.ended", ends(7, "cancelled")),
        ("session.ended", {"reason": "", "duration_ms": 15, "up": 0, "down": 2}),
    ]


# --- a full queue ---------------------------------------------------------------------------------------------------


async def flap(world: World, times: int) -> None:
    """The client goes and comes back."""
    epoch = (await look(world)).head.client_epoch
    node = (await look(world)).head.client_node
    for one in range(epoch, epoch + times):
        await world.do(
            Detach(SESSION, "client", node, one, NOW_MS + one),
            claim_client(f"t{one}", f"t{one + 1}", nonce=f"{one}", node=node, now_ms=NOW_MS + one, events_max=MAX),
        )


async def test_full(world: World) -> None:
    """What finds no room is dropped without a number; the next event that fits says how many, and numbers stay dense."""
    await begin(world)
    await flap(world, 4)
    assert (await world.ask(READ)).dropped == 3
    assert [n for n, *_ in await told(world)] == [2, 3, 4, 5, 6]
    assert (await look(world)).head.events == 6
    assert await world.ask(DropEvents(SESSION, 3, NOW_MS)) == EventsLeft(3)
    await flap(world, 1)
    assert [(n, kind, fields.get("dropped")) for n, kind, _, fields in await told(world)][3:] == [
        (7, "session.away", 3), (8, "session.resumed", None),
    ]  # fmt: skip
    assert (await world.ask(READ)).dropped == 0


async def test_the_end_always_fits(world: World) -> None:
    """The end of a session is told in a full queue as well, one beyond the bound, with what was dropped before it."""
    await begin(world)
    await flap(world, 3)
    await world.do(EndSession(SESSION, "b", LATER, reason="r"))
    found = await told(world)
    assert len(found) == MAX + 1
    assert (found[-1][1], found[-1][3]["dropped"]) == ("session.ended", 1)


async def test_resumed_is_told_of_a_dropped_absence(world: World) -> None:
    """An absence that found no room is over with the next claim all the same."""
    await begin(world, events_max=1)
    await world.do(
        TellEvent(SESSION, "n", "app.message", {"a": 1}, 1, NOW_MS), Detach(SESSION, "client", "a", 1, NOW_MS)
    )
    await world.do(DropEvents(SESSION, 2, NOW_MS), claim_client(events_max=1))
    assert await told(world) == [(3, "session.resumed", NOW_MS, {"node": "b", "away_ms": 0, "dropped": 1})]


# --- its delivery ---------------------------------------------------------------------------------------------------


async def test_in_parts(world: World) -> None:
    """Events are read from the first on, as many as are asked for; what is told is dropped, and dropping twice drops no more."""
    await begin(world)
    await flap(world, 2)
    everything = (await world.ask(READ)).events
    first = await world.ask(ReadEvents(SESSION, 2))
    assert (first.events, first.waiting, first.upto) == (everything[:2], 4, 3)
    assert await world.ask(ReadEvents(SESSION, 0)) == EventsRead((), 4, 0, 0)
    for _ in range(2):
        assert await world.ask(DropEvents(SESSION, 3, NOW_MS)) == EventsLeft(2)
    assert (await world.ask(READ)).events == everything[2:]
    assert await world.ask(DropEvents(SESSION, 1, NOW_MS)) == EventsLeft(2)


async def test_it_outlives_the_session(world: World) -> None:
    """What waits is told after the session's end; then nothing is left of the queue."""
    await begin(world)
    await world.do(EndSession(SESSION, "a", LATER))
    assert await world.ask(EndSession(SESSION, "a", LATER)) == NoSession()
    assert await types(world) == ["session.ended"]
    assert await world.ask(DropEvents(SESSION, 2, LATER)) == EventsLeft(0)
    assert await world.do(READ, DropEvents(SESSION, 2, LATER)) == [EventsRead(), EventsLeft(0)]
    # Nothing is left, because a session with its id is numbered from 1 again.
    await world.do(create(nonce="again", events_max=MAX))
    assert [n for n, *_ in await told(world)] == [1]


async def test_an_empty_queue_of_a_living_session(world: World) -> None:
    """An empty queue goes with its session, and not before: its numbers go on."""
    await begin(world)
    assert await told(world) == []
    await world.do(Detach(SESSION, "client", "a", 1, NOW_MS))
    assert [n for n, *_ in await told(world)] == [2]
    await world.do(DropEvents(SESSION, 2, NOW_MS), claim_side(events_max=0))
    ended = await world.ask(EndSession(SESSION, "a", LATER))
    assert ended.events == 0
    await world.do(create(nonce="again", events_max=MAX))
    assert [n for n, *_ in await told(world)] == [1]


async def test_begins_anew(world: World) -> None:
    """A session with the id of one that has ended tells what that one left, and its numbers go on."""
    await begin(world)
    await world.do(EndSession(SESSION, "a", LATER), create(nonce="again", events_max=MAX))
    assert [(n, kind) for n, kind, *_ in await told(world)] == [(2, "session.ended"), (3, "session.started")]
    await world.do(DropEvents(SESSION, 3, LATER), Detach(SESSION, "client", "a", 1, LATER))
    assert [(n, kind) for n, kind, *_ in await told(world)] == [(4, "session.away")]


async def test_switched_off_and_on(world: World) -> None:
    """A claim says whether the session is told from then on; what waits stays, also beyond the end."""
    await begin(world)
    await world.do(Detach(SESSION, "client", "a", 1, NOW_MS), claim_client(events_max=0))
    await world.do(Detach(SESSION, "client", "b", 2, NOW_MS), claim_side(events_max=0))
    assert (await look(world)).head.events_max == 0
    assert await types(world) == ["session.away"]
    assert claimed(await world.ask(claim_side(nonce="on", events_max=3))).head.events_max == 3
    await world.do(AcceptSession(SESSION, "b", 2, NOW_MS), claim_client("t2", "t3", nonce="off", events_max=0))
    ended = await world.ask(EndSession(SESSION, "a", LATER))
    assert (ended.events, ended.head.events) == (2, 3)
    assert await types(world) == ["session.away", "session.paired"]


async def test_switched_on_late(world: World) -> None:
    """A session that was not told before knows its worker: the next one is a reassignment."""
    await world.do(create(), claim_side(), AcceptSession(SESSION, "b", 1))
    await world.do(
        claim_client(events_max=MAX),
        claim_side("w_2", nonce="2", events_max=MAX),
        AcceptSession(SESSION, "b", 2, LATER),
    )
    assert await told(world) == [(1, "session.reassigned", LATER, {"worker": "w_2", "previous": "w_1"})]


async def test_other_events(world: World) -> None:
    """An event without a step of its own is told once for its nonce, and not without a session."""
    tell = TellEvent(SESSION, "n1", "app.message", {"text": "hé", "count": 2}, MAX, LATER)
    assert await world.ask(tell) == Done()
    assert await world.ask(READ) == EventsRead()
    await begin(world, events_max=0)
    for op in (tell, replace(tell, nonce="n2", type="app.other"), tell):
        assert await world.ask(op) == Done()
    assert await told(world) == [
        (1, "app.message", LATER, {"text": "hé", "count": 2}),
        (2, "app.other", LATER, {"text": "hé", "count": 2}),
    ]
    await world.do(replace(tell, nonce="n3", events_max=0))
    assert len(await told(world)) == 2


# --- a store that has lost something ----------------------------------------------------------------------------------


async def test_given_back(world: World) -> None:
    """A session that is given back goes on telling, and no number is given twice."""
    await world.do(create(events_max=MAX), claim_side(events_max=MAX), AcceptSession(SESSION, "b", 1))
    known = (await look(world)).head
    assert (known.events, known.events_max) == (2, MAX)
    await world.do(EndSession(SESSION, "a", LATER), DropEvents(SESSION, 9, LATER))
    back = await world.ask(reseed(replace(known, events=7)))
    assert (back.events, back.events_max) == (7, MAX)
    assert await types(world) == []
    await world.do(claim_side("w_2", nonce="2", events_max=MAX), AcceptSession(SESSION, "b", 2, LATER))
    assert await told(world) == [(8, "session.reassigned", LATER, {"worker": "w_2", "previous": "w_1"})]


async def test_numbers_are_raised(world: World) -> None:
    """A store that has lost the newest events does not give their numbers again; what it kept is told, with a gap behind it."""
    await begin(world)
    await world.do(Detach(SESSION, "client", "a", 1, NOW_MS))
    known = (await look(world)).head
    back = await world.ask(reseed(replace(known, events=9, events_max=3)))
    assert (back.events, back.events_max) == (9, MAX)
    await world.do(claim_client(events_max=MAX))
    assert [n for n, *_ in await told(world)] == [2, 10]
    assert (await world.ask(reseed(replace(known, events=4)))).events == 10


async def test_how_the_last_claim_was_asked_for(world: World) -> None:
    """A claim from before the one that a node gave back is late, by its time or by its count, as before the loss."""
    known = replace((await lost(world)), client_epoch=2, client_node="a")
    tokens = token("t2"), token("t1")
    await world.do(reseed(known, tokens=tokens, asked_ms=LATER, attempt=3))
    early = claim_client("t1", "x", nonce="early", now_ms=LATER - 1)
    given_up = claim_client("t1", "x", nonce="given up", now_ms=LATER + 1, attempt=2)
    assert [(await world.ask(op)).reason for op in (early, given_up)] == ["late", "late"]
    assert claimed(await world.ask(claim_client("t1", "t3", nonce="next", now_ms=LATER + 1, attempt=4))).epoch == 3


async def test_a_claim_is_not_given_back_over_another(world: World) -> None:
    """What the store knows of the last claim is not replaced, and a node that does not know it gives none back."""
    known = replace((await lost(world)), client_epoch=2, client_node="a")
    tokens = token("t2"), token("t1")
    await world.do(reseed(known, tokens=tokens))
    assert claimed(await world.ask(claim_client("t2", "t3", nonce="2", now_ms=LATER))).epoch == 3
    await world.do(
        reseed(replace(known, client_epoch=3, client_node="b"), node="b", tokens=tokens, asked_ms=NOW_MS, attempt=9)
    )
    assert (await world.ask(claim_client("t3", "t4", nonce="3", now_ms=LATER - 1))).reason == "late"


async def lost(world: World) -> Head:
    """The store has lost a session; return its head."""
    await world.do(create())
    known = (await look(world)).head
    await world.do(EndSession(SESSION, "a"))
    assert isinstance(known, Head)
    return known
