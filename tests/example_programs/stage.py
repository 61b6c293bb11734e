"""Programs of docs/examples on nodes that come and go. All stories are played at once, so that a deploy and a kill serve them all."""

import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import trio
from attrs import define, field

import signald
from signald.demo.cluster import Node, kill_group
from tests.real.harness import PATIENCE, Address, Nodes, exit_of, kill, term

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SHOWN_S = 15.0
"""Within which a program shows what is waited for: a reconnect after a kill takes some seconds, the loss of a worker ten."""

POLL_S = 0.1
"""A dozen stories look at files that grow: more often costs a core."""

Story = Callable[["Stage"], Awaitable[None]]


@define(eq=False)
class Program:
    """A running example: its keyboard, and what it has printed."""

    name: str
    process: trio.Process
    output: Path

    @property
    def shown(self) -> str:
        """All that it has printed on standard output."""
        return self.output.read_text(errors="replace")

    @property
    def told(self) -> str:
        """All that it has printed on standard error."""
        return self.output.with_suffix(".err").read_text(errors="replace")

    async def type(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{line}\n".encode())

    async def shows(self, pattern: str, times: int = 1) -> None:
        """Wait until `pattern` was printed `times` times."""

        with trio.move_on_after(SHOWN_S * PATIENCE):
            while len(re.findall(pattern, self.shown)) < times:
                assert self.process.poll() in (None, 0), f"{self.name} ended with {self.process.returncode}"
                await trio.sleep(POLL_S)
            return
        raise AssertionError(f"{self.name} does not show {pattern!r}")

    async def leaves(self) -> int:
        """Close the keyboard, and return the exit code."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.ends()

    async def stops(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return await self.ends()

    async def ends(self) -> int:
        """Return the exit code once the program has ended by itself."""
        with trio.move_on_after(SHOWN_S * PATIENCE):
            return await self.process.wait()
        raise AssertionError(f"{self.name} does not end")


@define(eq=False)
class Stage:
    """The nodes, seen by programs as two URLs of which one is served at a time; and the programs."""

    nodes: Nodes
    directory: Path
    here: Address = field(factory=Address)
    there: Address = field(factory=Address)
    stories: int = 0
    """How many meet before a deploy and before a kill."""
    programs: list[Program] = field(factory=list)
    _node: Node | None = None
    _started: int = 0
    _arrived: int = 0
    _acted: trio.Event = field(factory=trio.Event)
    _urls: list[str] = field(factory=list)

    @property
    def urls(self) -> list[str]:
        """The URLs in the order in which every program gets them."""
        return [self.here.url, self.there.url]

    async def open(self) -> None:
        """Start the first node."""
        self._urls = self.urls
        self._node = await self._start(self.here)

    async def run(
        self, *command: str, environment: Mapping[str, str] | None = None, urls: bool = True, module: bool = False
    ) -> Program:
        """Start a program of docs/examples with the URLs of the nodes behind its arguments."""
        name, *arguments = command
        output = self.directory / f"{len(self.programs)}-{name}.out"
        own = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALD_")}
        own |= {"PYTHONPATH": f"{Path(signald.__file__).parent.parent}", "PYTHONUNBUFFERED": "1", **(environment or {})}
        what = ["-m", name] if module else [str(EXAMPLES / name)]
        with output.open("wb") as file, output.with_suffix(".err").open("wb") as errors:
            process: trio.Process = await trio.lowlevel.open_process(
                [sys.executable, *what, *arguments, *(self._urls if urls else ())],
                env=own, cwd=EXAMPLES, stdin=-1, stdout=file, stderr=errors, start_new_session=True,
            )  # fmt: skip
        program = Program(" ".join(command), process, output)
        self.programs.append(program)
        return program

    async def deployed(self) -> None:
        """Return when the node was replaced by a new one, and has handed everything over; all stories meet here."""
        await self._meet(self._deploy)

    async def killed(self) -> None:
        """Return when the node was killed and another one serves at its address; all stories meet here."""
        await self._meet(self._kill)

    async def _meet(self, act: Callable[[], Awaitable[None]]) -> None:
        acted = self._acted
        self._arrived += 1
        if self._arrived < self.stories:
            await acted.wait()
            return
        self._arrived, self._acted = 0, trio.Event()
        await act()
        acted.set()

    async def _deploy(self) -> None:
        assert self._node is not None
        old, self._node = self._node, await self._start(self.there)
        self.here, self.there = self.there, self.here
        term(old)
        assert await exit_of(old) == 0

    async def _kill(self) -> None:
        assert self._node is not None
        await kill(self._node)
        self._node = await self._start(self.here)

    async def _start(self, address: Address) -> Node:
        self._started += 1
        return await self.nodes.start(f"node-{self._started}", address)

    def account(self) -> str:
        """What each program has printed, for a failure's message."""
        return "\n".join(
            f"--- {one.name} ({one.process.poll()})\n{one.shown[-1000:]}{one.told[-1000:]}" for one in self.programs
        )

    async def end(self) -> None:
        """Kill what still runs."""
        for program in self.programs:
            kill_group(program.process)
        with trio.move_on_after(10, shield=True):
            for program in self.programs:
                await program.process.wait()


async def play(stage: Stage, stories: Mapping[str, Story]) -> None:
    """Play all `stories` at once. The first that fails ends the others, and the failure names it."""
    stage.stories = len(stories)
    await stage.open()
    try:
        async with trio.open_nursery() as nursery:
            for name, story in stories.items():
                nursery.start_soon(partial(_play, stage, name, story))
    finally:
        await stage.end()


async def _play(stage: Stage, name: str, story: Story) -> None:
    try:
        await story(stage)
    except Exception as error:
        raise AssertionError(f"{name}: {error}\n{stage.account()}") from error
