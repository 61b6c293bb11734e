"""The same inputs to a `signald serve` of its own: real sockets, a real store, and a log and a memory that can be looked at.

The first line of an input says of which kind it is: `frames`, `json`, `handshakes` or `http`; what follows is an input of the
target of that name.
"""

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import trio

from signald.demo.cluster import Node
from signald.testing.websocket import Client
from tests.fuzz.party import Harm, Judge, complain, try_http
from tests.real.harness import Settings, descriptors, exit_of, open_nodes, probe, term, until

GROWTH_MAX_BYTES = 50 << 20
"""By how much the process may have grown when all senders of inputs have gone."""
GONE_WITHIN_S = 60.0
PATIENCE_S = 30.0
"""A process that shares its cores with others' is not late before that."""
QUIET_S = 0.1

SETTINGS: Settings = {
    "timeouts": {"handshake_s": 1.0, "hello_s": 1.0, "close_s": 1.0},
    "session": {"resume_ttl_s": 5.0},
    "worker": {"resume_timeout_s": 1.0},
}
"""Short, as many an input is one that does not end."""


class Log:
    """What a node says, read as it comes."""

    def __init__(self, node: Node) -> None:
        self._file = node.log
        self._read = 0

    def complain(self) -> None:
        """Raise Harm if there is an error among what is new, or anything that is no entry: the node alone writes there."""
        with self._file.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for line in new.splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                raise Harm(f"wrote {line[:300]!r}") from None
            complain([{**entry, "log_level": entry.get("level"), "exc_info": "exception" in entry}])


@asynccontextmanager
async def judging_live(seed: int) -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
    """A node in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_nodes(Path(folder), f"sqlite:{folder}/store.db", SETTINGS) as nodes:
            node = await nodes.start("fuzzed", timeouts={"http_idle_s": 5.0})
            log, rng = Log(node), Random(seed)
            before = descriptors(node)

            async def dial() -> Client:
                return Client(await trio.open_tcp_stream(*node.websocket))

            judge = Judge(dial, rng, patience_s=PATIENCE_S, quiet_s=QUIET_S)
            await judge.begin()
            grown_from = rss_bytes(node)

            async def try_input(data: bytes) -> str:
                kind, _, body = data.partition(b"\n")
                try:
                    if kind == b"http":
                        ended = await try_http(node.http[1], body, rng)
                        await judge.talk()
                    else:
                        ended = await judge.try_input(body)
                except (OSError, trio.BrokenResourceError):
                    # The sender of the input may be hung up on at any moment, but all other parties are served.
                    raise Harm(f"the node takes no connections any more: {node.log_tail()}") from None
                if (status := await probe(node, "/livez"))[0] != 200:
                    raise Harm(f"answered that it lives with {status}")
                log.complain()
                return ended

            yield try_input
            await judge.end()
            await until(lambda: gone(node, before), GONE_WITHIN_S, "those who have sent inputs leave nothing behind")
            if (grown := rss_bytes(node) - grown_from) > GROWTH_MAX_BYTES:
                raise Harm(f"grown by {grown >> 20} MiB")
            term(node)
            if code := await exit_of(node):
                raise Harm(f"exit code {code}")
            log.complain()


def rss_bytes(node: Node) -> int:
    """How much memory the process has."""
    pages = Path(f"/proc/{node.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


async def gone(node: Node, before: int) -> bool:
    """Tell whether no connection and no session is left, and no descriptor that was not there `before`."""
    _, said = await probe(node, "/metrics")
    values = [
        line.split()[-1] for line in said.splitlines() if line.startswith(("signald_connections{", "signald_sessions "))
    ]
    return len(values) == 3 and not any(map(float, values)) and descriptors(node) <= before
