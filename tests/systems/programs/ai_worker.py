"""An AI worker: many sessions on one connection, and an answer to each message. Written from docs/protocol.md alone.

usage: python ai_worker.py URL NAME CAPACITY

    {"line": n, …}              answered in the chat with {"to": n}
    {"push": {"every_ms": n}}   from now on texts and bytes are pushed, in turn, numbered from 1, until {"stop": true}
    {"generate": "a"}           a stream `a` of texts "1 ", "2 ", … until {"finish": "a"} or `stream_cancel`, or so many `pieces`
    realtime                    echoed

Jobs, by their kind: `count` (so many texts, joined), `bytes` (so many binary pieces, of which the last one is the result), `until`
(texts until {"finish": the job's id}), and `fail`.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

Fields = dict[str, Any]

ANSWER_S = 10.0
EVERY_MS = 30
"""Between two pieces of a stream."""
CREDENTIAL = os.environ.get("CREDENTIAL", "")
"""The JWT of the worker, in the environment because a command line is public."""
LABELS: dict[str, str] = json.loads(os.environ.get("LABELS", "{}"))
"""What clients ask for in `want`."""
FINAL = {1000, 4001, 4400, 4401, 4403, 4409}


def say(saw: str, **more: object) -> None:
    """Print one thing that this program saw, as a line of JSON."""
    print(json.dumps({"saw": saw, **more}), flush=True)


def parse(frame: str | bytes) -> Fields:
    """Read a frame: its fields, and in `data` the value or the bytes."""
    if isinstance(frame, str):
        text: Fields = json.loads(frame)
        return text
    length = int.from_bytes(frame[:2])
    fields: Fields = json.loads(frame[2 : 2 + length])
    return {**fields, "data": frame[2 + length :]}


def render(fields: Fields) -> str | bytes:
    """Write a frame: binary when `data` is bytes."""
    data = fields.get("data")
    if not isinstance(data, bytes):
        return json.dumps(fields)
    header = json.dumps({name: value for name, value in fields.items() if name != "data"}).encode()
    return len(header).to_bytes(2) + header + data


class Seat:
    """One session that this worker serves."""

    def __init__(self, worker: "Worker", session: str, next_seq: int) -> None:
        self.worker = worker
        self.session = session
        self.received = 0
        self.said = next_seq - 1
        self.acked = next_seq - 1
        self.outbox: list[Fields] = []
        self.pushing: asyncio.Task[None] | None = None
        self.streams: dict[str, Stream] = {}
        """What is said piece by piece, and has an end that signald has not acked, by the names of streams and the ids of jobs."""
        self.had: dict[str, int] = {}
        """The highest attempt of each job that this worker was given."""

    async def send(self, data: object, **fields: object) -> None:
        """Send a message; it is kept until signald has acked it."""
        self.said += 1
        message = {"type": "message", "session": self.session, "seq": self.said, "data": data, **fields}
        self.outbox.append(message)
        await self.worker.write(message)

    def drop(self, seq: int) -> None:
        """Forget what is acked."""
        self.acked = max(self.acked, seq)
        self.outbox = [message for message in self.outbox if message["seq"] > seq]
        waiting = {message.get("stream") for message in self.outbox}
        self.streams = {name: one for name, one in self.streams.items() if not one.over or name in waiting}

    def renumber(self, refused: int) -> None:
        """A piece of a stream was refused: leave it out, and number anew what was said behind it."""
        kept = [message for message in self.outbox if message["seq"] != refused]
        later = [message for message in kept if message["seq"] > refused]
        for seq, message in enumerate(later, refused):
            message["seq"] = seq
        self.outbox = kept
        self.said -= 1

    async def hear(self, message: Fields) -> None:
        """Answer a message of the client."""
        if message["seq"] <= self.received:
            return
        self.received = message["seq"]
        data = message["data"]
        trace = {"trace": message["trace"]} if "trace" in message else {}
        say("heard", session=self.session, seq=message["seq"], data=data, **trace)
        if "line" in data:
            await self.send({"to": data["line"]}, **trace)
        elif "generate" in data:
            kind = "count" if data.get("pieces") else "until"
            self.begin(Stream(self, data["generate"], 1, kind, data))
        elif "finish" in data and data["finish"] in self.streams:
            self.streams[data["finish"]].stop("complete")
        elif "push" in data:
            self.pushing = asyncio.create_task(self._push(data["push"]["every_ms"] / 1000))
        elif "stop" in data and self.pushing:
            self.pushing.cancel()
            await self.send({"n": self._pushed + 1, "last": True}, kind="push")
            say("pushed", session=self.session, last=self._pushed + 1)
        await self.worker.write({"type": "ack", "session": self.session, "seq": self.received})

    def begin(self, stream: "Stream") -> None:
        """Say a stream."""
        self.streams[stream.name] = stream
        stream.task = asyncio.create_task(stream.run())

    def work(self, job: Fields) -> None:
        """Do a job, unless this very attempt was given before."""
        name, attempt = job["job"], job["attempt"]
        if self.had.get(name, 0) >= attempt:
            return
        self.had[name] = attempt
        if name in self.streams:
            self.streams.pop(name).cancel()
        say("job", session=self.session, job=name, attempt=attempt, kind=job["kind"], data=job["data"])
        self.begin(Stream(self, name, attempt, job["kind"], job["data"]))

    def stop(self) -> None:
        """The session is over here."""
        for task in [self.pushing, *(stream.task for stream in self.streams.values())]:
            if task is not None:
                task.cancel()

    async def _push(self, every_s: float) -> None:
        self._pushed = 0
        while True:
            n = self._pushed = self._pushed + 1
            data = {"n": n} if n % 2 else piece_of_bytes(n)
            await self.send(data, kind="push")
            await asyncio.sleep(every_s)


class Stream:
    """An answer or the result of a job, said piece by piece."""

    def __init__(self, seat: Seat, name: str, attempt: int, kind: str, data: Fields) -> None:
        self.seat = seat
        self.name = name
        self.attempt = attempt
        self.kind = kind
        self.data = data
        self.said = 0
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self._outcome = asyncio.Event()
        self._how = "complete"

    def stop(self, outcome: str) -> None:
        """End it after the piece that is being said."""
        self._how = outcome
        self._outcome.set()

    def cancel(self) -> None:
        """Say no more of it."""
        self.over = True
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Say it all."""
        if self.kind == "fail":
            await self._end("", outcome="failed", error={"code": "out_of_paper", "message": "no paper is left"})
            return
        pieces = self.data.get("pieces", 0)
        while not self._outcome.is_set() and (self.kind == "until" or self.said < pieces):
            self.said += 1
            if self.kind == "bytes":
                await self._piece(piece_of_bytes(self.said), content_type="audio/test")
            else:
                await self._piece(f"{self.said} ", fold="text")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._outcome.wait(), self.data.get("every_ms", EVERY_MS) / 1000)
        if self.kind == "bytes":
            await self._end(piece_of_bytes(self.said + 1), content_type="audio/test", outcome=self._how)
        else:
            await self._end("", fold="text", outcome=self._how)

    async def _piece(self, data: object, **fields: object) -> None:
        # A kind of its own for results keeps them out of the chat.
        kind = {"kind": "result"} if self.name.startswith("j_") else {}
        await self.seat.send(data, stream=self.name, attempt=self.attempt, **kind, **fields)

    async def _end(self, data: object, **fields: object) -> None:
        self.over = True
        say("ended", session=self.seat.session, stream=self.name, attempt=self.attempt, pieces=self.said, how=self._how)
        await self._piece(data, end=True, **fields)


def piece_of_bytes(n: int) -> bytes:
    """Return bytes that tell their number, of any value."""
    return n.to_bytes(4) + bytes((n + at) % 256 for at in range(1020))


class Worker:
    """One registration over as many connections as it takes."""

    seat: type[Seat] = Seat
    """What serves a session."""

    def __init__(self, url: str, name: str, capacity: int) -> None:
        self.url = url
        self.name = name
        self.capacity = capacity
        self.token = ""
        self.seats: dict[str, Seat] = {}
        self.socket: ClientConnection | None = None
        """The connection whose opening was answered last."""
        self.opening: asyncio.Task[None] | None = None
        self.moves: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()
        self.last_close_code: int | None = None

    async def run(self) -> None:
        """Serve until the session of the program ends."""
        self.dial()
        await self.over.wait()

    def dial(self, ticket: str = "", wait_s: float = 0.0) -> None:
        """Open one more connection, unless one is being opened."""
        if self.opening is None:
            self.opening = asyncio.create_task(self._attend(ticket, wait_s))
            self.moves.add(self.opening)
            self.opening.add_done_callback(self.moves.discard)

    async def write(self, fields: Fields) -> None:
        """Send a frame if there is a connection; messages are kept in the outboxes."""
        if self.socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self.socket.send(render(fields))

    async def _attend(self, ticket: str, wait_s: float) -> None:
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        socket: ClientConnection | None = None
        code: int | None = None
        try:
            socket = await connect(
                f"{self.url}/v1/worker",
                subprotocols=[Subprotocol("signald.v1")],
                compression=None,
                open_timeout=ANSWER_S,
            )
            say("dialing")
            await socket.send(json.dumps(self._greeting(ticket)))
            async for frame in socket:
                await self._take(socket, parse(frame))
        except ConnectionClosed:
            pass
        except (OSError, InvalidHandshake, TimeoutError) as error:
            say("not admitted", error=type(error).__name__)
        if socket is not None:
            code = self.last_close_code = socket.close_code
            await socket.close()
        self._gone(socket, code, ticket)

    def _gone(self, socket: ClientConnection | None, code: int | None, ticket: str) -> None:
        say("closed", code=code)
        if self.opening is asyncio.current_task():
            self.opening = None
        elif socket is not self.socket:
            return  # one that was left behind
        if socket is self.socket:
            self.socket = None
        if code == 4404:  # its time is over: a new worker, without sessions
            self.token, self.seats = "", {}
        if code in FINAL and self.opening is None:
            say("gone", code=code)
            self.over.set()
            return
        self.dial(ticket, 0.1 if self.socket is None else 0.5)

    def _greeting(self, ticket: str) -> Fields:
        fields: Fields = {"type": "app_ready", "instance_id": self.name, "capacity": self.capacity, "jobs": ["*"]}
        if CREDENTIAL:
            fields["auth"] = CREDENTIAL
        if LABELS:
            fields["labels"] = LABELS
        if not self.token:
            return fields
        sessions = [
            {
                "session": seat.session,
                "received": seat.received,
                "acked": seat.acked,
                "jobs": [name for name in seat.streams if name.startswith("j_")],
            }
            for seat in self.seats.values()
        ]
        code = {} if self.last_close_code is None else {"last_close_code": self.last_close_code}
        shown = {"ticket": ticket} if ticket else {}
        return {**fields, "reconnection": True, "recovery_token": self.token, "sessions": sessions, **code, **shown}

    async def _take(self, socket: ClientConnection, fields: Fields) -> None:
        seat = self.seats.get(fields.get("session", ""))
        match fields["type"]:
            case "app_accepted" | "reconnection_ack":
                await self._opened(socket, fields)
            case "session_assigned":
                session = fields["session"]
                self.seats[session] = self.seat(self, session, fields["next_seq"])
                say("assigned", session=session)
                await self.write({"type": "session_accept", "session": session, "epoch": fields["epoch"]})
                for stream in fields.get("open_streams", []):
                    data = {"every_ms": EVERY_MS}
                    self.seats[session].begin(
                        Stream(self.seats[session], stream["stream"], stream["attempt"] + 1, "until", data)
                    )
            case "session_ended":
                self._end(fields["session"])
            case "message" if seat is not None:
                await seat.hear(fields)
            case "ack" if seat is not None:
                seat.drop(fields["seq"])
            case "realtime" if seat is not None:
                await self.write({"type": "realtime", "session": seat.session, "data": fields["data"]})
            case "job" if seat is not None:
                seat.work(fields)
            case "job_cancel" if seat is not None and fields["job"] in seat.streams:
                if fields["reason"] == "requested":
                    seat.streams[fields["job"]].stop("cancelled")
                else:
                    seat.streams.pop(fields["job"]).cancel()
            case "stream_cancel" if seat is not None and fields["stream"] in seat.streams:
                seat.streams[fields["stream"]].stop("cancelled")
            case "goaway":
                self.dial(fields.get("ticket", ""), fields["not_before_ms"] / 1000)
            case "error":
                await self._refused(fields, seat)

    async def _opened(self, socket: ClientConnection, answer: Fields) -> None:
        self.opening = None
        self.socket = socket
        self.token = answer.get("recovery_token", self.token)
        say("opened", worker=answer["worker"], type=answer["type"])
        for session in answer.get("lost", []):
            self._end(session)
        for entry in answer.get("sessions", []):
            seat = self.seats[entry["session"]]
            seat.drop(entry["accepted"])
            for message in seat.outbox:
                await self.write(message)

    async def _refused(self, error: Fields, seat: Seat | None) -> None:
        if "expected" not in error or seat is None:
            say("error", code=error["code"])
            return
        if error["code"] in ("stream_over", "stream_superseded"):
            refused = next(message for message in seat.outbox if message["seq"] == error["expected"])
            say("refused", code=error["code"], stream=error.get("stream"), said=refused["stream"])
            if refused["stream"] in seat.streams:
                seat.streams.pop(refused["stream"]).cancel()
            seat.renumber(error["expected"])
        await asyncio.sleep(error.get("retry_after_ms", 0) / 1000)
        for message in seat.outbox:
            if message["seq"] >= error["expected"]:
                await self.write(message)

    def _end(self, session: str) -> None:
        seat = self.seats.pop(session, None)
        if seat is not None:
            seat.stop()


if __name__ == "__main__":
    asyncio.run(Worker(sys.argv[1], sys.argv[2], int(sys.argv[3])).run())
