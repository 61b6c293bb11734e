"""A worker that is deployed: `python -m tests.sdk.deployed_worker trio|asyncio URL NAME CAPACITY [urgent|immediate]`.

It answers each message `{"n": ..., "pieces": N, "pause_s": S}` with a stream of N numbered words, which its successor goes on with, and
then with a message of its own. `{"plain": true}` is answered by a message alone. It prints a line when it is registered.
"""

import importlib
import logging
import sys
from typing import Any

import anyio

PIECE = "{:04d} "
"""A piece says its own number, so that a text shows what is missing or stands twice."""


def text_of(pieces: int) -> str:
    """The whole text of an answer."""
    return "".join(PIECE.format(number) for number in range(pieces))


async def answer(session: Any) -> None:
    """Answer until the session is over or is handed over."""
    session.keep({"served": [*((session.state or {}).get("served", [])), sys.argv[3]]})
    async for message in session:
        asked = message.data
        if not asked.get("plain"):
            async with session.stream(f"a{message.seq}", kind="tokens", go_on=True, roll_up_s=0.0) as out:
                for number in range(len(out.said) // len(PIECE.format(0)), asked["pieces"]):
                    await out.write(PIECE.format(number))
                    await anyio.sleep(asked["pause_s"])
        await session.send({"n": asked["n"], "from": sys.argv[3], "state": session.state, "attempt": session.attempt})


def main(front: str, url: str, name: str, capacity: str, mode: str = "graceful") -> None:
    """Run the worker until it has left."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
    sdk = importlib.import_module(f"signald.sdk.{front}")
    quick = sdk.Backoff(base_s=0.05, cap_s=0.5, going_away_s=0.2, refused_s=0.3)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            worker = await tasks.start(_serve, sdk, url, name, int(capacity), mode, quick)
            print("registered", worker.worker, flush=True)

    sdk.run(run)


async def _serve(sdk: Any, url: str, name: str, capacity: int, mode: str, backoff: Any, *, task_status: Any) -> None:
    await sdk.run_worker(
        url.split(","),
        answer,
        instance_id=name,
        capacity=capacity,
        leave=sdk.Leave(sdk.Mode[mode.upper()]),
        backoff=backoff,
        health="127.0.0.1:0",
        task_status=task_status,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
