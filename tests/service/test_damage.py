"""A damaged file beneath whole nodes: one conversation is mended or ends, all others go on, and so does the node."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import structlog
import trio

from signald.store.damage import Reports
from signald.store.sqlite import open_sqlite
from signald.testing.cluster import Cluster, open_cluster
from signald.testing.wire import Json, Peer

pytestmark = pytest.mark.real

Scene = Callable[[Cluster, "Damager"], Awaitable[None]]


class Damager:
    """Flips bits in the file of a running cluster."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hit(self, table: str, column: str, where: str) -> None:
        """Flip one bit in the middle of `column` in the rows that match."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as sql:
            found = sql.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchall()
            assert found, "there is something to damage"
            for (value,) in found:
                hurt = bytearray(value)
                hurt[len(hurt) // 2] ^= 0x10
                change = f"UPDATE {table} SET {column} = ? WHERE {where} AND {column} = ?"
                sql.execute(change, (bytes(hurt), value))

    def record(self, session: str) -> None:
        """Damage the record of a session."""
        self.hit("session", "record", f"session = '{session}'")

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        with closing(sqlite3.connect(self.path, timeout=10)) as sql:
            return int(sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@asynccontextmanager
async def on_sqlite(path: Path, seed: int) -> AsyncIterator[Cluster]:
    """A cluster whose nodes share one file, in real time."""
    async with open_cluster(seed) as cluster:
        cluster.open_store = lambda node: open_sqlite(f"sqlite:{path}", node, ack="process", poll_interval_s=0.01)
        yield cluster


def play(path: Path, scene: Scene, seed: int = 1) -> None:
    """Run `scene`; the node may complain about what is damaged, once, and about nothing else."""

    async def main() -> None:
        with trio.fail_after(30):
            async with on_sqlite(path, seed) as cluster:
                await scene(cluster, Damager(path))

    with structlog.testing.capture_logs() as lines, pytest.MonkeyPatch.context() as patch:
        reports = Reports()
        patch.setattr("signald.store.sqlite.REPORTS", reports)
        patch.setattr("signald.store.sqlite_rows.REPORTS", reports)
        trio.run(main)
    told = [
        (line["event"], line.get("what"), line.get("of"))
        for line in lines
        if line["log_level"] in ("error", "critical")
    ]
    assert told, "damage is said"
    assert len(told) == len(set(told)), "and said once"
    assert {event for event, _, _ in told} <= {"record_unreadable", "session_unreadable", "log_lost"}


async def said(peer: Peer, first: int, last: int, **fields: object) -> None:
    """Send the messages `first` to `last` and wait until they are acked."""
    for seq in range(first, last + 1):
        await peer.send({"type": "message", "seq": seq, "data": seq, **fields})
    while (await peer.expect("ack"))["seq"] < last:
        pass


async def heard(peer: Peer, first: int, last: int) -> None:
    """Receive exactly the messages `first` to `last`, and no other."""
    assert [(await peer.expect("message"))["data"] for _ in range(first, last + 1)] == list(range(first, last + 1))


async def talk(client: Peer, worker: Peer, session: str, first: int, last: int) -> None:
    """exactly-once, both ways."""
    await said(client, first, last)
    await heard(worker, first, last)
    await worker.send({"type": "ack", "session": session, "seq": last})
    await said(worker, first, last, session=session)
    await heard(client, first, last)
    await client.send({"type": "ack", "seq": last})


@asynccontextmanager
async def bystanders(cluster: Cluster, client_at: str, worker_at: str) -> AsyncIterator[None]:
    """Another pair, whose talk goes on as if nothing had happened."""
    worker, _ = await cluster.worker(worker_at, "bystander", labels={"for": "bystanders"})
    client, started = await cluster.client(client_at, want={"for": "bystanders"})
    await worker.accept()
    await talk(client, worker, started["session"], 1, 5)
    yield
    await talk(client, worker, started["session"], 6, 10)
    assert [
        frame for peer in (client, worker) for frame in await peer.quiet(0.2) if frame["type"] not in ("ack", "peer")
    ] == []


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_live_session_is_given_back(tmp_path: Path, worker_at: str) -> None:
    """exactly-once: its parties go on talking, nothing acked is lost, and both can resume afterwards."""

    async def scene(cluster: Cluster, damager: Damager) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, accepted, session = await cluster.pair("n1", worker_at)
        async with bystanders(cluster, "n1", worker_at):
            await talk(client, worker, session, 1, 3)
            damager.record(session)
            await talk(client, worker, session, 4, 6)
            damager.record(session)
            await said(worker, 7, 8, session=session)
            await heard(client, 7, 8)
            await said(client, 7, 8)
            await heard(worker, 7, 8)
        client.cut()
        again, restored = await cluster.restore("n2", started["recovery_token"], received=8, acked=8)
        assert (restored["type"], restored["accepted"], restored["replaying"]) == ("session_restored", 8, 0)
        worker.cut()
        back, ack = await cluster.resume(
            "n1", accepted["recovery_token"], {"session": session, "received": 8, "acked": 8}
        )
        assert ([one["session"] for one in ack["sessions"]], ack["lost"]) == ([session], [])
        await talk(again, back, session, 9, 10)

    play(tmp_path / "damaged.db", scene)


@pytest.mark.parametrize("who", ["client", "worker"])
def test_a_party_that_moves_meets_the_damage(tmp_path: Path, who: str) -> None:
    """one-hop: the node it leaves gives its session back, and the party that is asking waits for that and is served."""

    async def scene(cluster: Cluster, damager: Damager) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, accepted, session = await cluster.pair("n1")
        await talk(client, worker, session, 1, 3)
        damager.record(session)
        if who == "client":
            client, answer = await cluster.restore("n2", started["recovery_token"], received=3, acked=3)
            assert (answer["type"], answer["accepted"]) == ("session_restored", 3)
        else:
            damager.hit("worker", "record", f"id = '{accepted['worker']}'")
            listed: Json = {"session": session, "received": 3, "acked": 3}
            worker, answer = await cluster.resume("n2", accepted["recovery_token"], listed)
            assert ([one["session"] for one in answer["sessions"]], answer["lost"]) == ([session], [])
        await talk(client, worker, session, 4, 6)

    play(tmp_path / "damaged.db", scene)


def test_a_session_that_nobody_holds_cannot_be_resumed(tmp_path: Path) -> None:
    """Closed: its client is told that there is nothing to resume, others are not hurt, and no trace of it stays."""

    async def scene(cluster: Cluster, damager: Damager) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 3.0})
        client, started = await cluster.client("n1", want={"nobody": "serves this"})
        async with bystanders(cluster, "n1", "n1"):
            client.cut()
            await trio.sleep(0.2)
            damager.record(started["session"])
            again, error = await cluster.restore("n1", started["recovery_token"])
            assert (error["code"], await again.closed()) == ("nothing_to_resume", 4404)
            with trio.fail_after(30):
                while max(damager.rows(table) for table in ("session", "life", "place")) > 1:  # noqa: ASYNC110 - a file
                    await trio.sleep(0.1)

    play(tmp_path / "damaged.db", scene)


def test_a_damaged_message_is_told_and_not_delivered(tmp_path: Path) -> None:
    """Its receiver and its sender are told which one is lost; those around it arrive."""

    async def scene(cluster: Cluster, damager: Damager) -> None:
        node = await cluster.start("n1")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        await trio.sleep(0.2)
        await said(worker, 1, 4, session=session)
        damager.hit("entry", "body", f"session = '{session}' AND seq IN (2, 3)")
        worker.cut()
        await trio.sleep(0.2)
        assert node.hub.sessions == {}, "nobody remembers the messages"
        again, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["replaying"] == 4
        assert [(await again.expect("message"))["data"] for _ in range(2)] == [1, 4]
        lost = await again.expect("error")
        assert (lost["code"], lost["lost_from"], lost["lost_to"], lost["fatal"]) == ("log_lost", 2, 3, False)
        listed: Json = {"session": session, "received": 0, "acked": 4}
        back, _ = await cluster.resume("n1", accepted["recovery_token"], listed)
        await again.send({"type": "ack", "seq": 4})
        await said(back, 5, 6, session=session)
        await heard(again, 5, 6)

    play(tmp_path / "damaged.db", scene)


def test_a_live_worker_is_given_back(tmp_path: Path) -> None:
    """It keeps its sessions and gets new ones, whatever becomes of its record."""

    async def scene(cluster: Cluster, damager: Damager) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        damager.hit("worker", "record", f"id = '{accepted['worker']}'")
        damager.hit("place", "want", f"session = '{session}'")
        damager.hit("node", "info", "id = 'n1'")
        await talk(client, worker, session, 1, 3)
        other, started = await cluster.client("n1")
        await worker.accept(within_s=20)
        await talk(other, worker, started["session"], 1, 3)
        await talk(client, worker, session, 4, 5)

    play(tmp_path / "damaged.db", scene)


def test_a_node_starts_on_a_damaged_file(tmp_path: Path) -> None:
    """Everything that can be damaged is; new parties are served, and sweeps go on."""

    async def before(cluster: Cluster, damager: Damager) -> None:
        await cluster.start("n1")
        client, _, worker, _, _ = await cluster.pair("n1")
        await said(client, 1, 3)
        for table, column in (
            ("session", "record"),
            ("entry", "body"),
            ("history", "body"),
            ("worker", "record"),
            ("place", "want"),
        ):
            damager.hit(table, column, "true")
        damager.hit("node", "info", "true")
        client.cut()
        worker.cut()
        await trio.sleep(0.3)

    async def after(cluster: Cluster, damager: Damager) -> None:
        node = await cluster.start("n2", session={"resume_ttl_s": 2.0}, worker={"resume_timeout_s": 1.0})
        async with bystanders(cluster, "n2", "n2"):
            await trio.sleep(4)
        assert node.committer.down_since is None

    play(tmp_path / "damaged.db", before)
    play(tmp_path / "damaged.db", after, seed=2)
