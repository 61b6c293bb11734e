"""D4, D5: many apps of a fleet in one process, each with a connection of its own. usage: python apps.py URL COUNT MUTE BUSY

They run the app of the guide in Python, whose folder is in `APP`: the first `MUTE` of them never answer `terminate_app`, and the next
`BUSY` take `BUSY_S` for their end. One that has ended is started again, as a supervisor does. The credential is in `CREDENTIAL`.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["APP"])
from app import App, Config  # type: ignore[import-not-found]

URL, COUNT, MUTE, BUSY = sys.argv[1], *map(int, sys.argv[2:5])
SCALE = float(os.environ["SCALE"])
FRAMES_PER_S = float(os.environ["FRAMES_PER_S"])
BUSY_S = float(os.environ["BUSY_S"])
AGAIN_S = 0.1


def say(app: str, saw: str, **more: object) -> None:
    """Print one thing that an app saw, as a line of JSON."""
    print(json.dumps({"saw": saw, "app": app, "clock": time.monotonic(), **more}), flush=True)


class MuteApp(App):  # type: ignore[misc]
    """An app that hears `terminate_app`, and goes on."""

    async def _terminate(self, socket: Any, said: dict[str, Any]) -> None:
        self.note("terminate", reason=said.get("reason"))


async def leave_with(app: App, over: asyncio.Event) -> None:
    """Have an app leave when all is over."""
    await over.wait()
    app.leave()


async def supervise(number: int, token: Path, over: asyncio.Event) -> None:
    """Run one app, and again after each good end, until all is over."""
    name = f"app-{number}"
    busy_s = BUSY_S if MUTE <= number < MUTE + BUSY else 0.0
    config = Config(
        url=URL,
        instance_id=name,
        token_file=str(token),
        frames_per_s=FRAMES_PER_S,
        eos_s=busy_s,
        busy_s=busy_s * 1.5,
        time_scale=SCALE,
    )
    while not over.is_set():
        app = (MuteApp if number < MUTE else App)(config, partial(say, name))
        leaving = asyncio.create_task(leave_with(app, over))
        say(name, "ended", status=await app.run())
        leaving.cancel()
        await asyncio.sleep(AGAIN_S)


async def main() -> None:
    """Run all of them until a line comes on stdin."""
    over = asyncio.Event()
    with tempfile.TemporaryDirectory() as directory:
        token = Path(directory) / "token"
        token.write_text(os.environ["CREDENTIAL"])
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, over.set)
        async with asyncio.TaskGroup() as group:
            for number in range(COUNT):
                group.create_task(supervise(number, token, over))
            await over.wait()
            loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(main())
