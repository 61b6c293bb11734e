"""Stored records: what is kept of one session, its worker and its node is damaged, and another session must not notice.

An input is a line that says which value is replaced, as `table column type`, and the bytes it is replaced by. A store is opened on
such a file, as a node does at its start, and asked everything: all of it is answered; the other session's answers are
the right ones, no message is handed out that was not stored, and what is damaged can be given back.
"""

import sqlite3
import tempfile
from contextlib import asynccontextmanager, closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import structlog

from signald.core.head import Head
from signald.store.base import Op
from signald.store.registry.ops import (
    ListNodes,
    ListOverdue,
    ListWaiting,
    ListWorkers,
    PutReceipt,
    Release,
    RemoveWorker,
    Reserve,
    TakePace,
    UpdateWorker,
    WorkerSessions,
)
from signald.store.seals import Seals
from signald.store.session.ops import Appended, EndSession, Look, Looked, Mark, ReadHistory, ReadTrail
from signald.store.sqlite import _File, _open
from tests.fuzz import mutate
from tests.fuzz.party import Harm
from tests.store.ops import (
    NOW_MS,
    SESSION,
    TTL_MS,
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
    put_node,
    register,
    reseed,
    reseed_worker,
    token,
)

OTHER = "s_2"
STORED = entries(1, 4, history=True)
FILL: tuple[Op, ...] = (
    create(), create(OTHER), register(), register("w_2", nonce="other"), put_node("a"), put_node("b"), enqueue(), enqueue(OTHER),
    claim_side(), claim_side("w_2", session=OTHER, nonce="other"), append(STORED), append(STORED, session=OTHER), TakePace(5, 10.0, NOW_MS),
    Mark(SESSION, (b"{}",), 9, TTL_MS, NOW_MS), PutReceipt("a", b"{}", NOW_MS), Reserve("a", ((OTHER, "w_2"),)),
)  # fmt: skip

VALUES: dict[tuple[str, str], str] = {
    ("session", "record"): f"session = '{SESSION}'",
    ("entry", "body"): f"session = '{SESSION}' AND seq = 2",
    ("entry", "seq"): f"session = '{SESSION}' AND seq = 3",
    ("entry", "way"): f"session = '{SESSION}' AND seq = 3",
    ("entry", "history"): f"session = '{SESSION}' AND seq = 3",
    ("history", "body"): f"session = '{SESSION}' AND number = 1",
    ("history", "number"): f"session = '{SESSION}' AND number = 1",
    ("history", "party"): f"session = '{SESSION}' AND number = 1",
    ("worker", "record"): f"id = '{WORKER}'",
    ("worker", "id"): f"id = '{WORKER}'",
    ("node", "info"): "id = 'b'",
    ("node", "id"): "id = 'b'",
    ("place", "want"): f"session = '{SESSION}'",
    ("place", "worker"): f"session = '{SESSION}'",
    ("place", "order_ms"): f"session = '{SESSION}'",
    ("life", "until_ms"): f"session = '{SESSION}'",
    ("fact", "value"): "name = 'pace'",
    ("receipt", "body"): "true",
    ("receipt", "at_ms"): "true",
    ("step", "step"): "true",
}
"""The values that are damaged, and the record each belongs to."""

ASK: tuple[Op, ...] = (
    append(entries(5, 5, history=True)), ack(2), Look(SESSION, "worker", 0, 9), Look(SESSION, "worker", 1, 1),
    Look(SESSION, "client", 0, 9), ReadHistory(SESSION, 9), ReadTrail(SESSION), claim_client(node="a"), claim_worker(),
    UpdateWorker(WORKER, 1, 3, False),
    ListWorkers(), ListNodes(NOW_MS), ListWaiting(9), ListOverdue(NOW_MS, 9), enqueue(), WorkerSessions(WORKER),
    Release(SESSION, WORKER, True), TakePace(1, 10.0, NOW_MS),
)  # fmt: skip


TYPES = ("blob", "text", "integer", "real")


def _file(path: Path) -> _File:
    return _open(path, "a", Seals(), durable=False, busy_timeout_s=1.0)


def _do(file: _File, *ops: Op) -> list[Any]:
    return list(file.execute(ops, NOW_MS)[0])


@cache
def _template() -> tuple[bytes, dict[tuple[str, str], bytes]]:
    """A filled file, and what is kept in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        file = _file(path)
        _do(file, *FILL)
        file.close(listening=False)
        with closing(sqlite3.connect(path)) as sql:
            kept = {}
            for (table, column), where in VALUES.items():
                (value,) = sql.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
                kept[table, column] = value if isinstance(value, bytes) else str(value).encode()
        return path.read_bytes(), kept


def make_record(rng: Random) -> bytes:
    """A value that is kept, with some bits flipped, cut, or torn."""
    place = mutate.pick(rng, tuple(VALUES))
    kept = _template()[1]
    data = bytearray(kept[place] or b"?")
    if rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            bit = rng.randrange(len(data) * 8)
            data[bit // 8] ^= 1 << bit % 8
        damaged = bytes(data)
    else:
        damaged = mutate.damage(bytes(data), rng, tuple(kept.values()))
    kind = mutate.pick(rng, ("blob", "blob", "blob", *TYPES))
    return " ".join((*place, kind)).encode() + b"\n" + damaged


def _value(kind: str, data: bytes) -> object:
    if kind == "text":
        return data.decode(errors="replace")
    if kind == "integer":
        return int.from_bytes(data[:8], "big", signed=True)
    return float(int.from_bytes(data[:8], "big")) if kind == "real" else data


def _damage(path: Path, filled: bytes, data: bytes) -> None:
    line, _, value = data.partition(b"\n")
    table, column, kind = line.decode().split()
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(filled)
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA synchronous = OFF")
        change = f"UPDATE OR REPLACE {table} SET {column} = ? WHERE {VALUES[table, column]}"
        sql.execute(change, (_value(kind, value),))


@asynccontextmanager
async def judging_records(seed: int) -> Any:
    """A store that starts on a damaged file."""
    filled, _ = _template()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signald.db"

        async def try_input(data: bytes) -> str:
            _damage(path, filled, data)
            with structlog.testing.capture_logs() as lines:
                file = _file(path)
                try:
                    return _judge(file) + (", said" if lines else "")
                finally:
                    file.close(listening=False)

        yield try_input


def _judge(file: _File) -> str:
    results = _do(file, *ASK, append(entries(5, 5, history=True), session=OTHER), Look(OTHER, "worker", 0, 9))
    appended, looked = results[-2:]
    if appended != Appended(5, 0, "b") or looked.entries != (*STORED, *entries(5, 5, history=True)):
        raise Harm(f"another session was answered {appended} {looked}")
    right = {entry.seq: entry.body for entry in (*STORED, *entries(5, 5))}
    for result in results[:-2]:
        for entry in result.entries if isinstance(result, Looked) else ():
            if right.get(entry.seq) != entry.body:
                raise Harm(f"delivered as {entry.seq}: {entry.body!r}")
    # Whatever it is: the node that holds the parties can give everything back, and it goes on from there.
    known = head(
        worker=WORKER, worker_state="paired", worker_epoch=2, worker_node="a", client_epoch=2, workers=1, up_last=5
    )
    given, _, _, again = _do(
        file,
        reseed(known, tokens=(token("t2"),), up_tail=entries(1, 5)),
        reseed_worker(node="a", epoch=3, tokens=(token("w2"),)),
        put_node("b"),
        append(entries(6, 6), epoch=2),
    )
    if not isinstance(given, Head) or not isinstance(again, Appended) or again.last != 6:
        raise Harm(f"given back: {given}, {again}")
    _do(file, EndSession(SESSION, "a"), RemoveWorker(WORKER, "a", 0, True))
    return type(results[0]).__name__
