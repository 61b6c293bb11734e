"""Plant every bug, one at a time, and tell which the simulation noticed: `python -m tests.planted [--only NAME]`."""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.planted.bugs import BUGS, Bug
from tests.planted.plant import Hunt, hunt

SHARE_MIN = 0.95


def main() -> int:
    """Run; the status is 1 if too many were overlooked."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; may be said several times")
    parser.add_argument(
        "--seeds", type=int, default=1000, help="how many seeds may pass before a bug counts as overlooked"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many are hunted at the same time")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if not options.only or bug.name in options.only]
    if options.only and len(bugs) < len(set(options.only)):
        parser.error(f"no such bug: {sorted(set(options.only) - {bug.name for bug in bugs})}")
    hunts = hunt_all(bugs, options.seeds, options.jobs, quiet=options.json)
    caught = sum(one.caught for one in hunts)
    if options.json:
        print(json.dumps([_fields(one) for one in hunts], indent=1))
    else:
        missed = [one.bug.name for one in hunts if not one.caught]
        print(f"{caught} of {len(hunts)} caught ({caught / len(hunts):.0%}), within {options.seeds} seeds each")
        if missed:
            print(f"not caught: {', '.join(missed)}")
    return 0 if caught >= SHARE_MIN * len(hunts) else 1


def hunt_all(bugs: list[Bug], seeds: int, jobs: int, *, quiet: bool) -> list[Hunt]:
    """Hunt each; print a line as soon as one is through. The results come in the order of `bugs`."""
    hunts: dict[str, Hunt] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(hunt, bug, seeds) for bug in bugs]):
            one = done.result()
            hunts[one.bug.name] = one
            if not quiet:
                print(line(one), flush=True)
    return [hunts[bug.name] for bug in bugs]


def line(one: Hunt) -> str:
    """One bug in one line of the table."""
    if not one.caught:
        return f"{one.bug.name:40} NOT CAUGHT by {one.seed} seeds in {one.seconds:.0f} s; should break {one.bug.breaks}"
    text = " ".join(one.text.split())
    return (
        f"{one.bug.name:40} seed {one.seed:4} {one.transport:8} after {one.seconds:5.1f} s  {one.checker:14} "
        f"{text if len(text) < 120 else text[:117] + '...'}"
    )


def _fields(one: Hunt) -> dict[str, object]:
    return {
        "bug": one.bug.name,
        "file": one.bug.file,
        "breaks": one.bug.breaks,
        "caught": one.caught,
        "seed": one.seed,
        "seconds": round(one.seconds, 1),
        "transport": one.transport,
        "checker": one.checker,
        "text": one.text,
    }


if __name__ == "__main__":
    sys.exit(main())
