"""A node, one connection after the other that sends it an input, and a conversation beside them that must not notice.

The first line of an input says on which connection it is sent and how:

    raw         nothing was said yet: the input is the request
    client      a client's connection, before its opening message
    worker      a worker's
    connected   a client with a session
    registered  a worker without sessions
    paired      a worker with one session, whose client is there; `@SESSION@` in the input is that session's id

    frames      the input is frames, or what was meant for them
    text        it is the payload of one text frame
    binary      of one binary frame; its first two bytes are the length of the header
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, Literal

import structlog
import trio

from signald.testing.websocket import Client, HungUp, Speaker, frame
from signald.wire.close_codes import ADVICE, CloseCode

Stage = Literal["raw", "client", "worker", "connected", "registered", "paired"]
STAGES: tuple[Stage, ...] = ("raw", "client", "worker", "connected", "registered", "paired")
MANNERS = ("frames", "text", "binary")

ALLOWED = frozenset(ADVICE) - {CloseCode.INTERNAL, CloseCode.GOING_AWAY, CloseCode.RESTARTING, CloseCode.MOVED}
"""With what a party may be closed for what it has said. 1011 would be a fault of ours; the other three say that we go."""
REFUSED = frozenset({400, 401, 403, 404, 405, 411, 413, 414, 417, 426, 429, 431, 501, 505})
"""With what a handshake may be refused for what is in it."""

Dial = Callable[[], Awaitable[Client]]


class Harm(AssertionError):
    """What an input must not be able to do."""


class Guest(Speaker):
    """A party that keeps to the protocol: it must be told of no error, and keep its connection."""

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """See `Speaker.hear`."""
        try:
            return await super().hear(*kinds)
        except HungUp as closed:
            raise Harm(f"another party lost its connection: {closed}") from None

    def passes_over(self, message: dict[str, Any]) -> None:
        """See `Speaker.passes_over`."""
        if message["type"] not in ("ack", "peer", "pong", "session_ended"):
            raise Harm(f"another party was told {message}")


async def open_guest(dial: Dial, path: str, opening: dict[str, Any], answer: str) -> tuple[Guest, dict[str, Any]]:
    """Connect a party and say its opening message; return it and the answer."""
    guest = Guest((await dial()).stream)
    await guest.open((b"sec-websocket-protocol", b"signald.v1"), path=path)
    await guest.say(opening)
    return guest, await guest.hear(answer)


class Bystanders:
    """A client and its worker that talk to each other, each message once and in order."""

    def __init__(self, client: Guest, worker: Guest, session: str) -> None:
        self.client = client
        self.worker = worker
        self.session = session
        self.said = 0

    async def talk(self) -> None:
        """Ask once and be answered once. Fails if anything else is heard."""
        self.said = said = self.said + 1
        await self.client.say({"type": "message", "seq": said, "data": said})
        heard = await self.worker.hear("message")
        if (heard["seq"], heard["data"]) != (said, said):
            raise Harm(f"the worker heard {heard} as number {said}")
        await self.worker.say({"type": "ack", "session": self.session, "seq": said})
        await self.worker.say({"type": "message", "session": self.session, "seq": said, "data": -said})
        heard = await self.client.hear("message")
        if (heard["seq"], heard["data"]) != (said, -said):
            raise Harm(f"the client heard {heard} as answer {said}")
        await self.client.say({"type": "ack", "seq": said})


async def open_pair(dial: Dial, label: str) -> tuple[Guest, Guest, str]:
    """A client and a worker that serves only it, paired: both and the session's id."""
    ready = {"type": "app_ready", "instance_id": label, "capacity": 1, "labels": {"fuzz": label}}
    worker, _ = await open_guest(dial, "/v1/worker", ready, "app_accepted")
    connect = {"type": "connect", "want": {"fuzz": label}}
    client, started = await open_guest(dial, "/v1/client", connect, "session_started")
    while (name := (await worker.hear("session_assigned"))["session"]) != started["session"]:
        # An input has left a session behind that wants no worker in particular.
        await worker.say({"type": "session_refuse", "session": name})
    await worker.say({"type": "session_accept", "session": name})
    while (await client.hear("peer"))["state"] != "paired":
        pass
    return client, worker, started["session"]


class Judge:
    """Sends inputs to one node and judges what becomes of each."""

    def __init__(self, dial: Dial, rng: Random, *, patience_s: float, quiet_s: float) -> None:
        """`patience_s`: longest any end may take; `quiet_s`: after how long nothing more is expected of an open connection."""
        self.dial = dial
        self.rng = rng
        self.patience_s = patience_s
        self.quiet_s = quiet_s
        self.bystanders: Bystanders | None = None
        self.outcomes: dict[str, int] = {}
        self._pairs = 0
        self._sending = trio.Lock()
        """Held while something is being sent: what is to follow waits until the node has taken it."""

    async def begin(self) -> None:
        """Let the conversation begin."""
        self.bystanders = Bystanders(*await open_pair(self.dial, "bystander"))
        await self.bystanders.talk()

    async def end(self) -> None:
        """Let it end."""
        assert self.bystanders is not None
        for guest in (self.bystanders.client, self.bystanders.worker):
            await trio.aclose_forcefully(guest.stream)

    async def try_input(self, data: bytes) -> str:
        """Send one input, and return how it ended: `101`, a status, a close code, `open`, or `hung up`. Raises Harm."""
        head, _, body = data.partition(b"\n")
        stage, _, manner = head.decode("ascii", "replace").partition(" ")
        if stage not in STAGES or manner not in MANNERS:
            raise ValueError(f"not an input: it begins with {head[:40]!r}")
        with trio.move_on_after(self.patience_s) as late:
            client, others, session = await self._reach(stage)
        if late.cancelled_caught:
            raise Harm(f"nobody gets as far as {stage} any more")
        body = body.replace(b"@SESSION@", session.encode())
        if manner != "frames":
            body = frame(1 if manner == "text" else 2, body)
        with trio.move_on_after(self.patience_s) as late:
            ended = await self._send_and_see(client, body, raw=stage == "raw")
        if late.cancelled_caught:
            raise Harm(f"still there {self.patience_s} s later")
        for guest in others:
            await trio.aclose_forcefully(guest.stream)
        await trio.aclose_forcefully(client.stream)
        await self.talk()
        self.outcomes[ended] = self.outcomes.get(ended, 0) + 1
        return ended

    async def talk(self) -> None:
        """Let the conversation go on. Raises Harm if it does not."""
        assert self.bystanders is not None
        with trio.move_on_after(self.patience_s) as late:
            await self.bystanders.talk()
        if late.cancelled_caught:
            raise Harm("another party was not answered any more")

    async def _reach(self, stage: Stage) -> tuple[Client, list[Guest], str]:
        """Bring a connection to `stage`: it, those that belong to it, and the session."""
        if stage == "raw":
            return await self.dial(), [], ""
        if stage in ("client", "worker"):
            client = await self.dial()
            await client.open((b"sec-websocket-protocol", b"signald.v1"), path=f"/v1/{stage}")
            return client, [], ""
        if stage == "connected":
            # No worker serves this label: the session waits, and what it sends waits with it.
            opening: dict[str, Any] = {"type": "connect", "want": {"fuzz": "nobody"}, "receipts": True}
            guest, started = await open_guest(self.dial, "/v1/client", opening, "session_started")
            return guest, [], started["session"]
        if stage == "registered":
            opening = {"type": "app_ready", "instance_id": "fuzz", "capacity": 0}
            guest, _ = await open_guest(self.dial, "/v1/worker", opening, "app_accepted")
            return guest, [], "s_unknown"
        self._pairs += 1
        peer, guest, session = await open_pair(self.dial, f"pair-{self._pairs}")
        return guest, [peer], session

    async def _send_and_see(self, client: Client, data: bytes, *, raw: bool) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, client, data)
            ended = await self._see(client, raw=raw)
            nursery.cancel_scope.cancel(reason="the input has been judged")
        return ended

    async def _send(self, client: Client, data: bytes) -> None:
        # In one piece, or in some: a read may end anywhere.
        cuts = sorted(self.rng.randint(0, len(data)) for _ in range(self.rng.choice((0, 0, 1, 3))))
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._sending:
                for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                    await client.send(data[start:stop])
                    if stop != len(data):
                        await trio.sleep(0.001)

    async def _see(self, client: Client, *, raw: bool) -> str:
        if raw:
            try:
                with trio.move_on_after(self.quiet_s) as quiet:
                    status = int((await client.response()).split(b" ", 2)[1])
            except HungUp:
                return "hung up"
            if quiet.cancelled_caught:
                await client.hung_up_after()  # an unfinished request: it has its time, and no more
                return "too slow"
            if status != 101:
                if status not in REFUSED:
                    raise Harm(f"refused with {status}")
                await client.hung_up_after()
                return str(status)
        try:
            said = await self._close_within(client, self.quiet_s)
            if said is not None:
                return await self._closed(client, said)
            async with self._sending:
                await client.send(frame(8, b"\x03\xe8"))
            said = await self._close_within(client, self.quiet_s)
            if said is None:
                return "unfinished"  # our Close is the payload of a frame that was not sent to its end
            ended = await self._closed(client, said, ours=True)
        except (HungUp, trio.BrokenResourceError):
            return "hung up"
        return "open" if ended == "1000" else ended

    async def _close_within(self, client: Client, seconds: float) -> bytes | None:
        """Read for a while; return the payload of the Close, if there is one."""
        with trio.move_on_after(seconds):
            while True:
                opcode, payload = await client.frame()
                if opcode == 8:
                    return payload
        return None

    async def _closed(self, client: Client, payload: bytes, *, ours: bool = False) -> str:
        code = int.from_bytes(payload[:2], "big") if payload else None
        if code is not None and code not in ALLOWED and not (ours or 3000 <= code <= 4999):
            # An echo of the code that the input closed with is no word of ours.
            if code not in (1001, 1010, 1011, 1012, 1013):
                raise Harm(f"closed with {code} {payload[2:]!r}")
            if payload[2:] in (b"internal error", b"handler ended"):
                raise Harm(f"closed with {code} {payload[2:]!r}")
        if not ours and self.rng.random() < 0.8:
            with suppress(trio.BrokenResourceError):
                async with self._sending:
                    await client.send(frame(8, payload[:2]))
        await client.hung_up_after()
        return str(code)


async def try_http(port: int, data: bytes, rng: Random) -> str:
    """Send an input to the HTTP half, and return the first status, or `hung up`. Raises Harm."""
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(0.5):
            try:
                await stream.send_all(data)
                if rng.random() < 0.8:
                    await stream.send_eof()
                async for chunk in stream:
                    answer += chunk
            except trio.BrokenResourceError:
                pass
    if not answer:
        return "hung up"
    statuses = [
        int(part[9:12]) for part in answer.split(b"\r\n") if part.startswith(b"HTTP/1.1 ") and part[9:12].isdigit()
    ]
    wrong = [status for status in statuses if status >= 500 and status not in (501, 503, 505)]
    if wrong or not answer.startswith(b"HTTP/1.1 "):
        raise Harm(f"answered {answer[:200]!r}")
    return str(statuses[0])


@asynccontextmanager
async def listening_for_complaints() -> AsyncIterator[list[Any]]:
    """Gather what is logged, by us or by a library; at the end none of it may be an error, or carry an exception."""
    handler = _Gather()
    logging.getLogger().addHandler(handler)
    try:
        with structlog.testing.capture_logs() as handler.logged:
            yield handler.logged
            complain(handler.logged)
    finally:
        logging.getLogger().removeHandler(handler)


class _Gather(logging.Handler):
    """What is logged through the standard library."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.logged: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = {"event": record.getMessage(), "log_level": record.levelname.lower(), "exc_info": bool(record.exc_info)}
        self.logged.append(said | {"why": repr(record.exc_info[1])} if record.exc_info else said)


def complain(logged: list[Any]) -> None:
    """Raise Harm for what no input may bring about."""
    for entry in logged:
        if entry.get("exc_info") or entry.get("log_level") in ("error", "critical"):
            raise Harm(f"logged: {entry}")
