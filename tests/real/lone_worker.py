"""A worker in a process of its own, for tests that kill it: `python -m tests.real.lone_worker URL NAME`.

It answers every question but those marked `hold`, which it never finishes. It prints a line for each question, so that
the test that kills it knows what it had.
"""

import sys

import trio

from signald.sdk.trio import WorkerSession, run_worker


async def answer(session: WorkerSession) -> None:
    """Answer until a question says to hold."""
    async for message in session:
        print(message.data["n"], flush=True)
        if message.data.get("hold"):
            await trio.sleep_forever()
        await session.send({"n": message.data["n"], "from": sys.argv[2]})


if __name__ == "__main__":
    trio.run(lambda: run_worker(sys.argv[1], answer, instance_id=sys.argv[2], capacity=10))
