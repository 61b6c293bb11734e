"""A right that a member has no more: the member is put out, its seat is taken, and the others see it leave once."""

from typing import Any

import trio

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.service.core_server import says
from tests.service.rooms.opening import join, publish
from tests.service.test_authorising import act, start
from tests.service.test_authorising import come as come_asked
from tests.service.test_credentials import AUTH, token
from tests.service.test_http_callers import jwt
from tests.service.test_opening import SECRET
from tests.service.test_reload import reload

MAY: dict[str, Any] = {"rooms": {"r:*": ["join", "publish"]}}
MAY_NOT: dict[str, Any] = {"rooms": {"r:*": ["publish"], "other": ["join"]}}


async def two(cluster: Cluster) -> tuple[tuple[Peer, Json], tuple[Peer, Json]]:
    """Two clients at two nodes, both members of a room."""
    for name in ("n1", "n2"):
        await cluster.start(name, auth=AUTH)
    ada = await cluster.client("n1", pair=False, auth=token(500, **MAY))
    bob = await cluster.client("n2", pair=False, auth=token(500, **MAY))
    await join(ada[0])
    await join(bob[0])
    await ada[0].expect("room_presence")
    return ada, bob


async def is_out(cluster: Cluster, member: str, peer: Peer, other: Peer) -> None:
    """The member has been told so, its seat is taken, and the other member has seen it leave once."""
    assert await peer.expect("left") == {"type": "left", "room": "r:1", "reason": "forbidden"}
    told = [one for one in await other.quiet() if one["type"] == "room_presence"]
    assert told == [{"type": "room_presence", "room": "r:1", "left": [member]}]
    assert cluster.world.rows.seat("r:1", member) is None


def test_a_renewed_credential_without_the_right() -> None:
    """Nothing of the room comes from then on, and what the party publishes there is refused."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await two(cluster)
        await ada.send({"type": "auth", "auth": token(900, **MAY)})
        assert await ada.quiet() == await bob.quiet() == [], "it may as before"
        await ada.send({"type": "auth", "auth": token(901, **MAY_NOT)})
        await is_out(cluster, started["session"], ada, bob)
        await publish(bob, 1, data="later")
        await publish(ada, 1, data="also")
        assert [(one["type"], one["code"]) for one in await ada.quiet()] == [("room_error", "forbidden")]
        await ada.send({"type": "auth", "auth": token(902, **MAY)})
        assert (await join(ada))["position"] == 1

    play(scene)


def test_another_right_is_judged_by_what_was_shown_last() -> None:
    """A member that may still read, and publish no more, stays, and its next publication is refused."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await two(cluster)
        await ada.send({"type": "auth", "auth": token(900, rooms={"*": ["join", "state"]})})
        await publish(ada, 1, data=1)
        assert (await ada.expect("room_error"))["code"] == "forbidden"
        await publish(ada, 2, put={"one": {}})
        await bob.expect("room_message")
        await ada.send({"type": "auth", "auth": token(901, rooms={"*": ["join", "publish"]})})
        await publish(ada, 3, remove=["one"])
        assert (await ada.expect("room_error"))["code"] == "forbidden"

    play(scene)


def test_a_resume_without_the_right() -> None:
    """The seat is one of an earlier connection: it is taken as well."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await two(cluster)
        ada.cut()
        position = {"room": "r:1", "received": 0, "epoch": "e"}
        auth = token(900, **MAY_NOT)
        ada, _ = await cluster.restore("n2", started["recovery_token"], auth=auth, rooms=[position])
        await is_out(cluster, started["session"], ada, bob)

    play(scene)


def test_a_worker_is_put_out_of_each_of_its_sessions() -> None:
    """Its credential counts for all of them, and not for the client of the session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", auth=AUTH)
        worker, _ = await cluster.worker("n1", auth=token(500, "worker", **MAY))
        client, started = await cluster.client("n1", auth=token(500, **MAY))
        await worker.accept()
        session = started["session"]
        await join(client)
        await join(worker, session=session)
        await client.expect("room_presence")
        await worker.send({"type": "auth", "auth": token(900, "worker", **MAY_NOT)})
        left = await worker.expect("left")
        assert (left["session"], left["reason"]) == (session, "forbidden")
        assert (await client.expect("room_presence"))["left"] == [f"{session}/worker"]
        assert cluster.world.rows.seat("r:1", session) is not None

    play(scene)


def test_the_core_server_takes_a_right_back() -> None:
    """Its answer has run out, and the next one is without the room: the client comes back as a member, and is put out then."""

    async def scene(cluster: Cluster, core: Any) -> None:
        node = await start(cluster, core)
        core.answers["ann"] = says(allow=True, rooms={"r:1": ["join"]}, ttl_ms=10_000)
        core.answers["bob"] = says(allow=True, rooms={"r:1": ["join"]})
        ada, started = await come_asked(cluster, node, pair=False)
        bob, _ = await come_asked(cluster, node, "bob", pair=False)
        epoch = (await join(bob))["epoch"]
        await join(ada)
        await bob.expect("room_presence")
        ada.cut()
        core.answers["ann"] = says(allow=True, rooms={"r:2": ["join"]}, ttl_ms=10_000)
        await trio.sleep(11)
        position = {"room": "r:1", "received": 0, "epoch": epoch}
        auth = jwt(node, "ann", "client")
        ada, _ = await cluster.restore("n1", started["recovery_token"], auth=auth, rooms=[position])
        await is_out(cluster, started["session"], ada, bob)
        await join(ada, "r:2")

    act(scene)


def test_a_reload_takes_a_right_back() -> None:
    """Parties without a claim have `rooms.default_rights`; those with a claim keep what it says."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth={"jwt_secret": SECRET}, rooms={"default_rights": ("join",)})
        ada, started = await cluster.client("n1", pair=False, auth=token(500))
        bob, _ = await cluster.client("n1", pair=False, auth=token(500, **MAY))
        await join(ada)
        await join(bob)
        await ada.expect("room_presence")
        reload(node, rooms={"default_rights": ()})
        await is_out(cluster, started["session"], ada, bob)

    play(scene)
