"""Does this tree cost more than a commit? The main figures of both, in interleaved pairs.

Each pair measures the commit and this tree directly after each other, in alternating order (A B B A ...), so that a machine that
grows slower or faster does so for both. What is judged is CPU time: the node's and redis-server's, divided by round trips, set-ups or
sessions moved. Rates and seconds stand beside, unjudged: they depend on what else the machine does.

The figure of the change is the median, over the pairs, of this tree's figure divided by the commit's. It may be LIMIT above 1, or twice
the spread where that is more. The spread is the commit against itself in the same run: the median distance between a pair's figure
of the commit and the next pair's. With 15 pairs twice that is about four standard errors of the change, so an equal tree
exceeds it in less than one run of a thousand.
"""

import compileall
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.bench import accept, drain, relay
from tests.bench.errors import BenchError
from tests.bench.report import Row, median
from tests.bench.servers import TREE, Cores, environment

SERVER = "signald-redis"
# What a reader of a change can be asked to argue about; below it, even quiet machines differ from day to day.
LIMIT = 0.03
# Failed runs that are measured again before the guard gives up: a busy machine now and then exceeds a limit of the generator.
REPEATS_MAX = 3

CPU = "cpu ms"
Figures = Mapping[str, Mapping[str, float]]
"""Of each scenario its figures, of which the one named CPU is judged."""


class Load(NamedTuple):
    """How much of each scenario one run plays."""

    pairs: int
    seconds: float
    slices: int
    set_ups: int
    sessions: int
    steady_s: float


FULL = Load(pairs=50, seconds=1.0, slices=3, set_ups=500, sessions=500, steady_s=1.0)
QUICK = Load(pairs=10, seconds=0.3, slices=1, set_ups=50, sessions=50, steady_s=0.3)


class Verdict(NamedTuple):
    """What the pairs say of one figure; all three are shares."""

    change: float
    """By how much this tree's figure is above the commit's."""
    spread: float
    """How far the commit's own figures are from each other."""
    limit: float

    @property
    def exceeded(self) -> bool:
        """Whether the change is beyond its limit."""
        return self.change > self.limit


def judge(base: Sequence[float], ours: Sequence[float]) -> Verdict:
    """Compare the figures of the commit and of this tree, one of each for every pair, in the order in which they were measured.

    Raises BenchError for fewer than two pairs, for lists of different length and for a figure that is not positive.
    """
    if len(base) != len(ours) or len(base) < 2:
        raise BenchError(f"{len(base)} figures of the commit and {len(ours)} of this tree: two pairs are the least")
    if min(*base, *ours) <= 0:
        raise BenchError("a figure of 0: nothing was measured")
    change = median([our / their for their, our in zip(base, ours, strict=True)]) - 1
    spread = median([abs(later / earlier - 1) for earlier, later in pairwise(base)])
    return Verdict(change, spread, max(LIMIT, 2 * spread))


def table(base: Sequence[Figures], ours: Sequence[Figures]) -> tuple[list[Row], bool]:
    """Return a row for each figure of each scenario, and whether a judged one is beyond its limit."""
    rows: list[Row] = []
    exceeded = False
    for scenario, figures in base[0].items():
        for name in figures:
            theirs = [run[scenario][name] for run in base]
            own = [run[scenario][name] for run in ours]
            verdict, judged = judge(theirs, own), name == CPU
            bad = judged and verdict.exceeded
            exceeded |= bad
            rows.append(
                {
                    "scenario": scenario,
                    "figure": name,
                    "commit": median(theirs),
                    "this tree": median(own),
                    "change %": verdict.change * 100,
                    "spread %": verdict.spread * 100,
                    "limit %": verdict.limit * 100 if judged else None,
                    "verdict": ("BEYOND" if bad else "within") if judged else "not judged",
                }
            )
    return rows, exceeded


def _cpu(row: Row, per: str) -> float:
    return float(row[f"cpu ms{per}"] or 0) + float(row[f"redis ms{per}"] or 0)


def measure(cores: Cores, tree: Path, load: Load) -> Figures:
    """Play every scenario once with the signald of `tree`."""
    figures: dict[str, Mapping[str, float]] = {}
    for window in (1, 16):
        row = relay.scenario(
            SERVER, cores, load.pairs, 128, window, load.seconds, load.slices, history=False, tree=tree
        )
        rate = float(row["round trips/s"] or 0)
        figures[f"relay w{window}, 1,000 trips"] = {CPU: _cpu(row, "/1k"), "per s": rate}
    for row in accept.scenario(SERVER, cores, load.set_ups, 64, 1, tree=tree):
        figures[str(row["set-up"])] = {CPU: _cpu(row, " each"), "per s": float(row["per s"] or 0)}
    row = drain.scenario(SERVER, cores, load.sessions, 10, 0.25, 128, load.steady_s, tree=tree).moves[0]
    seconds = {key: float(row[key] or 0) for key in ("drain s", "gap p50 ms")}
    figures["drain, a session"] = {CPU: _cpu(row, " each"), **seconds}
    return figures


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Yield a folder with signald as of a commit; raise BenchError if the repository has no such commit."""
    command = ["git", "-C", str(TREE), "archive", commit, "signald"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        raise BenchError(f"{commit}: {archive.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory(prefix="signald-guard-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def prepare(tree: Path) -> None:
    """Compile signald of a tree, and raise BenchError if this interpreter would take another one there."""
    compileall.compile_dir(tree / "signald", quiet=1)
    command = [sys.executable, "-c", "import signald; print(signald.__file__)"]
    seen = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False)
    if not Path(seen.stdout.strip()).is_relative_to(tree):
        raise BenchError(f"{tree} is not what would be measured: {seen.stdout.strip() or seen.stderr.strip()}")


def run(cores: Cores, commit: str, pairs: int, load: Load) -> tuple[list[Row], bool]:
    """Measure `pairs` pairs; return the table, and whether this tree costs more than it may."""
    if pairs < 2:
        raise BenchError("two pairs are the least: the commit is compared with itself")
    runs: dict[Path, list[Figures]] = {}
    repeats = 0
    with checkout(commit) as base:
        for tree in (base, TREE):
            prepare(tree)
        while len(runs.get(base, ())) < pairs:
            number = len(runs.get(base, ()))
            print(f"pair {number + 1} of {pairs}", file=sys.stderr, flush=True)
            order = (base, TREE) if number % 2 == 0 else (TREE, base)
            try:
                pair = [(tree, measure(cores, tree, load)) for tree in order]
            except BenchError as error:
                repeats += 1
                if repeats > REPEATS_MAX:
                    raise
                print(f"measured again: {error}", file=sys.stderr, flush=True)
                continue
            for tree, figures in pair:
                runs.setdefault(tree, []).append(figures)
        return table(runs[base], runs[TREE])
