"""Rooms over the wire: two clients join, publish, see each other, and leave."""

from itertools import pairwise
from typing import Any

import trio

from signald.service.rooms.publishing import STEP_MAX
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.service.rooms.opening import come, join, publish


def test_a_publication_goes_to_the_others() -> None:
    """The publisher is told its position, and the other what was published."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "aa")
        first = await join(ada, presence={"name": "Ada"})
        assert first["recovered"] is False
        assert first["wipe"] is True
        assert (first["position"], first["next_seq"], first["replaying"]) == (0, 1, 0)
        assert first["members"] == [{"member": started["session"], "presence": {"name": "Ada"}}]
        second = await join(bob)
        assert second["members_count"] == 2
        came = await ada.expect("room_presence")
        assert [one["presence"] for one in came["joined"]] == [None]
        await publish(ada, 1, data={"text": "hello"}, kind="chat")
        assert await ada.expect("published") == {"type": "published", "room": "r:1", "seq": 1, "position": 1}
        seen = await bob.expect("room_message")
        assert seen.pop("at_ms") > 0
        assert seen == {
            "type": "room_message", "room": "r:1", "position": 1, "member": started["session"],
            "kind": "chat", "data": {"text": "hello"},
        }  # fmt: skip
        await bob.send({"type": "leave", "room": "r:1"})
        assert (await bob.expect("left"))["reason"] == "left"
        assert (await ada.expect("room_presence"))["left"] == [second["members"][-1]["member"]]
        assert await bob.quiet() == []

    play(scene)


def test_rooms_go_along_to_another_node() -> None:
    """A client that resumes elsewhere names its rooms, is told what was missed behind the answer, and goes on under the same seqs."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "ab")
        epoch = (await join(ada))["epoch"]
        await join(bob)
        for seq in (1, 2):
            await publish(ada, seq, data=seq)
        await publish(bob, 1, data="bob")
        while (await ada.expect("published"))["seq"] < 2:
            pass
        await ada.expect("room_message")
        assert [(await bob.expect("room_message"))["data"] for _ in range(2)] == [1, 2]
        await bob.expect("published")
        await bob.quiet()
        ada.cut()
        await publish(bob, 2, data="missed")
        await bob.expect("published")
        position = {"room": "r:1", "received": 3, "epoch": epoch}
        ada, answer = await cluster.restore("b", started["recovery_token"], rooms=[position])
        assert answer["type"] == "session_restored"
        joined = await ada.expect("joined")
        assert (joined["epoch"], joined["recovered"], joined["wipe"]) == (epoch, True, False)
        assert (joined["position"], joined["replaying"], joined["next_seq"]) == (4, 1, 3)
        assert (await ada.expect("room_message"))["data"] == "missed"
        await publish(ada, 3, data="again")
        assert (await ada.expect("published"))["position"] == 5
        assert (await bob.expect("room_message"))["data"] == "again"
        assert await bob.quiet() == [], "nobody is told that a member has moved"

    play(scene)


def test_members_of_two_nodes_are_told_in_one_order() -> None:
    """Each gets what the others publish and hears of its own, in order of position, however they mix."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        peers = [(await cluster.client(name, pair=False))[0] for name in ("a", "b", "a")]
        for peer in peers:
            await join(peer)
        count = 20

        async def talk(peer: Peer) -> list[Json]:
            for seq in range(1, count + 1):
                await publish(peer, seq, data=seq)
                if seq % 5 == 0:
                    await trio.sleep(0.01)
            return [one for one in await peer.quiet(2.0) if one["type"] in ("published", "room_message")]

        told: list[list[Json]] = []

        async def keep(peer: Peer) -> None:
            told.append(await talk(peer))

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(keep, peer)
        logs: list[list[Any]] = []
        for frames in told:
            positions = [one["position"] for one in frames]
            assert positions == sorted(set(positions))
            others = [one for one in frames if one["type"] == "room_message"]
            assert len(others) == 2 * count
            published = [one["seq"] for one in frames if one["type"] == "published"]
            assert published[-1] == count
            logs.append([(one["position"], one["member"], one["data"]) for one in others])
        both = set(logs[0]) | set(logs[1]) | set(logs[2])
        assert sorted(position for position, _, _ in both) == list(range(1, 3 * count + 1))

    play(scene)


def test_a_worker_takes_part_in_its_session() -> None:
    """Its frames name the session, and it is a member of its own: `<session>/worker`."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        client, _, worker, accepted, session = await cluster.pair("a", "b")
        await join(client)
        joined = await join(worker, session=session, presence="bot")
        assert joined["session"] == session
        assert {one["member"] for one in joined["members"]} == {session, f"{session}/worker"}
        assert (await client.expect("room_presence"))["joined"] == [{"member": f"{session}/worker", "presence": "bot"}]
        await worker.send_binary(
            b"\x00\xff", {"type": "publish", "session": session, "room": "r:1", "seq": 1, "kind": "voice"}
        )
        assert (await worker.expect("published"))["session"] == session
        seen = await client.expect("room_message")
        assert (seen["binary"], seen["kind"], seen["member"]) == (b"\x00\xff", "voice", f"{session}/worker")
        await publish(client, 1, data=1)
        assert (await worker.expect("room_message"))["session"] == session
        worker.cut()
        await publish(client, 2, data=2)
        room = {"room": "r:1", "received": 2, "epoch": joined["epoch"]}
        had = {"session": session, "received": 0, "acked": 0, "rooms": [room]}
        worker, _ = await cluster.resume("a", accepted["recovery_token"], had)
        again = await worker.expect("joined")
        assert (again["session"], again["recovered"], again["replaying"], again["next_seq"]) == (session, True, 1, 2)
        assert (await worker.expect("room_message"))["data"] == 2

    play(scene)


def test_records_are_told_at_a_position() -> None:
    """A new member gets all of them, and one that comes back what has changed and what is gone."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, started) = await come(cluster, "aa")
        await join(ada)
        first = await join(bob, state=True)
        assert (first["records"], first["removed"]) == ({}, [])
        await publish(ada, 1, put={"one": {"x": 1, "y": 2}, "two": {"z": None}})
        seen = await bob.expect("room_message")
        assert seen["put"] == {"one": {"x": 1, "y": 2}, "two": {"z": None}}
        bob.cut()
        await publish(ada, 2, patch={"one": {"x": None, "w": [3]}}, remove=["two"])
        await publish(ada, 3, data="also")
        while (await ada.expect("published"))["seq"] < 3:
            pass
        position = {"room": "r:1", "received": 1, "epoch": first["epoch"], "state": True}
        bob, _ = await cluster.restore("a", started["recovery_token"], rooms=[position])
        back = await bob.expect("joined")
        assert (back["recovered"], back["wipe"], back["position"], back["replaying"]) == (True, False, 3, 2)
        assert (back["records"], back["removed"]) == ({"one": {"y": 2, "w": [3]}}, ["two"])
        assert [(await bob.expect("room_message"))["position"] for _ in range(2)] == [2, 3]
        eve, _ = await cluster.client("a", pair=False)
        whole = await join(eve, state=True, history=2)
        assert (whole["wipe"], whole["records"], whole["removed"]) == (True, {"one": {"y": 2, "w": [3]}}, [])
        assert [one["position"] for one in whole["history"]] == [2, 3]
        assert whole["history"][1]["data"] == "also"

    play(scene)


def test_a_long_answer_comes_in_pages() -> None:
    """Its scalars stand in each frame, its records are joined, and nothing of the room comes in between."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        await join(ada)
        for seq in range(1, 9):
            await publish(ada, seq, put={f"r{seq}.{place}": {"text": "x" * 5000} for place in range(10)})
        while (await ada.expect("published"))["seq"] < 8:
            pass
        await bob.send({"type": "join", "room": "r:1", "state": True})
        pages = [await bob.receive()]
        while pages[-1].get("more"):
            pages.append(await bob.receive())
        assert len(pages) > 5
        assert {(page["type"], page["position"], page["members_count"]) for page in pages} == {("joined", 8, 2)}
        assert sum([len(page["records"]) for page in pages]) == 80
        assert sum([len(page["members"]) for page in pages]) == 2

    play(scene)


def test_updates_are_kept_until_a_snapshot_stands_for_them() -> None:
    """A new member gets the snapshot and each update behind it, in their order."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        for seq in range(1, 6):
            await ada.send_binary(b"u%d" % seq, {"type": "publish", "room": "r:1", "seq": seq, "kind": "update"})
        while (await ada.expect("published"))["seq"] < 5:
            pass
        await ada.send_binary(b"s3", {"type": "snapshot", "room": "r:1", "position": 3})
        bob, _ = await cluster.client("a", pair=False)
        joined = await join(bob)
        assert (joined["replaying"], joined["position"]) == (0, 5)
        frames = [await bob.expect("snapshot") for _ in range(3)]
        assert [(one["binary"], one["position"], one.get("update", False)) for one in frames] == [
            (b"s3", 3, False), (b"u4", 4, True), (b"u5", 5, True),
        ]  # fmt: skip
        assert frames[1]["kind"] == "update"
        assert await bob.quiet() == []

    play(scene)


def test_a_refused_publication_costs_its_sender_nothing_else() -> None:
    """Each kind of bad content gets its code, uses its seq, and the next one is stored."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", rooms={"record_bytes_max": 300})
        ada, _ = await cluster.client("a", pair=False)
        await publish(ada, 1, data=1)
        assert (await ada.expect("room_error"))["code"] == "forbidden"
        await join(ada)
        wrong: list[tuple[Json, str]] = [
            ({}, "bad_record"), ({"put": []}, "bad_record"), ({"put": {}}, "bad_record"), ({"put": {"a": 1}}, "bad_record"),
            ({"data": 1, "put": {"a": {}}}, "bad_record"), ({"put": {"x" * 129: {}}}, "bad_record"), ({"remove": [1]}, "bad_record"),
            ({"put": {"a": {"b": "x" * 400}}}, "too_big"), ({"remove": [str(n) for n in range(2001)]}, "too_big"),
        ]  # fmt: skip
        for seq, (fields, code) in enumerate(wrong, 1):
            await publish(ada, seq, **fields)
            error = await ada.expect("room_error")
            assert (error["seq"], error["code"]) == (seq, code), fields
        await publish(ada, len(wrong) + 2, data=1)
        error = await ada.expect("room_error")
        assert (error["seq"], error["code"], error["expected"]) == (len(wrong) + 2, "gap", len(wrong) + 1)
        await publish(ada, len(wrong) + 1, data=1)
        assert await ada.expect("published") == {
            "type": "published",
            "room": "r:1",
            "seq": len(wrong) + 1,
            "position": 1,
        }
        for room in ("no room", "", "x" * 200):
            await ada.send({"type": "join", "room": room})
            assert (await ada.expect("left"))["reason"] == "bad_name"
        await ada.send({"type": "join", "room": "r:2", "presence": "x" * 5000})
        assert (await ada.expect("left"))["reason"] == "too_big"
        await ada.send({"type": "presence", "room": "r:1", "presence": "x" * 5000})
        assert (await ada.expect("error"))["code"] == "too_big"

    play(scene)


def test_the_latest_presence_counts() -> None:
    """Many in a moment are one for the others, which is the last."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "ab")
        await join(ada, presence=0)
        await join(bob)
        await ada.quiet()
        for number in range(1, 101):
            await ada.send({"type": "presence", "room": "r:1", "presence": number})
        told = [one["changed"][0]["presence"] for one in await bob.quiet() if one["type"] == "room_presence"]
        assert told[-1] == 100
        assert len(told) < 5
        assert await ada.quiet() == [], "nobody is told of his own presence alone"

    play(scene)


def test_a_session_that_ends_leaves_its_rooms() -> None:
    """Others are told then, and not when its connection is lost."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "ab")
        await join(ada)
        await join(bob)
        await ada.quiet()
        ada.cut()
        assert await bob.quiet(5.0) == []
        ada, _ = await cluster.restore("a", started["recovery_token"])
        await ada.send({"type": "bye"})
        assert (await bob.expect("room_presence"))["left"] == [started["session"]]

    play(scene)


def test_a_burst_goes_to_the_store_in_steps() -> None:
    """What a member publishes without waiting is stored a step at a time, in order, and each publication once."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", limits={"messages_burst": 1000})
        await join(ada)
        await join(bob)
        count = 2 * STEP_MAX + 5
        said = [{"type": "publish", "room": "r:1", "seq": seq, "data": seq} for seq in range(1, count + 1)]
        await ada.send_together(said)
        assert [(await bob.expect("room_message"))["data"] for _ in range(count)] == list(range(1, count + 1))
        steps: list[int] = []
        while not steps or steps[-1] < count:
            steps.append((await ada.expect("published"))["seq"])
        assert max(later - earlier for earlier, later in pairwise([0, *steps])) == STEP_MAX

    play(scene)
