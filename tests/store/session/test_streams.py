"""What every store must do about the streams of a session, one rule of `signald/store/session/streams` after the other.

Two nodes look at one fresh store: `a`, where the client is, and `b`, where the worker is.
"""

import json
from typing import Any

import pytest

from signald.core.callers import ALL, Access
from signald.core.chat_history import shown
from signald.core.log import Entry
from signald.core.streams import StreamView
from signald.store.base import Behind, Done, Fenced, Refused
from signald.store.session.ops import (
    AcceptSession,
    Appended,
    Claimed,
    Ended,
    EndSession,
    Full,
    Gap,
    HandOn,
    NoSession,
    StreamRefused,
)
from signald.store.session.streams.ops import CancelStream, CloseStreams, NoStream, OpenStreams, Streams
from signald.store.session.streams.records import KNOWN_MAX, OPEN_MAX
from tests.store.ops import NOW_MS, SESSION, ack, append, claim_client, claim_side, create, entries, head, piece, reseed
from tests.store.scenes import NO_WAKES, claimed, look, pair, read_history, seqs
from tests.store.worlds import World

CLOSE = CloseStreams(SESSION, "b", 2, ("a",), "interrupted", NOW_MS)


def say(*pieces: Entry, epoch: int = 1, ack: int = 0, bytes_max: int = 10_000, items: int = 1000) -> Any:
    """The worker at `b` appends."""
    return append(pieces, party="worker", epoch=epoch, ack=ack, history_max=items, history_bytes_max=bytes_max)


def cancel(stream: str = "a", *, way: str = "down", reason: str = "", access: Access = ALL) -> CancelStream:
    """Node `a` asks for the end of a stream."""
    return CancelStream(SESSION, way, stream, reason, access, "a")


async def texts(world: World) -> list[dict[str, Any]]:
    """Return the chat history as it is shown."""
    return [json.loads(bytes(one)) for one in shown((await read_history(world)).entries)]


async def views(world: World) -> tuple[StreamView, ...]:
    """Return the streams that are open, and those that signald has ended; the same from both nodes."""
    found = await world.ask(OpenStreams(SESSION), at="a")
    assert isinstance(found, Streams)
    assert await world.ask(OpenStreams(SESSION), at="b") == found
    return found.streams


class TestPieces:
    """Pieces are appended."""

    async def test_a_text_grows(self, world: World) -> None:
        """Pieces are stored as messages, wake the reader, and are one entry of the history."""
        await pair(world)
        assert await world.ask(say(piece(1, "He"), piece(2, "llo\n")), at="b") == Appended(2, 0, "a")
        assert await world.woken("b") == {"a": [b"ss_1"], "b": []}
        (entry,) = await texts(world)
        assert (entry["data"], entry["open"], entry["seq"]) == ("Hello\n", True, 2)
        assert [one.at_ms for one in (await read_history(world)).entries] == [NOW_MS]
        assert (await look(world)).entries == (piece(1, "He", marked=False), piece(2, "llo\n", marked=False))
        await world.do(say(piece(3, "!", end="complete")))
        (entry,) = await texts(world)
        assert (entry["data"], entry["outcome"], "open" in entry) == ("Hello\n!", "complete", False)
        assert await views(world) == ()

    async def test_again(self, world: World) -> None:
        """Pieces that are stored count as success when they come again, and are not added a second time."""
        await pair(world)
        await world.do(say(piece(1, "x"), piece(2, "y", end="complete")))
        assert await world.ask(say(piece(1, "x"), piece(2, "y", end="complete"))) == Appended(2, 0, "a")
        assert (await texts(world))[0]["data"] == "xy"

    async def test_over(self, world: World) -> None:
        """After its end a stream takes nothing more, of any attempt; what stands before the piece is stored."""
        await pair(world)
        await world.do(say(piece(1, "x", end="complete")))
        await world.woken()
        for attempt in (1, 2):
            late = say(piece(2, "1", stream="b"), piece(3, "late", attempt=attempt), piece(4, "2", stream="b"))
            assert await world.ask(late) == StreamRefused("stream_over", "a", 2, 0, "a")
        assert await seqs(world, "client") == [1, 2]
        assert [entry["data"] for entry in await texts(world)] == ["x", "1"]
        assert await world.ask(say(piece(3, "2", stream="b"))) == Appended(3, 0, "a")

    async def test_superseded(self, world: World) -> None:
        """A lower attempt than the highest is refused, and nothing is stored of it."""
        await pair(world)
        await world.do(say(piece(1, "old"), piece(2, "new", attempt=3)))
        await world.woken()
        assert await world.ask(say(piece(3, "old"))) == StreamRefused("stream_superseded", "a", 2, 0, "a")
        assert await world.woken() == NO_WAKES
        (entry,) = await texts(world)
        assert (entry["data"], entry["attempt"]) == ("new", 3)

    async def test_directions_are_apart(self, world: World) -> None:
        """A stream of the client and one of the worker may have the same name."""
        await pair(world)
        await world.do(say(piece(1, "x", end="complete")))
        assert await world.ask(append((piece(1, "y"),))) == Appended(1, 0, "b")
        assert [(entry["from"], entry["data"]) for entry in await texts(world)] == [("worker", "x"), ("client", "y")]

    async def test_stands_where_it_began(self, world: World) -> None:
        """The entry of a text stands where its first piece stood, between the plain messages."""
        await pair(world)
        await world.do(say(piece(1, "a")), append((Entry(1, b't"seq":1,"data":0}', history=True),)), say(piece(2, "b")))
        await world.do(say(Entry(3, b't"seq":3,"data":1}', history=True), piece(4, None), piece(5, "c")))
        assert [entry["data"] for entry in await texts(world)] == ["abc", 0, 1]

    async def test_no_text(self, world: World) -> None:
        """A stream without a text, and one that does not belong to the history, are judged alike and do not stand in it."""
        await pair(world)
        await world.do(say(piece(1, None), piece(2, "x", stream="b", history=False), piece(3, None, end="failed")))
        assert await texts(world) == []
        assert await world.ask(say(piece(4, None))) == StreamRefused("stream_over", "a", 3, 0, "a")

    async def test_cut_in_front(self, world: World) -> None:
        """Above its bytes the history loses the oldest pieces first, and says that the text is truncated."""
        await pair(world)
        for seq in range(1, 41):
            await world.do(say(piece(seq, f"<{seq}>"), bytes_max=400))
        (entry,) = await texts(world)
        assert entry["truncated"]
        assert entry["data"].endswith("<39><40>")
        assert "".join(f"<{seq}>" for seq in range(1, 41)).endswith(entry["data"])
        await world.do(append((Entry(1, b"t" + b"x" * 380, history=True),), history_bytes_max=400))
        assert len((await read_history(world)).entries) == 1

    async def test_an_entry_is_counted_once(self, world: World) -> None:
        """The history is bounded by entries: a text of many pieces counts as one, whichever kind of append bounds it."""
        await pair(world)
        for seq in range(1, 31):
            await world.do(say(piece(seq, f"<{seq}>", end="complete" if seq == 30 else ""), items=3))
        await world.do(*[append((Entry(seq, b't"seq":%d}' % seq, history=True),), history_max=3) for seq in (1, 2)])
        entries = (await read_history(world)).entries
        assert [entry.seq for entry in entries] == [30, 1, 2]
        assert entries[0].data == "".join(f"<{seq}>" for seq in range(1, 31)).encode()
        await world.do(append((Entry(3, b't"seq":3}', history=True),), history_max=3))
        assert [entry.seq for entry in (await read_history(world)).entries][-3:] == [1, 2, 3]
        await world.do(
            say(piece(31, "new", stream="b"), items=1), append((Entry(4, b't"seq":4}', history=True),), history_max=1)
        )
        assert [entry.seq for entry in (await read_history(world)).entries] == [4]

    async def test_no_append_without_its_claim(self, world: World) -> None:
        """Pieces are fenced, dense and bounded as all messages are."""
        await pair(world)
        assert await world.ask(say(piece(1), epoch=2)) == Behind(1)
        assert await world.ask(append((piece(1),), party="worker", node="a")) == Fenced(1)
        assert await world.ask(say(piece(2))) == Gap(0)
        assert await world.ask(append((piece(1), piece(2)), party="worker", backlog_max=1)) == Full(0, 0)
        assert await world.ask(append((piece(1),), session="s_9")) == NoSession()
        assert (await texts(world), await views(world)) == ([], ())

    async def test_acks_ride_along(self, world: World) -> None:
        """An ack counts with pieces as with messages, also when a piece is refused."""
        await pair(world, receipts=True)
        await world.do(append(entries(1, 3)), say(piece(1, end="complete"), ack=1))
        await world.woken()
        assert isinstance(await world.ask(say(piece(2), ack=2), at="b"), StreamRefused)
        assert await seqs(world, "worker") == [3]
        assert (await world.woken("b"))["a"] == [b"ss_1"]

    async def test_too_many(self, world: World) -> None:
        """When more streams are open than may be, the oldest of its direction is interrupted."""
        await pair(world)
        await world.do(append((piece(1, "c"),)), *[say(piece(seq, stream=f"s{seq}")) for seq in range(1, OPEN_MAX + 2)])
        found = await views(world)
        assert [one.stream for one in found if one.by_signald] == ["s1"]
        assert len(found) == OPEN_MAX + 2
        assert await world.ask(say(piece(OPEN_MAX + 2, stream="s1"))) == StreamRefused(
            "stream_over", "s1", OPEN_MAX + 1, 0, "a"
        )

    async def test_forgotten(self, world: World) -> None:
        """Of those that are over the oldest is forgotten when there are too many: its name may be used again."""
        await pair(world)
        lot = [piece(seq, stream=f"s{seq}", end="complete") for seq in range(1, KNOWN_MAX + 2)]
        await world.do(append(tuple(lot), party="worker", backlog_max=1000, history_max=1000, history_bytes_max=10**6))
        last = KNOWN_MAX + 2
        again = [append((piece(last, stream=name),), party="worker", backlog_max=1000) for name in ("s2", "s1")]
        assert [type(result) for result in await world.do(*again)] == [StreamRefused, Appended]


class TestCancelStream:
    """The reader of a stream asks for its end."""

    async def test_cancel(self, world: World) -> None:
        """The request is kept with the stream, and both nodes are woken; a second one changes nothing."""
        await pair(world)
        await world.do(say(piece(1, "x", kind="tokens")))
        await world.woken()
        assert await world.ask(cancel(reason="enough")) == Done()
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}
        wanted = StreamView("down", "a", 1, kind="tokens", cancel=True, reason="enough", last=1)
        assert await views(world) == (wanted,)
        counter = (await look(world)).head.streams
        assert await world.ask(cancel(reason="again")) == Done()
        assert await world.woken() == NO_WAKES
        assert (await views(world), (await look(world)).head.streams) == ((wanted,), counter)
        await world.do(say(piece(2, attempt=2)))
        assert [one.cancel for one in await views(world)] == [True]

    async def test_counts(self, world: World) -> None:
        """The head shows that something has changed which no message tells."""
        await pair(world)
        assert (await look(world)).head.streams == 0
        await world.do(say(piece(1, "x")))
        before = (await look(world)).head.streams
        assert before > 0
        await world.do(say(piece(2, "y")))
        assert (await look(world)).head.streams == before
        await world.do(cancel())
        assert (await look(world)).head.streams > before

    async def test_nothing_to_cancel(self, world: World) -> None:
        """A stream that is over needs nothing, one that never was is not known, and another direction is another stream."""
        await pair(world)
        await world.do(say(piece(1, "x", end="complete")))
        assert await world.do(cancel(), cancel("b"), cancel(way="up")) == [Done(), NoStream(), NoStream()]
        assert await world.ask(CancelStream("s_9", "down", "a", "", ALL, "a")) == NoSession()

    async def test_access(self, world: World) -> None:
        """Only a caller that may touch the session may cancel; any other learns not even whether the stream is."""
        await pair(world)
        await world.do(say(piece(1, "x")))
        refused = [cancel(access=Access(owner="eve")), cancel("b", access=Access(tenant="ann"))]
        assert await world.do(*refused) == [Refused("access")] * 2
        allowed = [cancel(access=Access(owner="ann")), cancel(access=Access(worker="w_1"))]
        assert await world.do(*allowed) == [Done(), Done()]


class TestAdoption:
    """A worker finds streams open."""

    async def hand_over(self, world: World) -> Claimed:
        """The worker of a stream goes, and another one gets the session."""
        await pair(world)
        await world.do(say(piece(1, "He"), piece(2, None, stream="raw")))
        await world.woken()
        return claimed(await world.ask(claim_side("w_2", nonce="next", history=9)))

    async def test_found(self, world: World) -> None:
        """The claim of the next worker shows the open streams and their texts, as found; a piece of any attempt takes that off."""
        claim = await self.hand_over(world)
        assert [(one.stream, one.found, one.attempt) for one in claim.streams] == [("a", True, 1), ("raw", True, 1)]
        assert [entry.data for entry in claim.history] == [b"He"]
        await world.do(say(piece(3, "llo", attempt=2), epoch=2))
        assert [(one.stream, one.found) for one in await views(world)] == [("a", False), ("raw", True)]

    async def test_again(self, world: World) -> None:
        """A claim that is repeated has the same answer; the worker's own resume finds what it had found."""
        claim = await self.hand_over(world)
        assert await world.ask(claim_side("w_2", nonce="next", history=9)) == claim
        resumed = claimed(await world.ask(claim_side("w_2", nonce="resume", assign=False, node="a")))
        assert [one.found for one in resumed.streams] == [True, True]
        assert resumed.hand_outs == 0

    async def test_close(self, world: World) -> None:
        """What was found and not spoken in is interrupted, and its entry shows it; the client's node is woken, once."""
        await self.hand_over(world)
        await world.woken()
        closed = await world.ask(CLOSE, at="b")
        assert [(one.stream, one.outcome, one.by_signald) for one in closed.streams] == [
            ("a", "interrupted", True), ("raw", "", False),
        ]  # fmt: skip
        assert (await world.woken("b"))["a"] == [b"ss_1"]
        assert await world.ask(CLOSE, at="b") == closed
        assert await world.woken("b") == NO_WAKES
        (entry,) = await texts(world)
        assert (entry["data"], entry["outcome"], entry["seq"]) == ("He", "interrupted", 2 - 1)
        assert await world.ask(say(piece(3, "late", attempt=2), epoch=2)) == StreamRefused(
            "stream_over", "a", 2, 0, "a"
        )
        assert claimed(await world.ask(claim_client())).streams == closed.streams

    async def test_spoken(self, world: World) -> None:
        """A stream in which the worker has spoken is not closed, and neither is one that it began itself."""
        await self.hand_over(world)
        await world.do(say(piece(3, "llo", attempt=2), epoch=2))
        closed = await world.ask(CloseStreams(SESSION, "b", 2, ("a", "none"), "interrupted", NOW_MS))
        assert [one.outcome for one in closed.streams] == ["", ""]

    async def test_fenced(self, world: World) -> None:
        """Only the node that holds the worker closes."""
        await self.hand_over(world)
        other = [
            CloseStreams(SESSION, node, epoch, ("a",), "interrupted", NOW_MS)
            for node, epoch in (("b", 1), ("a", 2), ("b", 3))
        ]
        assert await world.do(*other) == [Fenced(2), Fenced(2), Behind(2)]
        assert await world.ask(CloseStreams("s_9", "b", 2, (), "interrupted", NOW_MS)) == NoSession()
        assert [one.outcome for one in await views(world)] == ["", ""]

    async def test_end_of_the_session(self, world: World) -> None:
        """The end of the session interrupts what is open, and says what that was."""
        await pair(world)
        await world.do(say(piece(1, "x"), piece(2, "y", stream="b", end="complete")))
        ended = await world.ask(EndSession(SESSION, "a"))
        assert isinstance(ended, Ended)
        assert [(one.stream, one.outcome) for one in ended.streams] == [("a", "interrupted")]
        assert await views(world) == ()
        await world.do(create(nonce="new"))
        assert await views(world) == ()


class TestHandOn:
    """A worker leaves something for the next one."""

    async def test_state(self, world: World) -> None:
        """What is left reaches each worker that is assigned, until one accepts."""
        await pair(world)
        assert await world.ask(HandOn(SESSION, "b", 1, b'{"step":3}')) == Done()
        for number in (2, 3):
            assert claimed(await world.ask(claim_side(f"w_{number}", nonce=f"n{number}"))).state == b'{"step":3}'
        await world.do(AcceptSession(SESSION, "b", 3))
        assert claimed(await world.ask(claim_side("w_4", nonce="n4"))).state == b""

    async def test_fenced(self, world: World) -> None:
        """A worker that has the session no more leaves nothing."""
        await pair(world)
        left = [HandOn(SESSION, node, epoch, b"1") for node, epoch in (("a", 1), ("b", 2))]
        assert await world.do(*left, HandOn("s_9", "b", 1, b"1")) == [Fenced(1), Behind(1), NoSession()]
        assert claimed(await world.ask(claim_side("w_2", nonce="next"))).state == b""

    async def test_hand_outs(self, world: World) -> None:
        """Each assignment counts, until a worker acks something."""
        await world.do(create(), append(entries(1, 3)))
        counts = [
            claimed(await world.ask(claim_side(f"w_{number}", nonce=f"n{number}"))).hand_outs for number in (1, 2)
        ]
        await world.do(ack(1, epoch=2))
        counts += [
            claimed(await world.ask(claim_side(f"w_{number}", nonce=f"n{number}"))).hand_outs for number in (3, 4)
        ]
        assert counts == [1, 2, 1, 2]


class TestLoss:
    """The store has lost something."""

    async def test_given_back(self, world: World) -> None:
        """A node gives pieces back, whether it has sent or read them; a text whose front may be missing is truncated."""
        tail = (piece(4, "llo"), piece(5, "!", marked=False))
        await world.do(reseed(head(down_last=5, worker_epoch=1, worker_node="b"), node="b", down_tail=tail))
        (entry,) = await texts(world)
        assert (entry["data"], entry["truncated"], entry["open"]) == ("llo!", True, True)
        assert [one.last for one in await views(world)] == [5]
        assert await world.ask(say(piece(6, "?"))) == Appended(6, 0, "")

    @pytest.mark.parametrize("given", [(), (piece(4, "lo"),)], ids=["nothing", "the last"])
    async def test_gap(self, world: World, given: tuple[Entry, ...]) -> None:
        """Where pieces are lost, a text goes on behind the gap, as truncated; nothing is joined that did not belong together."""
        await pair(world)
        await world.do(say(piece(1, "He")))
        await world.do(reseed(head(down_last=4, worker_epoch=1, worker_node="b"), node="b", down_tail=given))
        await world.do(say(piece(5, "!")))
        (entry,) = await texts(world)
        assert (entry["data"], entry["truncated"]) == ("lo!" if given else "!", True)

    async def test_claimed_gap(self, world: World) -> None:
        """A party that knows of more than is stored shows the gap as well."""
        await pair(world)
        await world.do(say(piece(1, "He")), claim_client(received=3), say(piece(4, "!")))
        (entry,) = await texts(world)
        assert (entry["data"], entry["truncated"]) == ("!", True)

    async def test_count(self, world: World) -> None:
        """The count of changes never goes back."""
        await pair(world)
        known = head(worker_epoch=1, worker_node="b")
        for streams, wanted in ((7, 7), (3, 7)):
            await world.do(
                reseed(type(known)(**{f: getattr(known, f) for f in known.__struct_fields__} | {"streams": streams}))
            )
            assert (await look(world)).head.streams == wanted
