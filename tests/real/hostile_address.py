"""One address plays every trick by which a party takes what others need, at once; the others must not notice.

    python -m tests.real.hostile_address [--seconds N]

With `unshare`, `ip` and the right to use them, all of it runs in a network namespace of its own: the attacker has `ATTACKERS`, eight
addresses of one IPv6 /64, and a newcomer comes from another /64. Otherwise the attacker is 127.0.0.1 and the newcomer 127.0.0.2. The
worker is 127.0.0.3. All is bounded in number and time, and nothing leaves the loopback.

A real attacker takes no CPU time from the node's machine but what its packets cost. Here it shares the machine, so it is a process of
its own, nice 10, on one CPU only when there are several. What remains of its own work counts against the node all the same.

In the middle the node is stopped for `PAUSE_S` (SIGSTOP), and goes on. A client that was paired before everything sends a message
each 0.1 s, through the pause as well.

Right: the node stays below `LIMIT_BYTES` (RLIMIT_DATA holds it to that, so that a leap ends it), each newcomer is paired within a second
but in the pause and as long behind it, `/livez` always answers, the steady client is neither cut nor told to slow down, and the
store holds no more sessions than `limits.sessions_max`. Prints its figures; exit 1 when one is wrong.
"""

import argparse
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from signald.config.sections import LimitsConfig
from signald.demo.cluster import Node
from signald.testing.websocket import request
from tests.real.harness import Address, open_nodes, probe
from tests.store.redis_servers import Server, servers

IN_NAMESPACE = "SIGNALD_HOSTILE_NAMESPACE"
"""Set where the addresses of the /64s exist."""

SIXES = IN_NAMESPACE in os.environ
ATTACKERS = tuple(f"2001:db8:1::{number}" for number in range(1, 9)) if SIXES else ("127.0.0.1",)
NEWCOMER = "2001:db8:2::1" if SIXES else "127.0.0.2"
WORKER = "127.0.0.3"
HTTP_ATTACKER = "127.0.0.1"
PAUSE_S = 2.0
LIMIT_BYTES = 1 << 30
"""What the shipped pod and unit grant."""

SESSIONS_MAX = LimitsConfig().sessions_max
"""What the shipped pod has. A smaller one (`--sessions-max 600`) is reached within seconds."""

PAIRED_WITHIN_S = 1.0
SILENT_PER_S, DIALS_PER_S = 400.0, 40.0
"""New sockets per second: silent ones fill all places within seconds, and each other trick takes its own within ten. A flood that takes
the CPU is another matter, and one for what stands in front."""

SILENT, TRICKLES, MUTE, HOARDERS, LEAVERS, FILLERS, SLOW_REQUESTS, DEAF = 4200, 300, 400, 300, 24, 40, 600, 20
"""Sockets of each trick."""

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, EOFError)


# ---- a party in a few lines


class Party:
    """A WebSocket client that hides nothing: it can stop in the middle of anything."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def open(self, path: str) -> None:
        """Do the opening handshake."""
        await self.stream.send_all(request(path, (b"Sec-WebSocket-Protocol", b"signald.v1")))
        while b"\r\n\r\n" not in self._received:
            await self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise EOFError(head.split(b"\r\n")[0].decode())

    async def say(self, **message: object) -> None:
        """Send one message. The mask is zero: masking in Python would take the attacker's time."""
        body = json.dumps(message).encode()
        size = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + struct.pack("!H", len(body))
        await self.stream.send_all(
            b"\x81" + (size if len(body) < 65536 else b"\xff" + struct.pack("!Q", len(body))) + bytes(4) + body
        )

    async def hear(self) -> dict[str, Any]:
        """Return the next message; raises EOFError at a Close."""
        while True:
            while len(self._received) < 2:
                await self._more()
            length, start = self._received[1], 2
            if length >= 126:
                start, form = (4, "!H") if length == 126 else (10, "!Q")
                while len(self._received) < start:
                    await self._more()
                (length,) = struct.unpack_from(form, self._received, 2)
            while len(self._received) < start + length:
                await self._more()
            opcode, body = self._received[0] & 15, self._received[start : start + length]
            self._received = self._received[start + length :]
            if opcode == 8:
                raise EOFError("closed")
            if opcode == 9:
                await self.stream.send_all(bytes((0x8A, 0x80 | length)) + bytes(4) + body)
            elif opcode == 1:
                heard: dict[str, Any] = json.loads(body)
                return heard

    async def until(self, *types: str) -> dict[str, Any]:
        """Return the next message of one of `types`."""
        while (message := await self.hear())["type"] not in types:
            pass
        return message

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError("hung up")
        self._received += data


async def dial(port: int, source: str) -> trio.SocketStream:
    """Connect from `source` to a port of this host."""
    six = ":" in source
    sock = trio.socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        await sock.bind((source, 0))
        await sock.connect(("::1" if six else "127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


@asynccontextmanager
async def party(port: int, source: str, path: str) -> AsyncIterator[Party]:
    """Open a WebSocket from `source`; it is cut at the end."""
    stream = await dial(port, source)
    try:
        found = Party(stream)
        await found.open(path)
        yield found
    finally:
        await trio.aclose_forcefully(stream)


# ---- the attacker


class Attack:
    """Every trick, each with its number of sockets, until it is told to end."""

    def __init__(self, websocket: int, http: int) -> None:
        self.websocket, self.http = websocket, http

    async def run(self) -> None:
        """Play all of it until cancelled."""
        tricks = [
            (SILENT, self.silent), (TRICKLES, self.trickle), (MUTE, self.mute), (HOARDERS, self.hoard), (LEAVERS, self.leave),
            (FILLERS, self.fill), (SLOW_REQUESTS, self.slow_request), (DEAF, self.deaf),
        ]  # fmt: skip
        async with trio.open_nursery() as nursery:
            for number, trick in tricks:
                # One place in the pace for all sockets of a trick: at most so many come anew in a second.
                pace = trio.CapacityLimiter(1)
                every_s = 1.0 / (SILENT_PER_S if trick == self.silent else DIALS_PER_S)
                for _ in range(number):
                    nursery.start_soon(self._again, trick, pace, every_s)

    async def _again(self, trick: Callable[[], Awaitable[None]], pace: trio.CapacityLimiter, every_s: float) -> None:
        while True:
            async with pace:
                await trio.sleep(every_s)
            with suppress(*GONE):
                await trick()

    async def silent(self) -> None:
        """Take a handshake and say nothing."""
        await self._until_cut(await dial(self.websocket, secrets.choice(ATTACKERS)))

    async def trickle(self) -> None:
        """Say one byte of a request at a time."""
        stream = await dial(self.websocket, secrets.choice(ATTACKERS))
        try:
            for byte in request("/v1/client"):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.5)
        finally:
            await trio.aclose_forcefully(stream)

    async def mute(self) -> None:
        """Open a WebSocket and say nothing."""
        async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/client") as mute:
            await mute.hear()

    async def hoard(self) -> None:
        """Begin an opening message as large as they may be, and do not end it."""
        async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/worker") as hoarder:
            await hoarder.stream.send_all(b"\x81\xff" + struct.pack("!Q", 160_000) + bytes(4) + bytes(150_000))
            await hoarder.hear()

    async def leave(self) -> None:
        """Begin a session that no worker takes, leave much for it, and go."""
        async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/client") as leaver:
            await leaver.say(type="connect", meta="m" * 60_000, want={"label": os.urandom(4).hex()})
            if (await leaver.hear())["type"] == "session_started":
                for seq in range(1, 100):
                    await leaver.say(type="message", seq=seq, data="x" * 10_000)
                await trio.sleep(0.5)

    async def fill(self) -> None:
        """Begin a session that no worker takes, and go."""
        async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/client") as filler:
            await filler.say(type="connect", want={"label": os.urandom(4).hex()})
            await filler.hear()

    async def slow_request(self) -> None:
        """Say one byte of an HTTP request at a time."""
        stream = await dial(self.http, HTTP_ATTACKER)
        try:
            for byte in b"POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + bytes(1000):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.3)
        finally:
            await trio.aclose_forcefully(stream)

    async def deaf(self) -> None:
        """Have a worker of one's own that sends much to a client which reads nothing."""
        label = os.urandom(4).hex()
        async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/worker") as worker:
            await worker.say(type="app_ready", instance_id=label, capacity=1, labels={"label": label})
            await worker.until("app_accepted")
            async with party(self.websocket, secrets.choice(ATTACKERS), "/v1/client") as client:
                client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await client.say(type="connect", want={"label": label})
                session = (await worker.until("session_assigned"))["session"]
                await worker.say(type="session_accept", session=session)
                for _ in range(200):
                    await worker.say(type="realtime", session=session, data="z" * 50_000)
                    await trio.sleep(0.02)
                await trio.sleep(5.0)

    @staticmethod
    async def _until_cut(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some(1)
        finally:
            await trio.aclose_forcefully(stream)


async def attack(websocket: int, http: int, seconds: float) -> None:
    """Be the attacker for a while, or until the parent is gone."""
    os.nice(10)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[-1:])
    with trio.move_on_after(seconds) as scope:
        async with trio.open_nursery() as nursery:

            async def end_with_parent() -> None:
                while os.getppid() != 1:  # noqa: ASYNC110 - no event tells of it
                    await trio.sleep(0.5)
                scope.cancel(reason="the parent is gone")

            nursery.start_soon(end_with_parent)
            await Attack(websocket, http).run()


# ---- what is measured


@attrs.define
class Figures:
    """What was seen."""

    paired: list[float] = attrs.field(factory=list)
    """Seconds from a newcomer's dial until it was paired."""
    failed: Counter[str] = attrs.field(factory=Counter)
    """Newcomers that were not."""
    alive: int = 0
    dead: int = 0
    """Answers of /livez, and probes without one within a second, as kubelet waits."""
    began: float = attrs.field(factory=trio.current_time)
    failed_at: list[float] = attrs.field(factory=list)
    """When these probes began, seconds after the start."""
    livez: float = 0.0
    """Seconds of the slowest."""
    rss: int = 0
    """Most resident bytes of the node."""
    sessions: int = 0
    """Most sessions in the store."""
    sessions_max: int = SESSIONS_MAX
    steady: int = 0
    """Messages of the steady client that were acked."""
    complaint: str = ""
    """What befell the steady client."""
    pauses: int = 0
    paused: bool = False
    """The node is stopped or has just gone on, and nothing can be asked of it."""

    def wrong(self) -> list[str]:
        """Return what is not as it should be."""
        slow = [seconds for seconds in self.paired if seconds > PAIRED_WITHIN_S]
        checks = {
            "no newcomer came": not self.paired,
            f"{sum(self.failed.values())} newcomers failed: {dict(self.failed)}": bool(self.failed),
            f"{len(slow)} newcomers were paired late, the last after {max(slow, default=0):.2f} s": bool(slow),
            f"{self.dead} probes of /livez had no answer, at {[round(at, 1) for at in self.failed_at]} s": bool(
                self.dead
            ),
            f"the node had {self.rss >> 20} MiB": self.rss >= LIMIT_BYTES,
            f"the store had {self.sessions} sessions": self.sessions > self.sessions_max,
            f"the steady client {self.complaint}": bool(self.complaint),
            "the steady client was acked nothing": not self.steady,
        }
        return [text for text, holds in checks.items() if holds]

    def line(self) -> str:
        """Return the figures for people."""
        return (
            f"newcomers paired {len(self.paired)}, slowest {max(self.paired, default=0):.3f} s, failed {sum(self.failed.values())}; "
            f"/livez answered {self.alive}, not {self.dead}, slowest {self.livez:.3f} s; "
            f"node at most {self.rss >> 20} MiB of {LIMIT_BYTES >> 20}; "
            f"sessions in the store at most {self.sessions} of {self.sessions_max}; messages of the steady client acked {self.steady}; "
            f"attacker {', '.join(ATTACKERS)}"
        )


async def serve_newcomers(port: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Be the worker that newcomers are paired with."""
    async with party(port, WORKER, "/v1/worker") as worker:
        await worker.say(type="app_ready", instance_id="w", capacity=1000, labels={"for": "newcomers"})
        await worker.until("app_accepted")
        task_status.started()
        while True:
            assigned = await worker.until("session_assigned")
            await worker.say(type="session_accept", session=assigned["session"])


async def come(port: int, figures: Figures, every_s: float) -> None:
    """Let a newcomer come again and again. Those that the pause of the node meets are not judged."""
    while True:
        while figures.paused:  # noqa: ASYNC110 - short, and nothing tells of it
            await trio.sleep(0.01)
        began, pauses = trio.current_time(), figures.pauses
        try:
            with trio.fail_after(10.0):
                async with party(port, NEWCOMER, "/v1/client") as newcomer:
                    await newcomer.say(type="connect", want={"for": "newcomers"})
                    started = await newcomer.hear()
                    if started["type"] != "session_started":
                        raise EOFError(str(started.get("code")))
                    state = started["peer"]["state"]
                    while state != "paired":
                        state = (await newcomer.until("peer"))["state"]
                    if figures.pauses == pauses:
                        figures.paired.append(trio.current_time() - began)
                    await newcomer.say(type="bye")
                    with suppress(EOFError):
                        while True:
                            await newcomer.hear()
        except (*GONE, trio.TooSlowError) as error:
            if figures.pauses == pauses:
                figures.failed[f"{type(error).__name__} {error}"[:60]] += 1
        await trio.sleep(every_s)


async def ask_livez(node: Node, figures: Figures) -> None:
    """Probe as a supervisor does, from the attacker's own address."""
    while True:
        pauses, alive, began = figures.pauses, False, trio.current_time()
        with suppress(*GONE, trio.TooSlowError):
            with trio.fail_after(1.0):
                alive = (await probe(node, "/livez"))[0] == 200
        if not figures.paused and figures.pauses == pauses:
            figures.alive += alive
            figures.dead += not alive
            if not alive:
                figures.failed_at.append(began - figures.began)
            figures.livez = max(figures.livez, trio.current_time() - began)
        await trio.sleep(0.2)


async def talk(port: int, figures: Figures, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Be a client that was there before, sends ten messages a second, and is to notice nothing."""
    try:
        async with party(port, NEWCOMER, "/v1/client") as client, trio.open_nursery() as nursery:
            await client.say(type="connect", want={"for": "newcomers"})
            while (await client.until("peer"))["state"] != "paired":
                pass
            task_status.started()

            async def say() -> None:
                # The worker acks nothing, and below a thousand messages its backlog is not full.
                for seq in range(1, 900):
                    await client.say(type="message", seq=seq, data="steady")
                    await trio.sleep(0.1)

            nursery.start_soon(say)
            while True:
                message = await client.until("ack", "error")
                if message["type"] == "error":
                    figures.complaint = f"was told {message['code']}"
                else:
                    figures.steady = int(message["seq"])
    except* GONE as group:
        figures.complaint = f"was cut: {group.exceptions[0]!r}"


async def pause(node: Node, figures: Figures) -> None:
    """Stop the node for a while."""
    figures.pauses += 1
    figures.paused = True
    node.send_signal(signal.SIGSTOP)
    await trio.sleep(PAUSE_S)
    node.send_signal(signal.SIGCONT)
    # As long again: what the attacker sent meanwhile waits in the kernel before the next newcomer.
    await trio.sleep(PAUSE_S)
    figures.paused = False


async def watch(node: Node, server: Server, figures: Figures) -> None:
    """Note the most memory of the node and the most sessions of the store."""
    while True:
        status = Path(f"/proc/{node.process.pid}/status").read_text(encoding="ascii")  # noqa: ASYNC240 - procfs does not block
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        figures.rss = max(figures.rss, int(resident.split()[1]) * 1024)
        figures.sessions = max(figures.sessions, int(server.ask("ZCARD", "signald:{signald}:alive")))
        await trio.sleep(0.25)


async def measure(directory: Path, seconds: float, sessions_max: int) -> Figures:
    """Run a node on a Redis of its own below the attack, and return what was seen."""
    figures = Figures(sessions_max=sessions_max)
    server = Server(directory)
    settings: dict[str, dict[str, object]] = {"limits": {"sessions_max": sessions_max}}
    async with servers(server), open_nodes(directory, server.url, settings) as nodes:
        at = Address()
        hosts = ["127.0.0.1", "[::1]"] if SIXES else ["127.0.0.1"]
        node = await nodes.start("a", at, listen={"websocket": [f"{host}:{at.websocket}" for host in hosts]})
        # What the kernel lets the process have beside what is sampled: a leap between two samples ends it.
        resource.prlimit(node.process.pid, resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
        port, http = node.websocket[1], node.http[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_newcomers, port)
            await nursery.start(talk, port, figures)
            nursery.start_soon(watch, node, server, figures)
            nursery.start_soon(ask_livez, node, figures)
            arguments = [sys.executable, "-m", "tests.real.hostile_address", "--attack", str(port), str(http)]
            attacker = await trio.lowlevel.open_process([*arguments, "--seconds", str(seconds + 60)])
            try:
                await trio.sleep(seconds / 4)  # until the places are taken
                nursery.start_soon(come, port, figures, 0.3)
                await trio.sleep(seconds / 4)
                await pause(node, figures)
                await trio.sleep(seconds / 2 - 2 * PAUSE_S)
            finally:
                attacker.kill()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await attacker.wait()
            nursery.cancel_scope.cancel(reason="seen")
    return figures


def enter_namespace() -> None:
    """Run this program again where the addresses of the /64s exist; return when that cannot be."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if (
        unshare is None
        or ip is None
        or subprocess.run([unshare, "-n", "true"], check=False, capture_output=True).returncode
    ):
        return
    addresses = [*(f"2001:db8:1::{number}" for number in range(1, 9)), "2001:db8:2::1"]
    steps = [f"{ip} link set lo up", *(f"{ip} -6 addr add {address}/128 dev lo nodad" for address in addresses)]
    shell = " && ".join([*steps, 'exec "$0" "$@"'])
    arguments = [sys.executable, "-m", "tests.real.hostile_address", *sys.argv[1:]]
    os.execve(unshare, [unshare, "-n", "/bin/sh", "-c", shell, *arguments], {**os.environ, IN_NAMESPACE: "1"})


def main() -> int:
    """Attack and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.real.hostile_address", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60; at most 600)")
    parser.add_argument("--attack", type=int, nargs=2, metavar=("PORT", "HTTP"), help=argparse.SUPPRESS)
    parser.add_argument("--sessions-max", type=int, default=SESSIONS_MAX, help=f"limits.sessions_max ({SESSIONS_MAX})")
    options = parser.parse_args()
    seconds = min(options.seconds, 660.0)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.attack:
        trio.run(attack, options.attack[0], options.attack[1], seconds)
        return 0
    if shutil.which("redis-server") is None:
        print("needs redis-server on the path", file=sys.stderr)
        return 2
    if not SIXES:
        enter_namespace()
    with tempfile.TemporaryDirectory(prefix="signald-hostile-") as directory:
        figures = trio.run(measure, Path(directory), min(seconds, 600.0), options.sessions_max)
    print(figures.line())
    wrong = figures.wrong()
    for text in wrong:
        print(f"wrong: {text}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
