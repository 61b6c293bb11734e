"""A worker as a service of systemd (steady-worker.service): it tells when it is ready, and leaves in peace when it is stopped.

python steady_worker.py [URL ...]        TOKEN in the environment, or a credential of systemd named `token`
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from signald.sdk.asyncio import WorkerSession, open_worker, run

URLS = sys.argv[1:] or ["ws://127.0.0.1:8080"]
LEAVE_S = 60.0
"""How long sessions may go on after SIGTERM. What remains then is given to other workers. TimeoutStopSec= is longer."""


def tell(state: str) -> None:
    """Tell systemd; see sd_notify(3). Without systemd nothing happens."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def credential() -> str:
    """Return the credential of systemd. It is asked for at each connection, so a rotated one is seen."""
    return (Path(os.environ["CREDENTIALS_DIRECTORY"]) / "token").read_text().strip()


async def count(session: WorkerSession) -> None:
    """Number the messages of a session; the number outlives deploys of signald, because the handler does."""
    number = 0
    async for message in session:
        number += 1
        await session.send({"text": f"{number}: {message.data['text']}"})


async def main() -> None:
    """Serve until SIGTERM; then take no more sessions, wait for those there are, and end."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # One instance of the unit is one worker: signald takes a second registration of the name for the same worker, come back.
    instance = os.environ.get("INSTANCE", "steady-1")
    auth = credential if "CREDENTIALS_DIRECTORY" in os.environ else os.environ.get("TOKEN")
    async with open_worker(
        URLS, count, instance_id=instance, capacity=20, labels={"app": "steady"}, auth=auth
    ) as worker:
        tell("READY=1")
        ended = asyncio.create_task(worker.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await ended  # signald has ended the worker; the error says why
            return
        tell("STOPPING=1")
        try:
            async with asyncio.timeout(LEAVE_S):
                await worker.leave("the service is stopped")
        except TimeoutError:
            pass
        ended.cancel()


if __name__ == "__main__":
    run(main)
