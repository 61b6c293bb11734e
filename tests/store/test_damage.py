"""Kept values that are damaged: one session or worker is hurt, said once, and no other notices."""

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import structs
from redis import Redis

from signald.core.blobs import LATE_MS
from signald.core.callers import ALL
from signald.core.head import Head
from signald.store import damage
from signald.store.base import Behind, Done, Op, Refused, Store
from signald.store.damage import Reports, seal, unseal
from signald.store.redis import open_redis
from signald.store.registry.agenda.ops import AgendaRead, ListAgenda, ReadAgenda, Schedule, Settle, TakeDue
from signald.store.registry.ops import (
    Enqueued,
    GetReceipt,
    KeepAlive,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListWaiting,
    ListWorkers,
    PutReceipt,
    Release,
    RemoveWorker,
    Reserve,
    Sessions,
    TakePace,
    UpdateWorker,
    WorkerClaimed,
    WorkerSessions,
)
from signald.store.registry.queues.ops import CLUSTER, DropQueue, ReadQueue, TellCluster
from signald.store.session.events.ops import DropEvents, EventsLeft, EventsRead, ReadEvents, TellEvent
from signald.store.session.jobs.ops import JobGone, ReadJob, TakeJobs
from signald.store.session.ops import (
    AcceptSession,
    Appended,
    Claimed,
    Detach,
    Ended,
    EndSession,
    ExpireSession,
    Look,
    Looked,
    Mark,
    NoSession,
    ReadHistory,
    ReadTrail,
)
from signald.store.session.streams.ops import CancelStream, NoStream, OpenStreams, Streams
from signald.store.shelf.ops import (
    BlobBegun,
    BlobInProgress,
    BlobKept,
    BlobRead,
    ForgetBlobs,
    NoBlob,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    ShelfFull,
    ShelfSwept,
    SweepShelf,
)
from signald.store.sqlite import open_sqlite
from tests.store.ops import (
    BLOB,
    KEEP_MS,
    LEASE_MS,
    NOW_MS,
    SESSION,
    SHELF,
    TTL_MS,
    WORKER,
    ack,
    append,
    begin_blob,
    claim_client,
    claim_named,
    claim_side,
    claim_worker,
    create,
    create_job,
    enqueue,
    entries,
    finish_blob,
    head,
    piece,
    put_node,
    register,
    reseed,
    reseed_worker,
    token,
)
from tests.store.scenes import said

pytestmark = pytest.mark.real

OTHER = "s_2"
OTHER_WORKER = "w_2"

Wound = Callable[[bytes], object]


class Damaged:
    """A store that holds two sessions and two workers, and a way to damage what it keeps of the first of each."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    @asynccontextmanager
    async def open(self, node: str = "a") -> AsyncIterator[Store]:
        """Open it for `node`."""
        if self.kind == "redis":
            async with open_redis(self.url, node) as redis:
                yield redis
        else:
            async with open_sqlite(self.url, node, ack="process", poll_interval_s=0.01) as sqlite:
                yield sqlite

    def hit(self, what: str, wound: Wound) -> None:
        """Damage every value that is kept of `what`."""
        (self._hit_redis if self.kind == "redis" else self._hit_sqlite)(what, wound)

    def _hit_sqlite(self, what: str, wound: Wound) -> None:
        table, column, where = {
            "record": ("session", "record", f"session = '{SESSION}'"),
            "jobs": ("jobs", "record", f"session = '{SESSION}'"),
            "job": ("job", "record", f"session = '{SESSION}' AND n = 1"),
            "input": ("job_input", "data", f"session = '{SESSION}' AND n = 1"),
            "message": ("entry", "body", f"session = '{SESSION}' AND seq = 2"),
            "history": ("history", "body", f"session = '{SESSION}' AND number = 1"),
            "worker": ("worker", "record", f"id = '{WORKER}'"),
            "node": ("node", "info", "id = 'b'"),
            "place": ("place", "want", f"session = '{SESSION}'"),
            "stream": ("stream", "record", f"session = '{SESSION}'"),
            "piece": ("history", "body", f"session = '{SESSION}' AND number = 4"),
            "pace": ("fact", "value", "name = 'pace'"),
            "blob": ("blob", "record", f"blob = '{BLOB}'"),
            "item": ("agenda", "record", f"name = '{WORKER}'"),
            "queue of a worker": ("event_queue", "record", f"name = '{WORKER}'"),
            "queue": ("queue", "record", f"name = '{SESSION}'"),
            "event": ("event", "event", f"name = '{SESSION}' AND n = 2"),
        }[what]
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:"), isolation_level=None)) as sql:
            found = sql.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchall()
            assert found, "there is something to damage"
            for (value,) in found:
                sql.execute(f"UPDATE {table} SET {column} = ? WHERE {where} AND {column} = ?", (wound(value), value))

    def _hit_redis(self, what: str, wound: Wound) -> None:
        key = f"signald:{{{SESSION}}}"
        registry = "signald:{signald}:"
        with Redis.from_url(self.url) as redis:
            if field := {"jobs": "h", "job": "j1", "input": "i1"}.get(what):
                value = redis.hget(key + ":jobs", field)
                assert value is not None
                redis.hset(key + ":jobs", field, wound(value))
                return
            if what == "blob":
                shelf = f"signald:{{{SHELF}}}"
                redis.hset(shelf, "i" + BLOB, wound(redis.hget(shelf, "i" + BLOB) or b""))
                return
            if field := {"queue": "h", "event": "2"}.get(what):
                value = redis.hget(key + ":events", field)
                assert value is not None
                redis.hset(key + ":events", field, wound(value))
                return
            if what == "stream":
                for field, value in redis.hgetall(key + ":streams").items():
                    redis.hset(key + ":streams", field, wound(value))
                return
            if what in ("record", "message", "history", "piece"):
                if what == "record":
                    for field, value in redis.hgetall(key).items():
                        redis.hset(key, field, wound(value))
                elif what in ("history", "piece"):
                    place = 1 if what == "history" else 4
                    redis.lset(key + ":history", place, wound(redis.lindex(key + ":history", place)))
                else:
                    kept = redis.xrange(key + ":up")
                    redis.delete(key + ":up")
                    for name, fields in kept:
                        ((field, body),) = fields.items()
                        redis.xadd(key + ":up", {field: wound(body) if name == b"2-0" else body}, name)
                return
            name, field = {
                "worker": ("workers", WORKER),
                "node": ("nodes", "b"),
                "place": ("line", SESSION),
                "pace": ("misc", "pace_level"),
                "item": ("agenda", "e" + WORKER),
                "queue of a worker": ("event_queues", WORKER),
            }[what]
            value = redis.hget(registry + name, field)
            assert value is not None
            redis.hset(registry + name, field, wound(value))


@pytest.fixture(params=["sqlite", "redis"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Damaged:
    """An empty store of each kind that can be damaged."""
    reports = Reports()
    modules = (
        "sqlite",
        "sqlite_rows",
        "sqlite_jobs",
        "sqlite_events",
        "sqlite_agenda",
        "sqlite_shelves",
        "redis_codecs",
    )
    of_session = "session.replies", "session.jobs.replies", "session.events.replies"
    of_registry = "registry.replies", "registry.agenda.replies", "registry.queues.replies"
    for module in (*modules, *of_session, *of_registry, "shelf.replies"):
        monkeypatch.setattr(f"signald.store.{module}.REPORTS", reports)
    if request.param == "sqlite":
        return Damaged("sqlite", f"sqlite:{tmp_path / 'damaged.db'}")
    url: str = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as redis:
        redis.flushall()
    return Damaged("redis", url)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as lines:
        yield lines


FILL: list[Op] = [
    create(),
    create(OTHER),
    register(),
    register(OTHER_WORKER, nonce="other"),
    put_node("a"),
    put_node("b"),
    enqueue(),
    enqueue(OTHER),
    claim_side(),
    claim_side(OTHER_WORKER, session=OTHER, nonce="other"),
    append(entries(1, 3, history=True)),
    append(entries(1, 3, history=True), session=OTHER),
    TakePace(5, 10.0, NOW_MS),
]

WOUNDS: dict[str, Wound] = {
    "cut short": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "of another kind": lambda _: b"\x93\xa1x\xff\xc1",
    "one bit": lambda data: bytes([data[0] ^ 0x80, *data[1:]]) if data else b"\x80",
    "longer": lambda data: data + b"}\xff",
}


async def ask(store: Store, *ops: Op) -> list[Any]:
    """Execute a batch."""
    return list(await store.execute(ops))


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_record_hurts_its_session_only(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """Whatever is asked of it is answered; another session in the same batch gets its results; it is said once."""
    async with damaged.open() as store:
        await ask(store, *FILL)
    damaged.hit("record", WOUNDS[wound])
    async with damaged.open() as store:
        for attempt in range(2):
            results = await ask(
                store,
                append(entries(4 + attempt, 4 + attempt), session=OTHER),
                append(entries(4, 4)),
                ack(2),
                Look(SESSION, "worker", 0, 9),
                claim_client(node="a"),
                Look(OTHER, "worker", 3, 9),
            )
            assert results[0] == Appended(4 + attempt, 0, "b")
            assert isinstance(results[1], Behind)
            assert isinstance(results[2], Behind)
            assert isinstance(results[3], Behind)
            assert isinstance(results[4], Refused)
            assert results[4].reason in ("unreadable", "unknown", "principal")
            assert [entry.seq for entry in results[5].entries] == list(range(4, 5 + attempt))
    told = [line for line in logged if line["event"] == "record_unreadable"]
    assert [(line["of"], line["what"], line["log_level"]) for line in told] == [(SESSION, "record", "error")]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_record_can_be_given_back(damaged: Damaged, wound: str) -> None:
    """`Reseed` begins it anew from what the node knows, tokens and tail included, though a record that is absent stays so."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("record", WOUNDS[wound])
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1, up_last=3)
        (given,) = await ask(store, reseed(known, tokens=(token("t1"),), up_tail=entries(2, 3), create=False))
        assert isinstance(given, Head)
        assert (given.up_last, given.client_node, given.client_epoch) == (3, "a", 1)
        (looked,) = await ask(store, Look(SESSION, "worker", 1, 9))
        assert [entry.seq for entry in looked.entries] == [2, 3]
        assert await ask(store, append(entries(4, 4))) == [Appended(4, 0, "")]
        (claimed,) = await ask(store, claim_client(received=0, acked=4))
        assert (claimed.epoch, claimed.lost_up) == (2, None)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_record_can_be_ended(damaged: Damaged, wound: str) -> None:
    """It does not expire by unreadable values; ended, nothing is left of it, and its id could be used again."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("record", WOUNDS[wound])
        expired, ended = await ask(
            store, ExpireSession(SESSION, "a", ("a", "b"), NOW_MS, TTL_MS), EndSession(SESSION, "a")
        )
        assert isinstance(expired, Behind)
        assert isinstance(ended, NoSession)
        missing, history, again = await ask(
            store, Look(SESSION, "client", 0, 9), ReadHistory(SESSION, 9), create(nonce="again")
        )
        assert (missing, history) == (NoSession(), NoSession())
        assert isinstance(again, Head)


@pytest.mark.parametrize("wound", [name for name in WOUNDS if name != "longer"])
async def test_a_damaged_job_is_none(damaged: Damaged, wound: str) -> None:
    """A job that cannot be read is gone; the other jobs of its session, and the session itself, are as before."""
    async with damaged.open() as store:
        await ask(store, *FILL, create_job(), create_job(key=b"other"))
        damaged.hit("job", WOUNDS[wound])
        first, second, taken = await ask(
            store,
            ReadJob(SESSION, 1, ALL, "a", NOW_MS),
            ReadJob(SESSION, 2, ALL, "a", NOW_MS),
            TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS),
        )
        assert (first, second.job.state, [job.n for job, _ in taken.given]) == (JobGone(), "queued", [2])
        again, ended = await ask(store, create_job(nonce="again", in_flight_max=2), EndSession(SESSION, "a", NOW_MS))
        assert (again.job.n, ended.head.session) == (3, SESSION)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_damaged_jobs_hurt_their_session_in_nothing_else(damaged: Damaged, wound: str) -> None:
    """Where the record of all jobs cannot be read, they are lost; claims, appends and the end of the session are as ever."""
    async with damaged.open() as store:
        await ask(store, *FILL, create_job(), create_job(key=b"other"))
        damaged.hit("jobs", WOUNDS[wound])
        claimed, appended, read = await ask(
            store,
            claim_side("w_3", nonce="third"),
            append(entries(4, 4)),
            ReadJob(SESSION, 1, ALL, "a", NOW_MS),
        )
        assert (claimed.epoch, appended) == (2, Appended(4, 0, "b"))
        assert isinstance(read, JobGone) or wound == "longer"
        again, ended = await ask(store, create_job(key=b"new", nonce="again"), EndSession(SESSION, "a", NOW_MS))
        assert (again.job.n > 2, ended.head.session) == (True, SESSION)


UNTIL_MS = NOW_MS + KEEP_MS
KEY = token("key")


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_blob_is_none(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """A blob whose record cannot be read is unknown, which is said once; its key is free, and all others of its shelf are as before."""
    async with damaged.open() as store:
        await ask(store, begin_blob(key=KEY), finish_blob(), begin_blob("b_2", key=token("other")), finish_blob("b_2"))
        damaged.hit("blob", WOUNDS[wound])
        read, other, removed, replayed, begun = await ask(
            store,
            ReadBlob(SHELF, BLOB, NOW_MS),
            ReadBlob(SHELF, "b_2", NOW_MS),
            RemoveBlob(SHELF, BLOB, NOW_MS),
            begin_blob("b_3", nonce="again", key=token("other")),
            begin_blob("b_4", nonce="again", key=KEY),
        )
        assert (read, other.blob.id, removed, replayed, begun) == (
            NoBlob(), "b_2", NoBlob(), BlobKept(other.blob), BlobBegun(),
        )  # fmt: skip
        assert await ask(store, begin_blob("b_5", nonce="third", key=KEY)) == [BlobInProgress(LEASE_MS)]
        assert await ask(store, ReadBlob(SHELF, BLOB, NOW_MS), ReadBlob(SHELF, "b_2", NOW_MS)) == [NoBlob(), other]
    told = [(line["of"], line["what"]) for line in logged if line["event"] == "record_unreadable"]
    assert told == [(BLOB, "blob")]


@pytest.mark.parametrize("wound", WOUNDS)
@pytest.mark.parametrize("life", ["uploading", "kept", "doomed"])
async def test_a_damaged_blob_is_swept_at_its_time(damaged: Damaged, life: str, wound: str) -> None:
    """Its bytes are deleted when those of a whole record would be; it counts until then, and nothing of it is left."""
    begun: list[Op] = [begin_blob(reserved=60)]
    kept: list[Op] = [finish_blob(until_ms=UNTIL_MS)]
    async with damaged.open() as store:
        await ask(store, *begun, *(kept if life != "uploading" else []))
        if life == "doomed":
            await ask(store, RemoveBlob(SHELF, BLOB, NOW_MS))
        damaged.hit("blob", WOUNDS[wound])
        (full,) = await ask(store, begin_blob("b_2", reserved=941))
        assert isinstance(full, ShelfFull)
        assert full.bytes == 60
        due_ms = {"uploading": NOW_MS + LEASE_MS + LATE_MS, "kept": UNTIL_MS, "doomed": NOW_MS}[life]
        if life != "doomed":
            assert await ask(store, SweepShelf(SHELF, due_ms - 1, 9)) == [ShelfSwept((), due_ms)]
            assert await ask(store, ForgetBlobs(SHELF, (BLOB,), NOW_MS)) == [ShelfSwept((), due_ms)]
        assert await ask(store, SweepShelf(SHELF, due_ms, 9)) == [ShelfSwept((BLOB,), 0)]
        assert await ask(store, ForgetBlobs(SHELF, (BLOB,), due_ms)) == [ShelfSwept((), 0)]
        begun_anew, _, read = await ask(store, begin_blob(reserved=1000), finish_blob(), ReadBlob(SHELF, BLOB, NOW_MS))
        assert (begun_anew, type(read)) == (BlobBegun(), BlobRead)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_upload_ends(damaged: Damaged, wound: str) -> None:
    """An upload whose record cannot be read is neither renewed nor kept."""
    async with damaged.open() as store:
        await ask(store, begin_blob(), begin_blob("b_2"))
        damaged.hit("blob", WOUNDS[wound])
        renewed, finished, other = await ask(
            store, RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS), finish_blob(), finish_blob("b_2")
        )
        assert (renewed, finished, type(other)) == (NoBlob(), NoBlob(), BlobKept)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_input_is_told(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """A job whose input cannot be read is handed out as such, and reported."""
    async with damaged.open() as store:
        await ask(store, *FILL, create_job())
        damaged.hit("input", WOUNDS[wound])
        (taken,) = await ask(store, TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS))
        assert [(job.n, data) for job, data in taken.given] == [(1, None)]
    assert [line["what"] for line in logged if line["event"] == "record_unreadable"] == ["input of a job"]


TOLD: list[Op] = [
    create(events_max=9),
    create(OTHER, events_max=9),
    claim_side(events_max=9),
    AcceptSession(SESSION, "b", 1, NOW_MS),
    Detach(SESSION, "client", "a", 1, NOW_MS),
]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_event_is_left_out(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """Those around it are told; it is said once, and dropped with what was looked at, also when nothing else was."""
    async with damaged.open() as store:
        await ask(store, *TOLD)
        damaged.hit("event", WOUNDS[wound])
        for _ in range(2):
            everything, *_, first = await ask(
                store, ReadEvents(SESSION, 9), ReadEvents(OTHER, 9), ReadEvents(SESSION, 1)
            )
            assert ([event.n for event in everything.events], everything.waiting, everything.upto) == ([1, 3], 3, 3)
            assert ([event.n for event in first.events], first.upto) == ([1], 1)
        left, alone = await ask(store, DropEvents(SESSION, 1, NOW_MS), ReadEvents(SESSION, 1))
        assert (left, alone) == (EventsLeft(2), EventsRead((), 2, 0, 2))
        left, *_, last = await ask(store, DropEvents(SESSION, alone.upto, NOW_MS), ReadEvents(SESSION, 9))
        assert (left, [event.n for event in last.events]) == (EventsLeft(1), [3])
    assert [line["what"] for line in logged if line["event"] == "record_unreadable"] == ["event"]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_queue_is_none(damaged: Damaged, wound: str) -> None:
    """What waits in it is lost; its session and every other go on, and no number is given twice."""
    async with damaged.open() as store:
        await ask(store, *TOLD)
        damaged.hit("queue", WOUNDS[wound])
        read, other, claimed = await ask(
            store, ReadEvents(SESSION, 9), ReadEvents(OTHER, 9), claim_client(events_max=9)
        )
        assert (read, other.waiting, claimed.epoch) == (EventsRead(), 1, 2)
        _, read = await ask(store, Detach(SESSION, "client", "b", 2, NOW_MS), ReadEvents(SESSION, 9))
        assert [(event.n, event.type) for event in read.events] == [(4, "session.away")]
        damaged.hit("queue", WOUNDS[wound])
        ended, read, left = await ask(
            store, EndSession(SESSION, "a", NOW_MS), ReadEvents(SESSION, 9), DropEvents(SESSION, 5, NOW_MS)
        )
        assert (ended.events, [(event.n, event.type) for event in read.events]) == (1, [(5, "session.ended")])
        assert left == EventsLeft(0)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_queue_of_a_session_that_has_ended(damaged: Damaged, wound: str) -> None:
    """It goes with the first step that meets it."""
    async with damaged.open() as store:
        await ask(store, *TOLD, EndSession(SESSION, "a", NOW_MS))
        damaged.hit("queue", WOUNDS[wound])
        assert await ask(store, ReadEvents(SESSION, 9), DropEvents(SESSION, 0, NOW_MS)) == [EventsRead(), EventsLeft(0)]
        _, read = await ask(store, create(nonce="again", events_max=9), ReadEvents(SESSION, 9))
        assert [event.n for event in read.events] == [1]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_the_end_of_a_damaged_record_is_told(damaged: Damaged, wound: str) -> None:
    """Its queue knows that the session is told, and keeps what waits."""
    async with damaged.open() as store:
        await ask(store, *TOLD)
        damaged.hit("record", WOUNDS[wound])
        ended, read = await ask(store, EndSession(SESSION, "a", NOW_MS + 5, reason="r"), ReadEvents(SESSION, 9))
        assert ended == NoSession()
        last = read.events[-1]
        assert (len(read.events), last.n, last.type, last.at_ms) == (4, 4, "session.ended", NOW_MS + 5)
        assert last.fields["reason"] == "r"


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_message_is_a_hole(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """It is never handed out, those around it are, and it is said once."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("message", WOUNDS[wound])
        for _ in range(2):
            before, behind, only = await ask(
                store, Look(SESSION, "worker", 0, 9), Look(SESSION, "worker", 1, 9), Look(SESSION, "worker", 1, 1)
            )
            assert before.entries == entries(1, 1, history=True)
            assert behind.entries == entries(3, 3, history=True)
            assert only.entries == entries(3, 3, history=True) or only.unreadable_to == 2
    told = [line["what"] for line in logged if line["event"] == "record_unreadable"]
    assert told == ["message"]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_message_of_the_chat_history_is_left_out(damaged: Damaged, wound: str) -> None:
    """The others are shown, and what is added later drives the oldest out as always."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("history", WOUNDS[wound])
        (shown,) = await ask(store, ReadHistory(SESSION, 9))
        assert said(shown) == [("client", b"tm1"), ("client", b"tm3")]
        await ask(store, append(entries(4, 5, history=True), history_max=3))
        (shown,) = await ask(store, ReadHistory(SESSION, 9))
        assert said(shown)[-3:] == [("client", b"tm%d" % seq) for seq in (3, 4, 5)]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_stream_counts_as_none(damaged: Damaged, wound: str) -> None:
    """Its session goes on, and its next piece begins it anew; the pieces in the chat history are none of its record."""
    async with damaged.open() as store:
        await ask(store, *FILL, append((piece(1, "x"), piece(2, "y", end="complete")), party="worker"))
        damaged.hit("stream", WOUNDS[wound])
        read, cancelled, said_again, shown = await ask(
            store, OpenStreams(SESSION), CancelStream(SESSION, "down", "a", "", ALL, "a"),
            append((piece(3, "z", attempt=2),), party="worker"), ReadHistory(SESSION, 9),
        )  # fmt: skip
        assert (read, cancelled) == (Streams(()), NoStream())
        assert said_again == Appended(3, 0, "a")
        assert (shown.entries[-1].data, shown.entries[-1].attempt) == (b"z", 2)
        (ended,) = await ask(store, EndSession(SESSION, "a"))
        assert [one.stream for one in ended.streams] == ["a"]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_piece_cuts_its_text(damaged: Damaged, wound: str) -> None:
    """The text is shown from behind the piece that cannot be read, as truncated."""
    async with damaged.open() as store:
        await ask(store, *FILL, append((piece(1, "x"), piece(2, "y"), piece(3, "z")), party="worker"))
        damaged.hit("piece", WOUNDS[wound])
        (shown,) = await ask(store, ReadHistory(SESSION, 9))
        assert (shown.entries[-1].data, shown.entries[-1].truncated) == (b"z", True)
        assert len(shown.entries) == 4


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_worker_hurts_itself_only(damaged: Damaged, wound: str, logged: list[Any]) -> None:
    """It is listed no more and gets no session; its node is told that the registry knows too little, and gives it back."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("worker", WOUNDS[wound])
        update, listed, claimed, held, other, again = await ask(
            store,
            UpdateWorker(WORKER, 1, 3, False),
            ListWorkers(),
            claim_worker(),
            Reserve("a", ((SESSION, WORKER), (OTHER, OTHER_WORKER))),
            UpdateWorker(OTHER_WORKER, 1, 3, False),
            register(nonce="again"),
        )
        assert (update, claimed, other, again) == (Behind(0), Refused("unreadable"), Done(), Refused("exists"))
        assert [worker.id for worker in listed.workers] == [OTHER_WORKER]
        assert held.held == (False, True)
        given, update, claimed, listed = await ask(
            store,
            reseed_worker(tokens=(token("w1"),), sessions=(SESSION,)),
            UpdateWorker(WORKER, 1, 3, False),
            claim_worker(),
            ListWorkers(),
        )
        assert (given, update) == (Done(), Done())
        assert claimed == WorkerClaimed(2, (SESSION,), "b")
        assert [worker.id for worker in listed.workers] == [WORKER, OTHER_WORKER]
    told = [(line["of"], line["what"]) for line in logged if line["event"] == "record_unreadable"]
    assert told in ([(WORKER, "worker")], [])


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_worker_can_be_removed(damaged: Damaged, wound: str) -> None:
    """Its sessions wait again, and a session that is queued does not count as still being with it."""
    async with damaged.open() as store:
        await ask(store, *FILL, Reserve("a", ((SESSION, WORKER), (OTHER, WORKER))))
        damaged.hit("worker", WOUNDS[wound])
        queued, removed, of_it, waiting = await ask(
            store, enqueue(OTHER), RemoveWorker(WORKER, "a", 1, True), WorkerSessions(WORKER), ListWaiting(9)
        )
        assert (queued, removed, of_it) == (Enqueued(""), Sessions((SESSION,)), Sessions(()))
        assert [one.session for one in waiting.sessions] == [SESSION, OTHER]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_node_is_left_out(damaged: Damaged, wound: str) -> None:
    """The others are live as before, and it is back with its next lease."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("node", WOUNDS[wound])
        listed, _, later = await ask(store, ListNodes(NOW_MS), put_node("b"), ListNodes(NOW_MS))
        assert [node.id for node in listed.nodes] == ["a"]
        assert [node.id for node in later.nodes] == ["a", "b"]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_place_in_the_line_is_left_out(damaged: Damaged, wound: str) -> None:
    """Others are matched, and a session that queues again is there again."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("place", WOUNDS[wound])
        waiting, _, _, later = await ask(
            store, ListWaiting(9), Release(SESSION, WORKER, True), enqueue(), ListWaiting(9)
        )
        assert [one.session for one in waiting.sessions] == [OTHER]
        assert [one.session for one in later.sessions] == [SESSION, OTHER]


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_pace_begins_anew(damaged: Damaged, wound: str) -> None:
    """A drain does not wait for a session whose values are unreadable."""
    async with damaged.open() as store:
        await ask(store, *FILL)
        damaged.hit("pace", WOUNDS[wound])
        (paced,) = await ask(store, TakePace(1, 10.0, NOW_MS))
        assert 0 <= paced.wait_ms <= 1000


OF_QUEUES: list[Op] = [
    structs.replace(register(), events_max=9),
    structs.replace(register(OTHER_WORKER, nonce="other"), events_max=9, now_ms=NOW_MS + 1),
]


@pytest.mark.parametrize("wound", [one for one in WOUNDS if one != "longer"])
@pytest.mark.parametrize("held", [True, False])
async def test_a_damaged_item_of_the_agenda_is_due(damaged: Damaged, wound: str, held: bool, logged: list[Any]) -> None:
    """It is not lost: a node takes it when it was due, or its lease over, and it leaves nothing behind. Others are untouched."""
    async with damaged.open() as store:
        await ask(store, *OF_QUEUES)
        tickets = []
        if held:
            (due,) = await ask(store, TakeDue("e", "a", "one", NOW_MS, 500, 1))
            tickets = [item.ticket for item in due.items]
        damaged.hit("item", WOUNDS[wound])
        await ask(store, *[Settle("e", WORKER, ticket, 0, 0, 0, NOW_MS) for ticket in tickets])
        later_ms = NOW_MS + 500
        await ask(store, Schedule("e", (OTHER_WORKER,), later_ms, later_ms), ListAgenda("e", "", 9))
        (due,) = await ask(store, TakeDue("e", "a", "two", later_ms, 500, 9))
        assert sorted(item.name for item in due.items) == [WORKER, OTHER_WORKER]
        assert "agenda item" in {line["what"] for line in logged}
        settled = [Settle("e", item.name, item.ticket, 0, 0, 0, later_ms) for item in due.items]
        far_ms = later_ms + 10**9
        *_, sums, due = await ask(store, *settled, ReadAgenda("e", far_ms), TakeDue("e", "a", "three", far_ms, 500, 9))
        assert (sums, due.items) == (AgendaRead(0, 0, 0, 0), ())


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_item_that_fails_is_no_failure(damaged: Damaged, wound: str) -> None:
    """What an item has forgotten is not counted for ever: the sums are right when it has been taken."""
    async with damaged.open() as store:
        await ask(store, *OF_QUEUES[:1])
        (due,) = await ask(store, TakeDue("e", "a", "one", NOW_MS, 500, 1))
        await ask(store, Settle("e", WORKER, due.items[0].ticket, NOW_MS + 50, 3, NOW_MS, NOW_MS))
        damaged.hit("item", WOUNDS[wound])
        (due,) = await ask(store, TakeDue("e", "a", "two", NOW_MS + 50, 500, 1))
        (item,) = due.items
        settle = Settle("e", WORKER, item.ticket, 0, 0, 0, NOW_MS + 60)
        assert (await ask(store, settle, TakeDue("e", "a", "x", NOW_MS, 500, 1), ReadAgenda("e", NOW_MS)))[-1] == (
            AgendaRead(0, 0, 0, 0)
        )


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_event_queue_counts_as_none(damaged: Damaged, wound: str) -> None:
    """It keeps no worker from being removed, and the next event begins another one. Other queues are untouched."""
    async with damaged.open() as store:
        await ask(store, *OF_QUEUES)
        damaged.hit("queue of a worker", WOUNDS[wound])
        read, left, other = await ask(store, ReadQueue(WORKER, 9), DropQueue(WORKER, 1), ReadQueue(OTHER_WORKER, 9))
        assert (read, left.waiting, other.waiting) == (EventsRead(), 0, 1)
        removed, read = await ask(
            store, RemoveWorker(WORKER, "a", 0, True, "gone", 9, NOW_MS + 7), ReadQueue(WORKER, 9)
        )
        assert removed == Sessions(())
        assert [(event.n, event.type) for event in read.events] == [(1, "worker.lost")]
        assert await ask(store, DropQueue(WORKER, 1), ReadQueue(WORKER, 9)) == [EventsLeft(0), EventsRead()]


@pytest.mark.parametrize("value", [5, 1.5, "text", b"\xff"])
async def test_values_of_another_type_in_the_agenda(tmp_path: Path, value: object) -> None:
    """A column of SQLite may hold anything: items come when they are due, or at once, and none is lost."""
    url = f"sqlite:{tmp_path / 'types.db'}"
    damaged = Damaged("sqlite", url)
    async with damaged.open() as store:
        await ask(store, *OF_QUEUES)
        with closing(sqlite3.connect(tmp_path / "types.db", isolation_level=None)) as sql:
            for table, column in (
                ("agenda", "record"), ("agenda", "at_ms"), ("agenda", "since_ms"), ("agenda", "nonce"),
                ("event_queue", "record"), ("event_queue", "until_ms"), ("fact", "value"),
            ):  # fmt: skip
                sql.execute(f"UPDATE {table} SET {column} = ?", (value,))
        (_, _, due) = await ask(
            store, ReadAgenda("e", NOW_MS), ListAgenda("e", "", 9), TakeDue("e", "a", "n", NOW_MS, 500, 9)
        )
        assert [item.name for item in due.items] == [WORKER, OTHER_WORKER]
        *_, sums, cluster = await ask(
            store, *[Settle("e", item.name, item.ticket, 0, 0, 0, NOW_MS) for item in due.items],
            ReadAgenda("e", NOW_MS), ReadQueue(WORKER, 9), RemoveWorker(WORKER, "a", 0, True, "", 9, NOW_MS),
            TellCluster("once", "deploy.finished", {}, 9, NOW_MS), ReadAgenda("e", NOW_MS), ReadQueue(CLUSTER, 9),
        )  # fmt: skip
        assert (sums.count, cluster.waiting) == (2, 1)


FIELDS = (
    "said_before",
    "failed",
    "client_epoch",
    "worker_epoch",
    "up_last",
    "down_acked",
    "tokens",
    "client_claims",
    "worker_ids",
    "meta",
    "want",
    "created_ms",
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("wound", [*WOUNDS, "gone"])
async def test_a_single_field_of_a_redis_head(redis_url: str, field: str, wound: str) -> None:
    """However little of it is damaged: no other session is hurt, and once given back this one serves as before."""
    key = f"signald:{{{SESSION}}}"
    async with open_redis(redis_url, "a") as store:
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
            await ask(store, *FILL)
            if wound == "gone":
                redis.hdel(key, field)
            else:
                value = WOUNDS[wound](redis.hget(key, field) or b"")
                assert isinstance(value, bytes)
                redis.hset(key, field, value)
        results = await ask(
            store, claim_client(presented="wrong", nonce="wrong"), append(entries(4, 4)), ack(2), append(entries(4, 4), session=OTHER),
            Look(SESSION, "worker", 0, 9), Look(SESSION, "client", 0, 9), ExpireSession(SESSION, "a", ("a", "b"), NOW_MS, TTL_MS),
        )  # fmt: skip
        assert results[3] == Appended(4, 0, "b")
        assert isinstance(results[0], Refused)
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1, up_last=4)
        given, *_ = await ask(
            store,
            reseed(known, tokens=(token("t1"),), up_tail=entries(1, 4)),
            append(entries(5, 5)),
        )
        assert isinstance(given, Head)
        assert (given.meta, given.want, given.created_ms, given.client_epoch) == (b'{"m":1}', {"lang": "en"}, NOW_MS, 1)
        claimed, looked = await ask(store, claim_client(received=0, acked=5), Look(SESSION, "worker", 4, 9))
        assert (claimed.epoch, claimed.lost_up) == (2, None)
        assert [entry.seq for entry in looked.entries] == [5]


@pytest.mark.parametrize("number", [2**53, 2**63, 10**30])
@pytest.mark.parametrize(
    "field",
    ["client_epoch", "worker_epoch", "up_last", "up_acked", "down_last", "down_acked", "said_before", "workers"],
)
async def test_a_number_that_no_frame_can_carry(redis_url: str, field: str, number: int) -> None:
    """A number above 2^53 - 1 in a head is damage: it reaches no node, and once given back the session serves as before."""
    async with open_redis(redis_url, "a") as store:
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
            await ask(store, *FILL)
            redis.hset(f"signald:{{{SESSION}}}", field, str(number))
        appended, looked = await ask(store, append(entries(4, 4)), Look(SESSION, "worker", 0, 9))
        assert looked == Behind(0)
        assert not isinstance(appended, Appended) or appended.last <= 4
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1, up_last=4)
        given, again = await ask(
            store, reseed(known, tokens=(token("t1"),), up_tail=entries(1, 4)), append(entries(5, 5))
        )
        assert (given.up_last, given.down_last, given.client_epoch, given.worker_epoch) == (4, 0, 1, 1)
        assert again.last == 5


async def test_an_event_queue_of_another_type(redis_url: str) -> None:
    """A key that is no hash any more is none: the session goes on, and tells."""
    async with open_redis(redis_url, "a") as store:
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
            await ask(store, *TOLD)
            for step in (claim_client(events_max=9), EndSession(SESSION, "a", NOW_MS)):
                redis.set(f"signald:{{{SESSION}}}:events", "5")
                read, left, done = await ask(store, ReadEvents(SESSION, 9), DropEvents(SESSION, 0, NOW_MS), step)
                assert (read, left) == (EventsRead(), EventsLeft(0))
                assert isinstance(done, Claimed | Ended)
                redis.set(f"signald:{{{SESSION}}}:events", "5")
                (done,) = await ask(store, TellEvent(SESSION, "n", "app.message", {"a": 1}, 9, NOW_MS))
                assert done == Done()
        (read,) = await ask(store, ReadEvents(SESSION, 9))
        assert read == EventsRead()


@pytest.mark.parametrize("key", ["", ":up", ":down", ":history", ":streams", ":trail"])
async def test_a_redis_key_of_another_type(redis_url: str, key: str) -> None:
    """A key that is no hash, stream or list any more is damage like any other."""
    async with open_redis(redis_url, "a") as store:
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
            await ask(
                store,
                *FILL,
                Mark(SESSION, (b"{}",), 9, 1000, NOW_MS),
                append((*entries(1, 1), piece(2, "x")), party="worker"),
            )
            name = f"signald:{{{SESSION}}}{key}"
            redis.delete(name)
            redis.set(name, "5")
        results = await ask(
            store, append(entries(4, 5, history=True)), append((*entries(3, 3), piece(4, "y")), party="worker"),
            Look(SESSION, "worker", 0, 9), Look(SESSION, "client", 0, 9), ReadHistory(SESSION, 9), ReadTrail(SESSION),
            Mark(SESSION, (b"{}",), 9, 1000, NOW_MS), KeepAlive((SESSION,), NOW_MS), append(entries(4, 4), session=OTHER),
        )  # fmt: skip
        assert results[-1] == Appended(4, 0, "b")
        assert any(isinstance(result, Behind) for result in results) == (key != ":trail")
        known = head(
            worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1, up_last=5, down_last=4
        )
        up, down = entries(3, 5, history=True), (*entries(3, 3), piece(4, "y"))
        await ask(store, reseed(known, up_tail=up, down_tail=down))
        results = await ask(
            store,
            reseed(known, node="b", up_tail=up, down_tail=down),
            append(entries(6, 6, history=True)),
            append((piece(5, "z"),), party="worker"),
            ack(6, epoch=1),
        )
        assert isinstance(results[0], Head)
        assert results[1] == Appended(6, 0, "b")
        assert results[2] == Appended(5, 0, "a")
        assert results[3] == Done()


TYPES: tuple[object, ...] = (5, 1.5, "text", "\udcff".encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("value", TYPES)
async def test_sqlite_values_of_another_type(tmp_path: Path, value: object) -> None:
    """A column may hold anything: every kind of operation is still answered."""
    url = f"sqlite:{tmp_path / 'types.db'}"
    damaged = Damaged("sqlite", url)
    async with damaged.open() as store:
        await ask(store, *FILL, PutReceipt("a", b"{}", NOW_MS), Mark(SESSION, (b"{}",), 9, 1000, NOW_MS))
    for what in ("record", "message", "history", "worker", "node", "place", "pace"):
        damaged.hit(what, lambda _: value)
    with closing(sqlite3.connect(tmp_path / "types.db", isolation_level=None)) as sql:
        for table, column in (
            ("receipt", "body"), ("receipt", "at_ms"), ("step", "step"), ("life", "until_ms"), ("place", "order_ms"), ("place", "worker"),
            ("history", "party"), ("entry", "history"), ("listener", "until_ms"), ("wake", "wake"),
        ):  # fmt: skip
            where = f"WHERE session = '{SESSION}'" if table in ("history", "entry", "step", "life", "place") else ""
            sql.execute(f"UPDATE {table} SET {column} = ? {where}", (value,))
    async with damaged.open() as store:
        results = await ask(
            store, append(entries(4, 4)), Look(SESSION, "worker", 0, 9), ReadHistory(SESSION, 9), ReadTrail(SESSION),
            claim_worker(), claim_named(),
            ListWorkers(), ListNodes(NOW_MS), ListWaiting(9), ListReceipts(), GetReceipt("a"), ListOverdue(NOW_MS, 9),
            enqueue(), WorkerSessions(WORKER), Release(SESSION, WORKER, True), append(entries(4, 4), session=OTHER),
        )  # fmt: skip
        assert results[-1] == Appended(4, 0, "b")
        given, *_ = await ask(store, reseed(head(up_last=3)), put_node("b"), append(entries(4, 4)))
        assert isinstance(given, Head)


async def test_a_look_may_find_damage_alone(damaged: Damaged) -> None:
    """However little a reader asks for at once: it is told how far nothing can be read, and gets what is behind."""
    async with damaged.open() as store:
        await ask(store, *FILL, append(entries(4, 6)))
        damaged.hit("message", WOUNDS["one bit"])
        after, seqs = 1, []
        while after < 6:
            (looked,) = await ask(store, Look(SESSION, "worker", after, 1))
            assert isinstance(looked, Looked)
            seqs += [entry.seq for entry in looked.entries]
            after = looked.entries[-1].seq if looked.entries else looked.unreadable_to
        assert seqs == [3, 4, 5, 6]


def test_every_bit_of_what_is_sealed_counts() -> None:
    """One flipped bit anywhere, a cut, or another place in the log: never taken for what was written."""
    data = random.Random(5).randbytes(60)
    kept = seal(data, 7)
    assert unseal(kept, 7) == data
    assert unseal(kept, 8) is None
    for bit in range(len(kept) * 8):
        hurt = bytearray(kept)
        hurt[bit // 8] ^= 1 << bit % 8
        assert unseal(bytes(hurt), 7) is None
    assert [unseal(kept[:length], 7) for length in range(len(kept))] == [None] * len(kept)


def test_damage_is_reported_once_and_remembered_within_bounds(
    logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bounded-memory: a disk full of damage is told of, and fills neither the log again and again nor the memory."""
    monkeypatch.setattr(damage, "REPORTS_MAX", 3)
    reports = Reports()
    for name in ("s_1", "s_1", "s_2", "s_3", "s_3", "s_4", "s_1"):
        reports.tell("record", name)
    assert [line["of"] for line in logged] == ["s_1", "s_2", "s_3", "s_4", "s_1"]
