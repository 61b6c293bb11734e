"""The base of the plays: what a story asks of each."""

from importlib import import_module
from pathlib import Path

from tests.real.harness import Settings
from tests.systems.crew import Crew
from tests.systems.program import Cast, Program
from tests.systems.service import Service, credential

MOVES = ("deploy", "rollback", "kill")
"""What the operator does in a story, one after the other."""


class Play:
    """One need of a system, and the programs that show it. A play that needs no step leaves it out."""

    name = ""
    alone = False
    """It has a story of its own: what it asks of the operator would touch all other plays."""

    def __init__(self) -> None:
        self.settings: Settings = {}
        """Sections of the configuration of each node that it needs."""
        self.service: Service
        self.cast: Cast
        self.worker: Crew
        """The AI workers that serve the pages of all plays; one, unless a story says otherwise."""

    async def before(self) -> None:
        """Start what must be there before the workers."""

    async def start(self) -> None:
        """Start the programs; return when they are at work."""
        raise NotImplementedError

    async def page(self, program: str, *arguments: str, **variables: str) -> Program:
        """Start a program of a client, with the service's URL and `arguments`; its subject is the name of the play."""
        shown = credential("client", self.name)
        return await self.cast.start(program, self.service.url, *arguments, credential=shown, **variables)

    async def during_move(self) -> None:
        """Do something in the middle of a move."""

    async def goes_on(self) -> None:
        """Return when the programs have got on after a move, and before the next."""

    async def finish(self) -> None:
        """Let the programs come to their end."""

    def figures(self) -> str:
        """Return what was seen, counted, for an operator; empty: there is nothing to count."""
        return ""

    def judge(self) -> None:
        """Assert what the programs must have seen."""
        raise NotImplementedError


def every_play() -> tuple[type[Play], ...]:
    """Return the plays of the folder `plays`, in the order of their files' names."""
    found: list[type[Play]] = []
    for path in sorted((Path(__file__).parent / "plays").glob("*.py")):
        module = import_module(f"tests.systems.plays.{path.stem}")
        here = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
        found += [one for one in here if issubclass(one, Play) and one.name]
    return tuple(found)
