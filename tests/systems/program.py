"""A program of the outside world: a process that knows a URL and the contract, and prints a line of JSON for each thing it saw."""

import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio
from attrs import define, field

from tests.real.harness import until

PROGRAMS = Path(__file__).parent / "programs"
END_S = 15.0
"""Far above what a program needs for its last answers on a busy machine."""

SERVED = {"LABELS": '{"for": "all"}', "WANT": '{"for": "all"}'}
"""What a worker can do and a page asks for."""

Line = dict[str, Any]


def command_of(program: str) -> list[str]:
    """Return how `program` is run; its suffix names the language."""
    path = str(PROGRAMS / program)
    return ["node", path] if program.endswith(".mjs") else [sys.executable, "-I", path]


@define(eq=False)
class Program:
    """One process of a program, and what it has said."""

    name: str
    process: trio.Process
    errors: Path
    _kept: Path
    now: Callable[[], str]
    """Tells what the operator is doing; each line is marked with it."""
    lines: list[Line] = field(factory=list)
    _by_kind: dict[str, list[Line]] = field(factory=lambda: defaultdict(list))
    """The same lines: many programs are asked often."""
    killed: bool = False
    finished: trio.Event = field(factory=trio.Event)

    def saw(self, what: str) -> list[Line]:
        """Return the lines of one kind so far."""
        return self._by_kind[what]

    async def has_seen(self, what: str, times: int = 1, within_s: float = 10.0) -> Line:
        """Wait until a kind of line was printed so often, and return the last one of it."""
        await until(
            lambda: len(self.saw(what)) >= times or self.over,
            within_s,
            f"{self.name} has seen {times} times {what}: {self.account()}",
        )
        assert len(self.saw(what)) >= times, f"{self.name} ended without {what}: {self.account()}"
        return self.saw(what)[-1]

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.finished.is_set()

    async def tell(self, line: str = "end") -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{line}\n".encode())

    async def kill(self) -> None:
        """End it as the browser ends a page that is reloaded: without a word."""
        self.killed = True
        self.process.send_signal(signal.SIGKILL)
        await self.finished.wait()

    async def end(self, within_s: float = END_S) -> None:
        """Wait for it to end by itself, well."""
        await until(lambda: self.over, within_s, f"{self.name} ends: {self.account()}")
        assert self.process.returncode == 0, self.account()

    async def listen(self) -> None:
        """Read its lines until it ends."""
        assert self.process.stdout is not None
        rest = b""
        with self._kept.open("w") as kept:
            async for data in self.process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                read = [{**json.loads(line), "during": self.now()} for line in lines]
                self.lines += read
                for line in read:
                    self._by_kind[line["saw"]].append(line)
                kept.writelines(f"{json.dumps(line)}\n" for line in read)
        await self.process.wait()
        self.finished.set()

    def account(self) -> str:
        """The last of what it said, for a failure's message."""
        last = "\n".join(json.dumps(line) for line in self.lines[-12:])
        return f"{self.name} ({self.process.returncode})\n{last}\n{self.errors.read_text()[-2000:]}"


class Cast:
    """Starts programs; none outlives the block of its nursery."""

    def __init__(self, directory: Path, nursery: trio.Nursery, now: Callable[[], str]) -> None:
        self.directory = directory
        self._nursery = nursery
        self._now = now
        self._started = 0

    def play(self, task: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Run a task of this process, until the story is over at the latest."""
        self._nursery.start_soon(task, *arguments)

    async def run(self, serve: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        """Have something begin to serve until the story is over at the latest."""
        await serve(self._nursery)

    async def start(self, program: str, *arguments: str, credential: str = "", **variables: str) -> Program:
        """Run a program of the folder `programs` with `arguments`.

        It finds its JWT in the variable `CREDENTIAL`, and other things in `variables`. A page is served by the worker of the
        story, unless `WANT` and `LABELS` say otherwise: a worker of a single play is free for no page of another.
        """
        self._started += 1
        errors = self.directory / f"{self._started}-{program}.err"
        lines = self.directory / f"{self._started}-{program}.lines"
        with errors.open("wb") as sink:
            process = await self._nursery.start(
                partial(
                    trio.run_process,
                    [*command_of(program), *arguments],
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=sink,
                    check=False,
                    cwd=self.directory,
                    env={"PATH": os.environ["PATH"], "CREDENTIAL": credential, **SERVED, **variables},
                )
            )
        started = Program(f"{program} {self._started}", process, errors, lines, self._now)
        self._nursery.start_soon(started.listen)
        return started
