"""The show behind the page: a node, its replacements, a scripted worker, and a probe that says what each move cost.

What happens to the nodes stands as records in a room, which every page joins. So the strip of a page is itself carried by the nodes that it
tells of, and survives them. What a visitor asks for comes as publications in the same room.

The probe is a client of the SDK whose numbered beats the worker answers; the judge of the demo counts them.
"""

import secrets
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, evolve, frozen

import signald
from signald.config import DrainConfig, LogConfig
from signald.demo.cluster import LOG_TAIL_BYTES, Cluster, DemoFailed, Entrance, Node, open_cluster
from signald.demo.judge import Judge, Ledger
from signald.demo.options import DemoOptions
from signald.demo.waiting import POLL_S, until
from signald.demo.web.plan import Kind, Releases, Rota
from signald.demo.web.server import assets, open_port, page_app
from signald.exit_codes import ExitCode
from signald.http.server import serve_http
from signald.logs import logging_to
from signald.sdk.trio import Client, Room, RoomPublication, open_client

BEAT_S = 0.1
"""Between two beats of the probe: a gap is known to a tenth of a second of begin, and exactly in its length."""
EXIT_TIMEOUT_S = DrainConfig().stop_timeout_s + 5.0
MOVED_TIMEOUT_S = 30.0
TOLD_TIMEOUT_S = 1.0
"""How long a move waits for the pages to be told of it. A store that is that slow is a part of what the strip shows."""
LAST_ANSWERS_TIMEOUT_S = 5.0
WORKER = "signald.demo.web.worker"
MOVES_SHOWN = 24
"""Records of moves in the room: what a page can show at once. Older ones are removed."""
MESSAGES_PER_S = 100.0
"""Of one page: five beats, twenty pieces of a stroke, twenty positions of its pen, and what a visitor types; several times over."""


@frozen
class Move:
    """One move of the nodes, as the pages are told of it. Times are of this machine's clock, in ms since 1970."""

    n: int
    kind: str
    release: str
    """The one in service after it."""
    state: str
    """`starting`: the new node starts; `moving`: the old one has its signal; `done`."""
    at_ms: int
    """When the old node got its signal; before that, when the new one was started."""
    took_ms: int | None = None
    """From the signal until the old node was gone and the probe was answered again."""
    gap_ms: int | None = None
    """The longest wait of the probe for an answer."""
    exit: int | None = None
    """The old node's exit code; -9 after SIGKILL."""


@define(eq=False)
class Board:
    """What the pages see of the show: its records in the room."""

    room: Room
    about: dict[str, Any]
    rota: Rota
    releases: Releases
    longest_ms: int = 0

    async def show(self, move: Move) -> None:
        """Tell the pages of a move, anew in each of its states; forget the oldest one."""
        await self.room.change(put={name_of(move.n): asdict(move)}, remove=(name_of(move.n - MOVES_SHOWN),))

    async def tell(self) -> None:
        """Tell the pages how the show goes on."""
        wait_s = max(self.rota.due - trio.current_time(), 0.0)
        told = {
            "every_s": self.rota.every_s,
            "by_itself": self.rota.by_itself,
            "due_ms": now_ms() + round(wait_s * 1000),
            "release": self.releases.current,
            "longest_ms": self.longest_ms,
        }
        await self.room.put("show", self.about | told)


def name_of(number: int) -> str:
    """Return the id of the record of a move."""
    return f"move-{number:06}"


def now_ms() -> int:
    """Return the time of this machine, in ms since 1970: the clock that its browser has too."""
    return round(time.time() * 1000)


class Probe:
    """A client that asks numbered beats, and its ledger at the judge."""

    def __init__(self, judge: Judge, client: Client) -> None:
        self._judge = judge
        self._client = client
        self._page = secrets.token_hex(4)
        self.ledger: Ledger = judge.open_ledger("probe")
        self.hushed = False
        self._asked_at: dict[int, float] = {}
        self.answered_until = 0.0
        """When the youngest question that has been answered was asked."""

    async def ask(self) -> None:
        """Ask a beat every `BEAT_S`, until hushed."""
        while not self.hushed:
            now = trio.current_time()
            number = self._judge.asked(self.ledger, now)
            self._asked_at[number] = now
            await self._client.send({"page": self._page, "n": number}, kind="beat", history=False)
            await trio.sleep(BEAT_S)

    async def listen(self) -> None:
        """Note each answer."""
        async for message in self._client:
            said = message.data
            if message.kind != "beat" or said["page"] != self._page:
                continue
            now = trio.current_time()
            self.ledger.questions.receive(said["to"])
            # The answers are given elsewhere. One that is lost leaves its question without an answer, and so is counted.
            self.ledger.replies.sent = max(self.ledger.replies.sent, said["n"])
            self._judge.answered(self.ledger, question=said["to"], reply=said["n"], worker="worker", now=now)
            self.answered_until = max(self.answered_until, self._asked_at.pop(said["to"], 0.0))


class Show:
    """One run of `signald demo --web`."""

    def __init__(self, options: DemoOptions, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._judge = Judge()
        self._store = options.store or f"sqlite:{directory / 'signald.db'}"
        self._releases = Releases()
        self._moves = 0
        self._node: Node | None = None
        self._performing = False
        self._ending = trio.Event()

    async def run(self) -> int:
        """Show the page until a signal ends the demo; return 0 when the probe has noticed nothing."""
        with (self._directory / "parties.log").open("w") as log, logging_to(log, LogConfig()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_signals)
                await self._play()
                nursery.cancel_scope.cancel(reason="the demo is over")
            verdict = self._judge.verdict(trio.current_time())
        for sentence in verdict.in_words():
            print(sentence, flush=True)
        return ExitCode.OK if verdict.ok else ExitCode.ERROR

    async def _listen(self) -> list[trio.SocketListener]:
        try:
            return await open_port(self._options.port)
        except OSError as error:
            raise DemoFailed(
                f"port {self._options.port} cannot be listened at ({error.strerror}); --port names another, 0 means any"
            ) from None

    async def _take_signals(self) -> None:
        """End the demo in good order at the first signal; at once at a second, or before there is anything to end."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                if self._ending.is_set() or not self._performing:
                    raise KeyboardInterrupt
                self._ending.set()

    async def _play(self) -> None:
        listeners = await self._listen()
        port = listeners[0].socket.getsockname()[1]
        hosts = frozenset(f"{host}:{port}" for host in ("127.0.0.1", "localhost"))
        settings: dict[str, dict[str, object]] = {
            "listen": {"allowed_origins": [f"http://{host}" for host in sorted(hosts)]},
            "limits": {"messages_per_s": MESSAGES_PER_S, "messages_burst": round(2 * MESSAGES_PER_S)},
        }
        async with open_cluster(self._directory, self._store, settings) as cluster, trio.open_nursery() as nursery:
            entrance = await cluster.open_entrance("common")
            self._node = await self._start_node(cluster)
            await entrance.point_to(self._node.websocket)
            nursery.start_soon(self._mind_worker, await self._start_worker(cluster, entrance))
            start = self._start(cluster.run_name, entrance.url)
            app = page_app(assets(start), hosts, entrance.url)
            await nursery.start(_serve_page, app, listeners)
            await self._perform(cluster, entrance, start, f"http://127.0.0.1:{port}/")
            nursery.cancel_scope.cancel(reason="the show is over")

    def _start(self, run_name: str, url: str) -> dict[str, Any]:
        """Return what a page has to know when it begins; nothing in it is a secret."""
        return {
            "run": run_name,
            "url": url,
            "want": {"demo": run_name},
            "rooms": {"deploys": f"demo:{run_name}:deploys", "canvas": f"demo:{run_name}:canvas"},
            "video": find_spec("aiortc") is not None,
            "version": signald.__version__,
        }

    # --- the parties -------------------------------------------------------------------------------------------------

    async def _start_worker(self, cluster: Cluster, entrance: Entrance) -> trio.Process:
        process = await cluster.start_program(WORKER, entrance.url, cluster.run_name)
        await entrance.command(f"watch {process.pid}")
        return process

    async def _mind_worker(self, process: trio.Process) -> None:
        """Fail when the scripted worker ends: it lives as long as the show."""
        code = await process.wait()
        said = (self._directory / f"{WORKER}.log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        raise DemoFailed(f"the scripted worker ended with {code}:\n{said}")

    async def _perform(self, cluster: Cluster, entrance: Entrance, start: dict[str, Any], page: str) -> None:
        labels, name = start["want"], start["rooms"]["deploys"]
        rota = Rota(self._options.every, trio.current_time() + self._options.every)
        about = {"store": self._store.partition(":")[0], "version": start["version"]}
        async with (
            open_client(entrance.url, want=labels, meta={"name": "probe"}) as client,
            client.room(name, state=True) as room,
            trio.open_nursery() as nursery,
        ):
            board = Board(room, about, rota, self._releases)
            probe = Probe(self._judge, client)
            nursery.start_soon(probe.ask)
            nursery.start_soon(probe.listen)
            nursery.start_soon(_hear_wishes, board)
            # The scripted worker may still be starting: a visitor shall not take that for a gap.
            await until(lambda: probe.answered_until > 0)
            print(f"signald {signald.__version__}: the page is at {page}", flush=True)
            print("Open it in two tabs. Ctrl-C ends the demo.", flush=True)
            async with trio.open_nursery() as moves:
                moves.start_soon(self._move_on, cluster, entrance, board, probe)
                self._performing = True
                await self._ending.wait()
            probe.hushed = True
            with trio.move_on_after(LAST_ANSWERS_TIMEOUT_S):
                await until(lambda: not self._judge.waiting)
            nursery.cancel_scope.cancel(reason="the demo ends")

    # --- the moves ---------------------------------------------------------------------------------------------------

    async def _move_on(self, cluster: Cluster, entrance: Entrance, board: Board, probe: Probe) -> None:
        """Make one move after the other; one that has begun when the demo is to end is still brought to its end."""
        await board.tell()
        while not self._ending.is_set():
            kind = board.rota.take(trio.current_time())
            if kind is None:
                await trio.sleep(POLL_S)
                continue
            await self._move(kind, cluster, entrance, board, probe)
            board.rota.done(trio.current_time())
            await board.tell()

    async def _move(self, kind: Kind, cluster: Cluster, entrance: Entrance, board: Board, probe: Probe) -> None:
        """Replace the node: the new one is ready before the old one gets its signal."""
        assert self._node is not None
        kind = self._releases.possible(kind)
        self._moves += 1
        move = Move(self._moves, kind.value, self._releases.move(kind), "starting", now_ms())
        await board.show(move)
        old, self._node = self._node, await self._start_node(cluster)
        await entrance.point_to(self._node.websocket)
        move = evolve(move, state="moving", at_ms=now_ms())
        await board.show(move)
        with trio.move_on_after(TOLD_TIMEOUT_S):
            await board.room.flush()
        kill = kind is Kind.KILL
        deploy = self._judge.begin_deploy(kill=kill, workers_move=True, now=trio.current_time())
        try:
            old.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            deploy.exit_code = await old.wait(EXIT_TIMEOUT_S)
            exited_at = trio.current_time()
            with trio.move_on_after(MOVED_TIMEOUT_S):
                await until(lambda: probe.answered_until > exited_at)
        finally:
            deploy.ended_at = trio.current_time()
            deploy.drain_s = deploy.ended_at - deploy.started_at
        await cluster.forget(old)
        if deploy.clean_exit:
            old.log.unlink(missing_ok=True)  # hundreds of nodes come and go in an hour
        gap_ms = round(deploy.gaps_s.get(probe.ledger.name, 0.0) * 1000)
        board.longest_ms = max(board.longest_ms, gap_ms)
        took_ms = round(deploy.drain_s * 1000)
        await board.show(evolve(move, state="done", took_ms=took_ms, gap_ms=gap_ms, exit=deploy.exit_code))
        print(f"{move.n}: {move.kind}, release {move.release}, gap {gap_ms} ms, exit {deploy.exit_code}", flush=True)

    async def _start_node(self, cluster: Cluster) -> Node:
        cluster.further = {"node": {"release": self._releases.current}}
        return await cluster.start_node()


async def _serve_page(app: Any, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[None]) -> None:
    await serve_http(app, listeners, shutdown=trio.Event(), task_status=task_status)


async def _hear_wishes(board: Board) -> None:
    async for event in board.room:
        if (
            isinstance(event, RoomPublication)
            and event.kind == "wish"
            and board.rota.hear(event.data, trio.current_time())
        ):
            await board.tell()
