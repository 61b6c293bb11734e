"""A Redis primary with a replica, behind a sentinel, that changes places whenever the primary dies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define
from redis.exceptions import RedisError

from tests.real.harness import Settings, until
from tests.store.redis_servers import HOST, Server, replica_of, sentinel_of, servers

FAILOVER_S = 40.0
ACK_REPLICA: Settings = {"store": {"ack": "replica"}}


@define(eq=False)
class Watched:
    """All three."""

    primary: Server
    replica: Server
    sentinel: Server

    @property
    def url(self) -> str:
        """The store."""
        return f"redis+sentinel://{HOST}:{self.sentinel.port}/main"

    def ask(self, *words: object) -> Any:
        """Ask the primary."""
        return self.primary.ask(*words)

    async def kill(self) -> None:
        """End the primary as a crash would."""
        await self.primary.kill()

    async def start(self) -> None:
        """Wait for the replica to take over, and give it the one that had died as its own replica."""
        await self.failed_over()
        await self.replica.start()
        await self.follow()

    async def failed_over(self) -> None:
        """Return when the replica is the primary, and the sentinel says so; the names here change with that."""
        await until(self._has_failed_over, FAILOVER_S, "the replica is the primary")
        self.primary, self.replica = self.replica, self.primary

    def _has_failed_over(self) -> bool:
        # A sentinel that changes the role of a server also kills the connections there, which may be this one.
        with suppress(RedisError):
            _, port = self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
            return int(port) == self.replica.port and self.replica.ask("ROLE")[0] == b"master"
        return False

    async def follow(self) -> None:
        """Have the replica follow the primary, as the sentinel would have it some seconds later; return when it does."""
        await until(self._follows, FAILOVER_S, "the replica has caught up")

    def _follows(self) -> bool:
        with suppress(RedisError):
            self.replica.ask("REPLICAOF", HOST, self.primary.port)
            role, *_, state, _ = self.replica.ask("ROLE")
            return role == b"slave" and state == b"connected" and b",state=online," in self.ask("INFO", "replication")
        return False

    def cut_replication(self) -> None:
        """From now on the replica gets nothing of what the primary takes."""
        self.ask("ACL", "SETUSER", "default", "-psync", "-sync")
        self.ask("CLIENT", "KILL", "TYPE", "replica")

    def missing_at_replica(self, session: str) -> int:
        """How many messages of a client's the primary has and the replica has not."""
        had, has = (int(one.ask("HGET", f"signald:{{{session}}}", "up_last")) for one in (self.primary, self.replica))
        return had - has


@asynccontextmanager
async def watched(home: Path) -> AsyncIterator[Watched]:
    """All three, for the time of the block."""
    primary = Server(home)
    made = Watched(primary, replica_of(primary, home), sentinel_of(primary, home, down_after_ms=1500))
    async with servers(made.primary, made.replica, made.sentinel):
        await made.follow()
        await until(lambda: bool(made.sentinel.ask("SENTINEL", "REPLICAS", "main")), FAILOVER_S)
        yield made
