"""The relay benchmark speaks signald.v1, notices a relay that is not correct, and carries messages through its baselines."""

import os

import pytest

from signald.net.frames import FrameDecoder, Message
from signald.wire import messages
from signald.wire.codec import decode_client, decode_worker
from tests.bench.errors import BenchError
from tests.bench.relay import Fixed, Meter, Stamp, Stopwatch, last_seq, measure, message_end, start_baseline
from tests.bench.servers import Cores, running
from tests.bench.sockets import Loop


@pytest.mark.parametrize("history", [False, True])
def test_stamped_messages_are_signalds(history: bool) -> None:
    """The frames a client prints decode to messages with their seqs, across the lengths of numbers."""
    payloads = FrameDecoder(message_bytes_max=65_536, fragments_max=1).feed(
        b"".join(Stamp("", message_end(128, history=history)).print(8, 4))
    )
    for seq, event in enumerate(payloads, 8):
        assert isinstance(event, Message)
        message, binary = decode_client(event.text, event.payload, 32)
        assert isinstance(message, messages.Message)
        assert (message.seq, binary, len(bytes(message.data))) == (seq, None, 130)
        assert message.history is (None if history else False)
    assert len(payloads) == 4


def test_stamped_messages_of_a_worker_name_their_session() -> None:
    """The frames a worker prints carry the session they answer in."""
    [event] = FrameDecoder(message_bytes_max=65_536, fragments_max=1).feed(
        b"".join(Stamp("s-1", message_end(4096, history=False)).print(1000, 1))
    )
    assert isinstance(event, Message)
    message, _ = decode_worker(event.text, event.payload, 32)
    assert isinstance(message, messages.Message)
    assert (message.session, message.seq) == ("s-1", 1000)


@pytest.mark.parametrize("text", [b'{"type":"message","seq":12,"data":"x"}', b'{"type":"message","data":"x","seq":12}'])
def test_the_seq_is_found_wherever_it_stands(text: bytes) -> None:
    """The order of a message's fields is the server's affair."""
    assert last_seq(b"??" + text + b"??", 2, 2 + len(text)) == 12


def test_messages_of_one_length_are_counted_across_reads() -> None:
    """A message cut between two reads counts once, when it is complete."""
    stream = Fixed(b"abc")
    assert [stream.feed(b"abcab"), stream.feed(b"c"), stream.feed(b"a"), stream.feed(b"bcabc")] == [1, 1, 0, 2]


def test_a_foreign_message_ends_the_run() -> None:
    """A relay that sends something else gets no figure."""
    with pytest.raises(BenchError, match="unexpected"):
        Fixed(b"abc").feed(b"abd")


def test_latency_is_taken_of_one_message_at_a_time() -> None:
    """While a message is timed, those said after it are not."""
    meter = Meter()
    stopwatch = Stopwatch(meter)
    stopwatch.sent(1)
    stopwatch.sent(2)
    stopwatch.came(1)
    assert len(meter.latencies_s) == 1
    stopwatch.came(2)
    assert len(meter.latencies_s) == 1


@pytest.mark.real
@pytest.mark.parametrize("kind", ["tcp", "trio-websocket"])
def test_a_baseline_carries_round_trips(kind: str) -> None:
    """Every pair of a baseline gets its echoes, whatever the speed."""
    core = min(os.sched_getaffinity(0))
    cores, loop, meter = Cores(core, core, core), Loop(), Meter()
    try:
        with running(kind, cores) as server:
            start_baseline(kind, loop, server.address, meter, pairs=2, size=4096, window=4)
            assert measure(loop, cores, server, meter, 0.1).round_trips_per_s > 0
            assert len(meter.latencies_s) > 0
    finally:
        loop.close()
