"""signald for Trio: `open_client`, `open_worker` and `run_worker`.

    async with open_client("ws://localhost:8080") as client:
        await client.send("hello")
        async for message in client:
            print(message.data)

Connections come and go underneath; the application sees every message once, in order. Everything runs in the nursery of
the `async with` block: leaving it stops everything and, on purpose, does not end the session (`bye` does).
"""

from signald.sdk.front import names
from signald.sdk.front.names import *  # noqa: F403 - the names of both event loops are listed once
from signald.sdk.trio_carrier import over_stream
from signald.sdk.trio_run import run

__all__ = ["over_stream", "run"]
__all__ += names.__all__
