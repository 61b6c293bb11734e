"""The live picture of a running demo. It only reads: nothing is decided here."""

from collections.abc import Callable
from time import perf_counter

import trio
from attrs import define
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from signald.demo.judge import Deploy, Judge, gaps

REFRESH_S = 0.5
"""Drawing takes some milliseconds of the same core the parties run on, and would show up in the gaps if done often."""


@define(eq=False)
class Board:
    """What is going on, as far as it is not in the judge's notes."""

    title: str
    judge: Judge
    plan: list[bool]
    """One entry per deploy to come or done: whether it is a kill."""
    phase: str = "starting"
    moving: int = 0
    """How many parties the current deploy has to move."""


async def show(board: Board, console: Console) -> None:
    """Draw `board` until cancelled, and once more at the end."""
    picture = Picture(board)
    with Live(picture.draw(), console=console, auto_refresh=False, transient=False) as live:
        try:
            while True:
                await trio.sleep(REFRESH_S)
                live.update(picture.draw(), refresh=True)
        finally:
            live.update(picture.draw(), refresh=True)


class Picture:
    """Draws a board; it remembers when it last did, for the rate."""

    def __init__(self, board: Board, clock: Callable[[], float] = perf_counter) -> None:
        self._board = board
        self._clock = clock
        self._drawn_at = clock()
        self._answers = 0

    def draw(self) -> Group:
        """Return the picture of this moment; the rate is that since the one before."""
        judge = self._board.judge
        now = self._clock()
        rate = (judge.answers - self._answers) / max(now - self._drawn_at, 0.001)
        self._drawn_at, self._answers = now, judge.answers
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        # The widths are those of the longest content, so that columns stand still, and all of them fit 80 characters.
        for heading, width in (("deploy", 6), ("signal", 7), ("phase", len("coming back"))):
            table.add_column(heading, no_wrap=True, min_width=width)
        for heading in ("moved", "s", "p50 ms", "p99 ms", "max ms", "exit"):
            table.add_column(heading, justify="right", no_wrap=True)
        for index, kill in enumerate(self._board.plan):
            deploy = judge.deploys[index] if index < len(judge.deploys) else None
            table.add_row(str(index + 1), "SIGKILL" if kill else "SIGTERM", *self._cells(deploy, index))
        footer = Text(f"{rate:,.0f} answers/s, {judge.answers:,} so far, {judge.waiting:,} on their way", style="dim")
        return Group(Text(self._board.title, style="bold"), table, footer)

    def _cells(self, deploy: Deploy | None, index: int) -> list[str]:
        if deploy is None:
            deploys = self._board.judge.deploys
            is_next = index == len(deploys) and (not deploys or deploys[-1].ended_at is not None)
            return [self._board.phase if is_next else ""] + [""] * 6
        gap = gaps([deploy])
        done = deploy.ended_at is not None
        return [
            "done" if done else self._board.phase,
            str(len(deploy.moved)) if done else f"{len(deploy.moved)} of {self._board.moving}",
            f"{deploy.drain_s:.1f}" if done else "",
            _ms(gap["p50"]),
            _ms(gap["p99"]),
            _ms(gap["max"]),
            "" if deploy.exit_code is None else str(deploy.exit_code),
        ]


def _ms(gap: float) -> str:
    """A gap in milliseconds, without a fraction once it says nothing."""
    return f"{gap:.1f}" if gap < 1000 else f"{gap:.0f}"


def line(deploy: Deploy) -> str:
    """Return one finished deploy as one line, for output that is not a terminal."""
    gap = gaps([deploy])
    how = "SIGKILL" if deploy.kill else "SIGTERM"
    return (
        f"deploy {deploy.number}: {how}, {len(deploy.moved)} parties moved in {deploy.drain_s:.1f} s, "
        f"gap p99 {gap['p99']:.1f} ms, max {gap['max']:.1f} ms, exit {deploy.exit_code}"
    )
