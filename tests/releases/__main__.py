"""Deploy forth and back between this tree and the release before: `python -m tests.releases --store redis --sessions 200`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import trio

from signald.demo.main import raise_descriptor_limit
from signald.demo.options import DemoOptions
from tests.releases.play import Outcome, play
from tests.releases.receiver import open_receiver
from tests.releases.wheels import unpacked


def main() -> int:
    """Play, print the verdicts as JSON, and return 1 if any message, session or event was lost, doubled or reordered."""
    parser = argparse.ArgumentParser(prog="python -m tests.releases", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--deploys", type=int, default=10)
    parser.add_argument("--away", type=int, default=20, help="clients that are away during each deploy")
    parser.add_argument("--rate", type=float, default=1.0, help="messages per second of each client")
    parser.add_argument("--one-release", action="store_true", help="this tree alone, to compare with")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signald-releases-") as kept:
        directory = Path(kept)
        codes: list[Path | None] = [None] if asked.one_release else [unpacked("0.1.0", directory), None]
        raise_descriptor_limit(8 * (asked.sessions + asked.workers) + 256)
        options = DemoOptions(asked.sessions, asked.workers, asked.rate, asked.deploys)
        outcome, told, wrong = trio.run(_play, options, directory, codes, asked.away, asked.store)
    print(json.dumps(outcome.as_json() | {"events": told, "events_wrong": wrong}))
    return 0 if outcome.ok and not wrong else 1


async def _play(
    options: DemoOptions, directory: Path, codes: list[Path | None], away: int, store: str
) -> tuple[Outcome, int, list[str]]:
    async with open_receiver() as receiver:
        outcome = await play(options, directory, codes, away, store, receiver.settings)
        return outcome, sum(len(events) for events in receiver.events.values()), receiver.wrong


if __name__ == "__main__":
    sys.exit(main())
