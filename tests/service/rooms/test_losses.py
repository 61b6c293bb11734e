"""What members of a room are told when they, their node or the store have lost something."""

import random

import pytest
import trio
import trio.testing

from signald.core.rooms import Publication
from signald.service.rooms import sweeping
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.guest import Guest
from signald.service.rooms.hall import LOOK_LIMIT
from signald.store.room.ops import Post, SetPresence
from signald.store.session.ops import ClaimWorkerSide
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from signald.wire.records import publication_body
from tests.service.rooms.test_rooms import join, publish


async def published(peer: Peer, seq: int) -> None:
    """Wait until everything up to `seq` is."""
    while (await peer.expect("published"))["seq"] < seq:
        pass


def test_what_is_kept_no_longer_is_never_a_hole() -> None:
    """A member that has missed more than is kept is told so, and is replayed nothing."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", rooms={"history_messages_max": 5})
        (ada, _), (bob, started) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        await join(ada)
        epoch = (await join(bob))["epoch"]
        bob.cut()
        for seq in range(1, 11):
            await publish(ada, seq, data=seq)
        await published(ada, 10)
        for received, recovered in ((4, False), (5, True), (11, False)):
            position = {"room": "r:1", "received": received, "epoch": epoch}
            bob, answer = await cluster.restore("a", started["recovery_token"], rooms=[position])
            started = answer
            joined = await bob.expect("joined")
            assert (joined["recovered"], joined["wipe"]) == (recovered, not recovered), received
            assert joined["replaying"] == (5 if recovered else 0)
            came = [one["position"] for one in await bob.quiet() if one["type"] == "room_message"]
            assert came == (list(range(6, 11)) if recovered else [])
            bob.cut()

    play(scene)


def test_a_room_that_the_store_has_lost_is_another_one() -> None:
    """Its members are told without asking: another epoch, their seqs begin anew, and what they have of it is void."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, _), (bob, _) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        epoch = (await join(ada, presence="Ada"))["epoch"]
        await join(bob, state=True)
        await publish(ada, 1, data=1)
        await bob.expect("room_message")
        await ada.quiet()
        cluster.world.rows.drop_room("r:1")
        await publish(ada, 2, data=2)
        for peer in (ada, bob):
            joined = await peer.expect("joined")
            assert joined["epoch"] != epoch
            assert (joined["recovered"], joined["wipe"], joined["next_seq"], joined["position"]) == (False, True, 1, 0)
        assert "records" in joined, "bob has asked for them"
        await publish(ada, 1, data=3)
        await published(ada, 1)
        assert (await bob.expect("room_message"))["data"] == 3

    play(scene)


def test_a_store_without_anything_gets_its_rooms_back() -> None:
    """It comes back empty while both have their connections: they are in a room of one epoch again, and hear each other."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        (ada, _), (bob, _) = await cluster.client("a", pair=False), await cluster.client("b", pair=False)
        await join(ada)
        await join(bob)
        cluster.world.lose_everything()
        await trio.sleep(5.0)
        epochs = [[one for one in await peer.quiet() if one["type"] == "joined"][-1]["epoch"] for peer in (ada, bob)]
        assert epochs[0] == epochs[1]
        await publish(ada, 1, data="here")
        assert (await bob.expect("room_message"))["data"] == "here"
        assert cluster.world.rows.item("r", "r:1") is not None, "it is to be swept as before"

    play(scene)


def test_a_lost_room_is_to_be_swept_before_its_members_join_again() -> None:
    """The store has lost the room and its place in the agenda: when the node dies on the way, no other one follows the room."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        rows, hall = cluster.world.rows, cluster.nodes["a"].hub.rooms.hall
        rows.drop_room("r:1")
        rows.drop_item("r", "r:1")
        submitted: list[str] = []
        lost, followed = hall.lost, hall.followed

        def rejoin(guest: Guest) -> None:
            submitted.append("join")
            lost(guest)

        def watch(room: str) -> None:
            submitted.append("watch")
            followed(room)

        hall.lost, hall.followed = rejoin, watch
        hall.look("r:1")
        await ada.expect("joined")
        assert submitted[:2] == ["watch", "join"]
        assert rows.item("r", "r:1") is not None

    play(scene)


def test_a_presence_that_the_store_takes_twice_is_not_the_last_word() -> None:
    """A batch comes once more when the member has said something else: others see that, and what it says from then on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        await join(ada)
        await join(bob)
        rows, name = cluster.world.rows, started["session"]
        guest = cluster.nodes["a"].hub.rooms.hall.rooms["r:1"].guests[name]
        before = guest.presence_turn
        for said in (1, 2):
            await ada.send({"type": "presence", "room": "r:1", "presence": said})
            await trio.sleep(1.0)
        cluster.world.execute([SetPresence("r:1", name, "a", guest.epoch, b"1", before)])
        assert (kept := rows.presence("r:1", name)) is not None
        assert kept.presence == b"2"
        # One that was kept all the same, as a repeated join brings it, holds up nothing that is said later.
        cluster.world.execute([SetPresence("r:1", name, "a", guest.epoch, b"0")])
        await ada.send({"type": "presence", "room": "r:1", "presence": 3})
        await trio.sleep(1.0)
        assert (kept := rows.presence("r:1", name)) is not None
        assert kept.presence == b"3"
        changes = [one["changed"][0]["presence"] for one in await bob.quiet() if "changed" in one]
        assert changes[-1] == 3

    play(scene)


def test_what_was_not_answered_is_taken_once() -> None:
    """A member that resumes sends again what is not `published`: what the store has is passed over."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        epoch = (await join(ada))["epoch"]
        await join(bob)
        for seq in (1, 2, 3):
            await publish(ada, seq, data=seq)
        await bob.expect("room_message")
        ada.cut()
        ada, _ = await cluster.restore(
            "a", started["recovery_token"], rooms=[{"room": "r:1", "received": 0, "epoch": epoch}]
        )
        joined = await ada.expect("joined")
        assert joined["next_seq"] == joined["replaying"] + 1
        replayed = [await ada.expect("room_message") for _ in range(joined["replaying"])]
        assert [one["seq"] for one in replayed] == list(range(1, joined["next_seq"]))
        for seq in (1, 2, 3, 4):
            await publish(ada, seq, data=seq)
        await published(ada, 4)
        data = [one["data"] for one in await bob.quiet() if one["type"] == "room_message"]
        assert data == [2, 3, 4]

    play(scene)


def test_a_node_that_is_killed_takes_nobody_from_a_room() -> None:
    """The others see nothing of it; a client that resumes elsewhere goes on."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("b", pair=False)
        epoch = (await join(ada))["epoch"]
        await join(bob)
        await publish(ada, 1, data=1)
        await bob.expect("room_message")
        cluster.kill("a")
        ada, _ = await cluster.restore(
            "b", started["recovery_token"], rooms=[{"room": "r:1", "received": 1, "epoch": epoch}]
        )
        assert (await ada.expect("joined"))["next_seq"] == 2
        await publish(ada, 2, data=2)
        assert (await bob.expect("room_message"))["data"] == 2
        assert [one for one in await bob.quiet() if one["type"] == "room_presence"] == []

    play(scene)


def test_a_slow_member_joins_again_and_has_missed_nothing() -> None:
    """It is told once, keeps its seat, and is replayed what it did not take."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits={"send_queue_messages_max": 20})
        ada, _ = await cluster.client("a", pair=False)
        bob = await cluster.dial("a", "/v1/client", streams=trio.testing.lockstep_stream_pair)
        await bob.ask({"type": "connect", "pair": False}, "session_started")
        epoch = (await join(bob))["epoch"]
        await join(ada)
        count = 100
        for seq in range(1, count + 1):
            await publish(ada, seq, data=seq)
            await trio.sleep(0.1)
        await published(ada, count)
        frames = await bob.quiet()
        assert [one["reason"] for one in frames if one["type"] == "left"] == ["slow"]
        seen = [one["data"] for one in frames if one["type"] == "room_message"]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) < count
        await publish(bob, 1, data="mine")
        assert (await bob.expect("published"))["position"] == count + 1
        await join(bob, received=len(seen), epoch=epoch)
        rest = [one["position"] for one in await bob.quiet() if one["type"] == "room_message"]
        assert rest == list(range(len(seen) + 1, count + 2))

    play(scene)


def test_the_seat_of_a_session_that_ended_unseen_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node was killed, and it never came back: the others see it leave, and see no living member leave."""
    monkeypatch.setattr(sweeping, "AGAIN_S", 60.0)

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name, session={"resume_ttl_s": 20.0}, rooms={"keep_s": 30.0})
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("b", pair=False)
        joined = await join(bob)
        await join(ada)
        await bob.expect("room_presence")
        cluster.kill("a")
        await trio.sleep(120)
        left = [one["left"] for one in await bob.quiet() if one["type"] == "room_presence"]
        assert left == [[started["session"]]]
        await bob.send({"type": "bye"})
        await bob.expect("session_ended")
        await trio.sleep(180)
        assert cluster.world.rows.room(joined["room"]) is None

    play(scene)


def test_a_node_that_is_far_behind_reads_on() -> None:
    """More was published at once than one look tells."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        context = cluster.nodes["a"].hub.context
        bounds, now_ms = bounds_of(context.config.rooms), context.now_ms()
        said = [Publication(0, publication_body(None, b"%d" % number, None)) for number in range(3 * LOOK_LIMIT)]
        cluster.world.execute([Post("r:1", "elsewhere", b"", "e", one, bounds, now_ms) for one in said])
        data = [one["data"] for one in await ada.quiet(5.0) if one["type"] == "room_message"]
        assert data == list(range(3 * LOOK_LIMIT))

    play(scene)


def test_a_node_forgets_rooms_without_members_here() -> None:
    """A member whose connection is gone is not told of any more, and its room is not followed."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        await join(ada)
        await join(bob)
        hall, desk = cluster.nodes["a"].hub.rooms.hall, cluster.nodes["a"].hub.rooms
        assert (hall.members, desk.rooms_of(started["session"])) == (2, ["r:1"])
        ada.cut()
        await trio.sleep(0.1)
        assert (hall.members, desk.rooms_of(started["session"])) == (1, [])
        bob.cut()
        await trio.sleep(0.1)
        assert not hall.rooms

    play(scene)


class Told:
    """What a member has been told of a room by all its connections."""

    def __init__(self) -> None:
        self.epoch, self.position, self.at = "", 0, 0
        self.records: dict[str, Json] = {}

    async def join(self, reader: Peer, most: int) -> None:
        """Join, and take up to `most` publications. What is kept may go while it is told: then there is another answer."""
        self.joined(await join(reader, received=self.at, epoch=self.epoch, state=True))
        while most > 0:
            with trio.move_on_after(0.5) as waited:
                frame = await reader.receive()
            if waited.cancelled_caught:
                break
            if frame["type"] == "joined":
                assert frame["recovered"] is False
                self.joined(frame)
            elif frame["type"] == "room_message":
                self.published(frame)
                most -= 1

    def joined(self, frame: Json) -> None:
        """Take an answer."""
        self.epoch, self.position = frame["epoch"], frame["position"]
        self.records = frame["records"] if frame["wipe"] else self.records | frame["records"]
        self.at = self.at if frame["recovered"] else frame["position"]

    def published(self, frame: Json) -> None:
        """Take a publication."""
        assert frame["position"] == self.at + 1
        self.at += 1
        if self.at > self.position:
            for key, value in frame["patch"].items():
                self.records[key] = self.records.get(key, {}) | value


@pytest.mark.parametrize("seed", range(4))
def test_whoever_joins_while_others_publish_misses_nothing(seed: int) -> None:
    """However a join falls between publications: from its position on each comes once, and the records are those of it."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name, rooms={"history_messages_max": 30}, limits={"messages_burst": 1000})
        chance = random.Random(seed)
        writers = [(await cluster.client(name, pair=False))[0] for name in ("a", "b")]
        for writer in writers:
            await join(writer)

        async def write(writer: Peer) -> None:
            for seq in range(1, 151):
                await publish(writer, seq, patch={str(seq % 7): {"by": seq}})
                if chance.random() < 0.3:
                    await trio.sleep(chance.choice([0, 0.001, 0.02]))
            await published(writer, 150)

        async def read(name: str) -> None:
            reader, started = await cluster.client(name, pair=False)
            told = Told()
            while told.at < 300:
                await told.join(reader, chance.randrange(60))
                reader.cut()
                reader, started = await cluster.restore(chance.choice("ab"), started["recovery_token"])
            other, _ = await cluster.client(name, pair=False)
            whole = await join(other, state=True)
            assert told.records == whole["records"]

        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(write, writer)
            for name in ("a", "b"):
                nursery.start_soon(read, name)

    play(scene)


def test_a_leave_that_was_lost_is_said_again() -> None:
    """A member whose `leave` was lost with its connection says it on the next one: its seat is taken, and others see it leave."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, _), (bob, started) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        await join(ada)
        await join(bob)
        await ada.expect("room_presence")
        bob.cut()
        bob, _ = await cluster.restore("a", started["recovery_token"])
        await bob.send({"type": "leave", "room": "r:1"})
        assert await bob.expect("left") == {"type": "left", "room": "r:1", "reason": "left"}
        assert (await ada.expect("room_presence"))["left"] == [started["session"]]

    play(scene)


def test_a_member_that_names_a_room_it_has_left_since_is_in_it() -> None:
    """Its opening message was under way as it left on the old connection: it is told `joined`, and a `leave` on the new one ends that."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        (ada, _), (bob, started) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        await join(ada)
        epoch = (await join(bob))["epoch"]
        await ada.expect("room_presence")
        await bob.send({"type": "leave", "room": "r:1"})
        assert (await bob.expect("left"))["reason"] == "left"
        assert (await ada.expect("room_presence"))["left"] == [started["session"]]
        position = {"room": "r:1", "received": 0, "epoch": epoch}
        bob, _ = await cluster.restore("b", started["recovery_token"], rooms=[position])
        assert (await bob.expect("joined"))["epoch"] == epoch
        assert [one["member"] for one in (await ada.expect("room_presence"))["joined"]] == [started["session"]]
        await bob.send({"type": "leave", "room": "r:1"})
        assert (await bob.expect("left"))["reason"] == "left"
        assert (await ada.expect("room_presence"))["left"] == [started["session"]]

    play(scene)


def test_a_session_that_is_assigned_anew_is_in_no_room() -> None:
    """A claim of a node that was killed comes late: the worker joins its room again on the same connection, behind its answer."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        client, _, worker, accepted, session = await cluster.pair("a", "a")
        await join(client)
        await join(worker, session=session)
        await client.expect("room_presence")
        await publish(worker, 1, data=1, session=session)
        await worker.expect("published")
        now_ms = cluster.nodes["a"].hub.context.now_ms()
        late = ClaimWorkerSide(session, "killed", "nonce", accepted["worker"], True, 0, 0, now_ms)
        cluster.world.execute([late])
        assigned = await worker.expect("session_assigned")
        await publish(worker, 2, data=2, session=session)
        assert (await worker.expect("error"))["code"] == "not_accepted"
        await worker.send({"type": "session_accept", "session": session, "epoch": assigned["epoch"]})
        await publish(worker, 2, data=2, session=session)
        assert (await worker.expect("room_error"))["code"] == "forbidden"
        assert (await join(worker, session=session))["next_seq"] == 2
        await publish(worker, 2, data="two", session=session)
        assert (await worker.expect("published"))["seq"] == 2
        assert [one["data"] for one in await client.quiet() if one["type"] == "room_message"] == [1, "two"]

    play(scene)
