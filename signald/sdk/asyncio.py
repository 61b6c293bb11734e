"""signald for asyncio: `open_client`, `open_worker` and `run_worker`, with the names and the behaviour of `signald.sdk.trio`.

    async with open_client("ws://localhost:8080") as client:
        await client.send("hello")
        async for message in client:
            print(message.data)

Connections come and go underneath; the application sees every message once, in order. Everything runs in tasks that the `async with`
block owns: leaving it stops everything and, on purpose, does not end the session (`bye` does). Nothing of Trio is imported.
"""

from signald.sdk.asyncio_run import run
from signald.sdk.front import names
from signald.sdk.front.names import *  # noqa: F403 - the names of both event loops are listed once

__all__ = ["run"]
__all__ += names.__all__
