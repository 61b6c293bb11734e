"""A chat in a terminal: typed lines are sent, answers are printed, and what happens around them goes to standard error.

python chat.py [URL ...]                 TOKEN in the environment, where the nodes ask for one; echo_worker.py answers

APP in the environment is the label of another worker, such as `steady` of steady_worker.py.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from signald.sdk.asyncio import Client, Gone, open_client, run

APP = os.environ.get("APP", "echo")
URLS = sys.argv[1:] or ["ws://127.0.0.1:8080"]


async def typed() -> AsyncIterator[str]:
    """Yield the lines of standard input. A thread that reads them would keep the program from ending."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().rstrip("\n")


async def show_answers(client: Client) -> None:
    """Print each answer; it comes once and in order, whatever becomes of the connections."""
    async for message in client:
        print(message.data["text"], flush=True)


async def show_events(client: Client) -> None:
    """Tell what a chat page may show beside the text: a worker that is away, another one, a reconnect."""
    async for event in client.events:
        print(event, file=sys.stderr, flush=True)
        if isinstance(event, Gone):
            return


async def main() -> None:
    """Chat until the input ends; then end the session."""
    async with (
        open_client(URLS, auth=os.environ.get("TOKEN"), want={"app": APP}, meta={"name": "alice"}) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(show_answers(client))
        tasks.create_task(show_events(client))
        async for line in typed():
            await client.send({"text": line})
        await client.bye("the input has ended")


if __name__ == "__main__":
    run(main)
