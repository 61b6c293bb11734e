"""A worker that answers each message with its text: the other side of chat.py.

python echo_worker.py [URL ...]          TOKEN in the environment, where the nodes ask for one
"""

import os
import sys

from signald.sdk.asyncio import WorkerSession, run, run_worker

URLS = sys.argv[1:] or ["ws://127.0.0.1:8080"]


async def echo(session: WorkerSession) -> None:
    """Answer until the session is over."""
    async for message in session:
        await session.send({"text": f"You said: {message.data['text']}"})


async def main() -> None:
    """Serve up to a hundred sessions at a time."""
    await run_worker(
        URLS, echo, instance_id="echo-1", capacity=100, labels={"app": "echo"}, auth=os.environ.get("TOKEN")
    )


if __name__ == "__main__":
    run(main)
