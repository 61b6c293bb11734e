"""Rooms that are made: how many an owner may have, who it is, and when a room counts no more."""

from typing import Any

import pytest
import trio

from signald.config import AdmissionConfig, Config, RoomsConfig
from signald.core.callers import Caller
from signald.core.holders import address_holder, principal_holder
from signald.service.rooms.making import OF_NONE, Owner, owned_max, owner_of_caller
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.rooms.opening import join, publish
from tests.service.test_credentials import AUTH, token

ALL = {"*": ["join", "publish", "state"]}


async def refusal(peer: Peer, room: str) -> str:
    """Join a room in vain, and return the reason."""
    await peer.send({"type": "join", "room": room})
    reason: str = (await peer.expect("left"))["reason"]
    return reason


async def leave(peer: Peer, room: str) -> None:
    """Leave a room."""
    await peer.send({"type": "leave", "room": room})
    assert (await peer.expect("left"))["reason"] == "left"


async def came(cluster: Cluster, node: str, subject: str, **rooms: Any) -> Peer:
    """Let a client of a subject come in."""
    peer, _ = await cluster.client(node, pair=False, auth=token(100_000, sub=subject, rooms=rooms or ALL))
    return peer


def test_a_principal_has_a_bound() -> None:
    """It holds over all sessions and nodes; existing rooms are entered, and the party that is refused goes on."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name, auth=AUTH, rooms={"owned_max": 2})
        ann, again = await came(cluster, "a", "ann"), await came(cluster, "b", "ann")
        bob = await came(cluster, "b", "bob")
        await join(ann, "1")
        await join(again, "2")
        assert await refusal(ann, "3") == "too_many_made"
        assert await refusal(again, "3") == "too_many_made"
        await join(bob, "3")
        await join(ann, "3")
        await publish(ann, 1, "3", data="still here")
        assert (await bob.expect("room_message"))["data"] == "still here"
        await join(bob, "4")
        assert await refusal(bob, "5") == "too_many_made"
        assert cluster.nodes["a"].hub.rooms.hall.counts.refused["too_many_made"] == 1

    play(scene)


def test_a_refused_join_leaves_nothing() -> None:
    """No name of a room that is not made stays in the agenda."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"owned_max": 1})
        ann = await came(cluster, "a", "ann")
        await join(ann, "1")
        for number in range(2, 20):
            assert await refusal(ann, str(number)) == "too_many_made"
        assert cluster.world.rows.items("r") == 1

    play(scene)


def test_an_empty_room_goes_at_once() -> None:
    """A room in which nothing was published counts no longer than it has members; one with content counts as long as it is kept."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"owned_max": 1, "keep_s": 200})
        ann = await came(cluster, "a", "ann")
        for number in range(10):
            await join(ann, f"empty:{number}")
            await leave(ann, f"empty:{number}")
            await trio.sleep(3)
            assert cluster.world.rows.items("r") == 0
        await join(ann, "full")
        await publish(ann, 1, "full", data=1)
        await ann.expect("published")
        await leave(ann, "full")
        await trio.sleep(3)
        assert await refusal(ann, "other") == "too_many_made"
        await trio.sleep(250)
        await join(ann, "other")

    play(scene)


def test_the_rooms_of_a_session_that_ends() -> None:
    """Empty ones go with the session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"owned_max": 3})
        ann = await came(cluster, "a", "ann")
        for number in range(3):
            await join(ann, f"empty:{number}")
        await ann.send({"type": "bye"})
        await trio.sleep(3)
        assert cluster.world.rows.items("r") == 0
        assert cluster.world.rows.rooms_owned(principal_holder("ann")) == 0

    play(scene)


def test_all_rooms_have_a_bound() -> None:
    """No owner makes a room beyond it, and each room that stands is entered."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"rooms_max": 2})
        ann, bob = await came(cluster, "a", "ann"), await came(cluster, "a", "bob")
        await join(ann, "1")
        await join(bob, "2")
        assert await refusal(bob, "3") == "rooms_full"
        await join(bob, "1")

    play(scene)


def test_the_room_of_a_user_has_no_owner() -> None:
    """A principal at its bound is in the room of its user all the same."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"owned_max": 1})
        ann = await came(cluster, "a", "ann")
        await join(ann, "1")
        other, _ = await cluster.client("a", pair=False, auth=token(3600, sub="ann"), api=True)
        assert (await other.expect("joined"))["room"] == "user:ann"

    play(scene)


def test_anonymous_clients_are_told_apart_by_address() -> None:
    """Those of one address share a bound, and their workers have another."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", rooms={"owned_max": 1, "rooms_max": 8})
        near = await cluster.dial("a", "/v1/client", remote="192.0.2.1")
        far = await cluster.dial("a", "/v1/client", remote="192.0.2.2")
        for peer in (near, far):
            await peer.ask({"type": "connect", "pair": False}, "session_started")
        other, _ = await cluster.client("a", pair=False)
        await join(near, "1")
        await join(far, "2")
        await join(other, "3")
        assert await refusal(near, "4") == "too_many_made"
        assert cluster.world.rows.rooms_owned(address_holder("192.0.2.1")) == 1
        _, _, worker, _, session = await cluster.pair("a")
        for number in range(3):
            await worker.send({"type": "join", "room": f"work:{number}", "session": session})
            assert (await worker.expect("joined"))["room"] == f"work:{number}"
        await worker.send({"type": "join", "room": "work:4", "session": session})
        assert (await worker.expect("left"))["reason"] == "too_many_made"

    play(scene)


def test_a_lost_room_is_made_again() -> None:
    """Its members make it again together, and none of them is charged for it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH, rooms={"owned_max": 1})
        ann, bob = await came(cluster, "a", "ann"), await came(cluster, "a", "bob")
        await join(ann, "1")
        await join(bob, "1")
        await join(bob, "2")
        await publish(ann, 1, "1", data=1)
        await bob.expect("room_message")
        cluster.world.rows.drop_room("1")
        await publish(ann, 2, "1", data=2)
        assert (await bob.expect("joined"))["recovered"] is False
        assert cluster.world.rows.room_owner("1") == ""
        await join(ann, "3")

    play(scene)


@pytest.mark.parametrize(
    ("caller", "address", "owner"),
    [
        (Caller("client", "t\x1fann", "ann", "t", session="s_1"), "192.0.2.1", Owner(principal_holder("t\x1fann"))),
        (Caller("person", "ann", "ann"), "192.0.2.1", Owner(principal_holder("ann"))),
        (Caller("client", "", "", session="s_1"), "192.0.2.1", Owner(address_holder("192.0.2.1"))),
        (Caller("client", "", "", session="s_1"), "", Owner(address_holder(""), many=True)),
        (Caller("worker", "wes", "wes", worker="w_1"), "192.0.2.1", Owner(principal_holder("wes"), many=True)),
        (Caller("service", "core", "core"), "", Owner(principal_holder("core"), many=True)),
    ],
)
def test_the_owner_of_what_a_caller_makes(caller: Caller, address: str, owner: Owner) -> None:
    assert owner_of_caller(caller, address) == owner


def test_the_bounds_are_keys() -> None:
    config = Config(rooms=RoomsConfig(owned_max=7, rooms_max=100), admission=AdmissionConfig(address_share=0.3))
    assert [owned_max(config, owner) for owner in (Owner("x"), Owner("x", many=True), OF_NONE)] == [7, 30, 7]
