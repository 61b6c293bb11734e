"""Deploys and kills of real nodes beneath a program of parties, and the verdict of its counts."""

import json
import math
import time
from pathlib import Path
from random import Random
from typing import Any

import trio
from attrs import define, field

from signald.demo.cluster import Node
from signald.exit_codes import ExitCode
from tests.js.package import NODE, bundled
from tests.real.harness import PATIENCE, POLL_S, START_S, Address, Nodes, exit_of, kill, open_nodes, probe, term, until

KILLS = 0.15
"""The share of deploys in which the node before is killed, and not asked to stop."""


STARTS_MAX = 5
"""Starts of one node. A supervisor starts one again that ends with UNAVAILABLE, as one does whose SQLite file is locked for too long."""


JS = {"js": "test/talk.ts", "js-rooms": "test/draw.ts"}
"""What the clients in JavaScript do: they ask and hear answers, or draw in one room."""


@define
class Verdict:
    """What came of a run."""

    deploys: int = 0
    kills: int = 0
    restarts: int = 0
    """Nodes that could not serve at once and were started again."""
    seconds: float = 0.0
    exits: list[int] = field(factory=list)
    """Codes of nodes that ended otherwise than with 0."""
    counts: dict[str, Any] = field(factory=dict)
    """By the applications; empty when the parties did not end as they should."""
    said: str = field(default="", repr=False)
    """All that the program of the parties has printed."""

    @property
    def faults(self) -> list[str]:
        """Return what is wrong, one line each."""
        counts = self.counts
        if not counts:
            return [f"the parties did not come to their end: {self.said[-2000:]}"]
        late = [] if counts["settled"] else ["not all was answered in time, so what is lost is not known"]
        found = late + [f"{counts[name]} {name}" for name in ("lost", "duplicated", "reordered") if counts[name]]
        if set(counts["texts"]) != {"right"}:
            found.append(f"texts: {counts['texts']}")
        if "Traceback" in self.said:
            found.append(f"a traceback: {self.said[:2000]}")
        return found + [f"a node ended with {code}" for code in self.exits]


async def play(
    directory: Path,
    front: str,
    deploys: int,
    seed: int,
    *,
    clients: int = 12,
    workers: int = 3,
    kills: float = KILLS,
    minutes: float = math.inf,
) -> Verdict:
    """Run parties of `front` through `deploys` deploys and kills, as `seed` has them follow each other; fewer when `minutes` are over."""
    random, verdict, begun = Random(seed), Verdict(), time.monotonic()
    here, there = Address(), Address()
    output = directory / "talk.out"
    async with open_nodes(directory, f"sqlite:{directory / 'store.db'}") as nodes:
        old = await nodes.start("node-0", here)
        urls = [here.url, there.url]
        if front in JS:
            talk = await _start_js(nodes, directory, output, JS[front], clients, workers, urls)
        else:
            arguments = [front, str(clients), str(workers), *urls]
            talk = await nodes.spawn(["-m", "tests.sdk.deploys.talk", *arguments], output)
        await until(lambda: "talking" in output.read_text(), 30, str(output))
        await trio.sleep(1)
        for number in range(1, deploys + 1):
            if time.monotonic() - begun > minutes * 60:
                break
            old = await _deploy(nodes, number, old, there, random, verdict, kills)
            here, there = there, here
            await trio.sleep(random.uniform(0.1, 1.0))
        await trio.sleep(1)
        talk.terminate()
        with trio.move_on_after(90):
            await talk.wait()
        verdict.said = output.read_text()
    verdict.seconds = time.monotonic() - begun
    if talk.returncode == 0:
        verdict.counts = json.loads(verdict.said.splitlines()[-1])
    return verdict


async def _start_js(
    nodes: Nodes, directory: Path, output: Path, source: str, clients: int, workers: int, urls: list[str]
) -> trio.Process:
    """Start workers in Python, and then the clients of the JavaScript SDK, which are returned."""
    answering = directory / "answering.out"
    await nodes.spawn(["-m", "tests.sdk.deploys.answering", str(workers), *urls], answering)
    await until(lambda: "working" in answering.read_text(), 30, str(answering))
    return await nodes.spawn_program([NODE, str(bundled(source)), str(clients), *urls], output)


async def _deploy(
    nodes: Nodes, number: int, old: Node, there: Address, random: Random, verdict: Verdict, kills: float
) -> Node:
    """Replace a node: it is asked to stop beside the new one, or killed before or behind the start of the new one."""
    verdict.deploys += 1
    drawn = random.random()
    is_killed = drawn < kills
    verdict.kills += is_killed
    if is_killed and drawn < kills / 2:
        await kill(old)
    new = await _start(nodes, f"node-{number}", there, verdict)
    if not is_killed:
        await trio.sleep(random.uniform(0.0, 0.3))
        term(old)
        code = await exit_of(old)
        if code != 0:
            verdict.exits.append(code)
    elif drawn >= kills / 2:
        await kill(old)
    old.log.unlink(missing_ok=True)
    return new


async def _start(nodes: Nodes, name: str, there: Address, verdict: Verdict) -> Node:
    """Start a node as a supervisor does."""
    for _ in range(STARTS_MAX - 1):
        node = await nodes.start(name, there, ready=False)
        with trio.move_on_after(START_S * PATIENCE):
            while node.process.poll() is None:
                if (await probe(node))[0] == 200:
                    return node
                await trio.sleep(POLL_S)
        if node.process.returncode != ExitCode.UNAVAILABLE:
            break
        verdict.restarts += 1
    return await nodes.start(name, there)
