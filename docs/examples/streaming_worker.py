"""A worker that streams its answers, and takes up the half answer of a worker that was lost.

python streaming_worker.py INSTANCE [URL ...]    TOKEN in the environment, where the nodes ask for one
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from signald.sdk.asyncio import StreamOver, WorkerSession, run, run_worker

INSTANCE = sys.argv[1] if len(sys.argv) > 1 else "stories-1"
URLS = sys.argv[2:] or ["ws://127.0.0.1:8080"]
WORDS = 100
WORD_S = 0.2


async def story(subject: str) -> AsyncIterator[str]:
    """Stand in for a model: yield a word now and then."""
    for number in range(WORDS):
        yield f"{subject}{number} "
        await asyncio.sleep(WORD_S)


async def answer(session: WorkerSession) -> None:
    """Stream an answer to each question."""
    half = {found.stream: found for found in session.open_streams}
    over = {entry.get("stream") for entry in session.chat_history if "outcome" in entry}
    async for message in session:
        # The name says which question is answered, so the next worker knows whose half answer it finds.
        name = f"answer-to-{message.seq}"
        found = half.pop(name, None)
        if name in over:
            continue  # the worker before was lost between the end of its answer and its ack
        if found is not None and found.cancelled:
            await session.stream(name, attempt=found.attempt).end("cancelled")
            continue
        attempt = found.attempt + 1 if found is not None else 1
        try:
            async with session.stream(name, kind="tokens", attempt=attempt) as out:
                async for word in story(message.data["text"]):
                    if out.cancelled.is_set():
                        break
                    await out.write(word)
        except StreamOver:
            pass  # another worker has begun a higher attempt, or the stream was ended meanwhile; the session goes on


async def main() -> None:
    """Serve up to fifty sessions at a time."""
    await run_worker(
        URLS, answer, instance_id=INSTANCE, capacity=50, labels={"app": "stories"}, auth=os.environ.get("TOKEN")
    )


if __name__ == "__main__":
    run(main)
