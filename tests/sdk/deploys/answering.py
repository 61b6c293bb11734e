"""A worker for clients in another language: each question gets a stream and an answer, with the numbers of both.

    python -m tests.sdk.deploys.answering WORKERS URL...

It serves until SIGTERM.
"""

import asyncio
import signal
import sys
from collections import Counter

from signald.sdk.asyncio import Backoff, WorkerSession, open_worker

QUICK = Backoff(base_s=0.1, cap_s=1.0, going_away_s=0.2, refused_s=0.5)

_answered = Counter[str]()


async def answer(session: WorkerSession) -> None:
    """Stream a text for every question, and give it the number of the answer."""
    name = session.meta["name"]
    async for message in session:
        _answered[name] += 1
        number = _answered[name]
        async with session.stream(kind="tokens") as out:
            for piece in str(number).zfill(8):
                await out.write(piece)
                await asyncio.sleep(0.002)
        await session.send({"n": number, "q": message.data["n"]})


async def main(workers: int, urls: list[str]) -> None:
    """Run the workers."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)

    async def work(number: int) -> None:
        async with open_worker(urls, answer, instance_id=f"answering-{number}", capacity=20, backoff=QUICK):
            working.release()
            await over.wait()

    working = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for number in range(workers):
            tasks.create_task(work(number))
        for _ in range(workers):
            await working.acquire()
        print("working", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
