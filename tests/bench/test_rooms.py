"""The benchmark of rooms counts what each member has had, judges by its limits, and its bare loop tells what signald tells."""

import os

import pytest

from signald.net.frames import FrameDecoder, Message
from signald.wire import rooms as wire
from signald.wire.codec import decode_client
from tests.bench import __main__ as command
from tests.bench import rooms
from tests.bench.errors import BenchError
from tests.bench.report import Row
from tests.bench.rooms_bare import framed, payloads
from tests.bench.rooms_parties import Crowd, Ear, data_of, publication
from tests.bench.servers import Cores


def told(*numbers: int) -> bytes:
    """Publications as frames of a server."""
    return b"".join([framed(b'{"type":"room_message","data":"%b"}' % data_of(number).encode()) for number in numbers])


def ear(expected: int = 1) -> Ear:
    """A member without a socket."""
    made = Ear.__new__(Ear)
    made.crowd, made.expected, made._tail, made.gone = Crowd(), expected, b"", False
    made.crowd.members = made.crowd.published = 1000
    return made


def test_a_publication_is_signalds() -> None:
    """What the publisher sends is a `publish`, whose data carries its number; the bare loop takes it out of the same bytes."""
    [event] = FrameDecoder(message_bytes_max=65_536, fragments_max=1).feed(publication(12))
    assert isinstance(event, Message)
    message, _ = decode_client(event.text, event.payload, 32)
    assert isinstance(message, wire.Publish)
    assert (message.seq, len(bytes(message.data))) == (12, 128 + 2)
    buffer = bytearray(publication(12) + publication(13)[:-1])
    assert payloads(buffer) == [event.payload]
    assert buffer == publication(13)[:-1]


def test_publications_are_counted_across_reads() -> None:
    """A publication that is cut between two reads counts once, and so does one behind a frame of another kind."""
    member, data = ear(), told(1, 2, 3)
    for part in (data[:-7], data[-7:], b"\x8a\x00" + told(4), told(5, 6)):
        member.on_frames(part)
    assert (member.expected, member.crowd.delivered) == (7, 6)


@pytest.mark.parametrize("numbers", [(2,), (1, 1), (1, 3), (2, 1)])
def test_a_gap_or_a_repetition_ends_the_run(numbers: tuple[int, ...]) -> None:
    """A member that misses a publication, or has one twice or out of order, is no figure."""
    with pytest.raises(BenchError, match="a member got publication"):
        ear().on_frames(told(*numbers))


def test_the_next_publication_waits_for_all_members() -> None:
    """So many are under way as the window says, and one more is said when the earliest has come at each member."""
    crowd, said = Crowd(), list[tuple[int, int]]()
    crowd.members, crowd.window, crowd.publish = 3, 2, lambda first, count: said.append((first, count))
    crowd.start()
    crowd.came(2)
    assert said == [(1, 2)]
    crowd.came(1)
    assert said == [(1, 2), (3, 1)]
    crowd.running = False
    crowd.came(5)
    assert not crowd.quiet
    crowd.came(1)
    assert (said[1:], crowd.quiet) == ([(3, 1)], True)


def row(members: int, bare: float, socket_io: float, window: int = 128) -> Row:
    """The figures of signald."""
    return {
        "nodes": 1,
        "members": members,
        "window": window,
        "server": rooms.SIGNALD,
        "x bare": bare,
        "x socket.io": socket_io,
        "x streams": 2.0,
    }


def test_the_limits() -> None:
    """Many members are held to the bare loop, and any number to Socket.IO; few are not where one publication waits for the other."""
    assert not rooms.judge([row(1000, 0.7, 1.0), row(1, 0.1, 1.0), row(1, 0.1, 0.1, window=1)])[1]
    for worse in (row(1000, 0.69, 1.0), row(1000, 0.7, 0.99), row(1, 0.7, 0.99), row(1000, 0.7, 0.99, window=1)):
        limits, broken = rooms.judge([worse])
        assert broken
        assert [one["verdict"] for one in limits].count("BROKEN") == 1


def test_a_broken_limit_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1, and the table says which limit is broken."""
    monkeypatch.setattr(command, "pinned", lambda: Cores(0, 0, 0))
    monkeypatch.setattr(rooms, "scenario", lambda *_: [row(1000, 0.5, 2.0)])
    with pytest.raises(SystemExit) as ended:
        command.rooms(nodes=(1,))
    assert ended.value.code == 1
    assert "BROKEN" in capsys.readouterr().out
    monkeypatch.setattr(rooms, "scenario", lambda *_: [row(1000, 0.8, 2.0)])
    command.rooms(nodes=(1,))
    assert "BROKEN" not in capsys.readouterr().out


@pytest.mark.real
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("names", [(rooms.SIGNALD, rooms.BARE), (rooms.SOCKET_IO, rooms.STREAMS)])
def test_members_are_told(names: tuple[str, ...], nodes: int) -> None:
    """Each server has told each of its members, on one node and on two, and a room may grow between two turns."""
    rooms.make_node_modules()
    core = min(os.sched_getaffinity(0))
    rows = list(rooms.scenario(Cores(core, core, core), names, nodes, (1, 3), (1, 4), seconds=0.1, rounds=1))
    assert [(one["members"], one["window"], one["server"]) for one in rows] == [
        (members, window, name) for members in (1, 3) for window in (1, 4) for name in names
    ]
    assert all(float(one["delivered/s"] or 0) > 0 for one in rows)
