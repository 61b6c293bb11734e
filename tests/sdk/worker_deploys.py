"""Deploys of workers, of signald, and of both in turn, beneath clients whose answers are streams: real nodes, real processes.

    python -m tests.sdk.worker_deploys [--front trio|asyncio] [--clients 50] [--deploys 10] [--kills 0] [--no-signald]

Each client asks, reads a stream of numbered words, and asks again. It counts words that are missing, that stand twice, or in another order,
and measures the pause between the last word before `replaced` and the first word after it.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from signald.demo.cluster import Node
from signald.sdk.events import Replaced
from signald.sdk.trio import Client, open_client
from tests.real.harness import QUICK, Address, Nodes, Settings, exit_of, kill_process, open_nodes, term, until
from tests.sdk.deployed_worker import text_of

SETTINGS: Settings = {"worker": {"resume_timeout_s": 2.0}}
START_S = 30.0


@define
class Counts:
    """What the clients have seen."""

    answers: int = 0
    wrong: list[str] = field(factory=list)
    """Texts and answers that are not what they should be."""
    replaced: int = 0
    pauses_s: list[float] = field(factory=list)
    """Between the last piece before `replaced`, and the first behind it."""
    told_s: list[float] = field(factory=list)
    """From the SIGTERM to a worker until a client is told `replaced`."""
    attempts: int = 0
    """The highest attempt of a stream."""
    handed_out: int = 0
    """The highest attempt of a session, as its worker was told."""
    served: list[list[str]] = field(factory=list)
    """The workers of each session, as handed on in its state."""

    def told(self) -> dict[str, Any]:
        """The counts for people."""
        return {
            "answers": self.answers,
            "wrong": self.wrong[:5],
            "replaced": self.replaced,
            "pause_p50_s": quantile(self.pauses_s, 0.5),
            "pause_p99_s": quantile(self.pauses_s, 0.99),
            "told_p99_s": quantile(self.told_s, 0.99),
            "stream_attempts": self.attempts,
        }


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of `values` are."""
    return round(sorted(values)[max(0, math.ceil(share * len(values)) - 1)], 3) if values else None


class Asking:
    """One client: asks until told to stop, and judges each answer."""

    def __init__(self, scene: "Scene", number: int) -> None:
        self._scene = scene
        self._number = number
        self._last_at: float | None = None
        self._replaced_at: float | None = None
        self.pieces_seen = 0

    async def run(self, urls: list[str]) -> None:
        """Ask, one question at a time."""
        scene = self._scene
        async with open_client(urls, backoff=QUICK) as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, client)
            asked = 0
            while not scene.stopping.is_set():
                asked += 1
                await client.send({"n": asked, "pieces": scene.pieces, "pause_s": scene.pause_s})
                await self._answer(client, asked)
            await client.bye()
            nursery.cancel_scope.cancel(reason="the client has left")

    async def _watch(self, client: Client) -> None:
        counts = self._scene.counts
        async for event in client.events:
            if isinstance(event, Replaced):
                counts.replaced += 1
                self._replaced_at = trio.current_time()
                if self._scene.signalled_at is not None:
                    counts.told_s.append(self._replaced_at - self._scene.signalled_at)

    async def _answer(self, client: Client, asked: int) -> None:
        counts, text, attempt = self._scene.counts, "", 1
        name = ""
        async for message in client:
            if message.stream is None:
                whole = text_of(self._scene.pieces)
                if message.data["n"] != asked or text != whole:
                    counts.wrong.append(f"client {self._number}: {asked} {message.data['n']} {name} {text!r}")
                counts.answers += 1
                counts.handed_out = max(counts.handed_out, message.data["attempt"])
                counts.served.append((message.data["state"] or {}).get("served", []))
                return
            now = trio.current_time()
            if name not in ("", message.stream):
                counts.wrong.append(f"client {self._number}: {asked}: another stream {message.stream}")
            name = message.stream
            if message.attempt > attempt:
                attempt, text = message.attempt, ""
            elif message.attempt < attempt:
                counts.wrong.append(f"client {self._number}: an attempt that is over")
            text += message.data or ""
            counts.attempts = max(counts.attempts, attempt)
            self.pieces_seen += 1
            if self._replaced_at is not None and self._last_at is not None and now >= self._replaced_at:
                counts.pauses_s.append(now - self._last_at)
                self._replaced_at = None
            self._last_at = now
        counts.wrong.append(f"client {self._number}: {asked}: the session has ended")


class Scene:
    """Nodes, worker processes and clients."""

    def __init__(self, nodes: Nodes, front: str, clients: int, *, pieces: int = 60, pause_s: float = 0.05) -> None:
        self.nodes = nodes
        self.front = front
        self.clients = clients
        self.pieces, self.pause_s = pieces, pause_s
        self.counts = Counts()
        self.stopping = trio.Event()
        self.signalled_at: float | None = None
        self.outputs: list[Path] = []
        self.asking: list[Asking] = []
        self._here, self._there = Address(), Address()
        self._node: Node | None = None
        self._worker: trio.Process | None = None
        self._made = 0

    @property
    def urls(self) -> list[str]:
        """Both addresses that a node may have."""
        return [self._here.url, self._there.url]

    async def begin(self, nursery: trio.Nursery) -> None:
        """A node, a worker, and clients that are in the middle of their first answers."""
        self._node = await self.nodes.start("node-0", self._here)
        self._worker = await self.start_worker()
        urls = self.urls
        for number in range(self.clients):
            one = Asking(self, number)
            self.asking.append(one)
            nursery.start_soon(one.run, urls)
        await self.in_the_middle()

    async def in_the_middle(self) -> None:
        """Wait until each client has read some more of an answer."""
        before = [one.pieces_seen for one in self.asking]
        await until(lambda: all(one.pieces_seen > had + 2 for one, had in zip(self.asking, before, strict=True)), 15)

    async def start_worker(self, mode: str = "graceful") -> trio.Process:
        """Start a worker process; return when it is registered."""
        self._made += 1
        output = self.nodes.directory / f"worker-{self._made}.out"
        self.outputs.append(output)
        arguments = ["-m", "tests.sdk.deployed_worker", self.front, ",".join(self.urls), f"w{self._made}"]
        process = await self.nodes.spawn([*arguments, str(2 * self.clients), mode], output)
        await until(lambda: "registered" in output.read_text(), START_S, str(output))
        return process

    async def deploy_worker(self, mode: str = "graceful") -> None:
        """Start the next worker, then end the one before; it must exit with 0."""
        old, self._worker = self._worker, await self.start_worker(mode)
        assert old is not None
        self.signalled_at = trio.current_time()
        old.send_signal(signal.SIGTERM)
        with trio.fail_after(60):
            code = await old.wait()
        self.signalled_at = None
        assert code == 0, (code, self.outputs[-2].read_text())

    async def kill_worker(self) -> None:
        """Start the next worker, then kill the one before."""
        old, self._worker = self._worker, await self.start_worker()
        assert old is not None
        self.signalled_at = trio.current_time()
        await kill_process(old)

    async def deploy_signald(self) -> None:
        """Start the next node, then end the one before; it must exit with 0."""
        old = self._node
        assert old is not None
        self._here, self._there = self._there, self._here
        self._made += 1
        self._node = await self.nodes.start(f"node-{self._made}", self._here)
        term(old)
        assert await exit_of(old) == 0, old.log_tail()

    def tracebacks(self) -> list[str]:
        """Outputs of workers with a traceback in them."""
        return [file.name for file in self.outputs if "Traceback" in file.read_text()]


async def deploys(scene: Scene, count: int, *, signald: bool = True, kills: int = 0) -> None:
    """Deploy workers, and signald in between, while the clients ask."""
    async with trio.open_nursery() as nursery:
        await scene.begin(nursery)
        for _ in range(count):
            await scene.deploy_worker()
            await scene.in_the_middle()
            if signald:
                await scene.deploy_signald()
                await scene.in_the_middle()
        for _ in range(kills):
            await scene.kill_worker()
            await scene.in_the_middle()
        scene.stopping.set()


async def campaign(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of the command."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_nodes(Path(directory), f"sqlite:{directory}/store.db", SETTINGS) as nodes:
            scene = Scene(nodes, arguments.front, arguments.clients)
            await deploys(scene, arguments.deploys, signald=not arguments.no_signald, kills=arguments.kills)
        return {"front": arguments.front, **scene.counts.told(), "tracebacks": scene.tracebacks()}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdk.worker_deploys")
    parser.add_argument("--front", choices=["trio", "asyncio"], default="trio")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--deploys", type=int, default=10)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--no-signald", action="store_true")
    counts = trio.run(campaign, parser.parse_args())
    print(json.dumps(counts, indent=1))
    sys.exit(1 if counts["wrong"] or counts["tracebacks"] else 0)


if __name__ == "__main__":
    main()
