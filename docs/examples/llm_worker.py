"""A language model behind signald: a tiny one, of pairs of words, that blocks a thread as a large one blocks a GPU.

python llm_worker.py INSTANCE [URL ...]          TOKEN in the environment, where the nodes ask for one

Where another worker was lost in the middle of an answer, this one gives the model what was said, and lets it go on from there. So the
reader sees the text grow on, and nothing is computed twice.
"""

import asyncio
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

from signald.sdk.asyncio import StreamOver, WorkerSession, run, run_worker

INSTANCE = sys.argv[1] if len(sys.argv) > 1 else "llm-1"
URLS = sys.argv[2:] or ["ws://127.0.0.1:8080"]
TOKENS = 100
TOKEN_S = 0.2
TEXT = """
the ship sails to the island and the island waits for the ship while the wind turns to the west and the sailors sing of the harbour
the harbour sleeps in the fog and the lamp on the tower turns for the ship that comes home with the wind and the salt of the sea
"""


class Model:
    """Which word follows which, learnt from a text. It says the same for the same question."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self._followers: dict[str, list[str]] = defaultdict(list)
        for word, follower in zip(words, [*words[1:], words[0]], strict=True):
            self._followers[word].append(follower)

    def generate(self, question: str, said: str = "") -> Iterator[str]:
        """Yield the tokens that follow `said`. Blocks, as models do."""
        words = said.split()
        for position in range(len(words), TOKENS):
            time.sleep(TOKEN_S)
            followers = self._followers[words[-1]] if words else sorted(self._followers)
            words.append(random.Random(f"{question}/{position}").choice(followers))
            yield words[-1] + " "


MODEL = Model(TEXT)


async def tokens(question: str, said: str) -> AsyncIterator[str]:
    """Yield tokens, each computed in a thread: the connections of the worker are served meanwhile."""
    generated = MODEL.generate(question, said)
    while (token := await asyncio.to_thread(next, generated, None)) is not None:
        yield token


async def answer(session: WorkerSession) -> None:
    """Answer each question by a stream; go on with a half answer."""
    half = {found.stream: found for found in session.open_streams}
    over = {entry.get("stream") for entry in session.chat_history if "outcome" in entry}
    async for message in session:
        name = f"answer-to-{message.seq}"
        found = half.pop(name, None)
        if name in over:
            continue
        whole = found is not None and found.text is not None and not found.truncated
        said = found.text or "" if found is not None and whole else ""
        attempt = found.attempt + 1 if found is not None else 1
        try:
            async with session.stream(name, kind="tokens", attempt=attempt) as out:
                await out.write(said)  # of the attempt before: a higher attempt says all anew
                async for token in tokens(message.data["text"], said):
                    if out.cancelled.is_set():
                        break
                    await out.write(token)
        except StreamOver:
            pass


async def main() -> None:
    """Serve four sessions at a time: the capacity is what the model can do at once."""
    await run_worker(
        URLS, answer, instance_id=INSTANCE, capacity=4, labels={"app": "llm"}, auth=os.environ.get("TOKEN")
    )


if __name__ == "__main__":
    run(main)
