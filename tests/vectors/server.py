"""A node that plays a script on a port: `python -m tests.vectors.server SCRIPT [--party P] [--port N]`. See README.md.

It lies, stalls, cuts at any byte, loses answers, says things twice and in the wrong order. It prints its port as the first line. At the end
of its input it prints what it has noted, as JSON: the numbers that the party has said, how many were given, and the connections.
"""

import argparse
import asyncio
import base64
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.vectors.bytes import BINARY, CLOSE, PING, PONG, TEXT, Bytes, Cut, frame
from tests.vectors.node import Log, Message, decoded

SCRIPTS = Path(__file__).parent / "scripts"
Step = dict[str, Any]

_FIRST = frozenset({"answer", "cut_after", "stall_ms", "raw", "cut"})
"""Steps that come before the handshake where they are the first."""

GIVE_S = 0.004
"""Between two messages of an honest node: a script of twenty is a tenth of a second."""


def script(name: str) -> dict[str, Any]:
    """Return a script by its name."""
    return dict(json.loads((SCRIPTS / f"{name}.json").read_text()))


class Play:
    """One script with one party: its connections, and what was noted."""

    def __init__(self, said: dict[str, Any], party: str) -> None:
        self.log = Log(party, said.get("heartbeat_ms", 300))
        self.gives = int(said.get("gives", 20))
        self.log.pad = int(said.get("pad", 0))
        self._lists = _lists(said)
        self.connections = 0
        self.openings: list[Message] = []
        self.current: Connection | None = None
        """The connection that claimed last: an honest node serves it alone."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the next list of steps on a connection."""
        steps = self._lists[min(self.connections, len(self._lists) - 1)]
        self.connections += 1
        connection = Connection(self, Bytes(reader, writer))
        try:
            with suppress(Cut, asyncio.CancelledError):  # cancelled at the end of the server
                await connection.play(steps)
        finally:
            writer.close()

    def notes(self) -> dict[str, Any]:
        """Return what was noted."""
        return {
            "stored": [one["n"] if isinstance(one, dict) else one for one in self.log.stored],
            "given": self.log.given,
            "acked": self.log.acked,
            "connections": self.connections,
            "ahead_max": self.log.ahead_max,
        }


def _lists(said: dict[str, Any]) -> list[list[Step]]:
    lists: list[list[Step]] = list(said["connections"])
    if "sweep" in said:
        sweep = said["sweep"]
        cuts = range(sweep["from"], sweep["to"], sweep["step"])
        lists = [[{"cut_after": size}, *lists[0]] for size in cuts] + lists
    return lists


class Connection:
    """One connection of a script."""

    def __init__(self, play: Play, wire: Bytes) -> None:
        self._play = play
        self._log = play.log
        self._wire = wire
        self._ready: list[Message] = []
        self._pushed = 0
        self._serving = False

    async def play(self, steps: list[Step]) -> None:
        """Do one step behind the other; the handshake comes before the first that needs it."""
        headers = await self._wire.request()
        rest = list(steps)
        while rest and _FIRST & rest[0].keys():
            await self._do(rest.pop(0))
        if steps and "answer" in steps[0]:
            return
        await self._wire.accept(headers)
        for step in rest:
            await self._do(step)

    async def _do(self, step: Step) -> None:
        log, wire = self._log, self._wire
        if "answer" in step:
            await wire.refuse(step["answer"], step.get("headers", {}))
        elif "cut_after" in step:
            wire.left = step["cut_after"]
        elif "stall_ms" in step:
            await asyncio.sleep(step["stall_ms"] / 1000)
        elif "raw" in step:
            await wire.send(base64.b64decode(step["raw"]) * step.get("times", 1))
        elif "cut" in step:
            wire.abort()
            raise Cut
        elif "close" in step:
            await self._close(step["close"], step.get("reason", ""))
        elif "text" in step:
            await wire.send(frame(TEXT, step["text"].encode()) * step.get("times", 1))
        elif "bytes" in step:
            await wire.send(frame(BINARY, base64.b64decode(step["bytes"])))
        elif "say" in step:
            for _ in range(step.get("times", 1)):
                await self._say(log.dressed(log.filled(step["say"])))
        else:
            await self._of_the_log(step)

    async def _of_the_log(self, step: Step) -> None:
        log = self._log
        if "open" in step:
            await self._open(step["open"], changed=step.get("changed", {}))
        elif "expect" in step:
            while (await self._message())["type"] != step["expect"]:
                pass
        elif "store" in step:
            for _ in range(step["store"]):
                await self._store(step)
        elif "give" in step:
            first = log.acked + 1 if step.get("again") else log.given + 1
            numbers = [first + offset for offset in step.get("order", range(step["give"]))]
            log.given = max(log.given, *[number for number in numbers if number <= first + step["give"] - 1])
            self._pushed = log.given
            for number in numbers:
                await self._say(log.message(number))
        elif "serve" in step:
            await self._serve()

    async def _open(self, how: str, changed: Message) -> None:
        """Answer the opening message: `honest`, or with `changed` fields; `silent` reads it and says nothing."""
        opening = await self._message()
        self._play.openings.append(opening)
        answers = self._log.answer(opening)
        if how == "silent":
            return
        before, self._play.current = self._play.current, self
        self._pushed = self._log.received(opening)
        self._log.acked = max(self._log.acked, self._pushed)
        await self._say({**answers[0], **self._log.filled(changed)})
        for one in answers[1:]:
            await self._say(one)
        if before is not None and before._serving:
            with suppress(Cut):
                await before._close(4001, "")

    async def _store(self, step: Step) -> None:
        while True:
            message = await self._message()
            answers = self._log.take(message, acks=2 if step.get("twice") else 1)
            if step.get("acks", True):
                for one in answers:
                    await self._say(one)
            if message["type"] == "message":
                return

    async def _serve(self) -> None:
        """Be an honest node until the connection is over."""
        self._serving = True
        giving = asyncio.create_task(self._give())
        try:
            while True:
                message = await self._message()
                for one in self._log.take(message):
                    await self._say(one)
                if message["type"] == "bye":
                    await self._close(1000, "bye")
        finally:
            giving.cancel()
            with suppress(asyncio.CancelledError, Cut):
                await giving

    async def _give(self) -> None:
        log = self._log
        if log.party == "worker":
            await asyncio.sleep(0.02)  # the acceptance is on its way
        while self._play.current is self and self._pushed < self._play.gives:
            self._pushed += 1
            log.given = max(log.given, self._pushed)
            await self._say(log.message(self._pushed))
            log.ahead_max = max(log.ahead_max, (self._pushed - log.acked) * log.pad)
            await asyncio.sleep(GIVE_S if not log.pad else 0)

    async def _message(self) -> Message:
        """Return the next message of the party; pings of WebSocket are answered."""
        while True:
            opcode, payload = await self._wire.receive()
            if opcode == CLOSE:
                await self._wire.send(frame(CLOSE, payload))
                raise Cut
            if opcode == PING:
                await self._wire.send(frame(PONG, payload))
            elif opcode in (TEXT, BINARY):
                return decoded(opcode, payload)

    async def _say(self, message: Message) -> None:
        await self._wire.send(frame(TEXT, json.dumps(message).encode()))

    async def _close(self, code: int, reason: str) -> None:
        await self._wire.send(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))
        await asyncio.sleep(0.05)  # the answer of the party; it is not read
        self._wire.abort()
        raise Cut


async def main(name: str, party: str, port: int) -> None:
    """Serve a script until the end of the input."""
    play = Play(script(name), party)
    server = await asyncio.start_server(play.serve, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(play.notes()), flush=True)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.vectors.server", description=__doc__)
    parser.add_argument("script", choices=sorted(path.stem for path in SCRIPTS.glob("*.json")))
    parser.add_argument("--party", choices=("client", "worker"), default="client")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(main(options.script, options.party, options.port))
