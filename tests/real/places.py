"""A place where a node stands, and is started again whenever it has ended; and the time line of what happened."""

import signal
import time
from collections import Counter
from typing import Any

import trio
from attrs import define, field

from signald.demo.cluster import Node, is_ready
from tests.real.harness import Address, Nodes

NO_STORE = 69
FAILED_TO_START = (NO_STORE, -signal.SIGTERM)
"""How a node may end that was never ready: without its store, or asked to stop before it could listen to that."""


class Broken(Exception):
    """A promise was broken; the text says which."""


class Chronicle:
    """What was done and seen, and when."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()

    def note(self, what: str) -> None:
        """One line."""
        self.lines.append(f"{time.monotonic() - self._began:9.3f} {what}")

    def count(self, what: str, about: str) -> None:
        """One line, and one more of its kind."""
        self.counts[what] += 1
        self.note(f"{what} {about}")


@define(eq=False)
class Place:
    """An address with a node that is started again whenever it has ended."""

    name: str
    nodes: Nodes
    chronicle: Chronicle
    keeps_its_id: bool
    """Whether each node has the id of the one before, as where the id is configured, or one of its own."""
    address: Address = field(factory=Address)
    node: Node | None = None
    starts: int = 0
    ready: bool = False
    sent: set[signal.Signals] = field(factory=set)
    """The signals the present node got."""
    closing: bool = False

    async def run(self) -> None:
        """Keep a node there until `closing`."""
        while not self.closing:
            self.starts += 1
            name = f"{self.name}-{self.starts}"
            identity: dict[str, Any] = {"node": {"id": self.name}} if self.keeps_its_id else {}
            self.ready, self.sent = False, set()
            self.node = node = await self.nodes.start(name, self.address, ready=False, **identity)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, node)
                code = await node.process.wait()
                nursery.cancel_scope.cancel(reason="the node has ended")
            self.chronicle.note(f"{name} ended with {code}")
            self._judge(node, code)
            if code == NO_STORE:
                await trio.sleep(0.2)

    async def _watch(self, node: Node) -> None:
        while not await is_ready(node.http):  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.05)
        self.ready = True
        self.chronicle.note(f"{node.name} is ready")

    def _judge(self, node: Node, code: int) -> None:
        asked = code == 0 and signal.SIGTERM in self.sent
        killed = code == -signal.SIGKILL and signal.SIGKILL in self.sent
        if not (asked or killed or (code in FAILED_TO_START and not self.ready)):
            raise Broken(f"{node.name} ended with {code} by itself:\n{node.log_tail()}")
        if "Traceback" in node.log.read_text(errors="replace"):
            raise Broken(f"{node.name} raised something: {node.log}")

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the node, if there is one."""
        node = self.node
        if node is None or node.process.poll() is not None:
            return False
        self.sent.add(number)
        node.send_signal(number)
        self.chronicle.count(number.name, f"to {node.name}{'' if self.ready else ', which is starting'}")
        return True
