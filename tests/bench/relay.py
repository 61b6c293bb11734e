"""Round trips through a server: a client sends, the worker echoes, `window` messages are under way in each pair.

Clients keep their window full as cheaply as possible: every read is answered by one write that carries the ack (where the protocol has
one) and as many new messages as echoes came. Latency is sampled: each client times one message at a time.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench import sockets
from tests.bench.errors import BenchError
from tests.bench.parties import ClientLink, ClientSession, WorkerApp, WorkerLink, start_clients, start_workers
from tests.bench.report import Row, median, percentile
from tests.bench.servers import BASELINES, TREE, Cores, Server, busy_s, running
from tests.bench.sockets import TEXT, Address, Loop, Socket, WebSocket, frame_span, header

SESSIONS_PER_WORKER = 10

# As the server's encoder writes them; a server that wrote them otherwise would be refused as unknown, not miscounted.
MESSAGE = b'{"type":"message"'
ACK = b'{"type":"ack"'

# A core that was busy this share of the time had nothing left to give.
SATURATED = 0.93
DISTURBED = 0.1


class Meter:
    """What the clients count."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.latencies_s: list[float] = []


class Stopwatch:
    """Times one message at a time of one client, known by its number."""

    __slots__ = ("_began", "_meter", "_number")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._number = 0
        self._began = 0.0

    def sent(self, number: int) -> None:
        """Time message `number` if none is being timed."""
        if not self._number:
            self._number, self._began = number, time.perf_counter()

    def came(self, number: int) -> None:
        """Take note that all echoes up to `number` are here."""
        if self._number and number >= self._number:
            self._meter.latencies_s.append(time.perf_counter() - self._began)
            self._number = 0


class Fixed:
    """Counts messages of one length in a stream: all that a party of the baselines has to understand."""

    __slots__ = ("_expected", "_rest", "_size")

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._size = len(expected)
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """Return how many messages are complete now; raise BenchError if the first is not the expected one."""
        if self._rest:
            data = self._rest + data
        count, rest = divmod(len(data), self._size)
        if count and not data.startswith(self._expected):
            raise BenchError(f"unexpected from the relay: {data[:64]!r}")
        self._rest = data[len(data) - rest :] if rest else b""
        return count


class FixedEcho:
    """Sends back as many messages as came."""

    def __init__(self, link: Socket, outgoing: bytes, incoming: bytes) -> None:
        self._link = link
        self._outgoing = outgoing
        self._incoming = Fixed(incoming)

    def feed(self, data: bytes) -> None:
        """Answer one read."""
        if count := self._incoming.feed(data):
            self._link.send(self._outgoing * count)


class FixedSender:
    """Keeps its window full."""

    def __init__(self, link: Socket, outgoing: bytes, incoming: bytes, meter: Meter, window: int) -> None:
        self._link = link
        self._outgoing = outgoing
        self._incoming = Fixed(incoming)
        self._meter = meter
        self._window = window
        self._stopwatch = Stopwatch(meter)
        self._sent = 0
        self._came = 0

    def start(self) -> None:
        """Send the first window."""
        self._say(self._window)

    def feed(self, data: bytes) -> None:
        """Answer one read."""
        if count := self._incoming.feed(data):
            self._meter.round_trips += count
            self._came += count
            self._stopwatch.came(self._came)
            self._say(count)

    def _say(self, count: int) -> None:
        self._stopwatch.sent(self._sent + 1)
        self._sent += count
        self._link.send(self._outgoing * count)


class TcpLink(Socket):
    """A connection of the raw TCP relay."""

    feed: Callable[[bytes], None]

    @property
    def open(self) -> bool:
        """Whether it can be used: there is nothing after TCP's own handshake."""
        return self.connected

    def on_data(self, data: bytes) -> None:
        """Hand a read to the party."""
        self.feed(data)


class PlainWebSocketLink(WebSocket):
    """A connection of the bare WebSocket relay."""

    feed: Callable[[bytes], None]

    def on_frames(self, data: bytes) -> None:
        """Hand a read to the party."""
        self.feed(data)


def start_baseline(kind: str, loop: Loop, address: Address, meter: Meter, pairs: int, size: int, window: int) -> None:
    """Connect `pairs` pairs to a baseline, one connection after the other: the order makes the pairs."""
    data = b"x" * size
    if kind == "tcp":
        outgoing = incoming = size.to_bytes(4, "big") + data
    else:
        outgoing, incoming = sockets.frame(data, 0x82), sockets.server_header(0x82, size) + data
    senders = []
    for _ in range(pairs):
        links: list[TcpLink | PlainWebSocketLink] = []
        for _ in range(2):
            link = TcpLink(loop, address) if kind == "tcp" else PlainWebSocketLink(loop, address)
            loop.run_until(lambda link=link: link.open, 10.0, "connected")  # type: ignore[misc]
            links.append(link)
        sender = FixedSender(links[0], outgoing, incoming, meter, window)
        links[0].feed, links[1].feed = sender.feed, FixedEcho(links[1], outgoing, incoming).feed
        senders.append(sender)
    for sender in senders:
        sender.start()


def last_seq(buffer: bytes, start: int, stop: int) -> int:
    """Return the seq of the message that lies there; the data, which holds no quote, may stand before or after it."""
    begin = buffer.find(b'"seq":', start, stop) + 6
    end = buffer.find(b",", begin, stop)
    return int(buffer[begin : end if end > 0 else stop - 1])


class Stamp:
    """Prints the messages of one sender: all is prepared but the seq and the head that depends on its length."""

    __slots__ = ("_begin", "_end", "_heads")

    def __init__(self, session: str, end: bytes) -> None:
        name = b'"session":"%b",' % session.encode() if session else b""
        self._begin = b'{"type":"message",%b"seq":' % name
        self._end = end
        fixed = len(self._begin) + len(self._end)
        self._heads = [header(TEXT, fixed + digits) + self._begin for digits in range(20)]

    def print(self, first: int, count: int) -> list[bytes]:
        """Return the frames with the seqs from `first`, in parts."""
        heads, end = self._heads, self._end
        parts: list[bytes] = []
        for seq in range(first, first + count):
            digits = b"%d" % seq
            parts += (heads[len(digits)], digits, end)
        return parts


def message_end(size: int, *, history: bool) -> bytes:
    """Return what follows the seq in a message of `size` bytes of data."""
    return b'%b,"data":"%b"}' % (b"" if history else b',"history":false', b"x" * size)


class RelayClientLink(ClientLink):
    """The client's connection once traffic flows."""

    session: "RelayClient"

    def on_frames(self, data: bytes) -> None:
        """Count what one read brought and answer it with one write."""
        buffer = self._tail + data if self._tail else data
        position = count = last = last_stop = 0
        while (span := frame_span(buffer, position)) is not None:
            start, stop = span
            if buffer.startswith(MESSAGE, start):
                count += 1
                last, last_stop = start, stop
            elif not buffer.startswith(ACK, start):
                self.on_frame(buffer[position], buffer[start:stop])
            position = stop
        self._tail = buffer[position:]
        if count:
            self.session.echoes(self, count, last_seq(buffer, last, last_stop))


class RelayClient(ClientSession):
    """Keeps its window full."""

    link_class = RelayClientLink

    def __init__(self, loop: Loop, meter: Meter, window: int, end: bytes) -> None:
        super().__init__(loop)
        self._meter = meter
        self._window = window
        self._stopwatch = Stopwatch(meter)
        self._stamp = Stamp("", end)

    def start(self) -> None:
        """Send the first window."""
        assert self.link is not None
        self._say(self.link, [], self._window)

    def echoes(self, link: ClientLink, count: int, seq: int) -> None:
        """Take `count` echoes, the last of which had `seq`: ack them and send as many new messages."""
        self.received += count
        if seq != self.received:
            raise BenchError(
                f"{count} echoes up to seq {seq} make {self.received} in all: one is missing or came twice"
            )
        self._meter.round_trips += count
        self._stopwatch.came(seq)
        self._say(link, [sockets.frame(b'{"type":"ack","seq":%d}' % seq)], count)

    def _say(self, link: ClientLink, parts: list[bytes], count: int) -> None:
        self._stopwatch.sent(self.sent + 1)
        parts += self._stamp.print(self.sent + 1, count)
        self.sent += count
        link.send(b"".join(parts))


class Echoed:
    """The worker's place in one session, and what came for it in the read at hand."""

    __slots__ = ("begin", "count", "received", "session", "stamp", "stop")

    def __init__(self, session: str, end: bytes) -> None:
        self.session = session.encode()
        self.stamp = Stamp(session, end)
        self.received = 0
        self.count = 0
        self.begin = self.stop = 0


class RelayWorkerLink(WorkerLink):
    """The worker's connection once traffic flows."""

    app: "RelayWorker"

    def on_frames(self, data: bytes) -> None:
        """Count what one read brought for each session and answer it with one write."""
        buffer = self._tail + data if self._tail else data
        echoed = self.app.echoed
        touched: list[Echoed] = []
        position = 0
        while (span := frame_span(buffer, position)) is not None:
            start, stop = span
            if buffer.startswith(MESSAGE, start):
                begin = buffer.find(b'"session":"', start, stop) + 11
                place = echoed[buffer[begin : buffer.find(b'"', begin, stop)]]
                if not place.count:
                    touched.append(place)
                place.count += 1
                place.begin, place.stop = start, stop
            elif not buffer.startswith(ACK, start):
                self.on_frame(buffer[position], buffer[start:stop])
            position = stop
        self._tail = buffer[position:]
        if touched:
            self.send(b"".join(self._answers(buffer, touched)))

    def _answers(self, buffer: bytes, touched: list[Echoed]) -> Iterator[bytes]:
        for place in touched:
            seq, first = last_seq(buffer, place.begin, place.stop), place.received + 1
            place.received += place.count
            if seq != place.received:
                raise BenchError(
                    f"{place.session!r}: seq {seq} as message {place.received}: one is missing or came twice"
                )
            yield sockets.frame(b'{"type":"ack","session":"%b","seq":%d}' % (place.session, seq))
            # Its echoes have the seqs of what it echoes, since it says nothing else.
            yield from place.stamp.print(first, place.count)
            place.count = 0


class RelayWorker(WorkerApp):
    """A worker that echoes."""

    link_class = RelayWorkerLink

    def __init__(self, loop: Loop, name: str, capacity: int, end: bytes) -> None:
        super().__init__(loop, name, capacity)
        self._end = end
        self.echoed: dict[bytes, Echoed] = {}

    def assigned(self, link: WorkerLink, session: str) -> None:
        """Accept a session and prepare its answers."""
        self.echoed[session.encode()] = Echoed(session, self._end)
        super().assigned(link, session)


def start_signald(loop: Loop, address: Address, meter: Meter, pairs: int, end: bytes, window: int) -> None:
    """Register the workers, connect the clients, start the traffic."""
    workers = [
        RelayWorker(loop, f"bench-{n}", SESSIONS_PER_WORKER, end) for n in range(-(-pairs // SESSIONS_PER_WORKER))
    ]
    start_workers(loop, address, workers)
    clients = [RelayClient(loop, meter, window, end) for _ in range(pairs)]
    start_clients(loop, address, clients)
    for client in clients:
        client.start()


class Slice(NamedTuple):
    """What one slice of time showed. Shares are of one core."""

    round_trips_per_s: float
    cpu_ms_per_1k: float
    redis_ms_per_1k: float
    server_share: float
    generator_share: float
    redis_share: float
    others_share: float
    """What processes that do not belong here took of the server's core: a figure with much of it is worth little."""


def measure(loop: Loop, cores: Cores, server: Server, meter: Meter, seconds: float) -> Slice:
    """Let the traffic flow for one slice."""

    def spent() -> tuple[float, ...]:
        server_s, redis_s = server.cpu_s()
        return meter.round_trips, server_s, time.process_time(), redis_s, busy_s(cores.server)

    before = spent()
    elapsed_s = loop.run_for(seconds)
    server.child.check()
    trips, server_s, generator_s, redis_s, core_s = (now - then for now, then in zip(spent(), before, strict=True))
    if not trips:
        raise server.child.failure("carried nothing for a whole slice")
    return Slice(
        round_trips_per_s=trips / elapsed_s,
        cpu_ms_per_1k=server_s * 1e6 / trips,
        redis_ms_per_1k=redis_s * 1e6 / trips,
        server_share=server_s / elapsed_s,
        generator_share=generator_s / elapsed_s,
        redis_share=redis_s / elapsed_s,
        others_share=max(0.0, core_s - server_s) / elapsed_s,
    )


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the cyclic collector of the generator out of the latencies: the hot paths make no cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def limit(cores: Cores, server: float, generator: float, redis: float, others: float) -> str:
    """Return the limit of the figure: the core that was full, or that all of them waited."""
    if server + others >= SATURATED:
        return "server core" if others < DISTURBED else "other processes"
    if cores.load == cores.redis and generator + redis >= SATURATED:
        return "load core"
    if max(generator, redis) >= SATURATED:
        return "generator" if generator >= redis else "redis"
    return "waiting"


def scenario(
    name: str,
    cores: Cores,
    pairs: int,
    size: int,
    window: int,
    seconds: float,
    slices: int,
    *,
    history: bool,
    tree: Path = TREE,
) -> Row:
    """Measure one server under one load."""
    loop, meter = Loop(), Meter()
    with running(name, cores, tree) as server:
        try:
            if name in BASELINES:
                start_baseline(name, loop, server.address, meter, pairs, size, window)
            else:
                start_signald(loop, server.address, meter, pairs, message_end(size, history=history), window)
            with no_collector():
                measure(loop, cores, server, meter, seconds)
                meter.latencies_s.clear()
                seen = [measure(loop, cores, server, meter, seconds) for _ in range(slices)]
        finally:
            loop.close()
    rates = [one.round_trips_per_s for one in seen]
    shares = {name: median([getattr(one, name) for one in seen]) for name in Slice._fields if name.endswith("_share")}
    return {
        "server": name,
        "pairs": pairs,
        "bytes": size,
        "window": window,
        "round trips/s": median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "cpu ms/1k": median([one.cpu_ms_per_1k for one in seen]),
        "redis ms/1k": median([one.redis_ms_per_1k for one in seen]) if server.redis else None,
        "p50 ms": percentile(meter.latencies_s, 50) * 1000 or None,
        "p99 ms": percentile(meter.latencies_s, 99) * 1000 or None,
        "server cpu": shares["server_share"],
        "generator cpu": shares["generator_share"],
        "redis cpu": shares["redis_share"] if server.redis else None,
        "others cpu": shares["others_share"],
        "limited by": limit(cores, *shares.values()),
    }


def run(
    cores: Cores,
    names: Sequence[str],
    pairs: Sequence[int],
    sizes: Sequence[int],
    windows: Sequence[int],
    seconds: float,
    slices: int,
    *,
    history: bool = False,
) -> Iterator[Row]:
    """Measure every server under every load; all servers of one load directly after each other, since they are compared."""
    for size in sizes:
        for count in pairs:
            for window in windows:
                rows = [scenario(name, cores, count, size, window, seconds, slices, history=history) for name in names]
                bare = next((row["round trips/s"] for row in rows if row["server"] == "trio-websocket"), None)
                for row in rows:
                    yield {**row, "x bare": float(row["round trips/s"] or 0) / float(bare) if bare else None}
