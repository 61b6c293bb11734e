"""Deploys and kills of real nodes beneath parties of one front: `python -m tests.sdk.deploys --front trio --deploys 200 --seed N`."""

import argparse
import json
import math
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from tests.sdk.deploys.run import play

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sdk.deploys", description=__doc__)
    parser.add_argument("--front", choices=("trio", "asyncio", "js", "js-rooms"), required=True)
    parser.add_argument("--deploys", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, and judge what there was")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = partial(play, clients=options.clients, workers=options.workers, minutes=options.minutes)
        verdict = trio.run(run, Path(directory), options.front, options.deploys, options.seed)
    counts = {name: value for name, value in verdict.counts.items() if name != "connections"}
    told = {"front": options.front, "seed": options.seed, "seconds": round(verdict.seconds)}
    told |= {name: getattr(verdict, name) for name in ("deploys", "kills", "restarts")}
    print(json.dumps({**told, **counts}))
    print("\n".join(verdict.faults) or "nothing was lost, doubled or reordered")
    sys.exit(1 if verdict.faults else 0)
