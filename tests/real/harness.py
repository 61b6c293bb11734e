"""Real nodes, real parties and real servers, and a count at the applications that trusts none of them.

Nodes     `signald serve` children, started, signalled and read by their logs
Talk      clients that ask and workers that answer, numbered by their applications, on the SDK
Cutting   a TCP proxy that loses the answer to an opening message
"""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio_websocket
from attrs import define, field

import signald
from signald.demo.cluster import Node, free_port, kill_group, render_toml
from signald.demo.judge import Ledger
from signald.sdk.events import LifecycleEvent
from signald.sdk.trio import Backoff, Client, Worker, WorkerSession, open_client, open_worker
from signald.testing.wire import Peer

HOST = "127.0.0.1"
START_S = 30.0
POLL_S = 0.02

Settings = dict[str, dict[str, object]]

DRAIN: dict[str, object] = {
    "timeout_s": 14.0,
    "successor_timeout_s": 1.0,
    "worker_timeout_s": 4.0,
    "client_timeout_s": 4.0,
    "terminate_timeout_s": 2.0,
    "flush_timeout_s": 1.5,
    "close_timeout_s": 1.5,
    "margin_s": 1.0,
}
"""Budgets short enough to be waited for."""
DEADLINE_S = 15.0 + 10.0
"""From the first SIGTERM to the exit, at most: `timeout_s` and `margin_s` of `DRAIN`, and what a busy machine adds."""

PATIENCE = 3.0
"""How much longer than the time given something is waited for: tests run side by side, on machines with other things to do."""

QUICK = Backoff(base_s=0.05, cap_s=0.5, going_away_s=0.5, refused_s=0.5)
"""For parties whose return a test waits for."""


async def until(holds: Any, within_s: float, why: str = "") -> None:
    """Ask again and again until `holds()` is true; it may be asynchronous. Fails with `why` when `PATIENCE` is at its end."""
    with trio.move_on_after(within_s * PATIENCE):
        while True:
            held = holds()
            if hasattr(held, "__await__"):
                held = await held
            if held:
                return
            await trio.sleep(POLL_S)
    raise AssertionError(f"not so within {within_s * PATIENCE} s: {why or holds}")


# --- nodes --------------------------------------------------------------------------------------------------------


@define(eq=False)
class Address:
    """Where a node listens; kept for the next node in its place."""

    websocket: int = field(factory=free_port)
    http: int = field(factory=free_port)

    @property
    def url(self) -> str:
        """Where parties connect."""
        return f"ws://{HOST}:{self.websocket}"


class Nodes:
    """Starts nodes on one store; none outlives the test."""

    def __init__(self, directory: Path, store: str, settings: Settings | None = None) -> None:
        self.directory = directory
        self.store = store
        self.code: Path | None = None
        """Where the code of the nodes to be started lies; None: the code that runs here."""
        self._settings: Settings = {"drain": DRAIN, **(settings or {})}
        """Of every node, unless it has its own."""
        self._processes: list[trio.Process] = []
        self.sink: int | None = None
        """Where children write instead of a file, if anywhere."""

    async def start(self, name: str, address: Address | None = None, *, ready: bool = True, **settings: Any) -> Node:
        """Start a node, and wait until it is ready unless told not to; `settings` are sections of its configuration."""
        at = address or Address()
        config: Settings = {
            "listen": {"websocket": f"{HOST}:{at.websocket}", "http": f"{HOST}:{at.http}"},
            "store": {"url": self.store},
            "node": {"id": name, "release": "test"},
            # By default it is called after the node, in one directory for all: tests that run at the same time would meet there.
            "admin": {"socket": "off"},
        }
        for section, keys in [*self._settings.items(), *settings.items()]:
            config[section] = {**config.get(section, {}), **keys}
        file = self.directory / f"{name}.toml"
        file.write_text(render_toml(config))
        log = self.directory / f"{name}.log"
        process = await self.spawn(["-m", "signald.cli", "serve", "--config", str(file)], log)
        node = Node(name, process, (HOST, at.websocket), (HOST, at.http), log)
        if ready:
            await until(partial(self._is_ready, node), START_S, f"{name} is ready")
        return node

    async def _is_ready(self, node: Node) -> bool:
        assert node.process.poll() is None, f"{node.name} ended with {node.process.returncode}: {node.log_tail()}"
        return (await probe(node))[0] == 200

    async def spawn(self, arguments: Sequence[str], output: Path) -> trio.Process:
        """Run this Python as a child with `arguments`; what it says goes to the file `output`."""
        environment: dict[str, str] = {}
        environment["PYTHONPATH"] = str(self.code or Path(signald.__file__).parent.parent)
        environment["PYTHONSAFEPATH"] = (
            "1"  # else the code in the working directory, which is that of today, comes before it
        )
        return await self.spawn_program([sys.executable, *arguments], output, environment)

    async def spawn_program(
        self, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
    ) -> trio.Process:
        """Run any program as a child; as `spawn`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALD_")}
        with output.open("wb") as file:
            sink = file if self.sink is None else self.sink
            process: trio.Process = await trio.lowlevel.open_process(
                command, env={**inherited, **(environment or {})}, start_new_session=True, stdout=sink, stderr=sink
            )
        self._processes.append(process)
        return process

    async def end(self) -> None:
        """Kill what still runs, and wait for it."""
        for process in self._processes:
            kill_group(process)
        with trio.move_on_after(10, shield=True):
            for process in self._processes:
                await process.wait()


@asynccontextmanager
async def open_nodes(directory: Path, store: str, settings: Settings | None = None) -> AsyncIterator[Nodes]:
    """Nodes for the time of the block."""
    nodes = Nodes(directory, store, settings)
    try:
        yield nodes
    finally:
        await nodes.end()


def url_of(node: Node) -> str:
    """Where parties connect to `node`."""
    return f"ws://{node.websocket[0]}:{node.websocket[1]}"


def term(node: Node) -> None:
    """Ask a node to stop."""
    node.send_signal(signal.SIGTERM)


async def kill(node: Node) -> None:
    """End a node as a power cut would, and wait for that."""
    node.send_signal(signal.SIGKILL)
    await node.process.wait()


async def kill_process(process: trio.Process) -> None:
    """End a process as a power cut would, and wait for that."""
    process.kill()
    await process.wait()


async def exit_of(node: Node, within_s: float = DEADLINE_S) -> int:
    """Wait for a node to end by itself and return its exit code."""
    with trio.move_on_after(within_s):
        return await node.process.wait()
    raise AssertionError(f"{node.name} did not end within {within_s} s: {node.log_tail()}")


async def probe(node: Node, path: str = "/readyz") -> tuple[int, str]:
    """Ask the HTTP half: status and body; (0, "") without an answer."""
    said = b""
    try:
        async with await trio.open_tcp_stream(*node.http) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            while data := await stream.receive_some():
                said += data
    except (OSError, trio.BrokenResourceError):
        return 0, ""
    head, _, body = said.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]), body.decode().strip()) if head else (0, "")


def logged(node: Node, event: str = "") -> list[dict[str, Any]]:
    """Return what a node has logged, all of it or one kind of event."""
    lines = node.log.read_text(errors="replace").splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [entry for entry in entries if event in ("", entry.get("event"))]


def descriptors(node: Node) -> int:
    """How many file descriptors a node has open."""
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))


def threads(node: Node) -> int:
    """How many threads a node runs."""
    return len(list(Path(f"/proc/{node.process.pid}/task").iterdir()))


# --- parties ------------------------------------------------------------------------------------------------------


class Chatter:
    """One client of a `Talk`: asks numbered questions, and notes all that happens to it."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self.client = client
        self.ledger = ledger
        self.events: list[LifecycleEvent] = []
        self.gone: BaseException | str | None = None
        self.on_answer: Callable[[float], object] = lambda _: None
        """Called for each answer with the time at which its question was asked."""

    @property
    def answered(self) -> int:
        """How many answers have arrived."""
        return self.ledger.replies.sent - self.ledger.replies.lost

    def saw(self, kind: type[LifecycleEvent]) -> list[Any]:
        """The events of one kind so far, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    async def ask(self) -> None:
        """Ask the next question."""
        number = self.ledger.questions.give()
        self.ledger.asked_at[number] = trio.current_time()
        await self.client.send({"n": number})

    def hear(self, answer: dict[str, Any]) -> None:
        """Note an answer; a worker gives one to each question, in order, so they have the same numbers."""
        self.ledger.replies.receive(answer["n"])
        self.ledger.workers.add(answer["from"])
        asked_at = self.ledger.asked_at.pop(answer["n"], None)
        if asked_at is not None:
            self.on_answer(asked_at)


class Talk:
    """Clients and workers on the SDK, in this process, with the judge's numbers at both ends."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.chatters: list[Chatter] = []
        self.workers: list[Worker] = []
        self._nursery = nursery
        self._ledgers: dict[str, Ledger] = {}
        self._askers: list[Chatter] = []
        self._hushed = False
        self._asking = 0

    # --- workers ---

    async def worker(self, name: str, *urls: str, capacity: int = 20, **options: Any) -> Worker:
        """Start a worker that answers every question with a number of its own."""
        worker: Worker = await self._nursery.start(self._work, name, urls, capacity, options)
        self.workers.append(worker)
        return worker

    async def _work(
        self,
        name: str,
        urls: Sequence[str],
        capacity: int,
        options: dict[str, Any],
        task_status: trio.TaskStatus[Worker],
    ) -> None:
        async with open_worker(
            urls, partial(self._answer, name), instance_id=name, capacity=capacity, backoff=QUICK, **options
        ) as worker:
            task_status.started(worker)
            await worker.wait()

    async def _answer(self, worker: str, session: WorkerSession) -> None:
        ledger = self._ledgers[session.meta["name"]]
        async for message in session:
            ledger.questions.receive(message.data["n"])
            await session.send({"n": ledger.replies.give(), "from": worker})

    # --- clients ---

    async def client(self, name: str, *urls: str, **options: Any) -> Chatter:
        """Start a client; it asks nothing by itself."""
        chatter: Chatter = await self._nursery.start(self._chat, name, urls, options)
        self.chatters.append(chatter)
        return chatter

    async def _chat(
        self, name: str, urls: Sequence[str], options: dict[str, Any], task_status: trio.TaskStatus[Chatter]
    ) -> None:
        self._ledgers[name] = ledger = Ledger(name)
        async with open_client(urls, meta={"name": name}, **{"backoff": QUICK, **options}) as client:
            chatter = Chatter(client, ledger)
            ledger.session = client.session
            task_status.started(chatter)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, chatter)
                async for event in client.events:
                    chatter.events.append(event)

    async def _listen(self, chatter: Chatter) -> None:
        try:
            async for message in chatter.client:
                chatter.hear(message.data)
            chatter.gone = chatter.client.ended
        except Exception as error:
            chatter.gone = error

    # --- all ---

    def begin(self, interval_s: float = 0.1, burst: int = 1) -> None:
        """Have every client ask `burst` questions, again and again until `settle`: below the rate a client is allowed."""
        self._hushed = False
        self._askers.clear()
        for chatter in self.chatters:
            self._askers.append(chatter)
            self._asking += 1
            self._nursery.start_soon(self._keep_asking, chatter, interval_s, burst)

    async def _keep_asking(self, chatter: Chatter, interval_s: float, burst: int) -> None:
        while not self._hushed:
            for _ in range(burst):
                await chatter.ask()
            await trio.sleep(interval_s)
        self._asking -= 1

    @property
    def answered(self) -> int:
        """How many answers have arrived."""
        return sum(chatter.answered for chatter in self.chatters)

    async def goes_on(self, more: int = 10, within_s: float = 15.0) -> None:
        """Return when `more` further answers have arrived at every client that asks."""
        wanted = [(one, one.answered + more) for one in self._askers]
        await until(
            lambda: all(one.answered >= count for one, count in wanted),
            within_s,
            "all are answered:\n" + self.account(),
        )

    async def settle(self, within_s: float = 20.0) -> None:
        """Ask nothing more, and return when every question and every answer has arrived; exactly once and in order."""
        self._hushed = True
        await until(
            lambda: (
                not self._asking
                and all(
                    not one.ledger.questions.lost
                    and not one.ledger.replies.lost
                    and one.ledger.replies.sent >= one.ledger.questions.sent
                    for one in self.chatters
                )
            ),
            within_s,
            self.account(),
        )
        # Whatever is still under way would be one too many.
        await trio.sleep(0.3)
        self.check()

    def check(self) -> None:
        """Nothing was doubled or out of order, and no session was lost."""
        for chatter in self.chatters:
            for numbers in (chatter.ledger.questions, chatter.ledger.replies):
                assert (numbers.lost, numbers.duplicated, numbers.reordered) == (0, 0, 0), self.account()
            assert chatter.gone is None, self.account()
            assert chatter.client.session == chatter.ledger.session

    def account(self) -> str:
        """All that was counted, for a failure's message."""
        lines = []
        for one in self.chatters:
            for name, numbers in (("questions", one.ledger.questions), ("replies", one.ledger.replies)):
                lines.append(
                    f"{one.ledger.name} {name}: sent {numbers.sent} lost {numbers.lost} "
                    f"duplicated {numbers.duplicated} reordered {numbers.reordered}"
                )
            lines.append(f"  gone={one.gone!r} state={one.client.peer_state} events={one.events[-12:]}")
        return "\n".join(lines)


@asynccontextmanager
async def open_talk(within_s: float = 60.0) -> AsyncIterator[Talk]:
    """Parties for the time of the block, which must end within a deadline."""
    with trio.fail_after(within_s * PATIENCE):
        async with trio.open_nursery() as nursery:
            yield Talk(nursery)
            nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def dial(url: str, path: str, subprotocol: str | None = "signald.v1") -> AsyncIterator[Peer]:
    """A connection that speaks the wire by hand."""
    async with trio.open_nursery() as nursery:
        socket = await trio_websocket.connect_websocket_url(
            nursery, url + path, subprotocols=[subprotocol] if subprotocol else None
        )
        try:
            yield Peer(socket, socket._stream)
        finally:
            await trio.aclose_forcefully(socket._stream)
        nursery.cancel_scope.cancel(reason="the connection is not needed any more")


# --- a network that loses answers ---------------------------------------------------------------------------------


class Cutting:
    """A TCP proxy that can pass an opening message on and cut the connection when its answer comes back."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.url = ""
        self.lose_answers = 0
        """How many of the next connections lose their first answer."""
        self.lost = 0
        """How many have."""
        self.shut = False
        """While true, each new connection is cut at once."""
        self._to = to
        self._scopes: set[trio.CancelScope] = set()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.url = f"ws://{HOST}:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)  # type: ignore[arg-type]

    def cut(self) -> None:
        """Cut every connection there is."""
        for scope in self._scopes:
            scope.cancel(reason="the cable was pulled")

    async def _serve(self, near: trio.SocketStream) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with near, await trio.open_tcp_stream(*self._to) as far, trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                if self.shut:
                    return
                self._scopes.add(scope)
                try:
                    nursery.start_soon(self._carry, near, far, scope)
                    await self._carry_back(far, near, scope)
                finally:
                    self._scopes.discard(scope)

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        scope.cancel(reason="one side has gone")

    async def _carry_back(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        # One that was there before answers were to be lost has had its own, and may still have data in hand when it is cut.
        losing, upgraded = self.lose_answers > 0, False
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if losing and upgraded:
                    # What comes after the 101 is the answer to the opening message: the node has granted.
                    self.lose_answers -= 1
                    self.lost += 1
                    break
                upgraded = True
                await sink.send_all(data)
        scope.cancel(reason="one side has gone")


@asynccontextmanager
async def cutting(to: tuple[str, int]) -> AsyncIterator[Cutting]:
    """A proxy in front of a node's WebSocket address for the time of the block."""
    made = Cutting(to)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel(reason="the test is over")
