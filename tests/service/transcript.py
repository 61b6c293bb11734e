"""The core handover, played from a seed, and the transcript of it: what happened, phase by phase."""

import json
import sys
from typing import Any

import structlog
import trio
import trio.testing

from signald.testing.cluster import open_cluster
from tests.service.deploys import receipt, traffic


def order_tasks_by(seed: int) -> None:
    """Let Trio's scheduler draw the order of tasks from a seed. Hypothesis does the same."""
    run: Any = trio._core._run
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)


def transcript(seed: int) -> list[str]:
    """Play two deploys under traffic; return the ledgers of both drains and what every party has seen, and when."""
    lines: list[str] = []

    async def main() -> None:
        with trio.fail_after(600):
            async with open_cluster(seed) as cluster:
                await cluster.start("n1", pace={"sessions_per_s": 40.0})
                async with traffic(cluster, workers=4, clients=16) as load:
                    for turn in (1, 2):
                        await trio.sleep(2)
                        await load.deploy(f"n{turn}", f"n{turn + 1}")
                        lines.append(json.dumps(receipt(cluster, f"n{turn}"), sort_keys=True))
                    await load.settle()
                    load.check()
                    parties = [*load.workers, *load.clients]
                    lines.extend(f"{one.dials} {one.answered_at} {one.goaways} {one.codes}" for one in parties)
                    lines.extend(f"{one.talk.session} {one.told} {one.talk.heard}" for one in load.clients)

    order_tasks_by(seed)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return lines


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    print("\n".join(transcript(int(sys.argv[1]))))
