"""Tests of one side of one session: both ledgers, refusals, pace, and bounds."""

import json

import pytest

from signald.ids import SeededEntropy
from signald.sdk.bounds import Bounds, Pace
from signald.sdk.core import ACK_PIECE_BYTES, ACK_PIECES, ACK_PIECES_S, NEVER, SessionCore
from signald.sdk.errors import LinkBroken
from signald.sdk.writing import Batch, Frame
from signald.wire.codec import decode_worker
from signald.wire.messages import ErrorMessage, Message


def core(name: str | None = None, **options: object) -> SessionCore:
    """A session's core without surprises."""
    return SessionCore(name, SeededEntropy(0), **options)  # type: ignore[arg-type]


def written(session: SessionCore, now: float = 0.0) -> list[Frame]:
    """What the session writes now."""
    batch = Batch()
    session.write(now, batch)
    return batch.frames


def seqs(frames: list[Frame]) -> list[int]:
    """The seqs of the messages among `frames`."""
    return [message["seq"] for _, payload in frames if (message := json.loads(payload))["type"] == "message"]


def incoming(session: SessionCore, *seqs: int) -> None:
    """Let messages arrive."""
    for seq in seqs:
        session.receive(Message(seq), None)


def test_a_workers_frames_name_the_session_and_decode_on_the_wire() -> None:
    """Text and binary messages, acks and bye of a worker carry `session` and pass the strict decoder."""
    session = core("s_1", next_seq=4)
    session.send({"a": 1}, kind="chat", history=True)
    session.send(b"\x00\x01")
    incoming(session, 1)
    session.finish(1)
    frames = written(session)
    assert len(frames) == 3
    for text, payload in frames:
        message, _ = decode_worker(text, payload, 32)
        assert message.session == "s_1"  # type: ignore[union-attr]
    assert decode_worker(*frames[2], 32)[1] == b"\x00\x01"


def parting(session: SessionCore, now: float) -> list[tuple[str, int]]:
    """What is written behind which the session is given back."""
    batch = Batch()
    session.part(now, batch)
    return [(said["type"], said["seq"]) for said in map(json.loads, (payload for _, payload in batch.frames))]


def test_a_session_is_given_back_behind_what_was_done_in_it() -> None:
    """The ack follows what was said. Where that may not be written yet it is lost, so the message is left to the next worker."""
    for now, written_then in ((0.5, []), (5.0, [("message", 1), ("message", 2), ("ack", 1)])):
        session = core("s_1")
        incoming(session, 1, 2)
        session.send("one")
        session.send("two")
        session.refused(ErrorMessage("rate", "", expected=1, retry_after_ms=1000), 0.0)
        session.finish(1)
        assert parting(session, now) == written_then
    session = core("s_1")
    incoming(session, 1, 2)
    session.finish(1)
    assert parting(session, 0.0) == [("ack", 1)]
    assert parting(session, 0.0) == [], "it is said once"


def test_a_trace_goes_out_with_its_message_and_comes_in_with_it() -> None:
    """What the application gives as `trace` is on the wire, also of binary messages, and the peer's application finds it."""
    session, peer = core("s_1", next_seq=1), core()
    session.send({"a": 1}, trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    session.send(b"\0", trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    session.send(3)
    for text, payload in written(session):
        message, binary = decode_worker(text, payload, 32)
        assert isinstance(message, Message)
        peer.receive(message, binary)
    taken = [peer.take() for _ in range(3)]
    assert [one.trace and one.trace[-2:] for one in taken if one is not None] == ["01", "00", None]


def test_a_message_that_is_too_large_is_refused_before_it_is_taken() -> None:
    """The application hears it; the ledger does not change, and the connection is not lost for it."""
    session = core(bounds=Bounds(message_bytes_max=100))
    with pytest.raises(ValueError, match="100 bytes"):
        session.send("x" * 100)
    assert (session.next_seq, session.unacked) == (1, 0)


def test_the_room_to_send_is_bounded_by_messages_and_bytes() -> None:
    """At either bound there is no room until something was stored."""
    session = core(bounds=Bounds(unacked_messages_max=2))
    rooms = []
    for n in range(2):
        session.send(n)
        rooms.append(session.room)
    written(session)
    session.acked(1)
    rooms.append(session.room)
    assert rooms == [True, False, True]
    session = core(bounds=Bounds(unacked_bytes_max=50))
    session.send("x" * 60)
    assert not session.room


def test_an_attachment_sends_again_what_was_not_accepted() -> None:
    """Everything above `accepted`, once per connection, in order."""
    session = core()
    for n in range(4):
        session.send(n)
    assert seqs(written(session)) == [1, 2, 3, 4]
    assert seqs(written(session)) == []
    session.attach(2)
    assert seqs(written(session)) == [3, 4]


def test_a_refusal_pauses_and_goes_back() -> None:
    """From the refused message on, after the pause; the first try after it is a small one that grows with the acks."""
    session = core()
    for n in range(100):
        session.send(n)
    written(session)
    session.acked(10)
    session.refused(ErrorMessage("backlog", "", expected=11, retry_after_ms=1000), 5.0)
    assert written(session, 5.5) == []
    assert 6.0 <= session.wake_at(5.5) <= 6.25
    assert seqs(written(session, 6.3)) == list(range(11, 27))
    assert session.acked(26)
    assert seqs(written(session, 6.4)) == list(range(27, 59))


def test_a_gap_goes_back_once() -> None:
    """The errors of messages that were already under way do not cause a resend each."""
    session = core()
    for n in range(5):
        session.send(n)
    written(session)
    session.refused(ErrorMessage("gap", "", expected=2), 0.0)
    assert seqs(written(session)) == [2, 3, 4, 5]
    session.refused(ErrorMessage("gap", "", expected=2), 0.1)
    assert written(session, 0.1) == []


def test_a_refusal_never_reaches_outside_the_ledger() -> None:
    """`expected` below what was stored or above what was sent is brought back into it."""
    session = core()
    session.send(1)
    written(session)
    session.acked(1)
    session.refused(ErrorMessage("gap", "", expected=1), 0.0)
    assert written(session) == []
    session.refused(ErrorMessage("gap", "", expected=50), 0.0)
    session.send(2)
    assert seqs(written(session)) == [2]


@pytest.mark.parametrize("started_at", [0.0, 53.1, 86_400.3, 3e8])
def test_a_pace_always_names_a_later_time(started_at: float) -> None:
    """A party that waits as long as told gets on, whatever rounding leaves to wait for: a time that is not later wakes no task."""
    session = core(next_seq=1, bounds=Bounds(unacked_messages_max=2000))
    session.pace = Pace(1000.0, 10)
    for number in range(1000):
        session.send(number)
    now, sent = started_at, 0
    while sent < 1000:
        sent += len(written(session, now))
        session.acked(sent)
        before, now = now, session.wake_at(now)
        assert sent == 1000 or before < now < NEVER, f"{sent} are written, and nothing wakes the writer for the others"


def test_a_pace_lets_a_burst_through_and_then_its_rate() -> None:
    """Nothing above the told rate is sent, so nothing is refused for it."""
    session = core()
    session.pace = Pace(10.0, 20)
    for n in range(30):
        session.send(n)
    assert seqs(written(session, 0.0)) == list(range(1, 19))
    wake = session.wake_at(0.0)
    assert 0.0 < wake < 0.2
    assert seqs(written(session, wake + 1e-6)) == [19]
    session.attach(19)
    assert len(seqs(written(session, wake))) == 11


def test_a_new_workers_ledger_begins_with_the_first_message_it_gets() -> None:
    """It does not know how far the worker before it came; what it reports is where it began."""
    session = core("s_1", received=None)
    incoming(session, 7, 8)
    assert (session.received, session.finished) == (8, 6)
    assert written(session) == []
    with pytest.raises(LinkBroken):
        incoming(session, 10)


def test_a_duplicate_has_its_ack_said_again() -> None:
    """A peer that sends a message twice does not know that it was finished with."""
    session = core()
    incoming(session, 1, 2)
    session.finish(2)
    assert [json.loads(payload)["seq"] for _, payload in written(session)] == [2]
    assert written(session) == []
    incoming(session, 1)
    assert [json.loads(payload)["seq"] for _, payload in written(session)] == [2]


def test_bye_follows_the_last_stored_message_and_is_said_again_after_a_resume() -> None:
    """It would otherwise end the session in front of a message that was still to be sent again."""
    session = core()
    session.send(1)
    session.bye = "done"
    assert [json.loads(payload)["type"] for _, payload in written(session)] == ["message"]
    assert session.acked(1)
    assert [json.loads(payload)["type"] for _, payload in written(session)] == ["bye"]
    session.attach(1)
    assert [json.loads(payload)["type"] for _, payload in written(session)] == ["bye"]


def test_a_batch_ends_at_its_budget() -> None:
    """A long resend leaves in several writes, so that acks and other sessions get their turn."""
    session = core()
    for _ in range(10):
        session.send("x" * 1000)
    batch = Batch(budget_bytes=2500)
    assert session.write(0.0, batch)
    assert len(batch.frames) == 3
    assert session.wake_at(0.0) == NEVER


def test_acking_more_than_was_received_is_not_possible() -> None:
    """An application cannot finish what it has not got."""
    session = core()
    incoming(session, 1)
    session.finish(9)
    assert session.finished == 1


def test_a_state_without_positions_goes_on_behind_what_signald_has() -> None:
    """Resuming with a bare token, the next seq follows what was accepted; with unstored messages it would be a fault."""
    session = core(received=None)
    session.attach(5)
    assert session.send("next") == 6
    session = core()
    session.send("unstored")
    with pytest.raises(LinkBroken):
        session.attach(5)


# --- acks of pieces -----------------------------------------------------------------------------------------------


def piece(session: SessionCore, seq: int, *, end: bool = False, binary: bytes | None = None) -> None:
    """Let a piece of a stream arrive, and its application finish with it."""
    session.receive(Message(seq, stream="a", end=end), binary)
    session.take()
    session.finish(seq)


def acks(session: SessionCore, now: float = 0.0) -> list[int]:
    """The acks that the session writes now."""
    said = [json.loads(payload) for _, payload in written(session, now)]
    return [message["seq"] for message in said if message["type"] == "ack"]


def test_acks_of_pieces_gather() -> None:
    """The ack of a growing stream leaves some time after the first piece that it covers, and the driver is told when."""
    session = core()
    piece(session, 1)
    assert (acks(session, 5.0), session.wake_at(5.0)) == ([], 5.0 + ACK_PIECES_S)
    piece(session, 2)
    assert (acks(session, 5.1), session.wake_at(5.1)) == ([], 5.0 + ACK_PIECES_S)
    assert (acks(session, 5.0 + ACK_PIECES_S), session.wake_at(5.3)) == ([2], NEVER)
    piece(session, 3)
    assert (acks(session, 6.0), session.wake_at(6.0)) == ([], 6.0 + ACK_PIECES_S)


def test_fast_pieces_are_acked_by_their_number() -> None:
    """However fast they come, a few are acked together; fewer where signald lets little wait."""
    session, narrow = core(), core(bounds=Bounds(unacked_messages_max=4))
    said: list[int] = []
    for seq in range(1, 3 * ACK_PIECES + 1):
        piece(session, seq)
        said += acks(session)
    assert said == [ACK_PIECES, 2 * ACK_PIECES, 3 * ACK_PIECES]
    piece(narrow, 1)
    assert acks(narrow) == []
    piece(narrow, 2)
    assert acks(narrow) == [2]


def test_an_end_a_large_piece_and_a_message_are_acked_at_once() -> None:
    """They take along the ack of the pieces before them."""
    session = core()
    piece(session, 1)
    piece(session, 2, end=True)
    assert acks(session) == [2]
    piece(session, 3)
    piece(session, 4, binary=b"x" * (ACK_PIECE_BYTES + 1))
    assert acks(session) == [4]
    piece(session, 5)
    incoming(session, 6)
    session.finish(6)
    assert acks(session) == [6]


def test_an_ack_of_pieces_rides_with_a_message_and_with_bye() -> None:
    """What is written anyway takes it along."""
    session = core()
    piece(session, 1)
    session.send("stop")
    assert acks(session) == [1]
    session.acked(1)
    piece(session, 2)
    session.bye = "enough"
    assert acks(session) == [2]


def test_an_ack_of_pieces_does_not_wait_after_a_resume() -> None:
    """Neither behind a duplicate, nor behind what is said to be lost."""
    session = core()
    piece(session, 1)
    assert acks(session) == []
    session.attach(0)
    assert acks(session) == [1]
    session.receive(Message(1, stream="a"), None)
    assert acks(session) == [1]
    session.log_lost(2, 3, incoming=True)
    assert acks(session) == [3]


def test_a_worker_acks_each_piece() -> None:
    """What a worker has not acked goes to the next worker."""
    session = core("s_1")
    piece(session, 1)
    assert acks(session) == [1]
