"""One node on one file, killed again and again under load; after every death the file is sound and holds what was acked.

python -m tests.real.sqlite_kills [--kills 200] [--ack process|disk] [--seed 1] [--json]
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Literal, TypedDict

import trio

from tests.real.harness import Address, exit_of, kill, open_nodes, open_talk, term
from tests.real.sqlite_files import check_copy, promises, stopped_in_a_transaction, wal_of

CLIENTS = 6
GAP_S = 0.03
"""Between two questions of one client."""
STILL_S = 0.15
"""After a death, until what had been written to the parties has been read by them."""


class Figures(TypedDict):
    """What was seen."""

    kills: int
    in_a_transaction: int
    wal_bytes_max: int
    questions: int
    answers: int
    lost: int
    duplicated: int
    reordered: int


async def kill_again_and_again(directory: Path, kills: int, ack: Literal["process", "disk"], seed: int) -> Figures:
    """Kill every other time in the middle of a transaction, else at a random moment; fails when anything is lost."""
    rng = random.Random(seed)
    address, path = Address(), directory / "store.db"
    wal_bytes_max = 0
    settings: dict[str, dict[str, object]] = {"store": {"ack": ack}, "limits": {"messages_per_s": 100.0}}
    async with open_nodes(directory, f"sqlite:{path}", settings) as nodes, open_talk(60 + 10 * kills) as talk:
        node = await nodes.start("node-0", address)
        await talk.worker("worker", address.url)
        for n in range(CLIENTS):
            await talk.client(f"client {n}", address.url)
        talk.begin(GAP_S)
        for number in range(1, kills + 1):
            await talk.goes_on(5, 30)
            await trio.sleep(rng.uniform(0, 0.1))
            if number % 2:
                await stopped_in_a_transaction(node, path)
            await kill(node)
            await trio.sleep(STILL_S)
            wal_bytes = wal_of(path).stat().st_size
            assert wal_bytes, "a kill leaves a WAL to be recovered"
            wal_bytes_max = max(wal_bytes, wal_bytes_max)
            await check_copy(path, directory / "copy", promises(talk))
            node = await nodes.start(f"node-{number}", address)
        await talk.goes_on(5, 30)
        await talk.settle(30)
        term(node)
        assert await exit_of(node) == 0
        await check_copy(path, directory / "copy", promises(talk))
        counts = [numbers for one in talk.chatters for numbers in (one.ledger.questions, one.ledger.replies)]
        return Figures(
            kills=kills,
            in_a_transaction=(kills + 1) // 2,
            wal_bytes_max=wal_bytes_max,
            questions=sum(one.ledger.questions.sent for one in talk.chatters),
            answers=sum(one.ledger.replies.sent for one in talk.chatters),
            lost=sum(numbers.lost for numbers in counts),
            duplicated=sum(numbers.duplicated for numbers in counts),
            reordered=sum(numbers.reordered for numbers in counts),
        )


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--ack", choices=["process", "disk"], default="process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = trio.run(kill_again_and_again, Path(directory), given.kills, given.ack, given.seed)
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
