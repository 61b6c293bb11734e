"""Any plan of operations has the same answers from every store.

Hypothesis draws a plan in terms of what holds at that moment (`the epoch before the current one`, `two seqs too far`),
so that most of its operations come through and some just fail. The store in memory says what they mean and what the
answers are; then the other store is asked. A batch may be sent twice, at once or later, as after an unknown outcome.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from signald.core.api_keys import LEAD_MS, ApiKey
from signald.core.blobs import LATE_MS
from signald.core.callers import ALL, Access
from signald.core.failures import Failures
from signald.core.head import Party
from signald.core.life import EVENTS_LEFT_MS
from signald.core.log import Entry
from signald.core.rooms import Bounds, Fault, Properties, Publication
from signald.core.streams import Mark
from signald.core.wants import TENANT, offer
from signald.store.base import CLOCK_SET_MS, Op, Result
from signald.store.claims import Side
from signald.store.memory import MemoryRows, MemoryWorld, open_memory
from signald.store.registry.agenda.ops import ListAgenda, Own, ReadAgenda, Schedule, Settle, TakeDue
from signald.store.registry.agenda.records import Kind
from signald.store.registry.ops import (
    ClusterSecret,
    ConfirmWorkerToken,
    CountTrails,
    DetachWorker,
    DropNode,
    Forget,
    GetKeySet,
    GetReceipt,
    Hold,
    Incarnation,
    KeepAlive,
    KeepKeySet,
    Leave,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListRevoked,
    ListSessionsOf,
    ListSuited,
    ListWaiting,
    ListWorkers,
    MendLine,
    Nodes,
    Paced,
    PutReceipt,
    RaiseFormat,
    ReadApiKeys,
    Release,
    RemoveWorker,
    Reserve,
    Revoke,
    Sessions,
    Signal,
    TakePace,
    UpdateWorker,
    UseSealKey,
    WorkerClaimed,
    Workers,
    WorkerSessions,
)
from signald.store.registry.queues.ops import CLUSTER, DropQueue, ReadQueue, TellCluster, TellWorker
from signald.store.room.ops import (
    DropMembers,
    LeaveRoom,
    LookRoom,
    ReadRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    SetPresence,
    SnapshotRoom,
    SweepRoom,
)
from signald.store.room.records import Seat
from signald.store.rows import Wakes
from signald.store.rules import RULES, apply
from signald.store.session.events.ops import DropEvents, ReadEvents, TellEvent
from signald.store.session.jobs.ops import (
    CancelJob,
    JobProgress,
    ListChangedJobs,
    ListJobs,
    ReadJob,
    ReadPieces,
    SweepJobs,
    TakeJobs,
)
from signald.store.session.ops import (
    AcceptSession,
    Ack,
    Append,
    ConfirmToken,
    Detach,
    EndSession,
    ExpireSession,
    HandOn,
    KeepAnswer,
    Look,
    ReadHistory,
    ReadSession,
    ReadTrail,
    RetrySession,
    Unpair,
    UnpairFailed,
)
from signald.store.session.ops import Mark as MarkTrail
from signald.store.session.records import Record
from signald.store.session.streams.ops import CancelStream, CloseStreams, OpenStreams
from signald.store.shelf.ops import AbandonBlob, ForgetBlobs, ReadBlob, RemoveBlob, RenewBlob, SweepShelf
from signald.wire.messages import Message
from signald.wire.records import message_body
from tests.examples import examples
from tests.store import ops
from tests.store.ops import NOW_MS, TTL_MS
from tests.store.worlds import Fresh, Opener, open_world

SESSIONS = ("s_1", "s_2")
SHELVES = ("p_1", "p_2")
ROOMS = ("canvas:1", "user:ann")
WORKERS = ("w_1", "w_2")
PARTIES: tuple[Party, Party] = ("client", "worker")


class Draft(NamedTuple):
    """One operation in terms of what holds when it comes: small numbers that its recipe reads in its own way."""

    recipe: str
    session: int
    worker: int
    node: str
    small: int
    """0 to 4; most recipes are correct at 0."""
    other: int
    """0 to 4."""
    flag: bool


def body(seq: int, mark: Mark) -> bytes:
    """The body of a piece, as the log keeps it."""
    text = None if mark.fold is None else "text"
    data = Raw(b'"' + (mark.fold or b"") + b'"')
    end = {"end": True, "outcome": mark.end} if mark.end else {}
    return message_body(Message(seq, data, stream=mark.stream, attempt=mark.attempt, fold=text, **end), None)  # type: ignore[arg-type]


class Kitchen:
    """Makes operations of drafts, looking at the rows of the model."""

    def __init__(self, rows: MemoryRows) -> None:
        self.rows = rows
        self.now_ms = NOW_MS
        self._number = 0

    def cook(self, draft: Draft) -> Op:
        """Make the operation of `draft`."""
        self._number += 1
        self.now_ms += 7
        recipe: Callable[[Draft], Op] = getattr(self, "_" + draft.recipe)
        return recipe(draft)

    @staticmethod
    def recipes() -> list[str]:
        """Return the name of every recipe."""
        return [name[1:] for name in vars(Kitchen) if name.startswith("_") and not name.startswith(("__", "_of_"))]

    def _of_record(self, draft: Draft) -> Record:
        return self.rows.session(SESSIONS[draft.session]) or Record(
            SESSIONS[draft.session], 0, "ann", {}, b"", False, 0
        )

    def _of_side(self, draft: Draft) -> tuple[Party, Side, str, int]:
        """The party, where it is, and the node and epoch it writes with: right ones, unless `small` is above 2."""
        party = PARTIES[draft.other % 2]
        side = self._of_record(draft).side(party)
        node = draft.node if draft.small == 3 else side.node or draft.node
        epoch = side.epoch + (draft.other - 2 if draft.small == 4 else 0)
        return party, side, node, max(1, epoch)

    def _create(self, draft: Draft) -> Op:
        nonce = "create" if draft.small < 4 else "other"
        return ops.create(
            SESSIONS[draft.session],
            node="" if draft.other == 4 else draft.node,
            nonce=nonce,
            receipts=draft.flag,
            now_ms=self.now_ms,
            pair=draft.worker == 0 or draft.flag,
            events_max=self._of_events_max(draft),
            settings=b'{"tier":%d}' % draft.small if draft.small % 2 else b"",
            rooms=b'{"r":["join"]}' if draft.small == 3 else b"",
            asked_until_ms=self.now_ms * draft.worker,
        )

    def _of_events_max(self, draft: Draft) -> int:
        """A queue that is full at times; at others the session is not told."""
        return (5, 5, 2, 40, 0)[(draft.small + draft.worker) % 5]

    def _of_token(self, epoch: int, small: int) -> str:
        return f"t{max(1, epoch - (0, 0, 0, 1, 2)[small])}"

    def _claim_client(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        return ops.claim_client(
            self._of_token(record.client.epoch, draft.small),
            f"t{record.client.epoch + 1}",
            session=record.session,
            node=draft.node,
            nonce=f"n{self._number}",
            principal="eve" if (draft.small, draft.other) == (2, 4) else "ann",
            received=max(0, record.down.last + (0, -1, -2, 2, 0)[draft.other]),
            acked=max(0, record.up.last + (0, 0, -1, 0, 3)[draft.other]),
            now_ms=self.now_ms + (TTL_MS if (draft.small, draft.other) == (1, 4) else 0),
            attempt=2 * draft.worker + draft.flag,
            ahead_max=2 if draft.small == 3 else 1000,
            history=draft.other,
            events_max=self._of_events_max(draft),
        )

    def _claim_side(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        return ops.claim_side(
            WORKERS[draft.worker],
            session=record.session,
            node=draft.node,
            nonce=f"n{self._number}",
            assign=draft.flag,
            received=max(0, record.up.acked + (0, 1, 0, 0, 9)[draft.small]),
            acked=max(0, record.down.last + (0, 0, -1, 2, 0)[draft.other]),
            ahead_max=8 if draft.other == 2 else 1000,
            history=2 * draft.small,
            events_max=self._of_events_max(draft),
        )

    def _accept(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        node = draft.node if draft.small == 4 else side.node
        now_ms = self.now_ms if draft.flag else 0
        return AcceptSession(SESSIONS[draft.session], node, max(1, side.epoch - draft.small // 3), now_ms)

    def _unpair(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        epoch = max(0, side.epoch + (0, 0, -1, 1, -side.epoch)[draft.small])
        return Unpair(SESSIONS[draft.session], draft.node, WORKERS[draft.worker], epoch)

    def _unpair_failed(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        side = record.worker_side
        epoch = max(0, side.epoch + (0, 0, -1, 1, -side.epoch)[draft.small])
        worker = record.worker if draft.flag else WORKERS[draft.worker]
        ended_ms = (self.now_ms, NOW_MS + 10_000, NOW_MS + 10_001, NOW_MS - 1, 0)[draft.other]
        failures_max, jobs_failures_max = 1 + draft.small % 3, draft.other % 3
        return UnpairFailed(
            record.session, draft.node, worker, epoch, failures_max, self.now_ms, ended_ms, jobs_failures_max
        )

    def _retry(self, draft: Draft) -> Op:
        return RetrySession(SESSIONS[draft.session], draft.node)

    def _append(self, draft: Draft) -> Op:
        return self._of_append(draft)

    def _append_and_ack(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        back = record.down if draft.other % 2 == 0 else record.up
        return msgspec.structs.replace(self._of_append(draft), ack=back.acked + draft.small)

    def _of_append(self, draft: Draft) -> Append:
        party, _, node, epoch = self._of_side(draft)
        record = self._of_record(draft)
        first = max(1, (record.up if party == "client" else record.down).last + (1, 1, -1, 0, 3)[draft.other])
        return ops.append(
            tuple(
                Entry(seq, b"t%d.%d" % (seq, self._number), draft.flag) for seq in range(first, first + draft.small + 1)
            ),
            party=party,
            session=record.session,
            node=node,
            epoch=epoch,
            backlog_max=6,
            history_max=4,
            history_bytes_max=18,
        )

    def _piece(self, draft: Draft) -> Op:
        """Pieces of a few streams, of which each other one has a text."""
        op = self._of_append(draft)
        words = "".join("xyz"[(self._number + step) % 3] for step in range(draft.small))
        marks = [
            Mark(
                "pqr"[(draft.worker + place) % 3],
                1 + (draft.other + self._number) % 3 // 2,
                words.encode() if (draft.small + place) % 2 else None,
                ("", "", "", "complete", "failed")[(self._number + place) % 5],
                ("", "tokens")[draft.worker],
            )
            for place in range(len(op.entries))
        ]
        tail = [
            Entry(entry.seq, body(entry.seq, mark), draft.flag, mark if place % 3 < 2 else None)
            for place, (entry, mark) in enumerate(zip(op.entries, marks, strict=True))
        ]
        return msgspec.structs.replace(
            op, entries=tuple(tail), history_max=9, history_bytes_max=120, now_ms=self.now_ms
        )

    def _cancel_stream(self, draft: Draft) -> Op:
        access = (ALL, ALL, Access(owner="ann"), Access(owner="eve"), Access(worker=WORKERS[draft.worker]))[draft.small]
        way = ("down", "up")[draft.flag]
        return CancelStream(SESSIONS[draft.session], way, "pqr"[draft.other % 3], "r" * draft.other, access, draft.node)

    def _close_streams(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        node = draft.node if draft.small == 3 else side.node
        epoch = side.epoch + (draft.other - 2 if draft.small == 4 else 0)
        return CloseStreams(SESSIONS[draft.session], node, epoch, ("p", "q", "x"), "interrupted", self.now_ms)

    def _streams(self, draft: Draft) -> Op:
        return OpenStreams(SESSIONS[draft.session])

    def _hand_on(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        return HandOn(SESSIONS[draft.session], side.node, side.epoch - draft.small // 4, b"%d" % draft.other)

    def _keep_answer(self, draft: Draft) -> Op:
        settings = (b"", b"1", b"2", b'{"a":1}', b"")[draft.small]
        rooms = b'{"r":[]}' if draft.flag else b""
        return KeepAnswer(SESSIONS[draft.session], settings, rooms, self.now_ms * (draft.other % 3))

    def _ack(self, draft: Draft) -> Op:
        party, _, node, epoch = self._of_side(draft)
        record = self._of_record(draft)
        log = record.down if party == "client" else record.up
        return Ack(record.session, party, node, epoch, log.acked + draft.other)

    def _look(self, draft: Draft) -> Op:
        return Look(SESSIONS[draft.session], PARTIES[draft.flag], draft.small, draft.other * 2)

    def _read(self, draft: Draft) -> Op:
        all_kinds = (
            Access(),
            Access(owner=("ann", "eve")[draft.flag]),
            Access(tenant="t"),
            Access(worker=WORKERS[draft.worker]),
        )
        return ReadSession(SESSIONS[draft.session], all_kinds[draft.small % 4])

    def _history(self, draft: Draft) -> Op:
        before = (0, 0, 0, 3 + draft.worker, 6)[draft.other]
        access = (ALL, Access(owner=("ann", "eve")[draft.flag]), Access(worker=WORKERS[draft.worker]))[draft.small % 3]
        return ReadHistory(SESSIONS[draft.session], draft.small + 1, before, access, self.now_ms)

    def _detach(self, draft: Draft) -> Op:
        party, _, node, epoch = self._of_side(draft)
        return Detach(SESSIONS[draft.session], party, node, epoch, self.now_ms)

    def _confirm(self, draft: Draft) -> Op:
        return ConfirmToken(SESSIONS[draft.session], self._of_record(draft).client.epoch - draft.small // 4)

    def _end(self, draft: Draft) -> Op:
        keep_ms = (0, 5, 50)[draft.small % 3] if draft.flag else 0
        reason = ("", "finished")[draft.worker]
        return EndSession(SESSIONS[draft.session], draft.node, self.now_ms if draft.flag else 0, keep_ms, reason)

    def _expire(self, draft: Draft) -> Op:
        nodes = ("a", "b") if draft.small < 4 else ("b",)
        ttl_ms, keep_ms = (7, 20, TTL_MS)[draft.other % 3], (0, 50)[draft.flag]
        return ExpireSession(
            SESSIONS[draft.session], draft.node, nodes, self.now_ms, ttl_ms, keep_ms, "r" * draft.worker
        )

    def _reseed(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        up_last = record.up.last + (0, 1, 2, 0, 4)[draft.small]
        down_last = record.down.last + (0, 0, 1, 2, 3)[draft.other]
        known = msgspec.structs.replace(
            record.head(),
            client_epoch=max(1, record.client.epoch + (0, 1, 0, -1, 0)[draft.small]),
            client_node=draft.node if draft.flag else record.client.node,
            worker=WORKERS[draft.worker] if draft.other else record.worker,
            worker_state=("assigned", "paired")[draft.flag],
            worker_epoch=record.worker_side.epoch + (0, 0, 1, 0, 0)[draft.other],
            worker_node=draft.node if draft.other > 2 else "",
            up_last=up_last,
            down_last=down_last,
            up_acked=min(up_last, record.up.acked + draft.other // 2),
            said_before=record.said_before + draft.small // 3,
            streams=record.streams + draft.worker,
            failed=(
                record.failed,
                record.failed,
                Failures(),
                Failures(record.up.acked + 1, draft.small, self.now_ms, draft.flag),
                Failures(record.up.acked + 1, 1, NOW_MS, False),
            )[draft.other],
            jobs=record.jobs + draft.small // 4,
            events=max(0, record.events + (draft.small - 2) * draft.worker),
            events_max=self._of_events_max(draft),
        )
        up_tail = tuple(Entry(seq, b"tup%d" % seq, draft.flag) for seq in range(max(1, up_last - 2), up_last + 1))
        down_tail = tuple(
            Entry(seq, body(seq, Mark("pq"[seq % 2], fold=b"z")), draft.flag)
            for seq in range(max(1, down_last - 1), down_last + 1)
        )
        tokens = (ops.token(f"t{known.client_epoch}"), ops.token(f"t{known.client_epoch - 1}")) if draft.flag else ()
        tails = (up_tail, down_tail) if draft.small else ((), ())
        return ops.reseed(
            known,
            node=draft.node,
            tokens=tokens,
            up_tail=tails[0],
            down_tail=tails[1],
            now_ms=self.now_ms,
            create=draft.other != 1,
            asked_ms=(0, self.now_ms, self.now_ms + 20)[draft.other % 3],
            attempt=draft.small,
        )

    def _events(self, draft: Draft) -> Op:
        return ReadEvents(SESSIONS[draft.session], draft.small * 3)

    def _drop_events(self, draft: Draft) -> Op:
        n = self._of_record(draft).events
        return DropEvents(SESSIONS[draft.session], max(0, n + (0, -1, -2, 9, -n)[draft.small]), self.now_ms)

    def _tell_event(self, draft: Draft) -> Op:
        nonce = f"n{self._number // 3}"
        fields: dict[str, str | int] = {"text": "t" * draft.other, "count": draft.small}
        return TellEvent(SESSIONS[draft.session], nonce, "app.message", fields, self._of_events_max(draft), self.now_ms)

    def _job_pieces(self, draft: Draft) -> Op:
        record = self._of_record(draft)
        n = self._of_job(draft)
        job = self.rows.job(record.session, n)
        attempt = max(1, (job.attempt if job is not None else 1) + (0, 0, 0, 1, -1)[draft.small])
        first = record.down.last + 1
        mark = Mark(
            f"j_1_{n}",
            attempt,
            b"x" * 100 * draft.other if draft.flag else None,
            ("", "", "complete", "failed", "cancelled")[draft.other],
            job=n,
            error=b'{"code":"c"}' if draft.other == 3 else b"",
        )
        side = record.worker_side
        entries = (Entry(first, body(first, mark), draft.flag, mark), Entry(first + 1, b"t%d" % first))
        return ops.append(
            entries,
            party="worker",
            session=record.session,
            node=side.node or draft.node,
            epoch=max(1, side.epoch),
            history_max=4,
            history_bytes_max=400,
        )

    def _of_job(self, draft: Draft) -> int:
        jobs = self.rows.jobs(SESSIONS[draft.session])
        return max(1, jobs.last + 1 - draft.other) if jobs is not None else draft.other

    def _of_access(self, draft: Draft) -> Access:
        return (
            Access(owner="eve") if (draft.small, draft.other) == (4, 4) else Access(owner="ann") if draft.flag else ALL
        )

    def _create_job(self, draft: Draft) -> Op:
        key = draft.small if draft.other == 3 else 100 + self._number
        deadline_ms = self.now_ms + (0, 14, 60, 0, 0)[draft.small] if draft.small in (1, 2) else 0
        return ops.create_job(
            SESSIONS[draft.session],
            node=draft.node,
            access=self._of_access(draft),
            nonce=f"n{self._number // 2}",
            key=b"k%d" % key,
            payload=b"p%d" % (draft.worker if draft.other == 3 else 0),
            kind=("tts", "stt")[draft.worker],
            too_big=(draft.small, draft.other) == (3, 3),
            deadline_ms=deadline_ms,
            in_flight_max=3 + draft.other,
            result_bytes_max=600 if draft.worker else 1000,
            keep_ms=3_600_000 if draft.flag else 40,
            now_ms=self.now_ms,
        )

    def _read_job(self, draft: Draft) -> Op:
        return ReadJob(SESSIONS[draft.session], self._of_job(draft), self._of_access(draft), draft.node, self.now_ms)

    def _cancel_job(self, draft: Draft) -> Op:
        job, access = self._of_job(draft), self._of_access(draft)
        return CancelJob(SESSIONS[draft.session], job, access, draft.node, 10 * draft.small, self.now_ms)

    def _list_jobs(self, draft: Draft) -> Op:
        state = ("", "", "queued", "cancelled", "running")[draft.small]
        return ListJobs(
            SESSIONS[draft.session],
            self._of_access(draft),
            draft.node,
            state,
            draft.worker * 3,
            1 + draft.other,
            self.now_ms,
        )

    def _list_changed_jobs(self, draft: Draft) -> Op:
        since = max(0, self._of_record(draft).jobs - draft.small)
        return ListChangedJobs(SESSIONS[draft.session], since, draft.worker * (self.now_ms - 30), 1 + draft.other)

    def _read_pieces(self, draft: Draft) -> Op:
        job, access = self._of_job(draft), self._of_access(draft)
        return ReadPieces(SESSIONS[draft.session], job, access, draft.small, 1 + draft.other, self.now_ms)

    def _take_jobs(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        node = draft.node if draft.small == 4 else side.node or draft.node
        epoch = max(1, side.epoch + (0, 0, 0, 1, 0)[draft.small])
        kinds = ("*",) if draft.flag else ("tts", "x") if draft.other else ()
        known = tuple(range(1, 1 + draft.other))
        return TakeJobs(SESSIONS[draft.session], node, epoch, kinds, known, 1 + draft.other, self.now_ms)

    def _job_progress(self, draft: Draft) -> Op:
        side = self._of_record(draft).worker_side
        epoch = max(1, side.epoch + (0, 0, 0, 1, 0)[draft.small])
        node, progress = side.node or draft.node, b'{"p":%d}' % (self._number // 3)
        return JobProgress(SESSIONS[draft.session], self._of_job(draft), node, epoch, progress, self.now_ms)

    def _sweep_jobs(self, draft: Draft) -> Op:
        return SweepJobs(SESSIONS[draft.session], draft.node, self.now_ms)

    def _put_node(self, draft: Draft) -> Op:
        state: Literal["starting", "ready", "draining"] = ("starting", "ready", "draining")[draft.small % 3]
        entry = next((node for node in self.rows.nodes() if node.id == draft.node), None)
        over = (entry.incarnation, entry.renewed_ms) if entry is not None and draft.other == 1 else ("", 0)
        return ops.hold_node(
            draft.node,
            ("", "one", "two")[draft.other % 3],
            now_ms=self.now_ms,
            lease_ms=(10_000, 1)[draft.flag],
            over=over,
            state=state,
        )

    def _drop_node(self, draft: Draft) -> Op:
        return DropNode(draft.node, ("", "one", "two")[draft.small % 3])

    def _list_nodes(self, draft: Draft) -> Op:
        return ListNodes(self.now_ms + (0, 0, 5_000, 9_990, 70_000)[draft.small])

    def _incarnation(self, draft: Draft) -> Op:
        return Incarnation(f"life{draft.small}")

    def _format(self, draft: Draft) -> Op:
        return RaiseFormat(draft.small)

    def _seal_key(self, draft: Draft) -> Op:
        key = "" if draft.small == 0 else f"0000000{draft.small}"
        return UseSealKey(key, (f"0000000{draft.other}",) if draft.other % 2 else ())

    def _secret(self, draft: Draft) -> Op:
        return ClusterSecret(b"secret%d" % draft.small)

    def _api_keys(self, draft: Draft) -> Op:
        def key(number: int) -> ApiKey:
            return ApiKey(self.now_ms + (number - 2) * LEAD_MS, 1000 * draft.other, bytes([number]) * 32)

        known = tuple([key(number) for number in range(draft.session, draft.session + draft.small)])
        candidate = bytes([10 + draft.small]) * 32 if draft.flag else b""
        now_ms = self.now_ms + (0, 0, 2 * LEAD_MS, 5 * LEAD_MS, -9 * LEAD_MS)[draft.other % 5]
        return ReadApiKeys(known, candidate, draft.small * LEAD_MS, draft.other * LEAD_MS, now_ms)

    def _register(self, draft: Draft) -> Op:
        op = ops.register(WORKERS[draft.worker], node=draft.node, capacity=1 + draft.small % 2)
        granted = ({}, {"tier": "g/1"}, {"lang": "de", "é": ""})[draft.small % 3]
        return msgspec.structs.replace(
            op,
            granted=granted,
            rooms=b'{"r":["join"]}' if draft.flag else b"",
            events_max=draft.other % 3,
            now_ms=self.now_ms,
        )

    def _of_worker_epoch(self, draft: Draft) -> int:
        worker = self.rows.worker(WORKERS[draft.worker])
        return 1 if worker is None else worker.side.epoch

    def _claim_worker(self, draft: Draft) -> Op:
        epoch = self._of_worker_epoch(draft)
        presented = self._of_token(epoch, draft.small).replace("t", "w")
        return ops.claim_worker(
            presented,
            f"w{epoch + 1}",
            worker=WORKERS[draft.worker],
            node=draft.node,
            nonce=f"n{self._number}",
            capacity=1 + draft.other % 2,
            principal="eve" if draft.other == 4 and draft.flag else "wes",
            attempt=2 * draft.session + draft.flag,
        )

    def _claim_named(self, draft: Draft) -> Op:
        return ops.claim_named(
            WORKERS[draft.worker],
            node=draft.node,
            nonce=f"n{self._number // 2}",
            capacity=1 + draft.small % 2,
            principal="eve" if draft.other == 4 else "wes",
            create=draft.flag or draft.small > 2,
            now_ms=self.now_ms - (0, 0, 30, 0, 0)[draft.other],
            events_max=draft.other % 3,
            granted=({}, {"tier": "g/1"}, {"lang": "de", "é": ""})[draft.small % 3],
        )

    def _update_worker(self, draft: Draft) -> Op:
        epoch = self._of_worker_epoch(draft) - draft.small // 4
        return UpdateWorker(WORKERS[draft.worker], epoch, draft.other, draft.flag and draft.other == 1)

    def _confirm_worker(self, draft: Draft) -> Op:
        return ConfirmWorkerToken(WORKERS[draft.worker], self._of_worker_epoch(draft) - draft.small // 4)

    def _detach_worker(self, draft: Draft) -> Op:
        return DetachWorker(WORKERS[draft.worker], self._of_worker_epoch(draft) - draft.small // 3, self.now_ms)

    def _remove_worker(self, draft: Draft) -> Op:
        epoch = (0, self._of_worker_epoch(draft), 1, 2, 0)[draft.small]
        told = ("given_up", draft.other % 3, self.now_ms)
        return RemoveWorker(WORKERS[draft.worker], draft.node, epoch, draft.flag, *told)

    def _reseed_worker(self, draft: Draft) -> Op:
        epoch = self._of_worker_epoch(draft) + (0, 1, 0, 2, 0)[draft.small]
        tokens = (ops.token(f"w{epoch}"), ops.token(f"w{epoch - 1}"))
        sessions = SESSIONS[: draft.other % 3]
        return ops.reseed_worker(
            WORKERS[draft.worker],
            node=draft.node,
            epoch=epoch,
            tokens=tokens,
            sessions=sessions,
            asked_ms=(0, NOW_MS, NOW_MS + 20)[draft.small % 3],
            attempt=draft.other,
            granted={"tier": "1"} if draft.flag else {},
            rooms=b'{"*":[]}' if draft.other else b"",
        )

    def _list_workers(self, draft: Draft) -> Op:
        return ListWorkers()

    def _worker_sessions(self, draft: Draft) -> Op:
        return WorkerSessions(WORKERS[draft.worker])

    def _enqueue(self, draft: Draft) -> Op:
        wants: tuple[dict[str, str], ...] = (
            {"lang": "en"},
            {"lang": "en"},
            {},
            {"lang": "en", "size": "big"},
            {TENANT: "acme", "lang": "en"},
        )
        return ops.enqueue(
            SESSIONS[draft.session],
            want=wants[draft.other % 5],
            order_ms=NOW_MS + draft.small,
            alive_until_ms=self.now_ms + draft.other * 10,
        )

    def _waiting(self, draft: Draft) -> Op:
        return ListWaiting(draft.small)

    def _suited(self, draft: Draft) -> Op:
        labels: tuple[dict[str, str], ...] = (
            {"lang": "en"},
            {"lang": "en", "size": "big"},
            {"lang": "fr"},
            {},
            {TENANT: "acme", "lang": "en"},
        )
        return ListSuited((offer(labels[draft.small]), offer(labels[draft.other % 5])), 3 + draft.other, 100)

    def _mend_line(self, draft: Draft) -> Op:
        return MendLine(0, 1000)

    def _leave(self, draft: Draft) -> Op:
        return Leave(SESSIONS[draft.session])

    def _reserve(self, draft: Draft) -> Op:
        pairs = [(session, worker) for session in SESSIONS for worker in WORKERS]
        return Reserve(draft.node, tuple(pairs[draft.other :] if draft.flag else pairs[draft.small :: 2]))

    def _release(self, draft: Draft) -> Op:
        return Release(SESSIONS[draft.session], WORKERS[draft.worker], draft.flag)

    def _forget(self, draft: Draft) -> Op:
        return Forget(SESSIONS[draft.session])

    def _hold(self, draft: Draft) -> Op:
        until_ms = self.now_ms + (draft.other - 2) * 10
        holders = ("x", "y")[: draft.small % 3]
        return Hold(SESSIONS[draft.session], holders, 1 + draft.other, 1 + draft.small % 2, until_ms, self.now_ms)

    def _count_trails(self, draft: Draft) -> Op:
        grown = tuple((session, 100 * (1 + draft.other)) for session in SESSIONS[draft.session :])
        until_ms = self.now_ms + (draft.small - 1) * 10
        return CountTrails(grown, 300 * draft.small, 1000, until_ms, self.now_ms)

    def _keep_alive(self, draft: Draft) -> Op:
        sessions = SESSIONS[draft.session :]
        holders = ("x", "", "y")[draft.other % 3 :][: len(sessions)] if draft.flag else ()
        return KeepAlive(sessions, self.now_ms + draft.small * 10, holders if len(holders) == len(sessions) else ())

    def _sessions_of(self, draft: Draft) -> Op:
        return ListSessionsOf(("x", "y")[draft.worker], ("", *SESSIONS)[draft.other % 3], draft.small)

    def _overdue(self, draft: Draft) -> Op:
        return ListOverdue(self.now_ms + draft.other * 10, draft.small)

    def _pace(self, draft: Draft) -> Op:
        rate_per_s = (1.0, 8.0, 200.0)[draft.other % 3]
        return TakePace(
            1 + draft.small * 3, rate_per_s, self.now_ms - draft.small, ("client", "worker")[draft.other % 2]
        )

    def _of_item(self, draft: Draft) -> tuple[Kind, str]:
        names = (*SESSIONS, WORKERS[draft.worker], CLUSTER, "s_\u00e4")
        return ("e", "r" if draft.flag else "e", "r" if draft.flag else "b")[draft.session + draft.worker], names[
            draft.other
        ]

    def _schedule(self, draft: Draft) -> Op:
        kind, name = self._of_item(draft)
        due_ms = self.now_ms + (0, -30, 20, 200, 10**9)[draft.small]
        return Schedule(kind, (name, SESSIONS[0]), due_ms, self.now_ms, draft.flag and draft.small == 1)

    def _own(self, draft: Draft) -> Op:
        """Few owners, who meet their bound; rooms that the recipes of the agenda take and settle."""
        names = (*SESSIONS, WORKERS[draft.worker], CLUSTER, "s_\u00e4")
        owner = ("x", "x", "y", "", "x\u00e4")[draft.small]
        due_ms = self.now_ms + (200, 10**9)[draft.flag]
        return Own(names[draft.other], owner, 1 + draft.worker, 3 + draft.small % 2, due_ms, self.now_ms)

    def _take_due(self, draft: Draft) -> Op:
        kind, _ = self._of_item(draft)
        now_ms = self.now_ms + (0, 0, 0, 10**10, -(10**9))[draft.other]
        lease_ms = (20, 40, 1000, 10**8)[draft.small % 4]
        return TakeDue(kind, draft.node, f"n{self._number // 2}", now_ms, lease_ms, draft.small)

    def _settle(self, draft: Draft) -> Op:
        kind, name = self._of_item(draft)
        if not draft.worker:
            name = next((item.name for item in self.rows.items_at(kind, None, None, 1, taken=True)), name)
        item = self.rows.item(kind, name)
        ticket = (item.ticket if item is not None else 0) + draft.small // 4
        due_ms = (0, 0, self.now_ms + 30, self.now_ms - 5, self.now_ms + 10**9)[draft.other]
        since_ms = self.now_ms - 20 if draft.flag else 0
        return Settle(kind, name, ticket, due_ms, draft.small % 3, since_ms, self.now_ms)

    def _read_agenda(self, draft: Draft) -> Op:
        return ReadAgenda(self._of_item(draft)[0], self.now_ms + 10 * draft.small)

    def _list_agenda(self, draft: Draft) -> Op:
        kind, name = self._of_item(draft)
        return ListAgenda(kind, name if draft.flag else "", draft.small)

    def _tell_cluster(self, draft: Draft) -> Op:
        fields: dict[str, str | int] = {"node": draft.node, "n": self._number}
        late_ms = EVENTS_LEFT_MS if (draft.other, draft.flag) == (4, True) else 0
        return TellCluster(f"o{self._number // 2}", "deploy.finished", fields, draft.small, self.now_ms + late_ms)

    def _tell_worker(self, draft: Draft) -> Op:
        fields: dict[str, str | int] = {"instance": "pod-1", "id": f"m{self._number // 2}"}
        name = (WORKERS[draft.worker], CLUSTER)[draft.other == 4]
        return TellWorker(name, "app.message", fields, draft.small, self.now_ms)

    def _of_queue(self, draft: Draft) -> str:
        return (CLUSTER, WORKERS[draft.worker], WORKERS[draft.worker], CLUSTER, "s_1")[draft.small]

    def _read_queue(self, draft: Draft) -> Op:
        return ReadQueue(self._of_queue(draft), draft.other)

    def _drop_queue(self, draft: Draft) -> Op:
        queue = self.rows.event_queue(self._of_queue(draft))
        last = 0 if queue is None else queue.last
        return DropQueue(self._of_queue(draft), max(0, last + (0, 0, -1, -2, 2)[draft.other]))

    def _put_receipt(self, draft: Draft) -> Op:
        return PutReceipt(draft.node, b'{"n":%d}' % self._number, self.now_ms)

    def _get_receipt(self, draft: Draft) -> Op:
        return GetReceipt(draft.node)

    def _list_receipts(self, _draft: Draft) -> Op:
        return ListReceipts()

    def _revoke(self, draft: Draft) -> Op:
        until_ms = self.now_ms + (draft.other - 1) * 20
        name = ("ann", "bob", "acme\x1feve")[draft.small % 3]
        return Revoke(name, self.now_ms - draft.session * 9, until_ms, self.now_ms, 1 + draft.small % 3, draft.node)

    def _list_revoked(self, draft: Draft) -> Op:
        return ListRevoked(self.now_ms - 60 if draft.flag else 0, draft.other, self.now_ms)

    def _keep_key_set(self, draft: Draft) -> Op:
        return KeepKeySet("xy"[draft.session], b"{ %d\n}" % self._number, self.now_ms - 20 * draft.small)

    def _get_key_set(self, draft: Draft) -> Op:
        return GetKeySet("xy"[draft.session])

    def _mark(self, draft: Draft) -> Op:
        steps = [b'{"n":%d}' % (self._number + index) for index in range(draft.small)]
        keep_ms = 0 if draft.flag and not steps else 3_600_000
        return MarkTrail(SESSIONS[draft.session], tuple(steps), 1 + draft.other, keep_ms, self.now_ms)

    def _read_trail(self, draft: Draft) -> Op:
        return ReadTrail(SESSIONS[draft.session])

    def _of_blob(self, draft: Draft) -> tuple[str, str, str]:
        """The shelf, the blob, and the nonce of its upload, which is the right one unless `small` is 4."""
        blob = f"b_{draft.worker}{draft.other}"
        return SHELVES[draft.session], blob, "other" if draft.small == 4 else f"n{blob}"

    def _of_blob_time(self, draft: Draft) -> int:
        """Now, or long after or before it: the clock may be set."""
        return self.now_ms + ((0, 0, LATE_MS, LATE_MS, -2 * CLOCK_SET_MS)[draft.small] if draft.flag else 0)

    def _begin_blob(self, draft: Draft) -> Op:
        shelf, blob, nonce = self._of_blob(draft)
        key = b"k%d" % (draft.small % 3) if draft.flag else b""
        # A lease is over some steps later, or long after it.
        lease_ms, reserved = (30, 20_000)[draft.worker], (10, 40, 0, 90, 10)[draft.small]
        return ops.begin_blob(
            blob, shelf=shelf, nonce=nonce, key=key, reserved=reserved, total_max=150, lease_ms=lease_ms,
            now_ms=self.now_ms,
        )  # fmt: skip

    def _renew_blob(self, draft: Draft) -> Op:
        return RenewBlob(*self._of_blob(draft), 30, self._of_blob_time(draft))

    def _finish_blob(self, draft: Draft) -> Op:
        shelf, blob, nonce = self._of_blob(draft)
        until_ms = self.now_ms + (60 if draft.flag else 3_600_000)
        return ops.finish_blob(
            blob, shelf=shelf, nonce=nonce, size=7 * draft.small, until_ms=until_ms, now_ms=self.now_ms
        )

    def _abandon_blob(self, draft: Draft) -> Op:
        return AbandonBlob(*self._of_blob(draft), self.now_ms)

    def _read_blob(self, draft: Draft) -> Op:
        return ReadBlob(*self._of_blob(draft)[:2], self._of_blob_time(draft))

    def _remove_blob(self, draft: Draft) -> Op:
        return RemoveBlob(*self._of_blob(draft)[:2], self.now_ms)

    def _sweep_shelf(self, draft: Draft) -> Op:
        return SweepShelf(SHELVES[draft.session], self._of_blob_time(draft), 1 + draft.other)

    def _forget_blobs(self, draft: Draft) -> Op:
        blobs = tuple([f"b_{worker}{other}" for worker in range(2) for other in range(draft.other + 1)])
        return ForgetBlobs(SHELVES[draft.session], blobs, self.now_ms)

    def _of_room(self, draft: Draft) -> tuple[str, str, Seat]:
        """The room, the member, and its seat or that which it would have."""
        room, member = ROOMS[draft.session], ("s_1", "s_2", "s_1/worker", "s_3", "s_4")[draft.other]
        return room, member, self.rows.seat(room, member) or Seat(draft.node, 1, "none")

    def _of_connection(self, draft: Draft) -> tuple[str, str, str, int]:
        """The room, the member, its node and the epoch of its connection: right ones, unless `small` is 4."""
        room, member, seat = self._of_room(draft)
        node = draft.node if draft.small == 4 and draft.flag else seat.node
        return room, member, node, seat.epoch + (draft.worker * 2 - 1 if draft.small == 4 else 0)

    def _of_bounds(self, draft: Draft) -> Bounds:
        """Bounds that few publications meet; now and then tighter ones."""
        tight = draft.flag and draft.small == 3
        return Bounds(3 if tight else 6, 700, 2 if tight else 4, 40, 300, 1 if tight else 2, 3, 100)

    def _of_publication(self, draft: Draft, seq: int, kind: int) -> Publication:
        """Records with few names, so that they are changed often; bodies; updates."""
        name, other = f"r{(self._number + kind) % 3}", f"r{(self._number + seq) % 5}"
        value: Properties = (("a", b"%d" % self._number), ("b", b"null" if draft.flag else b"7"))
        large: Properties = (("a", b"%30d" % self._number),)
        match kind % 5:
            case 0:
                return ops.publication(seq, put={name: value, other: ()}, patch={name: (("c", b"1"),)})
            case 1:
                return ops.publication(seq, patch={name: value, other: large}, remove=(f"r{draft.small}",))
            case 2:
                return ops.publication(seq, remove=(name, other))
            case 3:
                return ops.publication(seq, b"u%d" % self._number, update=True)
            case _:
                return ops.publication(seq, b"\xff%d" % self._number)

    def _join_room(self, draft: Draft) -> Op:
        room, member, seat = self._of_room(draft)
        head = self.rows.room(room)
        epoch = seat.epoch + (0, 0, 1, 1, -1)[draft.small]
        return ops.join_room(
            member, room=room, node=seat.node if draft.small == 1 else draft.node, epoch=epoch,
            nonce=f"n{epoch}" if draft.small < 4 else "other", new_epoch=f"e{self._number}",
            known_epoch="" if head is None or draft.small == 3 else head.epoch,
            received=max(0, (head.position if head else 0) + draft.small - 2 * draft.worker - 1),
            presence=b"%d" % draft.small if draft.flag else None, bounds=self._of_bounds(draft), now_ms=self.now_ms,
            makes=draft.small != 2,
            told=0 if head is None or draft.other else max(0, head.position + draft.small - 1),
        )  # fmt: skip

    def _leave_room(self, draft: Draft) -> Op:
        return LeaveRoom(*self._of_connection(draft), 100, self.now_ms)

    def _drop_members(self, draft: Draft) -> Op:
        return DropMembers(ROOMS[draft.session], f"s_{1 + draft.worker}", draft.node, 100, self.now_ms)

    def _publish(self, draft: Draft) -> Op:
        room, member, node, epoch = self._of_connection(draft)
        first = self._of_room(draft)[2].seq + (1, 1, 1, 0, 2)[draft.other if draft.flag else 0]
        said = [
            self._of_publication(draft, max(1, first + place), draft.small + draft.worker + place)
            for place in range(1 + draft.small)
        ]
        faults: dict[int, Fault] = {first + 1: "forbidden"} if draft.flag and draft.worker else {}
        return ops.publish(
            *said, member=member, room=room, node=node, epoch=epoch, faults=faults, bounds=self._of_bounds(draft),
            now_ms=self.now_ms,
        )  # fmt: skip

    def _post(self, draft: Draft) -> Op:
        return ops.post(
            self._of_publication(draft, 0, draft.other), room=ROOMS[draft.session], node=draft.node,
            key=b"k%d" % draft.small if draft.flag else b"", new_epoch=f"e{self._number}", bounds=self._of_bounds(draft),
            now_ms=self.now_ms, member=SESSIONS[draft.session] if draft.worker else "", content=b"%d" % draft.worker,
            makes=draft.small != 2,
        )  # fmt: skip

    def _set_presence(self, draft: Draft) -> Op:
        return SetPresence(*self._of_connection(draft), b"%d" % draft.small, draft.other)

    def _snapshot_room(self, draft: Draft) -> Op:
        head = self.rows.room(ROOMS[draft.session])
        position = (head.position if head else 0) + (0, -1, -2, -5, 1)[draft.small]
        body = b"s" * (250 if draft.flag and draft.worker else 9)
        return SnapshotRoom(*self._of_connection(draft), max(0, position), body, self._of_bounds(draft))

    def _of_cursor(self, draft: Draft) -> int:
        """A position, mostly near the last one."""
        head = self.rows.room(ROOMS[draft.session])
        return max(0, (head.position if head and draft.flag else 0) - draft.small + draft.worker)

    def _look_room(self, draft: Draft) -> Op:
        head = self.rows.room(ROOMS[draft.session])
        turn = max(0, (head.turn if head else 0) - draft.other + draft.worker)
        return LookRoom(ROOMS[draft.session], self._of_cursor(draft), turn, 1 + draft.small, self.now_ms)

    def _read_room(self, draft: Draft) -> Op:
        return ReadRoom(ROOMS[draft.session], draft.small, self.now_ms)

    def _read_room_history(self, draft: Draft) -> Op:
        return ReadRoomHistory(ROOMS[draft.session], self._of_cursor(draft), 1 + draft.other, self.now_ms)

    def _read_room_state(self, draft: Draft) -> Op:
        return ReadRoomState(ROOMS[draft.session], self._of_cursor(draft), 1 + draft.other, self.now_ms)

    def _read_room_updates(self, draft: Draft) -> Op:
        return ReadRoomUpdates(ROOMS[draft.session], self._of_cursor(draft), 1 + draft.other, self.now_ms)

    def _sweep_room(self, draft: Draft) -> Op:
        return SweepRoom(ROOMS[draft.session], self._of_blob_time(draft))

    def _signal(self, draft: Draft) -> Op:
        return Signal(draft.node, b"r%d" % draft.small)


class Step(NamedTuple):
    """One batch that a node sends, perhaps twice."""

    at: str
    drafts: list[Draft]
    twice: bool
    again: int
    """If not 0: not these drafts but the batch of so many steps ago."""


OFTEN = (
    "append",
    "piece",
    "append_and_ack",
    "ack",
    "look",
    "claim_client",
    "claim_side",
    "detach",
    "reseed",
    "reserve",
    "enqueue",
    "create_job",
    "take_jobs",
    "job_pieces",
)
"""What most of a store's life is made of, and where most of its rules are."""

BEGINNING = [
    Draft("create", 0, 0, "a", 0, 0, True),
    Draft("create", 1, 0, "b", 0, 0, False),
    Draft("claim_side", 0, 0, "b", 0, 0, True),
    Draft("accept", 0, 0, "b", 0, 0, False),
    Draft("claim_side", 1, 1, "b", 0, 0, True),
    Draft("register", 0, 0, "b", 1, 0, False),
    Draft("enqueue", 0, 0, "a", 0, 4, False),
    Draft("create_job", 0, 0, "a", 0, 4, True),
]
beginning = st.sampled_from([BEGINNING, BEGINNING[:4], []])


def steps_of(
    recipes: Sequence[str], sessions: Sequence[int], longest: tuple[int, int], again: int
) -> st.SearchStrategy[Step]:
    """Steps of so many drafts, each of one of `recipes` and about one of `sessions`, or of a batch up to `again` steps ago.

    What stands there several times comes as much more often.
    """
    small = st.integers(0, 4)
    drafts = st.builds(
        Draft,
        st.sampled_from(recipes),
        st.sampled_from(sessions),
        st.integers(0, 1),
        st.sampled_from("ab"),
        small,
        small,
        st.booleans(),
    )
    return st.builds(
        Step,
        st.sampled_from("ab"),
        st.lists(drafts, min_size=longest[0], max_size=longest[1]),
        st.sampled_from([False, False, True]),
        st.sampled_from([0, 0, 0, *range(again + 1)]),
    )


def batches(first: list[Draft], plan: list[Step]) -> list[tuple[str, list[Op]]]:
    """Make the batches of a plan: which node sends what."""
    kitchen = Kitchen(MemoryRows())

    def cook(some: Sequence[Draft]) -> list[Op]:
        cooked = []
        for draft in some:
            cooked.append(kitchen.cook(draft))
            apply(cooked[-1], kitchen.rows, Wakes())
        return cooked

    made = [("a", cook(first))]
    for step in plan:
        if step.again:
            made.append((step.at, made[-min(step.again, len(made))][1]))
            cooked = made[-1][1]
            for op in cooked:
                apply(op, kitchen.rows, Wakes())
        else:
            made.append((step.at, cook(step.drafts)))
        if step.twice:
            made.append(made[-1])
    return made


def plain(result: Result) -> Any:
    """Return a result without the order of what has none, and without the last digits of a float."""
    match result:
        case Sessions(sessions=sessions):
            return "released", sorted(sessions)
        case WorkerClaimed(epoch=epoch, sessions=sessions, previous_node=previous):
            return "claimed", epoch, sorted(sessions), previous
        case Nodes(nodes=nodes):
            return sorted(nodes, key=lambda node: node.id)
        case Workers(workers=workers):
            return sorted(workers, key=lambda worker: worker.id)
        case Paced(wait_ms=wait_ms):
            return "wait", round(wait_ms, 3)
        case _:
            return result


async def carry_out(fresh: Fresh, plan: list[tuple[str, list[Op]]]) -> list[Any]:
    """Return everything that a fresh store says to a plan: the answers to each batch and the wake-ups after it."""
    said: list[Any] = []
    async with open_world(fresh) as world:
        for at, batch in plan:
            results = await world.do(*batch, at=at)
            said.append([(op, plain(result)) for op, result in zip(batch, results, strict=True)])
            said.append(await world.woken(at))
    return said


def model() -> Opener:
    """Open a fresh world of the store in memory."""
    world = MemoryWorld()
    return lambda node: open_memory("memory:", node, world=world)


def compare(fresh: Fresh, made: list[tuple[str, list[Op]]]) -> None:
    """Carry out a plan with the store in memory and with another one, which is to say the same."""
    expected = trio.run(carry_out, model, made)
    found = trio.run(carry_out, fresh, made)
    for place, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert other == one, place


SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
STEPS = steps_of([*OFTEN * 4, *Kitchen.recipes()], [0, 0, 1], (1, 4), 3)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=SUPPRESSED)
@given(first=beginning, plan=st.lists(STEPS, min_size=8, max_size=16))
def test_same_answers(fresh: Fresh, first: list[Draft], plan: list[Step]) -> None:
    """Whatever is asked, in whatever order and however often, every store answers and wakes as the one in memory."""
    compare(fresh, batches(first, plan))


class Topic(NamedTuple):
    """What plans are mostly about."""

    recipes: Sequence[str]
    sessions: Sequence[int] = (0, 0, 0, 1)
    """Which sessions, shelves or rooms."""
    longest: tuple[int, int] = (2, 6)
    """How many operations a batch has."""
    steps_max: int = 12
    first: Sequence[Draft] = BEGINNING


TOPICS = {
    "events": Topic(
        (
            *("claim_client", "detach", "claim_side", "accept", "events", "drop_events") * 3,
            *("create", "tell_event", "end", "expire", "reseed", "unpair"),
            *("create_job", "cancel_job", "take_jobs", "job_pieces"),
        ),
        sessions=[0],
    ),
    "jobs": Topic(
        (
            *("create_job", "take_jobs", "job_pieces", "job_pieces") * 4,
            *("read_job", "cancel_job", "list_jobs", "list_changed_jobs", "read_pieces", "job_progress", "sweep_jobs")
            * 2,
            *("create", "claim_side", "claim_side", "unpair", "unpair_failed", "unpair_failed"),
            *("detach", "end", "expire", "reseed"),
        ),
        sessions=[0],
    ),
    # While the clock is set forth and back.
    "blobs": Topic(
        (
            *("begin_blob", "finish_blob") * 3,
            *("renew_blob", "abandon_blob", "read_blob", "remove_blob", "sweep_shelf", "sweep_shelf", "forget_blobs"),
        ),
        longest=(2, 8),
        first=[],
    ),
    # While members come, move and go, and bounds are met.
    "rooms": Topic(
        (
            *("join_room", "publish", "publish") * 4,
            *("set_presence", "snapshot_room", "look_room", "read_room_state", "read_room_updates", "post") * 2,
            *("leave_room", "drop_members", "read_room", "read_room_history", "sweep_room"),
        ),
        longest=(2, 8),
        steps_max=14,
        first=[],
    ),
    # And the event queues of workers and of the cluster.
    "agenda": Topic(
        (
            *("schedule", "own", "take_due", "settle", "tell_cluster", "drop_queue") * 4,
            *("read_agenda", "list_agenda", "read_queue") * 2,
            *("register", "remove_worker", "claim_worker", "update_worker") * 2,
        ),
        sessions=[0, 1],
    ),
}


@pytest.mark.parametrize("about", TOPICS)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=SUPPRESSED)
@given(data=st.data())
def test_same_answers_about(fresh: Fresh, about: str, data: st.DataObject) -> None:
    """The same for plans that are mostly about one part of the store."""
    topic = TOPICS[about]
    steps = steps_of(topic.recipes, topic.sessions, topic.longest, 2)
    plan = data.draw(st.lists(steps, min_size=6, max_size=topic.steps_max))
    compare(fresh, batches([*topic.first], plan))


def test_plans_are_made_of_every_operation_there_is() -> None:
    """A new operation of the contract needs a recipe here, or the stores are not compared in it."""
    cooked = batches(
        BEGINNING, [Step("a", [Draft(name, 0, 0, "a", 0, 1, True)], False, 0) for name in Kitchen.recipes()]
    )
    assert {type(op) for _, batch in cooked for op in batch} == set(RULES)
