"""What peers that are not known yet cost a node: the resident memory of a real node for each thousand of them.

    python -m tests.bench.strangers

In three steps of 1,000: sockets that say nothing, WebSockets without an opening message, and WebSockets that have sent half of an
opening message of 60 KiB. The first thousand of each warms the allocator, so the second is what counts.
"""

import resource
import struct
import tempfile
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import trio

from tests.real.harness import open_nodes
from tests.real.hostile_address import Party, dial, party

HALF = b"\x81\xfe" + struct.pack("!H", 61_440) + bytes(4) + bytes(30_720)
SETTINGS: dict[str, dict[str, object]] = {
    "timeouts": {"handshake_s": 300.0, "hello_s": 300.0},
    # No connection may give way here.
    "admission": {"strangers_bytes_max": 1 << 30, "handshakes_in_progress_max": 20_000},
}


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


async def silent(port: int, stack: AsyncExitStack) -> None:
    """Say nothing."""
    stream = await dial(port, "127.0.0.1")
    stack.push_async_callback(trio.aclose_forcefully, stream)


async def mute(port: int, stack: AsyncExitStack) -> Party:
    """Open a WebSocket and say nothing."""
    return await stack.enter_async_context(party(port, "127.0.0.1", "/v1/client"))


async def half(port: int, stack: AsyncExitStack) -> None:
    """Send half of an opening message."""
    await (await mute(port, stack)).stream.send_all(HALF)


async def measure(directory: Path) -> None:
    """Print what a thousand more of each take."""
    for what, kind in (
        ("silent sockets", silent),
        ("WebSockets without an opening message", mute),
        ("half a message", half),
    ):
        async with open_nodes(directory, "memory:", SETTINGS) as nodes, AsyncExitStack() as stack:
            node = await nodes.start("a")
            sizes = []
            for _ in range(3):
                sizes.append(resident(node.process.pid))
                for _ in range(1000):
                    await kind(node.websocket[1], stack)
                await trio.sleep(1.0)
            sizes.append(resident(node.process.pid))
            each = [(after - before) / 1000 / 1024 for before, after in pairwise(sizes)]
            print(
                f"{what}: {', '.join(f'{size:.1f}' for size in each)} KiB each; the node at rest {sizes[0] >> 20} MiB"
            )


def main() -> None:
    """Measure."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="signald-strangers-") as directory:
        trio.run(measure, Path(directory))


if __name__ == "__main__":
    main()
