"""The scene of the tests of a client: what the service plays, and a client on the Trio driver."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.events import LifecycleEvent
from signald.sdk.trio import Client, open_client
from tests.sdk.peer import Accepted, ScriptedPeer

URL = "ws://signald.test"


def play(
    script: Callable[[ScriptedPeer], Awaitable[None]],
    application: Callable[[Client], Awaitable[None]],
    **options: object,
) -> ScriptedPeer:
    """Run a server's script and a client's application together, in virtual time."""

    async def main() -> ScriptedPeer:
        peer = ScriptedPeer()
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(script, peer)
                async with open_client(URL, dial=peer.dial, entropy=SeededEntropy(1), **options) as client:  # type: ignore[arg-type]
                    await application(client)
                    nursery.cancel_scope.cancel(reason="the application is done")
        return peer

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def drained(client: Client) -> list[LifecycleEvent]:
    """Return the lifecycle events so far."""
    return list(iter(client.events.receive_nowait, None))


async def echo(connection: Accepted, *, first_seq: int = 1, count: int = 1000) -> None:
    """Store and answer `count` messages."""
    for seq in range(first_seq, first_seq + count):
        message = await connection.until("message")
        await connection.send(type="ack", seq=message["seq"])
        await connection.send(type="message", seq=seq, data=message["data"])
