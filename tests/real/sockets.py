"""Thousands of hostile, slow or returning sockets against a real node, and their effect on all other parties.

    python -m tests.real.sockets [--slowloris 5000] [--slow 1000 --of 10000] [--storm 2000] [--json]

slowloris   sockets that send a byte every second, half of them in the handshake and half after it, while visitors come
slow        clients that stop reading while much is sent to them, among others that go on
storm       the node is killed and started again: all parties come back at once

Without arguments all three run, each against a node of its own. A broken promise ends it with what was broken.
"""

import argparse
import json
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.parties import Link, text
from tests.bench.sockets import Address, Loop, WebSocket, upgrade_request
from tests.real.crowd import (
    MIB,
    Child,
    Clock,
    Returning,
    ReturningClient,
    ReturningClientLink,
    ReturningWorker,
    Settings,
    allow_descriptors,
    come_in,
    served,
    spread,
)

Figures = dict[str, Any]

HASTE: dict[str, object] = {"successor_timeout_s": 0.2}
"""There is no successor where one node is all there is."""
SPARE = 500
"""Descriptors beyond those of the sockets."""
GONE_SLACK_S = 6.0
"""The node's tick, what a failed peer is given to read why, and a busy machine."""


@contextmanager
def crowd(directory: Path, settings: Settings) -> Iterator[tuple[Child, Clock]]:
    """A node, and a loop to meet it with."""
    with served(directory, settings) as node, closing(Loop()) as loop:
        yield node, Clock(loop)


def promise(kept: bool, what: str) -> None:
    """Fail with `what` unless it is so."""
    if not kept:
        raise BenchError(f"broken: {what}")


# --- slowloris ------------------------------------------------------------------------------------------------------

DRIP_S = 1.0


class Dripper(WebSocket):
    """Sends its request, or what comes after it, a byte at a time."""

    subprotocol = "signald.v1"
    path = "/v1/client"

    def __init__(self, loop: Loop, address: Address, *, polite: bool) -> None:
        super().__init__(loop, address)
        self.polite = polite
        """It does the handshake at once and drips its opening message."""
        self.began_at = time.monotonic()
        self.gone_after_s = 0.0
        self.status = ""
        self._rest = text({"type": "connect", "meta": "x" * 60}) if polite else upgrade_request(self.path)

    def on_connected(self) -> None:
        """Do the handshake, or begin it."""
        self.began_at = time.monotonic()
        if self.polite:
            super().on_connected()

    def on_open(self) -> None:
        """From here on the node waits for the opening message."""
        self.began_at = time.monotonic()

    def drip(self) -> None:
        """Send one byte."""
        if not self.gone and self.connected and (self.open or not self.polite):
            self.send(self._rest[:1])
            self._rest = self._rest[1:]

    def on_data(self, data: bytes) -> None:
        """Note a refusal."""
        if not self.open and not (self._tail + data).startswith(b"HTTP/1.1 101"):
            self.status = (data[9:12] if data.startswith(b"HTTP/1.1 ") else b"?").decode()
            return
        super().on_data(data)

    def on_frame(self, opcode: int, payload: bytes) -> None:
        """An `error` may come before the Close."""
        if opcode != 0x81:
            super().on_frame(opcode, payload)

    def on_gone(self) -> None:
        """Note when the node had enough."""
        self.gone_after_s = time.monotonic() - self.began_at


class Visitor(Returning, Link):
    """A client that comes, starts a session and says goodbye."""

    path = "/v1/client"

    def __init__(self, loop: Loop, address: Address) -> None:
        super().__init__(loop, address)
        self.came_at = time.monotonic()
        self.served_s: float | None = None

    def on_open(self) -> None:
        """Start a session."""
        self.send(text({"type": "connect"}))

    def on_json(self, message: dict[str, Any]) -> None:
        """Be served."""
        if message["type"] == "session_started":
            self.served_s = time.monotonic() - self.came_at
            self.send(text({"type": "bye"}))
        elif message["type"] not in ("session_ended", "peer"):
            super().on_json(message)

    def on_gone(self) -> None:
        """It is over, one way or the other."""


def slowloris(directory: Path, count: int, *, timeout_s: float = 5.0, visits_per_s: float = 50.0) -> Figures:
    """`count` sockets drip; all are gone by the timeout, and every visitor is served meanwhile."""
    allow_descriptors(count + SPARE)
    settings: Settings = {"timeouts": {"handshake_s": timeout_s, "hello_s": timeout_s}}
    with crowd(directory, settings) as (node, clock):
        visitors: list[Visitor] = []
        drippers: list[Dripper] = []
        stopped = False

        def visit() -> None:
            visitors.append(Visitor(clock.loop, node.address))

        def drip(some: list[Dripper]) -> None:
            for dripper in some:
                dripper.drip()

        clock.every(1 / visits_per_s, visit, lambda: stopped)
        clock.run_for(1.0)
        calm = spread([one.served_s for one in visitors if one.served_s is not None])
        before, rss_before = node.footprint(), node.rss_bytes()
        rss_peak = rss_before
        came_before = len(visitors)
        for start in range(0, count, 250):
            lot = [Dripper(clock.loop, node.address, polite=bool(n % 2)) for n in range(start, min(count, start + 250))]
            drippers += lot
            clock.every(DRIP_S, lambda lot=lot: drip(lot), lambda lot=lot: all(one.gone for one in lot))  # type: ignore[misc]
            clock.run_for(0.01)
        held = 0

        def all_gone() -> bool:
            nonlocal rss_peak, held
            rss_peak = max(rss_peak, node.rss_bytes())
            held = max(held, node.footprint()[0] - before[0])
            return all(one.gone for one in drippers)

        clock.until(all_gone, timeout_s + 2 * GONE_SLACK_S, lambda: f"{sum(not one.gone for one in drippers)} are left")
        stopped = True
        clock.until(lambda: all(one.gone for one in visitors), 10, lambda: "a visitor is not done")
        clock.until(lambda: node.footprint()[0] <= before[0], 10, lambda: f"descriptors {node.footprint()} {before}")
        during = visitors[came_before:]
        refused = Counter(one.refusal or f"closed {one.close_code}" for one in during if one.served_s is None)
        rude = [one for one in drippers if not one.polite]
        polite = [one for one in drippers if one.polite]
        figures: Figures = {
            "sockets": count,
            "held_at_once": held,
            "gone_in_handshake_ms": spread([one.gone_after_s for one in rude]),
            "gone_after_handshake_ms": spread([one.gone_after_s for one in polite]),
            "in_handshake": dict(Counter(one.status or "closed" for one in rude)),
            "after_handshake": dict(Counter(one.status or str(one.close_code) for one in polite)),
            "visitors": len(during),
            "visitors_refused": dict(refused),
            "visitors_calm_ms": calm,
            "visitors_ms": spread([one.served_s for one in during if one.served_s is not None]),
            "rss_before_mib": round(rss_before / MIB, 1),
            "rss_peak_mib": round(rss_peak / MIB, 1),
            "rss_after_mib": round(node.rss_bytes() / MIB, 1),
        }
        figures["exit_s"] = round(node.stop(), 2)
        promise(not refused, f"every visitor is served: {figures}")
        longest_s = max(one.gone_after_s for one in drippers)
        promise(longest_s <= timeout_s + GONE_SLACK_S, f"gone by the timeout: {figures}")
        promise(set(figures["after_handshake"]) == {"4408"}, f"told that the opening message is late: {figures}")
        return figures


# --- slow consumers -------------------------------------------------------------------------------------------------

QUEUE_BYTES = 65_536
BACKLOG_BYTES = 4 * QUEUE_BYTES
"""What a node keeps of a log for the case that the store loses it; above what is sent here, so that no sender is pushed back."""
CACHES_BYTES = 48 * MIB
"""Memory that traffic without slow readers may add: above all the store's records, ten thousand of 2 KiB."""
ANSWER = "x" * 2000
SLOW_QUESTIONS = 75
UNDER_WAY_MAX = 500
"""Questions in flight to the workers beyond which no client asks another. A slow reader is what is measured here. A node given
more than its machine can do would hide the effect of slow readers on others."""
PATIENCE_S = 600.0
"""What a machine that does other things at the same time may need for a step."""


class NarrowLink(ReturningClientLink):
    """A connection with little room in the kernel, so that what is not read soon waits in the node."""

    options = (
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),
        (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400),
    )


class CountingWorker(ReturningWorker):
    """A worker that counts the questions it has had."""

    taken = 0

    def take(self, link: Any, session: str, seq: int) -> None:
        """Answer, and count what is new."""
        self.taken += seq > self.sessions[session].received
        super().take(link, session, seq)


class SlowClient(ReturningClient):
    """A client that stops reading, and later comes back on a new connection."""

    link_class = NarrowLink
    deaf = False

    def deafen(self) -> None:
        """Read nothing any more, and do not come back by oneself."""
        assert self.link is not None
        self.deaf = True
        self.loop.change(self.link, 0)  # EPOLLHUP and EPOLLERR come unasked

    def lost(self, link: Any) -> None:
        """A deaf one was cut off, as it should be."""
        if self.deaf and link is self.link:
            self.link = None
        else:
            super().lost(link)

    def listen_again(self, address: Address) -> None:
        """Come back."""
        self.deaf = False
        self.cut()
        self.dial(address)


def slow(directory: Path, count: int, of: int, *, write_s: float = 3.0) -> Figures:
    """`count` of `of` clients stop reading; the node's memory stays bounded, they are closed with 4508, others go on."""
    allow_descriptors(of + SPARE)
    settings: Settings = {
        "limits": {
            "send_queue_bytes_max": QUEUE_BYTES,
            "backlog_bytes_max": BACKLOG_BYTES,
            "messages_per_s": 1e6,
            "messages_burst": 1_000_000,
        },
        "timeouts": {"write_s": write_s},
        "admission": {"connections_max": of + SPARE},
        "drain": HASTE,
        "log": {"level": "debug"},
    }
    told: Counter[str] = Counter()
    with crowd(directory, settings) as (node, clock):
        loop = clock.loop
        workers = [CountingWorker(loop, f"worker {n}", 1000, ANSWER) for n in range(-(-of // 1000))]
        deaf = [SlowClient(loop) for _ in range(count)]
        others = [ReturningClient(loop) for _ in range(of - count)]
        come_in(clock, node.address, workers, told)
        come_in(clock, node.address, [*deaf, *others], told)
        over = False
        # Every other client asks once in a while; the whole of them at a rate that leaves the node room.
        turn = deque(others)
        per_tick = max(1, len(others) // 300)

        def under_way() -> int:
            return sum(one.sent for one in (*deaf, *others)) - sum(one.taken for one in workers)

        def some_ask() -> None:
            if under_way() > UNDER_WAY_MAX:
                return
            for _ in range(per_tick):
                turn[0].ask()
                turn.rotate(-1)

        clock.every(0.05, some_ask, lambda: over)
        clock.run_for(2.0)
        calm = spread([seconds for one in others for seconds in one.round_trips_s])
        for one in others:
            one.round_trips_s.clear()
        rss_before, before = node.rss_bytes(), node.footprint()
        rss_peak = rss_before
        began_at = time.monotonic()
        for one in deaf:
            one.deafen()
        asking = deque(deaf)
        asked = 0

        def slow_ask() -> None:
            nonlocal asked
            if under_way() > UNDER_WAY_MAX:
                return
            for _ in range(min(len(asking) * SLOW_QUESTIONS - asked, max(40, len(asking) * SLOW_QUESTIONS // 400))):
                asking[0].ask()
                asking.rotate(-1)
                asked += 1

        clock.every(0.05, slow_ask, lambda: asked >= count * SLOW_QUESTIONS)

        def closed() -> int:
            nonlocal rss_peak
            rss_peak = max(rss_peak, node.rss_bytes())
            return before[0] - node.footprint()[0]

        clock.until(lambda: closed() >= count, PATIENCE_S, lambda: f"{closed()} of {count} were closed")
        closed_s = time.monotonic() - began_at
        # They come back, read, and have missed nothing.
        for one in deaf:
            one.listen_again(node.address)
        clock.until(
            lambda: all(not one.asked_at for one in deaf) and asked >= count * SLOW_QUESTIONS,
            PATIENCE_S,
            lambda: (
                f"{sum(bool(one.asked_at) for one in deaf)} wait for answers: asked {asked}, answered "
                f"{sum(one.received for one in deaf)}, resumed {sum(one.resumes for one in deaf)}, told {told}"
            ),
        )
        over = True
        clock.until(lambda: all(not one.asked_at for one in others), PATIENCE_S, lambda: "others wait for answers")
        rss_after = node.rss_bytes()
        codes = Counter(entry["code"] for entry in node.logged("connection_closed"))
        # A send queue holds frames made for it; the log it is filled from is kept besides, until the receiver acks.
        each_bytes = QUEUE_BYTES + min(BACKLOG_BYTES, SLOW_QUESTIONS * len(ANSWER))
        bound_bytes = count * each_bytes + CACHES_BYTES
        figures: Figures = {
            "slow": count,
            "of": of,
            "bytes_max_each": each_bytes,
            "closed_s": round(closed_s, 1),
            "close_codes": {str(code): number for code, number in codes.items()},
            "rss_before_mib": round(rss_before / MIB, 1),
            "rss_peak_mib": round(rss_peak / MIB, 1),
            "rss_after_mib": round(rss_after / MIB, 1),
            "bound_mib": round(bound_bytes / MIB, 1),
            "others_calm_ms": calm,
            "others_ms": spread([seconds for one in others for seconds in one.round_trips_s]),
            "answers": sum(one.received for one in (*deaf, *others)),
            "slow_came_back": sum(one.resumes for one in deaf),
        }
        figures["exit_s"] = round(node.stop(), 2)
        promise(codes == {4508: count}, f"the slow ones were closed with 4508: {figures}")
        promise(not any(one.resumes for one in others), f"nobody else was disconnected: {figures}")
        promise(
            max(rss_peak, rss_after) - rss_before <= bound_bytes,
            f"no more than the send queues and the logs is kept: {figures}",
        )
        return figures


# --- a storm of returns ---------------------------------------------------------------------------------------------


def storm(directory: Path, count: int, *, setups_max: int = 256) -> Figures:
    """The node is killed and started again; `count` clients and their workers come back, and miss nothing."""
    allow_descriptors(count + SPARE)
    settings: Settings = {
        "admission": {"setups_in_progress_max": setups_max},
        "worker": {"resume_timeout_s": 60.0},
        "drain": HASTE,
    }
    told: Counter[str] = Counter()
    with crowd(directory, settings) as (node, clock):
        loop = clock.loop
        workers = [ReturningWorker(loop, f"worker {n}", 500) for n in range(-(-count // 500))]
        clients = [ReturningClient(loop) for _ in range(count)]
        come_in(clock, node.address, workers, told, in_flight=1)
        come_in(clock, node.address, clients, told, in_flight=min(64, setups_max // 2))
        told.clear()
        over = False
        turn = deque(clients)

        def some_ask() -> None:
            for _ in range(max(1, count // 100)):
                turn[0].ask()
                turn.rotate(-1)

        clock.every(0.05, some_ask, lambda: over)
        clock.run_for(2.0)
        rss_before, before = node.rss_bytes(), node.footprint()
        killed_at = time.monotonic()
        node.kill()
        node.start()
        clock.until(node.ready, 30, lambda: "the node is not ready")
        ready_at = time.monotonic()
        rss_peak = 0

        def all_back() -> bool:
            nonlocal rss_peak
            rss_peak = max(rss_peak, node.rss_bytes())
            return all(one.resumes for one in clients) and all(one.resumes for one in workers)

        clock.until(all_back, 60, lambda: f"{sum(not one.resumes for one in clients)} are not back; told {told}")
        clock.run_for(1.0)
        over = True
        clock.until(
            lambda: all(not one.asked_at for one in clients),
            30,
            lambda: f"{sum(bool(one.asked_at) for one in clients)} wait for answers; told {told}",
        )
        clock.until(lambda: node.footprint()[0] <= before[0], 10, lambda: f"{node.footprint()} {before}")
        figures: Figures = {
            "clients": count,
            "ready_s": round(ready_at - killed_at, 2),
            "back_ms": spread([one.back_at - ready_at for one in clients]),
            "gap_ms": spread([one.back_at - one.lost_at for one in clients]),
            "told": dict(told),
            "resumes_max": max(one.resumes for one in clients),
            "answers": sum(one.received for one in clients),
            "round_trips_ms": spread([seconds for one in clients for seconds in one.round_trips_s]),
            "rss_before_mib": round(rss_before / MIB, 1),
            "rss_peak_mib": round(rss_peak / MIB, 1),
        }
        figures["exit_s"] = round(node.stop(), 2)
        promise(not set(told) - {"connect", "busy", "503"}, f"refused only with a hint: {figures}")
        return figures


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slowloris", type=int, metavar="SOCKETS")
    parser.add_argument("--slow", type=int, metavar="CLIENTS")
    parser.add_argument("--of", type=int, default=10_000, metavar="CLIENTS")
    parser.add_argument("--storm", type=int, metavar="CLIENTS")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    everything = given.slowloris is given.slow is given.storm is None
    runs: dict[str, tuple[int, Callable[[Path, int], Figures]]] = {
        "slowloris": (given.slowloris or 5000 * everything, slowloris),
        "slow": (given.slow or 1000 * everything, partial(slow, of=given.of)),
        "storm": (given.storm or 2000 * everything, storm),
    }
    report: Figures = {}
    # Ended by a SIGTERM, too, no node is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for name, (count, run) in runs.items():
            if count:
                with tempfile.TemporaryDirectory(prefix="signald-sockets-") as directory:
                    report[name] = run(Path(directory), count)
                if not given.json:
                    print(name)
                    for key, value in report[name].items():
                        print(f"  {key:24} {value}")
    except BenchError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if given.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
