"""`python -m tests.systems.many`: many pages read long answers while the service is deployed, and half of them are reloaded.

usage: python -m tests.systems.many [--store sqlite|redis] [--readers 50] [--pieces 2000] [--every-ms 100] [--deploys 3]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from tests.systems.plays.stream import Stream
from tests.systems.program import Program
from tests.systems.story import Story

SLOWEST = 10
"""How many times the planned time of an answer it may take on a busy machine."""


class Reader(Stream):
    """A page that waits for the end of its answer, however long it takes."""

    within_s = 0.0

    async def finish(self) -> None:
        """Wait for the end."""
        page: Program = self.pages[-1]
        await page.has_seen("end", within_s=self.within_s)
        await page.end()


def main() -> int:
    """Return 1 when a reader did not see its whole answer, each piece once."""
    parser = argparse.ArgumentParser(prog="python -m tests.systems.many", description="many readers of long answers")
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--pieces", type=int, default=2000)
    parser.add_argument("--every-ms", type=int, default=100)
    parser.add_argument("--deploys", type=int, default=3)
    options = parser.parse_args()
    readers = []
    for number in range(options.readers):
        reader = Reader(reloads=bool(number % 2), PIECES=str(options.pieces), EVERY_MS=str(options.every_ms))
        reader.name = f"reader {number}"
        reader.within_s = SLOWEST * options.pieces * options.every_ms / 1000
        readers.append(reader)
    directory = Path(tempfile.mkdtemp(prefix="signald-many-"))
    story = Story(readers, ["deploy"] * options.deploys)
    trio.run(story.tell, options.store, directory, 2 * readers[0].within_s)
    broken = 0
    for reader in readers:
        try:
            story.judge(reader.name)
        except Exception as error:
            broken += 1
            print(f"{reader.name}: {type(error).__name__}: {error}")
    pages = sum(len(reader.pages) for reader in readers)
    print(
        f"{options.readers} readers on {pages} pages, {options.deploys} deploys: {broken} broken; lines and logs are in {directory}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
