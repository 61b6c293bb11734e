"""What is Redis's own: its failures, its ways to be set up, and the commands that each user may use.

What the store means is the contract's matter (the files test_contract.py, test_plans.py).
"""

import datetime as dt
import ipaddress
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs
from redis.backoff import NoBackoff

from signald.core.callers import ALL, Access
from signald.core.head import Head
from signald.core.life import EVENTS_LEFT_MS
from signald.core.wants import offer
from signald.demo.cluster import free_port
from signald.errors import StoreMisused, StoreUnavailable
from signald.store import redis as redis_store
from signald.store.base import Done, Op, Refused, Result, Store, Wake
from signald.store.redis import ACL, RedisStore, open_redis
from signald.store.redis_codecs import CODECS
from signald.store.redis_connection import ErrorReply, RedisLink, refusal
from signald.store.redis_keys import DEFAULT
from signald.store.redis_reseal import OPERATIONS
from signald.store.redis_url import Address, parse_url
from signald.store.registry.agenda.ops import ListAgenda, Own, ReadAgenda, Schedule, Settle, TakeDue
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
    Named,
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
    WorkerSessions,
)
from signald.store.registry.packing import Check
from signald.store.registry.queues.ops import CLUSTER, DropQueue, ReadQueue, TellCluster, TellWorker
from signald.store.room.ops import (
    DropMembers,
    LeaveRoom,
    LookRoom,
    Published,
    ReadRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    RoomSwept,
    SetPresence,
    SnapshotRoom,
    SweepRoom,
)
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
    OVER_MS,
    AcceptSession,
    Appended,
    ConfirmToken,
    Detach,
    EndSession,
    ExpireSession,
    HandOn,
    KeepAnswer,
    Look,
    Looked,
    Mark,
    NoSession,
    ReadHistory,
    ReadSession,
    ReadTrail,
    RetrySession,
    Unpair,
    UnpairFailed,
)
from signald.store.session.packing import APPEND
from signald.store.session.streams.ops import CancelStream, CloseStreams, OpenStreams
from signald.store.shelf.ops import (
    AbandonBlob,
    BlobKept,
    BlobRead,
    ForgetBlobs,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    SweepShelf,
)
from tests.store.ops import (
    BLOB,
    BOUNDS,
    NOW_MS,
    ROOM,
    SESSION,
    SHELF,
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
    join_room,
    piece,
    post,
    publication,
    publish,
    put_node,
    register,
    reseed,
    reseed_worker,
    token,
)
from tests.store.redis_servers import HOST, Server, form_cluster, proxy, replica_of, sentinel_of, servers, until

pytestmark = pytest.mark.real

SECRET = "hunter2-is-no-password"  # what must never be seen again


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """One server without persistence."""
    made = Server(tmp_path)
    async with servers(made):
        yield made


def every_op() -> list[Op]:
    """One of each operation, in an order in which each does what it is for."""
    return [
        Incarnation("one"),
        ClusterSecret(b"secret"),
        RaiseFormat(2),
        UseSealKey("00000001"),
        ReadApiKeys((), bytes(32), 10, 10, NOW_MS),
        put_node("a", "starting"),
        put_node("b"),
        ListNodes(NOW_MS + 70_000),
        put_node("a"),
        create(receipts=True, events_max=9),
        enqueue(),
        structs.replace(register(), events_max=9),
        Own(ROOM, "ada", 9, 9, NOW_MS, NOW_MS),
        Schedule("e", (SESSION, "s_2"), NOW_MS, NOW_MS),
        TakeDue("e", "a", "n", NOW_MS, 1000, 2),
        Schedule("e", (SESSION, WORKER), NOW_MS, NOW_MS),
        Settle("e", SESSION, NOW_MS, NOW_MS + 1, 1, NOW_MS, NOW_MS),
        Settle("e", WORKER, NOW_MS + 2, 0, 0, 0, NOW_MS),
        ReadAgenda("e", NOW_MS),
        ListAgenda("e", "a", 9),
        TellCluster("o", "deploy.finished", {}, 9, NOW_MS + 10**9),
        ReadQueue(CLUSTER, 9),
        DropQueue(CLUSTER, 1),
        claim_named("w_named_1", events_max=9),
        TellWorker("w_named_1", "app.message", {"id": "m"}, 9, NOW_MS),
        Reserve("a", ((SESSION, WORKER),)),
        claim_side(events_max=9),
        AcceptSession(SESSION, "b", 1),
        append(entries(1, 3, history=True), history_max=2),
        append(entries(1, 1), party="worker", ack=1),
        ack(2),
        Look(SESSION, "worker", 0, 5),
        ReadHistory(SESSION, 5),
        ReadSession(SESSION, Access(worker=WORKER)),
        append((piece(2, "x"), piece(3, "y", stream="b")), party="worker"),
        CancelStream(SESSION, "down", "a", "", ALL, "a"),
        OpenStreams(SESSION),
        HandOn(SESSION, "b", 1, b"1"),
        KeepAnswer(SESSION, b"1", b"{}", NOW_MS),
        claim_side("w_2", nonce="next", history=5),
        CloseStreams(SESSION, "b", 2, ("a",), "interrupted", NOW_MS),
        claim_side(nonce="back"),
        claim_client(acked=5, received=1),
        TellEvent(SESSION, "n", "app.message", {"a": 1}, 9, NOW_MS),
        ReadEvents(SESSION, 2),
        DropEvents(SESSION, 2, NOW_MS),
        create_job(),
        TakeJobs(SESSION, "b", 1, ("*",), (), 9, NOW_MS),
        JobProgress(SESSION, 1, "b", 1, b"1", NOW_MS),
        ListJobs(SESSION, ALL, "a", "", 0, 9, NOW_MS),
        ListChangedJobs(SESSION, 0, 0, 9),
        CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS),
        ReadJob(SESSION, 1, ALL, "a", NOW_MS),
        ReadPieces(SESSION, 1, ALL, 0, 9, NOW_MS),
        SweepJobs(SESSION, "a", NOW_MS),
        ConfirmToken(SESSION, 2),
        claim_worker(),
        ConfirmWorkerToken(WORKER, 2),
        UpdateWorker(WORKER, 2, 3, False),
        ListWorkers(),
        WorkerSessions(WORKER),
        KeepAlive((SESSION,), NOW_MS + 10, ("x",)),
        ListOverdue(NOW_MS + 1000, 5),
        Signal("a", b"rx"),
        TakePace(3, 10.0, NOW_MS),
        TakePace(3, 10.0, NOW_MS, "worker"),
        PutReceipt("a", b"{}", NOW_MS),
        GetReceipt("a"),
        ListReceipts(),
        Revoke("ann", NOW_MS, NOW_MS + 9, NOW_MS, 5, "a"),
        ListRevoked(0, 5, NOW_MS),
        KeepKeySet("a", b"{}", NOW_MS),
        GetKeySet("a"),
        Mark(SESSION, (b"{}",), 10, 60_000, NOW_MS),
        ReadTrail(SESSION),
        Detach(SESSION, "client", "b", 2, NOW_MS),
        UnpairFailed(SESSION, "a", WORKER, 0, 1, NOW_MS, 0),
        RetrySession(SESSION, "a"),
        Unpair(SESSION, "a", WORKER, 0),
        Release(SESSION, WORKER, True),
        ListWaiting(5),
        ListSuited((offer({"lang": "en"}),), 5, 10),
        MendLine(0, 5),
        Leave("s_none"),
        reseed(head("s_2", up_last=2), up_tail=entries(1, 2, history=True)),
        reseed_worker("w_2", sessions=("s_2",)),
        RemoveWorker("w_2", "a", 0, True, "", 9, NOW_MS),
        DropQueue("w_2", 1),
        DetachWorker(WORKER, 2, NOW_MS),
        Hold("s_3", ("x",), 9, 9, NOW_MS, NOW_MS),
        ListSessionsOf("x", "", 5),
        CountTrails((("s_3", 100), ("s_4", 100)), 500, 1000, NOW_MS + 9, NOW_MS),
        begin_blob(key=token("key")),
        RenewBlob(SHELF, BLOB, "upload", 5, NOW_MS),
        finish_blob(),
        ReadBlob(SHELF, BLOB, NOW_MS),
        RemoveBlob(SHELF, BLOB, NOW_MS),
        begin_blob("b_2"),
        AbandonBlob(SHELF, "b_2", "upload", NOW_MS),
        SweepShelf(SHELF, NOW_MS, 9),
        ForgetBlobs(SHELF, (BLOB, "b_2"), NOW_MS),
        *room_ops(),
        Forget(SESSION),
        ExpireSession("s_2", "a", (), NOW_MS + 10**9, 1),
        EndSession(SESSION, "a"),
        DropNode("b"),
    ]


def room_ops(room: str = ROOM) -> list[Op]:
    """Every operation on a room, which is removed at the end."""
    tight = structs.replace(BOUNDS, history_messages_max=1, tombstones_max=0)
    return [
        join_room(room=room),
        join_room("s_2", room=room, node="b"),
        publish(
            publication(1, put={"r": (("x", b"1"),)}),
            publication(2, remove=("r",)),
            publication(3, b"u", update=True),
            publication(4),
            room=room,
            bounds=tight,
        ),
        post(room=room, key=token("key")),
        SetPresence(room, SESSION, "a", 1, b"1"),
        LookRoom(room, 0, 0, 9, NOW_MS),
        ReadRoom(room, 9, NOW_MS),
        ReadRoomHistory(room, 0, 9, NOW_MS),
        ReadRoomState(room, 0, 9, NOW_MS),
        ReadRoomUpdates(room, 0, 9, NOW_MS),
        SnapshotRoom(room, SESSION, "a", 1, 4, b"s", BOUNDS),
        LeaveRoom(room, SESSION, "a", 1, 9, NOW_MS),
        DropMembers(room, "s_2", "a", 9, NOW_MS),
        SweepRoom(room, NOW_MS + 9),
    ]


def threads() -> set[str]:
    """The names of the store's threads that live."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("signald")}


def heads_of(session: str) -> list[Any]:
    """What creating `session` is answered with."""
    return [head(session)]


async def wait_for_no_threads() -> None:
    """Return once no thread of a store is left: it says so before it has quite ended."""
    await until(lambda: not threads(), 5)


class TestUrl:
    """`store.url` in its forms."""

    @pytest.mark.parametrize(
        ("url", "kind", "addresses"),
        [
            ("redis://h", "single", [("h", 6379)]),
            ("redis://h:7/3", "single", [("h", 7)]),
            ("rediss://u:p@[::1]:7", "single", [("::1", 7)]),
            ("redis+sentinel://h,i:7/main", "sentinel", [("h", 26379), ("i", 7)]),
            ("rediss+sentinel://:p@h/main/2", "sentinel", [("h", 26379)]),
            ("redis+cluster://h:1,h:2", "cluster", [("h", 1), ("h", 2)]),
        ],
    )
    def test_forms(self, url: str, kind: str, addresses: list[tuple[str, int]]) -> None:
        """Each form names its kind and its servers."""
        target = parse_url(url)
        assert (target.kind, list(target.addresses)) == (kind, addresses)
        assert target.tls == url.startswith("rediss")

    def test_parts(self) -> None:
        """Credentials are decoded; the service and the database are found behind the hosts."""
        target = parse_url("redis+sentinel://us%40er:p%3Aw@h/main/4?sentinel_password=x")
        assert (target.username, target.password, target.service, target.db) == ("us@er", "p:w", "main", 4)
        assert target.options == {"sentinel_password": "x"}

    @pytest.mark.parametrize(
        "url",
        [
            f"http://u:{SECRET}@h",
            f"u:{SECRET}@h",
            f"redis://u:{SECRET}@h,i",
            f"redis://u:{SECRET}@",
            f"redis://u:{SECRET}@h:port",
            f"redis://u:{SECRET}@h:99999",
            f"redis://u:{SECRET}@h/one",
            f"redis+sentinel://u:{SECRET}@h",
            f"redis+cluster://u:{SECRET}@h/1",
            f"redis+moon://u:{SECRET}@h",
            f"redis://u:{SECRET}@h?socket_timeout=9",
            f"rediss://u:{SECRET}@h?ssl_ca_certs=/no/such/file",
        ],
    )
    def test_wrong(self, url: str) -> None:
        """What is not one of the forms is refused, without a word of the password."""
        with pytest.raises(StoreMisused) as caught:
            parse_url(url)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("login", "hint"),
        [
            (f"u:{SECRET}/x", "percent-encoded"),
            (f"u:{SECRET}?x", "percent-encoded"),
            (f"u:{SECRET}%ff", "percent-encoded"),
            (f"u:{SECRET}/1#x?y=z", "percent-encoded"),
        ],
    )
    def test_special_characters(self, login: str, hint: str) -> None:
        """A password that ends the hosts too early is told how to be written, and not repeated."""
        with pytest.raises(StoreMisused, match=hint) as caught:
            parse_url(f"redis://{login}@h:6379/0")
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("password", ["a@b", "a:b", "a#b", "a%zb", "a[b", "a]b"])
    def test_characters_that_do_no_harm(self, password: str) -> None:
        """What can be told apart is taken as it is."""
        target = parse_url(f"redis://u:{password}@h:7/0")
        assert (target.password, target.addresses) == (password, (Address("h", 7),))

    def test_secret_repr(self) -> None:
        """The parsed URL does not show its credentials either."""
        target = parse_url(f"redis+sentinel://u:{SECRET}@h/main?sentinel_password={SECRET}")
        assert SECRET not in repr(target)

    def test_no_retries(self) -> None:
        """redis-py repeats nothing by itself: a lost reply would have it do everything twice."""
        connection = RedisLink(parse_url("redis://h"), Address("h", 1), 1.0, 1.0)._connection
        assert connection.retry.get_retries() == 0
        assert isinstance(connection.retry._backoff, NoBackoff)
        assert connection.retry_on_error == []


class TestErrors:
    """How error replies are taken."""

    @pytest.mark.parametrize(
        "text",
        [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_0123): @user_script:9: -OOM command not allowed",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MISCONF Redis is configured to save RDB snapshots",
            "NOREPLICAS Not enough good replicas to write.",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "BUSY Redis is busy running a script.",
            "MOVED 1 127.0.0.1:7001",
            "ASK 1 127.0.0.1:7001",
            "SOMETHING new",
        ],
    )
    def test_passing(self, text: str) -> None:
        """What passes in time is StoreUnavailable."""
        assert isinstance(refusal(ErrorReply(text)), StoreUnavailable)

    @pytest.mark.parametrize(
        "text",
        [
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "ERR ACL failure in script: NOPERM No permissions to access a key",
            "WRONGPASS invalid username-password pair",
            "ERR unknown command 'EVALSHA'",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ],
    )
    def test_misused(self, text: str) -> None:
        """What only an operator can change is StoreMisused."""
        assert isinstance(refusal(ErrorReply(text)), StoreMisused)

    @pytest.mark.parametrize(
        "text",
        [
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "ERR ACL failure in script: NOPERM No permissions to access a key",
            "ERR The user executing the script can't run this command or subcommand script: 5801, on @user_script:58.",
            "WRONGPASS invalid username-password pair",
        ],
    )
    def test_denied(self, text: str) -> None:
        """A lacking right is told as one, also where a script meets it: that is what has to be mended."""
        assert "credentials or permissions" in str(refusal(ErrorReply(text)))

    async def test_full_memory(self, server: Server) -> None:
        """A full memory refuses writes and loses nothing; with room again the batch goes through."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create()])
            server.ask("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                await store.execute([append(entries(1, 1), ack=1)])
            server.ask("CONFIG", "SET", "maxmemory", 0)
            assert await store.execute([append(entries(1, 1))]) == [Appended(1, 0, "")]

    async def test_became_replica(self, server: Server) -> None:
        """A primary that was demoted is away, at its old connections and at new ones."""
        async with open_redis(server.url, "a") as store:
            server.ask("REPLICAOF", HOST, free_port())
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.execute([create()])
            server.ask("REPLICAOF", "NO", "ONE")
            assert await store.execute([create()]) == heads_of(SESSION)

    async def test_foreign_key(self, server: Server) -> None:
        """A key that all need and that another application has put something else in is a fault of the set-up."""
        async with open_redis(server.url, "a") as store:
            server.ask("SET", "signald:{signald}:nodes", "something else")
            with pytest.raises(StoreMisused, match="WRONGTYPE"):
                await store.execute([put_node("a")])


class TestStart:
    """What signald refuses to start on."""

    async def test_eviction(self, tmp_path: Path) -> None:
        """A server that would throw sessions away is refused, and the text says what to set."""
        evicting = Server(tmp_path, "--maxmemory-policy", "allkeys-lru")
        async with servers(evicting):
            with pytest.raises(StoreMisused, match="set maxmemory-policy to noeviction"):
                async with open_redis(evicting.url, "a"):
                    pass
        await wait_for_no_threads()

    async def test_eviction_later(self, server: Server) -> None:
        """A server that begins to evict while sessions live is away until it is mended: they are kept."""
        async with open_redis(server.url, "a") as store:
            server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.execute([create()])
            server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            assert await store.execute([create()]) == heads_of(SESSION)

    async def test_nobody_there(self) -> None:
        """A server that is not there is away, and no thread stays behind."""
        with pytest.raises(StoreUnavailable):
            async with open_redis(f"redis://{HOST}:{free_port()}", "a"):
                pass
        await wait_for_no_threads()

    async def test_replica(self, tmp_path: Path, server: Server) -> None:
        """A replica is no place to write to."""
        replica = replica_of(server, tmp_path)
        async with servers(replica):
            with pytest.raises(StoreUnavailable, match="is a replica"):
                async with open_redis(replica.url, "a"):
                    pass

    @pytest.mark.parametrize(
        ("end", "said"),
        [
            ("redis://{at}/99", "has no database of the number in store.url"),
            ("redis://{at}/99999999999999999999", "has no database of the number in store.url"),
            ("rediss://{at}", "does not speak TLS: write redis instead of rediss"),
            ("redis://:wrong@{at}", "percent-encoded"),
            ("redis://nobody@{at}", "a password without a user name stands behind a colon"),
            ("redis+cluster://{at}", "cluster support disabled"),
            ("redis+sentinel://{at}/main", "unknown command"),
        ],
    )
    async def test_never(self, server: Server, end: str, said: str) -> None:
        """What no waiting mends is refused, with what to change; a password is not repeated."""
        with pytest.raises(StoreMisused, match=said) as caught:
            async with open_redis(end.format(at=f"{HOST}:{server.port}"), "a"):
                pass
        assert "wrong" not in str(caught.value)
        await wait_for_no_threads()

    async def test_a_sentinel_or_a_cluster_in_plain(self, tmp_path: Path, server: Server) -> None:
        """A Sentinel keeps no sessions, and one of several primaries only a part of them: the form to use is said."""
        sentinel = sentinel_of(server, tmp_path)
        members = [Server(tmp_path, "--cluster-enabled", "yes") for _ in range(2)]
        async with servers(sentinel, *members):
            await form_cluster(members)
            for url, said in (
                (sentinel.url, r"is a Sentinel: write redis\+sentinel"),
                (members[0].url, r"write redis\+cluster"),
                (f"{members[0].url}/1", "has no database"),
            ):
                with pytest.raises(StoreMisused, match=said):
                    async with open_redis(url, "a"):
                        pass

    async def test_no_redis(self) -> None:
        """Another program's port is refused as what it is."""

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            with pytest.raises(StoreMisused, match="is no Redis"):
                async with open_redis(f"redis://{HOST}:{listener.socket.getsockname()[1]}", "a"):
                    pass
            nursery.cancel_scope.cancel(reason="the test is over")


class TestAway:
    """The server is away, hangs, forgets, or comes back."""

    async def test_killed(self, server: Server) -> None:
        """A killed server is away at once; started again, empty, it serves, and has another name."""
        async with open_redis(server.url, "a", command_timeout_s=60.0) as store:
            assert await store.execute([create(), Incarnation("one")]) == [head(), Named("one")]
            await server.kill()
            for _ in range(2):
                with trio.fail_after(20), pytest.raises(StoreUnavailable):
                    await store.execute([append(entries(1, 1))])
            with pytest.raises(StoreUnavailable):
                await store.check()
            await server.start()
            await store.check()
            assert await store.execute([append(entries(1, 1)), Incarnation("two")]) == [NoSession(), Named("two")]

    async def test_scripts_lost(self, server: Server) -> None:
        """A server that lost its scripts gets them again, and the batch is answered as if nothing had been."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create()])
            server.ask("SCRIPT", "FLUSH")
            results = await store.execute(
                [append(entries(1, 2)), ack(1, party="client"), Look(SESSION, "worker", 0, 9)]
            )
            assert results[:2] == [Appended(2, 0, ""), Done()]
            assert isinstance(results[2], Looked)
            assert results[2].entries == entries(1, 2)

    async def test_one_script_lost(self, server: Server) -> None:
        """What was answered before the first missing script stands; the rest is asked again in order."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create()])
            server.ask("SCRIPT", "FLUSH")
            server.ask("SCRIPT", "LOAD", DEFAULT.script(APPEND).text)
            first, ended, second = await store.execute(
                [append(entries(1, 1)), EndSession(SESSION, "a"), append(entries(2, 2))]
            )
            assert first == Appended(1, 0, "")
            assert type(ended).__name__ == "Ended"
            assert second == NoSession()

    async def test_idle_connection_closed(self, server: Server) -> None:
        """A connection that was closed while idle costs nothing: the batch goes over a new one."""
        async with open_redis(server.url, "a") as store:
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            assert await store.execute([create()]) == heads_of(SESSION)
            assert store.lives == 1

    async def test_restarted(self, server: Server) -> None:
        """A server that was restarted may have lost its tail: it is another life, once, however often it is connected to."""
        async with open_redis(server.url, "a") as store:
            await server.kill()
            await server.start()
            assert await persist(store, [create()]) == heads_of(SESSION)
            assert store.lives == 2
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            assert await persist(store, [create()]) == heads_of(SESSION)
            assert store.lives == 2

    async def test_pause(self, server: Server) -> None:
        """No caller is answered before the server answers."""
        async with open_redis(server.url, "a") as store, trio.open_nursery() as nursery:
            answered: list[Any] = []

            async def ask() -> None:
                answered.extend(await store.execute([create()]))

            server.ask("CLIENT", "PAUSE", 60_000, "WRITE")
            nursery.start_soon(ask)
            await trio.sleep(0.2)
            assert answered == []
            server.ask("CLIENT", "UNPAUSE")
        assert answered == [head()]

    async def test_timeout(self, server: Server) -> None:
        """A server that does not answer in time is away; its late answer is never taken for another's."""
        async with open_redis(server.url, "a", command_timeout_s=0.2) as store:
            await store.execute([create()])
            server.freeze()
            with pytest.raises(StoreUnavailable):
                await store.execute([append(entries(1, 1))])
            server.thaw()
            assert await store.execute([Incarnation("one")]) == [Named("one")]
            assert await store.execute([append(entries(1, 2))]) == [Appended(2, 0, "")]

    async def test_cancelled(self, server: Server) -> None:
        """A caller that is cancelled while the server hangs does not wait for it; the next one gets its own answer."""
        async with open_redis(server.url, "a", command_timeout_s=30.0) as store:
            await store.execute([create()])
            server.freeze()
            with trio.fail_after(10), trio.move_on_after(0.05) as scope:
                await store.execute([append(entries(1, 1))])
            assert scope.cancelled_caught
            server.thaw()
            assert await store.execute([Incarnation("one"), append(entries(1, 1))]) == [
                Named("one"),
                Appended(1, 0, ""),
            ]

    async def test_cancelled_while_connecting(self, server: Server) -> None:
        """While a cancelled task's connecting still goes on, the next batches wait, and get their own answers."""
        async with open_redis(server.url, "a", command_timeout_s=30.0) as store:
            await store.execute([create()])
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            server.freeze()
            with trio.fail_after(10), trio.move_on_after(0.05) as scope:
                await store.execute([append(entries(1, 1))])
            assert scope.cancelled_caught
            answers: dict[int, Any] = {}

            async def look(number: int) -> None:
                answers[number] = (await store.execute([Look(SESSION, "worker", number, 1)] * 50))[0]

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(look, number)
                await trio.testing.wait_all_tasks_blocked()
                server.thaw()
                nursery.start_soon(store.execute, [append(entries(1, 4))])
            again = [(await store.execute([Look(SESSION, "worker", number, 1)]))[0] for number in range(4)]
            assert all(isinstance(answer, Looked) for answer in answers.values())
            assert [found.entries[0].seq for found in again if isinstance(found, Looked)] == [1, 2, 3, 4]

    async def test_lost_reply(self, server: Server) -> None:
        """A batch whose replies were lost and that is sent again has one effect and the answers of the first time."""
        async with open_redis(server.url, "b") as sure, proxy(server) as between, open_redis(between.url, "a") as store:
            await sure.execute([create(node="z"), claim_side()])
            batch = [
                claim_client(node="a"),
                append(entries(1, 3, history=True), epoch=2),
                ack(0, party="client", epoch=2),
                register(),
                enqueue(),
                Reserve("a", ((SESSION, WORKER),)),
            ]
            between.lose_replies = True
            with pytest.raises(StoreUnavailable):
                await store.execute(batch)
            assert between.lost.is_set()
            between.lose_replies = False
            found = await sure.execute([Look(SESSION, "worker", 0, 9)])
            assert isinstance(found[0], Looked)
            assert found[0].entries == entries(1, 3, history=True)
            results = await store.execute(batch)
            assert [type(result).__name__ for result in results] == [
                "Claimed", "Appended", "Done", "WorkerClaimed", "Enqueued", "Reserved",
            ]  # fmt: skip
            assert results[0].previous_node == "z"  # type: ignore[attr-defined]
            assert results[1] == Appended(3, 0, "b")
            assert results[4].worker == WORKER  # type: ignore[attr-defined]
            assert results[5].held == (True,)  # type: ignore[attr-defined]
            after, history = await sure.execute([Look(SESSION, "worker", 0, 9), ReadHistory(SESSION, 9)])
            assert isinstance(after, Looked)
            assert (after.head.client_epoch, after.head.up_last, len(after.entries)) == (2, 3, 3)
            assert len(history.entries) == 3  # type: ignore[attr-defined]


class TestKeys:
    """What is in Redis, and for how long."""

    async def test_no_ghost(self, server: Server) -> None:
        """After a session has ended and was forgotten, its trail, jobs and events alone speak of it, each for its time only.

        The agenda does so until its events are told.
        """
        async with open_redis(server.url, "a") as store:
            await store.execute(every_op())
            with server.client() as client:
                trail = b"signald:{%b}:trail" % SESSION.encode()
                assert 0 < client.pttl(trail) <= 60_000
                jobs = b"signald:{%b}:jobs" % SESSION.encode()
                assert 0 < client.pttl(jobs) <= 3_600_000 + OVER_MS
                events = b"signald:{%b}:events" % SESSION.encode()
                assert 0 < client.pttl(events) <= EVENTS_LEFT_MS
                for key in set(client.scan_iter()) - {trail, jobs, events}:
                    assert SESSION.encode() not in key
                    if key.startswith(b"signald:{signald}:agenda"):
                        continue
                    kind = client.type(key)
                    held = (
                        client.hgetall(key)
                        if kind == b"hash"
                        else client.zrange(key, 0, -1)
                        if kind == b"zset"
                        else None
                    )
                    assert SESSION not in str(held)

    async def test_counts_left_behind(self, server: Server) -> None:
        """A count whose session an older release has forgotten goes when its time is over; no count is left of any session."""
        async with open_redis(server.url, "a") as store:
            await store.execute([Hold(name, ("x",), 9, 2, NOW_MS + 5, NOW_MS) for name in ("s_1", "s_2")])
            await store.execute([KeepAlive(("s_2",), NOW_MS + 10**6)])
            with server.client() as client:
                client.zrem("signald:{signald}:alive", "s_1")
                more = [Hold("s_3", ("x",), 9, 2, NOW_MS + 10**6, NOW_MS + at_ms) for at_ms in (4, 5)]
                assert await store.execute(more) == [Refused("holder"), Done()]
                assert await store.execute([ListSessionsOf("x", "", 9)]) == [Sessions(("s_2", "s_3"))]
                await store.execute([Forget("s_2"), Forget("s_3"), Forget("s_3")])
                assert not list(client.scan_iter("signald:{signald}:h*"))

    @pytest.mark.parametrize(("prefix", "db"), [("signald", 0), ("signald", 3), ("app:a", 0), ("x", 15)])
    async def test_names(self, server: Server, prefix: str, db: int) -> None:
        """Every key begins with the prefix and keeps its hash tag; so do channels, which name the database as well, but for 0.

        With the default prefix in database 0 all of them are the names of release 0.1.0.
        """
        channel = f"{prefix}:node:b" if db == 0 else f"{prefix}:node@{db}:b"
        heard: list[bytes] = []
        async with (
            open_redis(f"{server.url}/{db}", "a", prefix=prefix) as store,
            open_redis(f"{server.url}/{db}", "b", prefix=prefix) as other,
            aclosing(other.wakes()) as wakes,  # type: ignore[type-var]
        ):
            assert await anext(wakes) == [b"*"]
            assert server.ask("PUBSUB", "CHANNELS") == [channel.encode()]
            await store.execute([create(), enqueue(), register(node="b"), Reserve("a", ((SESSION, WORKER),))])
            await store.execute([claim_side(node="b")])
            await store.execute([append(entries(1, 1, history=True)), Mark(SESSION, (b"{}",), 10, 60_000, NOW_MS)])
            await other.execute([append(entries(1, 1), party="worker", node="b")])
            await store.execute([ack(1), Signal("b", b"rx")])
            with trio.fail_after(10):
                while b"rx" not in heard:
                    heard += await anext(wakes)
            await store.execute([KeepAlive((SESSION,), store.now_ms() + 86_400_000), put_node("a")])
            await store.execute([ListNodes(NOW_MS)])
            with server.client() as client:
                client.select(db)
                keys = set(client.scan_iter())
                tags = {key.decode().removeprefix(f"{prefix}:").partition("}")[0] for key in keys}
                assert client.pttl(f"{prefix}:{{{SESSION}}}") > 3_600_000
            assert tags == {f"{{{SESSION}", "{signald"}
        # Every script that wakes names the session or the worker as it is.
        assert set(heard) - {b"n"} == {b"w" + WORKER.encode(), b"s" + SESSION.encode(), b"rx"}

    async def test_databases_do_not_hear_each_other(self, server: Server) -> None:
        """Channels know no databases: nodes of one name in two of them, or under two prefixes, are woken each by its own."""
        places = [(f"{server.url}/0", "signald"), (f"{server.url}/1", "signald"), (f"{server.url}/0", "other")]
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(open_redis(url, "a", prefix=prefix)) for url, prefix in places]
            heard = [await stack.enter_async_context(aclosing(store.wakes())) for store in stores]  # type: ignore[type-var]
            for wakes in heard:
                assert await anext(wakes) == [b"*"]
            for number, store in enumerate(stores):
                await store.execute([create(), Signal("a", b"r%d" % number)])
            for number, wakes in enumerate(heard):
                assert await anext(wakes) == [b"r%d" % number]

    async def test_safety_ttl(self, server: Server) -> None:
        """Every key of a session has a time to live from its birth; keeping the session alive renews it."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create(), claim_side(events_max=9), append(entries(1, 2, history=True))])
            await store.execute([append(entries(1, 1), party="worker"), create_job()])
            await store.execute([reseed(head("s_2", up_last=3, down_last=2), up_tail=entries(3, 3, history=True))])
            with server.client() as client:
                keys = [key for session in (SESSION, "s_2") for key in client.scan_iter(f"signald:{{{session}}}*")]
                assert len(keys) == 10
                assert all(3_500_000 < client.pttl(key) <= 3_600_000 for key in keys)
                await store.execute([KeepAlive((SESSION, "s_2", "s_9"), store.now_ms() + 86_400_000)])
                await store.execute([Look(SESSION, "client", 0, 0)])  # renewals travel with the batches that follow
                await until(lambda: all(2 * 86_000_000 < client.pttl(key) <= 2 * 86_400_000 for key in keys), 5)

    async def test_jobs_go_by_themselves(self, server: Server) -> None:
        """After the end of their session jobs have a time to live of their own; the session's other keys are gone at once."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create(), create_job(keep_ms=600_000), EndSession(SESSION, "a", NOW_MS)])
            with server.client() as client:
                assert [*client.scan_iter("signald:{s_1}*")] == [f"signald:{{{SESSION}}}:jobs".encode()]
                assert 600_000 < client.pttl(f"signald:{{{SESSION}}}:jobs") <= 600_000 + OVER_MS

    async def test_events_go_by_themselves(self, server: Server) -> None:
        """The queue of a session has its time to live; beyond its end that of what nobody fetches, and it begins anew with the session."""
        key = f"signald:{{{SESSION}}}:events"
        async with open_redis(server.url, "a") as store:
            with server.client() as client:
                await store.execute([create(events_max=9)])
                assert 3_500_000 < client.pttl(key) <= 3_600_000
                await store.execute([KeepAlive((SESSION,), store.now_ms() + 86_400_000)])
                await store.execute([Look(SESSION, "client", 0, 0)])
                await until(lambda: 2 * 86_000_000 < client.pttl(key) <= 2 * 86_400_000, 5)
                await store.execute([EndSession(SESSION, "a", NOW_MS)])
                assert [*client.scan_iter("signald:{s_1}*")] == [key.encode()]
                assert EVENTS_LEFT_MS - 60_000 < client.pttl(key) <= EVENTS_LEFT_MS
                await store.execute([create(nonce="again", events_max=9)])
                assert client.pttl(key) <= 3_600_000
                await store.execute([EndSession(SESSION, "a", NOW_MS), DropEvents(SESSION, 4, NOW_MS)])
                assert [*client.scan_iter("signald:{s_1}*")] == []

    async def test_a_chat_history_goes_by_itself(self, server: Server) -> None:
        """After the end of its session a kept history is the only key, and has a time to live of its own."""
        async with open_redis(server.url, "a") as store:
            talk = [create(), append(entries(1, 2, history=True))]
            await store.execute([*talk, EndSession(SESSION, "a", NOW_MS, 600_000)])
            with server.client() as client:
                assert [*client.scan_iter("signald:{s_1}*")] == [f"signald:{{{SESSION}}}:history".encode()]
                assert 600_000 < client.pttl(f"signald:{{{SESSION}}}:history") <= 600_000 + OVER_MS

    async def test_no_ttl_starves(self, server: Server) -> None:
        """Of many sessions kept alive again and again each has its turn, however few batches there are to carry them."""
        async with open_redis(server.url, "a") as store:
            sessions = tuple(f"s_x{number}" for number in range(100))
            await store.execute([create(session) for session in sessions])
            for _ in range(5):
                await store.execute([KeepAlive(sessions, store.now_ms() + 86_400_000)])
            with server.client() as client:
                assert min(client.pttl(f"signald:{{{session}}}") for session in sessions) > 3_600_000

    async def test_stream_lost(self, server: Server) -> None:
        """A log whose stream was lost goes on behind its last seq: none is given twice."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create(), append(entries(1, 5))])
            server.ask("DEL", f"signald:{{{SESSION}}}:up")
            assert await store.execute([append(entries(5, 6))]) == [Appended(6, 0, "")]
            (found,) = await store.execute([Look(SESSION, "worker", 0, 9)])
            assert isinstance(found, Looked)
            assert [entry.seq for entry in found.entries] == [6]

    async def test_acked_blocks_are_freed(self, server: Server) -> None:
        """What the receiver acked leaves the memory, but for part of the last block."""
        async with open_redis(server.url, "a") as store:
            await store.execute([create(), claim_side()])
            for first in range(1, 2001, 100):
                await store.execute([append(entries(first, first + 99), backlog_max=200), ack(first + 99)])
            assert server.ask("XLEN", f"signald:{{{SESSION}}}:up") <= 100

    async def test_far_seqs(self, server: Server) -> None:
        """Seqs are exact as far as a party may count, 2^53."""
        last = 2**53 - 3
        async with open_redis(server.url, "a") as store:
            await store.execute([reseed(head(up_last=last, up_acked=last))])
            assert await store.execute([append(entries(last + 1, last + 1))]) == [Appended(last + 1, last, "")]
            assert await store.execute([append(entries(last, last + 2))]) == [Appended(last + 2, last, "")]
            (found,) = await store.execute([Look(SESSION, "worker", last, 9)])
            assert isinstance(found, Looked)
            assert [entry.seq for entry in found.entries] == [last + 1, last + 2]

    async def test_many(self, server: Server) -> None:
        """A batch may be large, and so may what it asks for."""
        async with open_redis(server.url, "a", command_timeout_s=30) as store:
            many = entries(1, 3000, text="x" * 1000)
            await store.execute([reseed(head(up_last=3000), up_tail=many)])
            results = await store.execute([Look(SESSION, "worker", 0, 3000)] * 4)
            assert all(isinstance(found, Looked) and len(found.entries) == 3000 for found in results)
            created = await store.execute([create(f"s_x{number}") for number in range(1000)])
            assert [found.session for found in created if isinstance(found, Head)] == [f"s_x{n}" for n in range(1000)]

    async def test_clock(self, server: Server) -> None:
        """The store's clock is the server's."""
        async with open_redis(server.url, "a") as store:
            assert abs(store.now_ms() - time.time() * 1000) < 1000


class TestWakes:
    """The backplane."""

    async def test_interruption(self, server: Server) -> None:
        """`*` comes first, and again after every interruption, before what was sent behind it."""
        async with open_redis(server.url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            with trio.fail_after(30):
                assert await anext(wakes) == [b"*"]
                await store.execute([Signal("a", b"rone"), Signal("a", b"rone")])
                assert await _gather(wakes, 2) == [b"rone", b"rone"]
                server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                assert await anext(wakes) == [b"*"]
                await store.execute([Signal("a", b"rtwo")])
                assert await anext(wakes) == [b"rtwo"]

    async def test_server_away(self, server: Server) -> None:
        """The listener waits for a server that is away, and says `*` when it has it again."""
        async with open_redis(server.url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            with trio.fail_after(30):
                assert await anext(wakes) == [b"*"]
                await server.kill()
                await server.start()
                assert await anext(wakes) == [b"*"]

    async def test_silent_server(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A quiet backplane is asked whether it lives; one that does not answer is left, and subscribed to again."""
        monkeypatch.setattr(redis_store, "LISTEN_PING_S", 0.1)
        async with (
            open_redis(server.url, "a", command_timeout_s=0.2) as store,
            aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
        ):
            with trio.fail_after(30):
                assert await anext(wakes) == [b"*"]
                with trio.move_on_after(0.5) as quiet:
                    await anext(wakes)
                assert quiet.cancelled_caught
        async with (
            open_redis(server.url, "a", command_timeout_s=0.2) as store,
            aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
        ):
            with trio.fail_after(30):
                assert await anext(wakes) == [b"*"]
                server.freeze()

                async def thaw() -> None:
                    await trio.sleep(0.6)
                    server.thaw()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(thaw)
                    assert await anext(wakes) == [b"*"]

    async def test_bound(self, server: Server) -> None:
        """Unread wake-ups are kept by the server, up to its bound; then the connection ends, and `*` answers for it."""
        server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 262144 0 0")
        async with open_redis(server.url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            with trio.fail_after(20):
                assert await anext(wakes) == [b"*"]
                for _ in range(30):
                    await store.execute([Signal("a", b"r" + b"x" * 65536)] * 20)
                found: list[Wake] = []
                while b"*" not in found:
                    found = await anext(wakes)

    async def test_once(self, server: Server) -> None:
        """Many reasons to look at one thing are one wake-up."""
        async with open_redis(server.url, "b") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            with trio.fail_after(30):
                assert await anext(wakes) == [b"*"]
                await store.execute([Signal("b", b"ss_1")] * 500 + [Signal("b", b"rend")])
                found: list[Wake] = []
                while b"rend" not in found:
                    found += await anext(wakes)
                assert len(found) < 250


async def _gather(wakes: Any, count: int) -> list[Wake]:
    found: list[Wake] = []
    while len(found) < count:
        found += await anext(wakes)
    return found


class TestClose:
    """Nothing stays behind."""

    async def test_no_orphan(self, server: Server) -> None:
        """When the store has closed, its threads have ended and its connections are gone."""
        async with open_redis(server.url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            await anext(wakes)
            assert len(threads()) == 2
        await wait_for_no_threads()
        with server.client() as client:
            await until(lambda: len(client.client_list()) == 1, 5)
        with pytest.raises(StoreUnavailable):
            await store.execute([create()])

    async def test_hanging_server(self, server: Server) -> None:
        """A server that hangs holds up nothing: neither the listener for wake-ups nor a caller that waits for an answer."""
        with trio.fail_after(30):
            async with open_redis(server.url, "a", command_timeout_s=60.0) as store, trio.open_nursery() as nursery:
                listening = trio.Event()

                async def listen() -> None:
                    async with aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
                        async for _ in wakes:
                            listening.set()

                nursery.start_soon(listen)
                await listening.wait()
                server.freeze()
                nursery.start_soon(store.execute, [create()])
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel(reason="the test is over")
            await wait_for_no_threads()
            await trio.lowlevel.checkpoint()  # here the deadline would be seen that a shielded end has overrun
        server.thaw()

    async def test_waiting_while_closing(self, server: Server) -> None:
        """A caller that still waits for an answer when the store closes is told that it is away."""
        results: list[str] = []

        async def ask(store: Store) -> None:
            try:
                await store.execute([create()])
            except StoreUnavailable:
                results.append("away")

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery, open_redis(server.url, "a", command_timeout_s=60.0) as store:
                server.freeze()
                nursery.start_soon(ask, store)
                nursery.start_soon(ask, store)
                await trio.testing.wait_all_tasks_blocked()
        assert results == ["away", "away"]
        server.thaw()


class TestRenewal:
    """Another login or address for the same store, while it is in use."""

    async def test_password(self, server: Server) -> None:
        """The new password is used at once, for the store and for the backplane, and what is asked meanwhile is answered."""
        server.ask("ACL", "SETUSER", "u", "on", ">old", "~*", "&*", "+@all")
        async with (
            open_redis(f"redis://u:old@{HOST}:{server.port}", "a") as store,
            aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
        ):
            assert isinstance(store, RedisStore)
            assert await anext(wakes) == [b"*"]
            await store.execute([create()])
            server.ask("ACL", "SETUSER", "u", "resetpass", ">new")
            server.ask("CLIENT", "KILL", "USER", "u")
            with pytest.raises(StoreMisused, match="credentials"):
                await persist(store, [append(entries(1, 1))])
            store.renew(f"redis://u:new@{HOST}:{server.port}")
            assert await persist(store, [append(entries(1, 1))]) == [Appended(1, 0, "")]
            with trio.fail_after(10):
                assert await anext(wakes) == [b"*"]

    async def test_address(self, tmp_path: Path, server: Server) -> None:
        """With another address the store moves there as soon as it is told, and so does the backplane."""
        other = Server(tmp_path / "other")
        async with (
            servers(other),
            open_redis(server.url, "a") as store,
            aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
        ):
            assert isinstance(store, RedisStore)
            assert await anext(wakes) == [b"*"]
            store.renew(other.url)
            assert await store.execute([create()]) == heads_of(SESSION)
            assert other.ask("EXISTS", f"signald:{{{SESSION}}}") == 1
            assert await anext(wakes) == [b"*"]
            assert other.ask("PUBSUB", "CHANNELS") == [b"signald:node:a"]

    async def test_a_name_is_resolved_anew(
        self, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name that leads elsewhere is followed as soon as a connection is opened, without a reload."""
        other = Server(tmp_path / "other")
        leads_to = server.port
        resolve = socket.getaddrinfo

        def moving(host: str, port: int, *more: int) -> object:
            return resolve(*((HOST, leads_to) if host == "redis.example" else (host, port)), *more)

        monkeypatch.setattr("socket.getaddrinfo", moving)
        async with servers(other), open_redis("redis://redis.example:1", "a") as store:
            assert await store.execute([create()]) == heads_of(SESSION)
            leads_to = other.port
            await server.kill()
            with trio.fail_after(30):
                assert await persist(store, [create()]) == heads_of(SESSION)
            assert other.ask("EXISTS", f"signald:{{{SESSION}}}") == 1

    async def test_unchanged(self, server: Server) -> None:
        """The same URL costs no connection."""
        async with open_redis(server.url, "a") as store:
            assert isinstance(store, RedisStore)
            made = server.ask("INFO", "stats").decode().split("total_connections_received:")[1].split()[0]
            store.renew(server.url)
            await store.execute([create()])
            now = server.ask("INFO", "stats").decode().split("total_connections_received:")[1].split()[0]
            assert int(now) == int(made) + 1, "the one that asks"

    @pytest.mark.parametrize("url", ["redis://h/1", "redis+cluster://h", "redis://", "redis://u:p/w@h"])
    async def test_another_store(self, server: Server, url: str) -> None:
        """A URL that leads elsewhere, or is none, is refused, and the store goes on as it was."""
        async with open_redis(server.url, "a") as store:
            assert isinstance(store, RedisStore)
            with pytest.raises(StoreMisused):
                store.renew(url)
            assert await store.execute([create()]) == heads_of(SESSION)


class TestPermissions:
    """Credentials and what they allow."""

    @staticmethod
    def allow(server: Server, rules: str) -> str:
        """Make a user, leaving out the commands this server does not know; return its URL."""
        server.ask("ACL", "SETUSER", "signald", "reset", "on", f">{SECRET}")
        for rule in rules.split():
            if rule != "+waitaof" or server.ask("COMMAND", "INFO", "waitaof") != [None]:
                server.ask("ACL", "SETUSER", "signald", rule)
        return f"redis://signald:{SECRET}@{HOST}:{server.port}"

    async def test_least(self, server: Server) -> None:
        """The documented permissions are enough for every operation, the backplane and the check."""
        operations = every_op()
        assert {type(op) for op in operations} == set(CODECS) - {Check} - OPERATIONS
        async with open_redis(self.allow(server, ACL), "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            assert await anext(wakes) == [b"*"]
            await store.check()
            for op in operations:
                await store.execute([op])

    @pytest.mark.parametrize("lacking", ["-evalsha", "-xadd", "-publish", "resetkeys", "resetchannels"])
    async def test_lacking(self, server: Server, lacking: str) -> None:
        """Where a permission is lacking the store says so, and does not try for ever."""
        url = self.allow(server, f"{ACL} {lacking}")
        with pytest.raises(StoreMisused) as caught:
            async with open_redis(url, "a") as store:
                await store.execute([create(), claim_side(node="b"), append(entries(1, 1))])
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("kept", [0, 3])
    async def test_cut_short(self, server: Server, kept: int) -> None:
        """A right taken away in the middle of a script leaves half of it done; given back, the store goes on as if not."""
        async with open_redis(self.allow(server, ACL), "a") as store:
            await store.execute([create(), *([append(entries(1, kept))] if kept else [])])
            server.ask("ACL", "SETUSER", "signald", "-hset")
            stale = entries(kept + 1, kept + 2, text="never told")
            with pytest.raises(StoreMisused, match="permissions"):
                await store.execute([append(stale)])
            with pytest.raises(StoreMisused, match="permissions"):
                await store.execute([append(stale)])
            self.allow(server, ACL)
            said = entries(kept + 1, kept + 4)
            assert await store.execute([append(said)]) == [Appended(kept + 4, 0, "")]
            (found,) = await store.execute([Look(SESSION, "worker", 0, 9)])
            assert isinstance(found, Looked)
            assert found.entries == entries(1, kept + 4)

    async def test_giving_back_cut_short(self, server: Server) -> None:
        """The same while a node gives back what the store has lost, and while a gap of it is raised over."""
        known = head(up_last=5, up_acked=1, down_last=7, down_acked=7)
        async with open_redis(self.allow(server, ACL), "a") as store:
            await store.execute([create(), append(entries(1, 2))])
            with server.client() as client:
                client.xadd(f"signald:{{{SESSION}}}:up", {"b": "stale"}, id="4-0")
                client.xadd(f"signald:{{{SESSION}}}:down", {"b": "stale"}, id="9-0")
            await store.execute([reseed(known, up_tail=entries(2, 5))])
            (found,) = await store.execute([Look(SESSION, "worker", 1, 9)])
            assert isinstance(found, Looked)
            assert found.entries == entries(2, 5)
            assert (found.head.up_last, found.head.down_last) == (5, 7)

    async def test_no_channel(self, server: Server) -> None:
        """A backplane that may not be subscribed to is a fault of the set-up as well."""
        url = self.allow(server, f"{ACL} resetchannels")
        async with open_redis(url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            with trio.fail_after(30), pytest.raises(StoreMisused):
                await anext(wakes)

    @pytest.mark.parametrize("login", [f"signald:{SECRET}@", f"nobody:{SECRET}@", ""])
    async def test_credentials(self, tmp_path: Path, login: str) -> None:
        """Wrong credentials, or none, are refused, and are seen nowhere."""
        closed = Server(tmp_path, "--requirepass", "another")
        async with servers(closed):
            with pytest.raises(StoreMisused) as caught:
                async with open_redis(f"redis://{login}{HOST}:{closed.port}", "a"):
                    pass
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__

    async def test_repr(self, server: Server) -> None:
        """The open store does not show its credentials."""
        async with open_redis(self.allow(server, ACL), "a") as store:
            assert SECRET not in repr(store)
            assert str(server.port) in repr(store)


class TestAckLevels:
    """What an answer promises."""

    async def test_replica(self, tmp_path: Path, server: Server) -> None:
        """With `replica` an answer means that a replica has it too; without one there is no answer."""
        replica = replica_of(server, tmp_path)
        async with open_redis(server.url, "a") as plain:
            with pytest.raises(StoreUnavailable, match="replica"):
                async with open_redis(server.url, "a", ack="replica", command_timeout_s=0.4):
                    pass
            async with servers(replica):
                await until(lambda: b"online" in server.ask("INFO", "replication"), 15)
                async with open_redis(server.url, "a", ack="replica") as store:
                    await store.execute([create(), append(entries(1, 1))])
                    assert replica.ask("HGET", f"signald:{{{SESSION}}}", "up_last") == b"1"
                    await replica.kill()
                    with pytest.raises(StoreUnavailable):
                        await store.execute([append(entries(2, 2))])
            assert await plain.execute([append(entries(2, 2))]) == [Appended(2, 0, "")]

    async def test_disk(self, tmp_path: Path) -> None:
        """With `disk` what was answered is there after a crash of the server."""
        lasting = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
        async with servers(lasting), open_redis(lasting.url, "a", ack="disk") as store:
            await store.execute([create(), append(entries(1, 3))])
            await lasting.kill()
            await lasting.start()
            (found,) = await store.execute([Look(SESSION, "worker", 0, 9)])
            assert isinstance(found, Looked)
            assert found.entries == entries(1, 3)

    async def test_no_disk(self, server: Server) -> None:
        """A server that writes nothing to disk can not promise it."""
        with pytest.raises(StoreMisused, match="appendonly"):
            async with open_redis(server.url, "a", ack="disk"):
                pass


@contextmanager
def certificates(home: Path) -> Iterator[dict[str, str]]:
    """Make a certificate for the loopback address that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = {"certificate": home / "certificate.pem", "key": home / "key.pem"}
    paths["certificate"].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths["key"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    yield {name: str(path) for name, path in paths.items()}


async def test_tls(tmp_path: Path) -> None:
    """Over TLS all works with the right authority; without it, or in plain, nothing does."""
    with certificates(tmp_path) as files:
        secure = Server(
            tmp_path,
            *("--tls-cert-file", files["certificate"], "--tls-key-file", files["key"]),
            *("--tls-ca-cert-file", files["certificate"], "--tls-auth-clients", "no"),
            tls={"ssl_ca_certs": files["certificate"]},
        )
        url = f"rediss://{HOST}:{secure.port}"
        async with servers(secure):
            async with (
                open_redis(f"{url}?ssl_ca_certs={files['certificate']}", "a") as store,
                aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
            ):
                assert await anext(wakes) == [b"*"]
                assert await store.execute([create(), append(entries(1, 100))]) == [head(), Appended(100, 0, "")]
                await store.execute([Signal("a", b"rx")])
                assert await anext(wakes) == [b"rx"]
            with pytest.raises(StoreMisused, match="certificate"):
                async with open_redis(url, "a"):
                    pass
            with pytest.raises(StoreMisused, match="write rediss instead of redis"):
                async with open_redis(f"redis://{HOST}:{secure.port}", "a"):
                    pass
    await wait_for_no_threads()


async def test_cluster(tmp_path: Path) -> None:
    """On a cluster sessions live where their slots are; slots that move are found again."""
    members = [Server(tmp_path, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000") for _ in range(2)]
    async with servers(*members):
        await form_cluster(members)
        async with (
            open_redis(f"redis+cluster://{HOST}:{members[1].port},{HOST}:{members[0].port}", "a") as store,
            aclosing(store.wakes()) as wakes,  # type: ignore[type-var]
        ):
            assert await anext(wakes) == [b"*"]
            for op in every_op():
                await store.execute([op])
            sessions = [f"s_x{number}" for number in range(40)]
            batch: list[Op] = [
                op for session in sessions for op in (create(session), append(entries(1, 1), session=session))
            ]
            results = await store.execute([*batch, ListWaiting(5), KeepAlive(tuple(sessions), NOW_MS)])
            assert [result.session for result in results if isinstance(result, Head)] == sessions
            assert results.count(Appended(1, 0, "")) == len(sessions)
            sizes = [member.ask("DBSIZE") for member in members]
            assert min(sizes) > 10
            shelves = [f"p_{number}" for number in range(40)]
            uploads = [op for shelf in shelves for op in (begin_blob(shelf=shelf), finish_blob(shelf=shelf))]
            kept = (await store.execute(uploads))[1::2]
            assert await store.execute([ReadBlob(shelf, BLOB, NOW_MS) for shelf in shelves]) == [
                BlobRead(result.blob) for result in kept if isinstance(result, BlobKept)
            ]
            for number in range(20):
                found = await store.execute(room_ops(f"canvas:{number}"))
                assert found[2] == Published(4, 4, (), 0)
                assert found[-1] == RoomSwept(0)
            # Any member's scripts can wake the node.
            await store.execute([claim_side(session=session, node="b", nonce="w") for session in sessions])
            woken: set[Wake] = set()
            with trio.fail_after(30):
                while len(woken) < len(sessions):
                    woken |= set(await anext(wakes)) - {b"*", b"n", b"rx"}
            await store.check()
            for _ in range(3):
                await store.execute([KeepAlive(tuple(sessions), store.now_ms() + 86_400_000)])
            lasting = 0
            for member in members:
                with member.client() as client:
                    lasting += sum(client.pttl(key) > 3_600_000 for key in client.scan_iter("signald:{s_x*}"))
            assert lasting == len(sessions)
            members[0].ask("SCRIPT", "FLUSH")
            assert await store.execute([append(entries(2, 2), session=session) for session in sessions]) == [
                Appended(2, 0, "b")
            ] * len(sessions)
            # An empty slot goes to another member: the first batch fails, the next finds it.
            slot = members[0].ask("CLUSTER", "KEYSLOT", "{s_moved}")
            target = members[0] if slot >= 8192 else members[1]
            owner = target.ask("CLUSTER", "MYID")
            for member in members:
                member.ask("CLUSTER", "SETSLOT", slot, "NODE", owner)
            with pytest.raises(StoreUnavailable):
                await store.execute([create("s_moved")])
            assert await store.execute([create("s_moved")]) == heads_of("s_moved")
    await wait_for_no_threads()


async def test_sentinel(tmp_path: Path, server: Server) -> None:
    """Behind Sentinel the primary is found, and after a failover the new one is."""
    replica = replica_of(server, tmp_path)
    sentinel = sentinel_of(server, tmp_path)
    async with servers(replica, sentinel):
        url = f"redis+sentinel://{HOST}:{free_port()},{HOST}:{sentinel.port}/main"
        async with open_redis(url, "a") as store, aclosing(store.wakes()) as wakes:  # type: ignore[type-var]
            assert await anext(wakes) == [b"*"]
            assert await store.execute([create()]) == heads_of(SESSION)
            await until(lambda: knows_replica(sentinel) and replica.ask("EXISTS", f"signald:{{{SESSION}}}") == 1, 30)
            await server.kill()
            with trio.fail_after(30):
                assert await persist(store, [append(entries(1, 1))]) == [Appended(1, 0, "")]
                assert await anext(wakes) == [b"*"]
            assert store.lives == 2
            assert replica.ask("HGET", f"signald:{{{SESSION}}}", "up_last") == b"1"
        with pytest.raises(StoreUnavailable, match="knows no other"):
            async with open_redis(f"redis+sentinel://{HOST}:{sentinel.port}/other", "a"):
                pass
    await wait_for_no_threads()


async def test_sentinels_are_replaced(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentinels that came later are known when none of the URL's is left, though the primary never failed."""
    monkeypatch.setattr(redis_store, "REFRESH_S", 0.1)
    homes = tmp_path / "first", tmp_path / "second"
    for home in homes:
        home.mkdir()
    first, second = (sentinel_of(server, home) for home in homes)
    async with servers(first), open_redis(f"redis+sentinel://{HOST}:{first.port}/main", "a") as store:
        assert isinstance(store, RedisStore)
        async with servers(second):
            await until(lambda: Address(HOST, second.port) in store._members.learnt, 30)
            await first.kill()
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            with trio.fail_after(30):
                assert await persist(store, [create()]) == heads_of(SESSION)
    await wait_for_no_threads()


async def persist(store: Store, batch: list[Op]) -> list[Result]:
    """Send a batch until it is answered, as the committer does."""
    while True:
        try:
            return await store.execute(batch)
        except StoreUnavailable:
            await trio.sleep(0.05)


def knows_replica(sentinel: Server) -> bool:
    """Tell whether a sentinel has found the replica."""
    return bool(sentinel.ask("SENTINEL", "REPLICAS", "main"))
