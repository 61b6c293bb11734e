"""Plant every bug, one at a time, and tell which was noticed: `python -m tests.planted [--only NAME]`.

A bug that names its tests is hunted by those, any other by seeds of the simulation. What noticed a bug the last time is tried first,
then all that are left are hunted with a few seeds, which is enough for most, and then with the rest, in steps. With `--record` a campaign
that was cut short goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import attrs

from tests.planted.bugs import BUGS
from tests.planted.plant import Hunt, hunt, hunt_by_tests
from tests.planted.record import Record, fields, noticed, remember
from tests.planted.search import FIRST_SEEDS

SHARE_MIN = 0.95
STEP_SEEDS = 100
"""So many seeds are played against one bug before the others have their turn, and it is noted how far the hunt has come."""


def main() -> int:
    """Run; the status is 1 if too many were overlooked, or a search failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; may be said several times")
    parser.add_argument("--tests-only", action="store_true", help="leave out what seeds are to notice")
    parser.add_argument(
        "--seeds", type=int, default=1000, help="how many seeds may pass before a bug counts as overlooked"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many are hunted at the same time")
    parser.add_argument(
        "--from-first",
        action="store_true",
        help="play the seeds, or run the tests, in their order, not the one that is known first",
    )
    parser.add_argument(
        "--table",
        metavar="FILE",
        type=Path,
        help="write what came of each as a table, for the docs, and keep it up to date",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="note each step there; what the file says already of the same code is not done again",
    )
    parser.add_argument(
        "--remember", action="store_true", help="keep the seeds and tests that notice something for the next time"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if not options.only or bug.name in options.only]
    if options.tests_only:
        bugs = [bug for bug in bugs if bug.noticed_by]
    if options.only and len(bugs) < len(set(options.only)):
        parser.error(f"no such bug: {sorted(set(options.only) - {bug.name for bug in bugs})}")
    record = Record(bugs, options.record)
    known = {} if options.from_first else noticed()
    for one in campaign(record, known, options.seeds, options.jobs):
        if not options.json and (one.caught or one.text or one.bug.noticed_by or one.seed >= options.seeds):
            print(line(one), flush=True)
        if options.table:
            options.table.write_text(table(record.hunts.values()))
    hunts = list(record.hunts.values())
    if options.remember:
        remember(hunts)
    caught = sum(one.caught for one in hunts)
    if options.json:
        print(json.dumps([fields(one) for one in hunts], indent=1))
    else:
        missed = [one.bug.name for one in hunts if not one.caught]
        print(f"{caught} of {len(hunts)} caught ({caught / len(hunts):.0%}), within {options.seeds} seeds each")
        if missed:
            print(f"not caught: {', '.join(missed)}")
    failed = any(one.text and not one.caught for one in hunts)
    return 0 if caught >= SHARE_MIN * len(hunts) and not failed else 1


def campaign(record: Record, known: dict[str, int | str], seeds: int, jobs: int) -> Iterator[Hunt]:
    """Hunt each by its tests, or as far as `seeds`; what is `known` to notice it first. Yields whenever there is something new."""
    with ThreadPoolExecutor(jobs) as pool:
        trials = [
            pool.submit(hunt_by_tests, one.bug, first=str(known.get(one.bug.name, "")))
            for one in record.left
            if one.bug.noticed_by
        ]
        by_seeds = [one for one in record.left if not one.bug.noticed_by]
        trials += [
            pool.submit(hunt, one.bug, seed, first=seed)
            for one in by_seeds
            if one.seed == 0 and isinstance(seed := known.get(one.bug.name), int) and seed <= seeds
        ]
        for done in as_completed(trials):
            one = done.result()
            if not one.bug.noticed_by:
                # One that does not notice it any more says nothing of those before it: the hunt begins at the first.
                one = attrs.evolve(one, kept=True) if one.caught else attrs.evolve(one, seed=0)
            yield _put(record, one)
        for last in _steps(seeds):
            begun = [one for one in record.left if one.seed < last and not one.bug.noticed_by]
            for done in as_completed([pool.submit(hunt, one.bug, last, first=one.seed + 1) for one in begun]):
                yield _put(record, done.result())


def _steps(seeds: int) -> list[int]:
    return [
        min(seeds, FIRST_SEEDS),
        *range(FIRST_SEEDS + STEP_SEEDS, seeds, STEP_SEEDS),
        *[seeds] * (seeds > FIRST_SEEDS),
    ]


def _put(record: Record, one: Hunt) -> Hunt:
    """Note it, with the time of what came to nothing before."""
    one = attrs.evolve(one, seconds=record.hunts[one.bug.name].seconds + one.seconds)
    record.put(one)
    return one


def table(hunts: Iterable[Hunt]) -> str:
    """All of them in Markdown: the slip, what noticed it, at which seed, after how long. `*`: that seed was tried first."""
    rows = [
        f"| `{one.bug.name}` | {one.checker or '-'} | {(one.seed or '') if one.caught else '-'}{'*' * one.kept} "
        f"| {one.transport or '-'} | {one.seconds:.0f} |"
        for one in hunts
    ]
    return "\n".join(["| slip | noticed by | seed | transport | seconds |", "|---|---|---:|---|---:|", *rows, ""])


def line(one: Hunt) -> str:
    """One bug in one line of the table."""
    if not one.caught:
        why = f"; {' '.join(one.text.split())[-200:]}" if one.text else ""
        if one.bug.noticed_by:
            return f"{one.bug.name:40} NOT CAUGHT by {' '.join(one.bug.noticed_by)} in {one.seconds:.0f} s{why}"
        return f"{one.bug.name:40} NOT CAUGHT by {one.seed} seeds in {one.seconds:.0f} s; should break {one.bug.breaks}{why}"
    if one.bug.noticed_by:
        return f"{one.bug.name:40} after {one.seconds:5.1f} s  {one.checker}"
    text = " ".join(one.text.split())
    return (
        f"{one.bug.name:40} seed {one.seed:4} {one.transport:8} after {one.seconds:5.1f} s  {one.checker:14} "
        f"{text if len(text) < 120 else text[:117] + '...'}"
    )


if __name__ == "__main__":
    sys.exit(main())
