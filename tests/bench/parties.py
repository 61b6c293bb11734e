"""The two parties of signald.v1 as the benchmarks need them: enough of the protocol to be a correct peer, and no more.

A `ClientSession` or a `WorkerApp` is what outlives connections; a `ClientLink` or a `WorkerLink` is one connection of it. They read
with `json` and suit everything but the relay benchmark, whose hot path is in `relay` and overrides only how messages are
read. The application's data is a constant, so nothing is kept for re-sending: what the server has not accepted is built again.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.sockets import TEXT, Address, Loop, WebSocket, frame

SUBPROTOCOL = "signald.v1"

Json = dict[str, Any]


def text(message: Json) -> bytes:
    """Return a message as a frame."""
    return frame(json.dumps(message, separators=(",", ":")).encode())


class Link(WebSocket):
    """One connection of a party: decodes JSON and answers what is not the party's affair."""

    subprotocol = SUBPROTOCOL

    def on_frame(self, opcode: int, payload: bytes) -> None:
        """Decode a text frame; everything else is WebSocket's."""
        if opcode == TEXT:
            self.on_json(json.loads(payload))
        else:
            super().on_frame(opcode, payload)

    def on_json(self, message: Json) -> None:
        """Take one message; the base takes those that both parties treat alike."""
        kind = message["type"]
        if kind == "ping":
            self.send(text({"type": "pong"}))
        elif kind == "error":
            raise BenchError(f"error from the server: {message}")


class ClientLink(Link):
    """One connection of a client session."""

    path = "/v1/client"

    def __init__(self, loop: Loop, address: Address, session: "ClientSession") -> None:
        super().__init__(loop, address)
        self.session = session

    def on_open(self) -> None:
        """Send the opening message: of a new client, or of one that resumes."""
        self.send(text(self.session.opening()))

    def on_json(self, message: Json) -> None:
        """Hand the message to the session."""
        kind = message["type"]
        if kind == "message":
            self.session.take(self, message["seq"])
        elif kind == "ack":
            pass
        elif kind == "session_started":
            self.session.started(self, message)
        elif kind == "session_restored":
            self.session.restored(self, message)
        elif kind == "peer":
            self.session.paired = message["state"] == "paired"
        elif kind == "goaway":
            self.session.leave(message)
        else:
            super().on_json(message)

    def on_gone(self) -> None:
        """Tell the session."""
        self.session.lost(self)


class ClientSession:
    """One client: its session, its place in both directions, and its current connection."""

    link_class = ClientLink

    def __init__(self, loop: Loop, data: str = "") -> None:
        self.loop = loop
        self.data = data
        self.link: ClientLink | None = None
        self.dialled: ClientLink | None = None
        self.token = ""
        self.paired = False
        self.sent = 0
        self.received = 0
        self.resumes = 0

    def dial(self, address: Address) -> None:
        """Open a connection; the present one, if any, serves until the server has answered on the new one."""
        self.dialled = self.link_class(self.loop, address, self)

    def opening(self) -> Json:
        """Return the first message of a new connection."""
        if not self.token:
            return {"type": "connect"}
        return {"type": "restore_session", "recovery_token": self.token, "received": self.received}

    def started(self, link: ClientLink, message: Json) -> None:
        """Take the answer to `connect`."""
        self.link, self.dialled = link, None
        self.token = message["recovery_token"]
        self.paired = message["peer"]["state"] == "paired"

    def restored(self, link: ClientLink, message: Json) -> None:
        """Take the answer to `restore_session`; send again what the server has not."""
        self.link, self.dialled = link, None
        self.token = message["recovery_token"]
        self.paired = message["peer"]["state"] == "paired"
        self.resumes += 1
        if message["accepted"] > self.sent:
            raise BenchError(f"the server accepted seq {message['accepted']}, sent were {self.sent}")
        for seq in range(message["accepted"] + 1, self.sent + 1):
            link.send(self.message(seq))

    def message(self, seq: int) -> bytes:
        """Return the frame of one message."""
        return text({"type": "message", "seq": seq, "data": self.data})

    def say(self) -> int:
        """Give the next message its seq and send it, unless a connection is being resumed: then `restored` sends it."""
        self.sent += 1
        if self.link is not None and self.dialled is None:
            self.link.send(self.message(self.sent))
        return self.sent

    def take(self, link: ClientLink, seq: int) -> None:
        """Take one message of the worker and ack it; drop what the connection before already brought."""
        if seq > self.received + 1:
            raise BenchError(f"gap: seq {seq} after {self.received}")
        if seq == self.received + 1:
            self.received = seq
            self.heard(seq)
        link.send(text({"type": "ack", "seq": self.received}))

    def heard(self, seq: int) -> None:
        """Take note of a new message."""

    def leave(self, goaway: Json) -> None:
        """Take a `goaway`; only the drain benchmark expects one."""
        raise BenchError(f"unexpected: {goaway}")

    def lost(self, link: ClientLink) -> None:
        """Take note that the server ended `link`; a connection that was replaced is done with."""
        if link in (self.link, self.dialled):
            raise BenchError(f"the server ended a client connection with {link.close_code}")

    def cut(self) -> None:
        """Lose the connection without a goodbye."""
        if self.link is not None:
            self.link.cut()
            self.link = None


class WorkerLink(Link):
    """One connection of a worker app."""

    path = "/v1/worker"

    def __init__(self, loop: Loop, address: Address, app: "WorkerApp") -> None:
        super().__init__(loop, address)
        self.app = app

    def on_open(self) -> None:
        """Register, or resume with every session."""
        self.send(text(self.app.opening()))

    def on_json(self, message: Json) -> None:
        """Hand the message to the app."""
        kind = message["type"]
        if kind == "message":
            self.app.take(self, message["session"], message["seq"])
        elif kind == "ack":
            pass
        elif kind in ("app_accepted", "reconnection_ack"):
            self.app.accepted(self, message)
        elif kind == "session_assigned":
            self.app.assigned(self, message["session"])
        elif kind == "goaway":
            self.app.leave(message)
        elif kind not in ("peer", "session_ended"):
            super().on_json(message)

    def on_gone(self) -> None:
        """Tell the app."""
        self.app.lost(self)


class Held:
    """A worker's place in one session."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0


class WorkerApp:
    """One worker that echoes: its sessions, and its current connection."""

    link_class = WorkerLink

    def __init__(self, loop: Loop, name: str, capacity: int, data: str = "") -> None:
        self.loop = loop
        self.name = name
        self.capacity = capacity
        self.data = data
        self.link: WorkerLink | None = None
        self.dialled: WorkerLink | None = None
        self.token = ""
        self.sessions: dict[str, Held] = {}
        self.resumes = 0

    def dial(self, address: Address) -> None:
        """Open a connection; the present one, if any, serves until the server has answered on the new one."""
        self.dialled = self.link_class(self.loop, address, self)

    def opening(self) -> Json:
        """Return the first message of a new connection."""
        hello: Json = {
            "type": "app_ready",
            "instance_id": self.name,
            "capacity": self.capacity,
            "reconnection": bool(self.token),
        }
        if self.token:
            hello["recovery_token"] = self.token
            hello["sessions"] = [{"session": name, "received": held.received} for name, held in self.sessions.items()]
        return hello

    def accepted(self, link: WorkerLink, message: Json) -> None:
        """Take the answer to `app_ready`; send again what the server has not."""
        reconnection = message["type"] == "reconnection_ack"
        if reconnection != bool(self.token) or message.get("lost"):
            raise BenchError(f"unexpected: {message}")
        self.link, self.dialled = link, None
        self.token = message["recovery_token"]
        self.resumes += reconnection
        for entry in message.get("sessions", ()):
            held = self.sessions[entry["session"]]
            for seq in range(entry["accepted"] + 1, held.sent + 1):
                link.send(self.message(entry["session"], seq))

    def assigned(self, link: WorkerLink, session: str) -> None:
        """Accept a session."""
        self.sessions.setdefault(session, Held())
        link.send(text({"type": "session_accept", "session": session}))

    def message(self, session: str, seq: int) -> bytes:
        """Return the frame of one message."""
        return text({"type": "message", "session": session, "seq": seq, "data": self.data})

    def take(self, link: WorkerLink, session: str, seq: int) -> None:
        """Take one message of a client, ack it and echo it; drop what the connection before already brought."""
        held = self.sessions[session]
        if seq > held.received + 1:
            raise BenchError(f"gap in {session}: seq {seq} after {held.received}")
        answer = b""
        if seq == held.received + 1:
            held.received = seq
            held.sent += 1
            if self.dialled is None:
                answer = self.message(session, held.sent)
        # Whatever came late over the connection before is answered over the present one: the other node writes no more.
        (self.link or link).send(text({"type": "ack", "session": session, "seq": held.received}) + answer)

    def leave(self, goaway: Json) -> None:
        """Take a `goaway`; only the drain benchmark expects one."""
        raise BenchError(f"unexpected: {goaway}")

    def lost(self, link: WorkerLink) -> None:
        """Take note that the server ended `link`; a connection that was replaced is done with."""
        if link in (self.link, self.dialled):
            raise BenchError(f"the server ended a worker connection with {link.close_code}")


def start_workers(loop: Loop, address: Address, workers: Iterable[WorkerApp], in_flight: int = 64) -> None:
    """Register all workers, at most `in_flight` at a time: a node refuses more set-ups at once than it is set to take."""
    apps = list(workers)
    for start in range(0, len(apps), in_flight):
        lot = apps[start : start + in_flight]
        for app in lot:
            app.dial(address)
        loop.run_until(lambda lot=lot: all(app.link for app in lot), 30.0, "all workers registered")  # type: ignore[misc]


def start_clients(loop: Loop, address: Address, clients: Iterable[ClientSession], in_flight: int = 64) -> float:
    """Connect all clients, at most `in_flight` at a time, until each is paired; return the seconds it took."""
    waiting = list(clients)[::-1]
    opening: set[ClientSession] = set()
    begin = time.perf_counter()

    def done() -> bool:
        opening.difference_update([client for client in opening if client.link is not None and client.paired])
        while waiting and len(opening) < in_flight:
            client = waiting.pop()
            client.dial(address)
            opening.add(client)
        return not opening

    loop.run_until(done, 60.0 + len(waiting) / 20, "all clients paired")
    return time.perf_counter() - begin
