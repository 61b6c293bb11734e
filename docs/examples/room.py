"""Friends in a room: typed lines are published, those of others are printed, and all see one list.

python room.py NAME [URL ...]            TOKEN in the environment, where the nodes ask for one; its rights must name the room

A line that begins with + puts the rest of it on the list.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from signald.sdk.asyncio import MembersChanged, RecordsChanged, Room, RoomPublication, open_client, run

NAME = sys.argv[1] if len(sys.argv) > 1 else "ada"
URLS = sys.argv[2:] or ["ws://127.0.0.1:8080"]


async def show(room: Room) -> None:
    """Print what others do, in the order of the room; a deploy or a broken connection leaves no gap in it."""
    print("here:", len(room.members), flush=True)
    async for event in room:
        match event:
            case RoomPublication():
                print(f"{event.data['name']}: {event.data['text']}", flush=True)
            case RecordsChanged():
                print("list:", ", ".join(sorted(room.records)), flush=True)
            case MembersChanged():
                print("here:", len(room.members), flush=True)


async def typed() -> AsyncIterator[str]:
    """Yield the lines of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().rstrip("\n")


async def main() -> None:
    """Be in the room until the input ends."""
    async with (
        open_client(URLS, auth=os.environ.get("TOKEN"), pair=False) as client,
        client.room("room:kitchen", state=True, presence={"name": NAME}) as room,
    ):
        showing = asyncio.create_task(show(room))
        async for line in typed():
            if line.startswith("+"):
                await room.put(line[1:].strip(), {"by": NAME})
            else:
                await room.publish({"name": NAME, "text": line}, kind="chat")
        await room.flush()
        showing.cancel()


if __name__ == "__main__":
    run(main)
