"""A terminal that shows answers as they grow. An empty line ends the answer that grows; the end of the input leaves the session open.

python streaming_client.py APP [URL ...]

APP is the label of the worker: `stories` (streaming_worker.py) or `llm` (llm_worker.py). TOKEN in the environment is for nodes that ask for
one. STATE names a file: the next program that is started with it goes on with the same session, and shows what was said meanwhile.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from signald.sdk.asyncio import Client, ClientState, StreamText, open_client, run

APP = sys.argv[1] if len(sys.argv) > 1 else "stories"
URLS = sys.argv[2:] or ["ws://127.0.0.1:8080"]
STATE = Path(os.environ["STATE"]) if "STATE" in os.environ else None


def load() -> ClientState | None:
    """Return the session with which the program before has ended, if there is one."""
    return msgspec.json.decode(STATE.read_bytes(), type=ClientState) if STATE and STATE.exists() else None


def save(state: ClientState) -> None:
    """Keep the session for the next program. Its recovery token is a secret."""
    if STATE is not None:
        STATE.touch(0o600)
        STATE.write_bytes(msgspec.json.encode(state))


class Page:
    """What the terminal shows of the answers: each text once, as far as it has grown."""

    def __init__(self) -> None:
        self._shown: dict[str, StreamText] = {}

    def draw(self, text: StreamText) -> None:
        """Show what is new of `text`; show it anew when a higher attempt has taken the place of what is shown."""
        before = self._shown.get(text.stream, StreamText(text.stream, text.attempt))
        if text.attempt > before.attempt:
            print(f"\n[attempt {text.attempt}]", flush=True)
            before = StreamText(text.stream, text.attempt)
        print(text.text[len(before.text) :], end="", flush=True)
        if text.outcome is not None and before.open:
            print(f"\n[{text.outcome}]", flush=True)
        self._shown[text.stream] = text


async def show(client: Client) -> None:
    """Draw each text whenever it has changed."""
    page = Page()
    for text in client.streams.values():  # of the chat history that a resume has brought
        page.draw(text)
    async for text in client.stream_news():
        page.draw(text)


async def read(client: Client) -> None:
    """Take the messages. Asking for the next one acks the one before: a message that is never asked for comes again."""
    async for message in client:
        if message.stream is None:
            print(message.data, flush=True)


async def typed() -> AsyncIterator[str]:
    """Yield the lines of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().rstrip("\n")


async def main() -> None:
    """Ask until the input ends."""
    async with open_client(URLS, auth=os.environ.get("TOKEN"), want={"app": APP}, state=load(), history=100) as client:
        tasks = [asyncio.create_task(show(client)), asyncio.create_task(read(client))]
        async for line in typed():
            if line:
                await client.send({"text": line})
                continue
            for text in client.streams.values():
                if text.open:
                    client.cancel(text.stream, "the reader has seen enough")
        await client.flush()
        save(client.state())
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    run(main)
