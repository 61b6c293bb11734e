"""The gates of the Kubernetes manifests, their arguments taken from there, on real nodes of two releases."""

import re
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from tests.k8s.checks import of_kind
from tests.k8s.tree import Tree
from tests.real.harness import Address, Nodes, Talk, exit_of, open_nodes, open_talk, term, until

pytestmark = pytest.mark.real

TOKEN = "a token of thirty-two characters"
CTL = """
import sys
from signald.cli import main
from signald.ctl import fleet
fleet.resolve = lambda host, port: [("127.0.0.1", int(one)) for one in sys.argv[1].split(",")]
sys.exit(main(sys.argv[2:]))
"""
"""`signald`, where the headless service's name resolves to the ports of these nodes."""


def arguments(template: str, token_file: Path, **given: str) -> list[str]:
    """What Argo would run, its arguments filled in."""
    (metric,) = of_kind(Tree.read().render("blue-green"), "AnalysisTemplate")[template]["spec"]["metrics"]
    listed = metric["provider"]["job"]["spec"]["template"]["spec"]["containers"][0]["args"]
    filled = [
        re.sub(r"\{\{args\.([a-z-]+)\}\}", lambda found: given[found[1].replace("-", "_")], one) for one in listed
    ]
    return [one.replace("/etc/signald/secrets/admin-token", str(token_file)) for one in filled]


async def start(nodes: Nodes, name: str, release: str, at: Address | None = None) -> Node:
    """Start a node of a release."""
    return await nodes.start(name, at, node={"release": release}, admin={"token": TOKEN, "socket": "off"})


async def gate(nodes: Nodes, among: list[Node], listed: list[str]) -> tuple[trio.Process, Path]:
    """Start a gate's job; returns it, and what it says."""
    output = nodes.directory / "gate.log"
    ports = ",".join(str(node.http[1]) for node in among)
    return await nodes.spawn(["-c", CTL, ports, *listed], output), output


async def test_a_rollout_through_its_gates_loses_nothing(tmp_path: Path) -> None:
    """All workers of both old pods move, then the switch, then the receipts say nothing was lost, then the old pods go."""
    token = tmp_path / "admin-token"
    token.write_text(TOKEN)
    blue, blue_too, green = Address(), Address(), Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        old = [await start(nodes, "blue-1", "blue", blue), await start(nodes, "blue-2", "blue", blue_too)]
        for n, active in enumerate([blue, blue_too, blue]):
            await talk.worker(f"worker {n}", green.url, active.url, capacity=4)
        for n in range(8):
            await talk.client(f"client {n}", (blue, blue_too)[n % 2].url, green.url)
        talk.begin()
        await talk.goes_on(5)
        new = await start(nodes, "green-1", "green", green)
        listed = arguments("signald-handover", token, old_release="blue", new_release="green")
        job, said = await gate(nodes, [*old, new], listed)
        with trio.fail_after(60):
            assert await job.wait() == 0, said.read_text()
        assert said.read_text().count("drained (workers)") == 2
        await talk.goes_on(5)
        job, said = await gate(nodes, [*old, new], arguments("signald-receipt", token, old_release="blue"))
        with trio.fail_after(60):
            assert await job.wait() == 0, said.read_text()
        for node in old:
            term(node)
        for node in old:
            assert await exit_of(node) == 0
        await talk.goes_on(5)
        await talk.settle()
        check_kept(talk)


async def test_a_gate_that_is_deleted_gives_the_old_pods_their_workers_back(tmp_path: Path) -> None:
    """An abort in the middle: no worker can reach the new pod, so the gate waits, and is ended; workers are admitted again."""
    token = tmp_path / "admin-token"
    token.write_text(TOKEN)
    blue, green = Address(), Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        old, new = await start(nodes, "blue-1", "blue", blue), await start(nodes, "green-1", "green", green)
        await talk.worker("worker 0", blue.url, capacity=4)
        await talk.client("client 0", blue.url)
        talk.begin()
        await talk.goes_on(3)
        listed = arguments("signald-handover", token, old_release="blue", new_release="green")
        job, said = await gate(nodes, [old, new], listed)
        await until(lambda: "draining" in said.read_text(), 30, "the gate has begun")
        job.terminate()
        with trio.fail_after(60):
            assert await job.wait() == 75, said.read_text()
        assert "the drains are called off" in said.read_text()
        await talk.worker("worker 1", blue.url, capacity=4)
        await talk.goes_on(3)
        await talk.settle()
        check_kept(talk)


def check_kept(talk: Talk) -> None:
    """Every client has the worker it had."""
    for chatter in talk.chatters:
        assert len(chatter.ledger.workers) == 1, talk.account()
