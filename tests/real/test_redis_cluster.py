"""A Redis Cluster under load: slots move while sessions in them talk, and a primary fails over."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.real.harness import logged, until
from tests.real.redis_scene import GOES_ON_S, talking
from tests.store.redis_servers import HOST, Server, form_cluster, meet, servers

pytestmark = pytest.mark.real

REGISTRY = "signald:{signald}:nodes"
OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")


def url_of_cluster(members: list[Server]) -> str:
    """The store, by all addresses it can be found at."""
    return "redis+cluster://" + ",".join(f"{HOST}:{member.port}" for member in members)


def name_of(member: Server) -> bytes:
    """A member's name in the cluster."""
    name: bytes = member.ask("CLUSTER", "MYID")
    return name


def owner_of(slot: int, members: list[Server]) -> Server:
    """The primary that serves a slot."""
    for first, last, (_, port, *_), *_ in members[0].ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(member for member in members if member.port == port)
    raise AssertionError(f"nobody serves {slot}")


def replicates(other: Server, member: Server) -> bool:
    """Tell whether a member of the cluster knows another one as a replica."""
    return any(
        line.startswith(name_of(other)) and b"slave" in line.split()[2]
        for line in member.ask("CLUSTER", "NODES").splitlines()
    )


class Move:
    """One slot on its way from one primary to another, key by key, as `redis-cli --cluster reshard` does it."""

    def __init__(self, slot: int, members: list[Server]) -> None:
        self._slot = slot
        self._members = members
        self.source = owner_of(slot, members)
        self.target = next(member for member in members if member is not self.source)

    def begin(self) -> None:
        """From now on the source answers ASK for what it has not, and TRYAGAIN for what is torn apart."""
        self.target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", name_of(self.source))
        self.source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", name_of(self.target))

    def carry(self, most: int) -> int:
        """Take some keys along; returns how many."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self._slot, most)
        if keys:
            self.source.ask("MIGRATE", HOST, self.target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        """From now on the target serves the slot, and the source answers MOVED."""
        while self.carry(10):
            pass
        for member in (self.target, self.source, *self._members):
            member.ask("CLUSTER", "SETSLOT", self._slot, "NODE", name_of(self.target))


@asynccontextmanager
async def cluster(home: Path, replicas: int = 0) -> AsyncIterator[tuple[list[Server], list[Server]]]:
    """Three primaries, and some replicas of the first."""
    members = [Server(home, *OPTIONS) for _ in range(3)]
    others = [Server(home, *OPTIONS, "--cluster-replica-validity-factor", "0") for _ in range(replicas)]
    async with servers(*members, *others):
        await form_cluster(members)
        for other in others:
            meet(other, members[0])
            await until(lambda other=other: name_of(members[0]) in other.ask("CLUSTER", "NODES"), GOES_ON_S)
            other.ask("CLUSTER", "REPLICATE", name_of(members[0]))
            await until(lambda other=other: other.ask("ROLE")[3:4] == [b"connected"], GOES_ON_S)
            # The others hear of it by gossip, in their own time, and do not vote for one that they have not heard of.
            for member in members:
                await until(lambda other=other, member=member: replicates(other, member), GOES_ON_S)
        yield members, others


async def test_slots_move_while_their_sessions_talk(tmp_path: Path) -> None:
    """MOVED, ASK and TRYAGAIN: of three sessions and of the registry, with a pause half-way; all is answered in the end."""
    async with cluster(tmp_path) as (members, _), talking(tmp_path, url_of_cluster(members)) as scene:

        def torn_apart() -> bool:
            reasons = {entry["why"] for node in scene.pair for entry in logged(node, "store_away")}
            return any("ASK" in why or "TRYAGAIN" in why for why in reasons)

        keys = [f"signald:{{{chatter.client.session}}}" for chatter in scene.talk.chatters[:3]]
        for key in (*keys, REGISTRY):
            move = Move(members[0].ask("CLUSTER", "KEYSLOT", key), members)
            move.begin()
            move.carry(3)  # of a session's five: not only what is seldom asked for
            # The next request finds the rest elsewhere: the parties of a session soon make one, the registry may be left alone.
            await until(torn_apart, GOES_ON_S, "a node is told ASK or TRYAGAIN")
            await trio.sleep(0.4)
            move.end()
            await scene.talk.goes_on(3, GOES_ON_S)
            assert owner_of(members[0].ask("CLUSTER", "KEYSLOT", key), members) is move.target
        await scene.ends_well()


@pytest.mark.parametrize("how", ["asked", "killed"])
async def test_a_primary_fails_over(tmp_path: Path, how: str) -> None:
    """Its replica serves its slots from then on, and parties are told at most to wait."""
    async with cluster(tmp_path, 1) as (members, (replica,)), talking(tmp_path, url_of_cluster(members)) as scene:
        if how == "asked":
            replica.ask("CLUSTER", "FAILOVER")
        else:
            await members[0].kill()
        await until(lambda: replica.ask("ROLE")[0] == b"master", GOES_ON_S, "the replica is a primary")
        await until(lambda: b"cluster_state:ok" in members[1].ask("CLUSTER", "INFO"), GOES_ON_S)
        await scene.ends_well()
