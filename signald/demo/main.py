"""`signald demo`: deploy again and again under load, and say what the parties noticed.

What happens: nodes are started as in production; workers and clients of the SDK connect through a TCP switch and talk.
Each deploy starts a new node, waits until it is ready, points the switch at it, and only then signals the old one:
SIGTERM, or SIGKILL for the kills. It is complete when the old node has ended and every party that entered by this
switch has been answered elsewhere.

With `--cross` there are two switches and two nodes on one store at all times: workers enter by one, clients by the other,
so that every message crosses nodes. Deploys then replace the two nodes in turn, the workers' node first; a party moves
only when its own node is replaced.

With `--web` there are a page and a scripted worker in place of the parties: `signald.demo.web`.
"""

import gc
import json
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define
from rich.console import Console

import signald
from signald.config import DrainConfig, LimitsConfig, LogConfig, PaceConfig
from signald.demo.cluster import Cluster, DemoFailed, Entrance, Node, open_cluster
from signald.demo.judge import Judge, Verdict, kill_plan
from signald.demo.options import EVERY_S, PAGE_PORT, DemoOptions
from signald.demo.parties import Parties
from signald.demo.table import Board, line, show
from signald.demo.waiting import until
from signald.demo.web.plan import EVERY_MIN_S
from signald.demo.web.show import Show
from signald.exit_codes import ExitCode
from signald.logs import logging_to

WARM_UP_S = 1.0
PAUSE_S = 1.0
"""Ordinary traffic before and between the deploys."""
EXIT_TIMEOUT_S = DrainConfig().stop_timeout_s + 5.0
LAST_EXIT_TIMEOUT_S = 20.0
MOVED_TIMEOUT_S = 30.0
QUIET_TIMEOUT_S = 30.0
DESCRIPTORS_SPARE = 256

EXIT_NOTICED = ExitCode.ERROR
EXIT_INTERRUPTED = ExitCode.INTERRUPTED


def run(options: DemoOptions) -> int:
    """Carry out the demo and return its exit code: 0 only when nothing was lost, duplicated, reordered or out of order."""
    problem = why_impossible(options)
    if problem is not None:
        print(f"signald demo: {problem}", file=sys.stderr)
        return ExitCode.USAGE
    # A party has one descriptor here and two in the switch, and twice as many while it moves.
    raise_descriptor_limit(4 * (options.sessions + options.workers) + DESCRIPTORS_SPARE)
    directory = Path(tempfile.mkdtemp(prefix="signald-demo-"))
    keep = True
    try:
        code = trio.run((Show if options.web else Demo)(options, directory).run)
        keep = code == EXIT_NOTICED
    except* DemoFailed as failures:
        code = EXIT_NOTICED
        for failure in _leaves(failures):
            print(f"signald demo: {failure}", file=sys.stderr)
    except* KeyboardInterrupt:
        code, keep = EXIT_INTERRUPTED, False
        print("signald demo: interrupted, everything it started is gone", file=sys.stderr)
    finally:
        gc.enable()
        gc.unfreeze()
        if keep:
            print(f"signald demo: the logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return code


def why_impossible(options: DemoOptions) -> str | None:
    """Return what is wrong with the options, or None."""
    if options.web:
        return _why_no_page(options)
    if (options.port, options.every) != (PAGE_PORT, EVERY_S):
        return "--port and --every are of the page: they go with --web"
    if options.sessions < 1 or options.workers < 1 or options.deploys < 0:
        return "there must be at least one session and one worker, and no negative number of deploys"
    if not 0 < options.rate <= 1000:
        return "--rate is the messages per second of one client: more than 0, at most 1000"
    if not 0 <= options.kill <= options.deploys:
        return f"--kill is how many of the {options.deploys} deploys are kills"
    return _why_no_store(options)


def _why_no_page(options: DemoOptions) -> str | None:
    defaults = DemoOptions(web=True, port=options.port, every=options.every, store=options.store)
    if options != defaults:
        return "--web goes with --port, --every and --store; the other options are those of the demo without a page"
    if not 0 <= options.port <= 65_535:
        return "--port is a port, or 0 for any"
    if not options.every >= EVERY_MIN_S:
        return f"--every is the seconds between two moves: at least {EVERY_MIN_S:g}"
    return _why_no_store(options)


def _why_no_store(options: DemoOptions) -> str | None:
    if options.store is not None and options.store.startswith("memory:"):
        return (
            "memory: is gone with its process, so it cannot outlive a deploy; leave --store away or name a shared one"
        )
    return None


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of open files towards `needed`; the children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        ceiling = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def node_settings(options: DemoOptions) -> dict[str, dict[str, object]]:
    """Return what the nodes' configuration says besides addresses, store and name: defaults, unless the load is above them."""
    defaults = LimitsConfig()
    limits: dict[str, object] = {}
    if options.rate > defaults.messages_per_s / 2:
        limits["messages_per_s"] = options.rate * 2
    share = -(-options.sessions // options.workers)
    if 2 * share > defaults.sessions_per_worker_max:
        limits["sessions_per_worker_max"] = 2 * share
    return {"limits": limits} if limits else {}


@define(eq=False)
class Stage:
    """One node in service: the switch before it, and which parties enter there."""

    entrance: Entrance
    node: Node
    workers_enter: bool
    clients_enter: bool

    def members(self, parties: Parties) -> set[str]:
        """Return the names of the parties that enter here and still live."""
        members = set(parties.worker_names) if self.workers_enter else set()
        return members | parties.living_clients() if self.clients_enter else members


class Demo:
    """One run: its processes, its parties, its judge."""

    def __init__(self, options: DemoOptions, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.judge = Judge()
        self.plan = kill_plan(options.deploys, options.kill)
        self.store = options.store or f"sqlite:{directory / 'signald.db'}"
        self.console = Console(stderr=options.json)
        self.board = Board(self._title(), self.judge, self.plan)

    def _title(self) -> str:
        options = self.options
        ways = ", clients and workers on different nodes" if options.cross else ""
        return (
            f"signald {signald.__version__}: {options.sessions} sessions, {options.workers} workers, "
            f"{options.rate:g} messages/s each, on {self.store_kind}{ways}"
        )

    @property
    def store_kind(self) -> str:
        """The kind of store; its URL may hold a password and is not shown."""
        return self.store.partition(":")[0]

    async def run(self) -> int:
        """Run the demo, report, and return the exit code; SIGTERM and SIGHUP end it as Ctrl-C does."""
        started_at = trio.current_time()
        # What the SDK logs goes beside the nodes' logs: on the screen it would tear the picture.
        with (self.directory / "parties.log").open("w") as log, logging_to(log, LogConfig()):
            verdict = await self._play()
        self._report(verdict, trio.current_time() - started_at)
        return ExitCode.OK if verdict.ok else EXIT_NOTICED

    async def _play(self) -> Verdict:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt_on_signals)
            if self.console.is_terminal:
                nursery.start_soon(show, self.board, self.console)
            self._print_line(self.board.title)
            verdict = await self._measure()
            nursery.cancel_scope.cancel(reason="the demo is over")
        return verdict

    async def _measure(self) -> Verdict:
        async with open_cluster(self.directory, self.store, node_settings(self.options)) as cluster:
            stages = await self._open_stages(cluster)
            # With one stage, workers and clients share it; with two, each has its own (see the module's text).
            urls = (stages[0].entrance.url, stages[-1].entrance.url)
            parties = Parties(self.options, self.judge, *urls, group=cluster.run_name)
            async with trio.open_nursery() as nursery:
                await parties.start(nursery)
                collect_now_or_never()
                self._print_line(f"{self.options.sessions} sessions are talking")
                await trio.sleep(WARM_UP_S)
                for index, kill in enumerate(self.plan):
                    await self._deploy(cluster, stages[index % len(stages)], parties, kill)
                    self.board.phase = "starting"
                    await trio.sleep(PAUSE_S)
                parties.hush()
                with trio.move_on_after(QUIET_TIMEOUT_S):
                    await until(lambda: not self.judge.waiting)
                verdict_at = trio.current_time()
                await parties.leave()
                nursery.cancel_scope.cancel(reason="every party has left")
            for stage in stages:
                stage.node.send_signal(signal.SIGTERM)
            for stage in stages:
                self.judge.last_exit_codes.append(await stage.node.wait(LAST_EXIT_TIMEOUT_S))
            return self.judge.verdict(verdict_at)

    async def _open_stages(self, cluster: Cluster) -> list[Stage]:
        names = ["workers'", "clients'"] if self.options.cross else ["common"]
        stages = []
        for index, name in enumerate(names):
            entrance = await cluster.open_entrance(name)
            node = await cluster.start_node()
            await entrance.point_to(node.websocket)
            first, last = index == 0, index == len(names) - 1
            stages.append(Stage(entrance, node, workers_enter=first, clients_enter=last))
        return stages

    async def _deploy(self, cluster: Cluster, stage: Stage, parties: Parties, kill: bool) -> None:
        collect_now_or_never()
        old, stage.node = stage.node, await cluster.start_node()
        members = stage.members(parties)
        await stage.entrance.point_to(stage.node.websocket)
        deploy = self.judge.begin_deploy(kill=kill, workers_move=stage.workers_enter, now=trio.current_time())
        self.board.moving = len(members)
        self.board.phase = "killed" if kill else "draining"
        old.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        deploy.exit_code = await old.wait(EXIT_TIMEOUT_S)
        exited_at = trio.current_time()
        self.board.phase = "coming back"
        with trio.move_on_after(MOVED_TIMEOUT_S):
            await until(lambda: members <= deploy.moved)
        deploy.ended_at = trio.current_time()
        deploy.drain_s = (deploy.ended_at if kill else exited_at) - deploy.started_at
        await cluster.forget(old)
        self._print_line(line(deploy))

    def _print_line(self, text: str) -> None:
        # Where there is no terminal to draw on; and with --json nothing but the JSON is said there.
        if not self.console.is_terminal and not self.options.json:
            print(text, flush=True)

    def _report(self, verdict: Verdict, seconds: float) -> None:
        if self.options.json:
            figures = verdict.as_json()
            figures["pace"] = PaceConfig().sessions_per_s
            figures["store"] = self.store_kind
            figures["release"] = signald.__version__
            figures["seconds"] = round(seconds, 1)
            print(json.dumps(figures))
            return
        style = "bold green" if verdict.ok else "bold red"
        first, *more = verdict.in_words()
        self.console.print(first, style=style, highlight=False, soft_wrap=True)
        for sentence in more:
            self.console.print(sentence, highlight=False, soft_wrap=True)


def collect_now_or_never() -> None:
    """Collect garbage now, put what is left beyond the collector's reach, and keep it from starting by itself.

    A full collection over the objects of a thousand parties takes longer than a handover, and would be shown as its gap. The
    demo lasts for seconds, and reference counts free nearly everything: so it is collected only between the deploys.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


async def _interrupt_on_signals() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            raise KeyboardInterrupt


def _leaves(group: BaseExceptionGroup[DemoFailed]) -> Iterator[DemoFailed]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
