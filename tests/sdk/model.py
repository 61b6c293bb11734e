"""A model of signald for one client's session: the truth about both logs, and connections that lose what is in flight.

It follows the wire's rules and nothing else: only the connection claimed last may write, a gap is answered once, a resume
releases what the party reports as received, and what was accepted is never asked for again.
"""

import json
from collections import deque
from typing import Any

from signald.sdk.client_core import ClientCore
from signald.sdk.errors import LinkBroken
from signald.sdk.link import Link


class Wire:
    """One connection: frames under way in both directions."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.up: deque[dict[str, Any]] = deque()
        self.down: deque[dict[str, Any]] = deque()
        self.pushed = 0
        self.broken = False


class Model:
    """The service, the network between, and the application above one `ClientCore`."""

    def __init__(self, core: ClientCore) -> None:
        self.core = core
        self.now = 0.0
        self.wires: list[Wire] = []
        self.owner: Wire | None = None
        self.stored: list[Any] = []
        """What the service has of the client's messages, in order."""
        self.pushed: list[Any] = []
        """What the worker has said, in order."""
        self.released = 0
        """Up to where the service has let go of the worker's messages."""
        self.sent: list[Any] = []
        self.taken: list[int] = []
        self.tokens = 0
        self.valid: set[str] = set()
        self.told_gap = 0
        self.refuse_next = False
        self.breaks = 0
        """Connections that broke, by the schedule or because the client cut them."""
        self.cuts = 0

    # --- what the schedule does ------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open what the core plans, waiting for its time."""
        attempt = self.core.plan(self.now)
        if attempt is not None:
            self.now = max(self.now, attempt.at)
            self.wires.append(Wire(self.core.opened(attempt.url, self.now)))

    def carry_up(self, count: int) -> None:
        """Let the client write, and the service take `count` frames of each connection."""
        for wire in list(self.wires):
            for _, payload in self.core.write(wire.link, self.now):
                wire.up.append(json.loads(payload))
            for _ in range(min(count, len(wire.up))):
                self._serve(wire, wire.up.popleft())

    def carry_down(self, count: int) -> None:
        """Let the service push, and the client take `count` frames of each connection."""
        if self.owner is not None:
            while self.owner.pushed < len(self.pushed):
                self.owner.pushed += 1
                seq = self.owner.pushed
                self.owner.down.append({"type": "message", "seq": seq, "data": self.pushed[seq - 1]})
        for wire in list(self.wires):
            for _ in range(min(count, len(wire.down))):
                message = wire.down.popleft()
                if message["type"] == "close":
                    self._break(wire, message["code"])
                    break
                try:
                    self.core.receive(wire.link, json.dumps(message), self.now)
                except LinkBroken:
                    self._break(wire, None)
                    break

    def cut(self, index: int) -> None:
        """Break a connection: what is under way on it is lost."""
        if self.wires:
            self.cuts += 1
            self._break(self.wires[index % len(self.wires)], None)

    def send(self) -> None:
        """The application sends its next message."""
        if self.core.established and self.core.session.room:
            self.sent.append(len(self.sent))
            self.core.session.send(self.sent[-1])

    def say(self) -> None:
        """The worker says its next message."""
        if self.tokens:
            self.pushed.append(len(self.pushed))

    def take(self) -> None:
        """The application asks for its next message."""
        core = self.core.session
        core.finish(len(self.taken))
        message = core.take()
        if message is not None:
            assert message.seq == len(self.taken) + 1
            self.taken.append(message.data)

    def go_away(self) -> None:
        """The node says that it leaves."""
        if self.owner is not None and not self.owner.broken:
            self.owner.down.append({"type": "goaway", "reason": "drain", "not_before_ms": 0, "deadline_ms": 5000})

    def settle(self) -> None:
        """No more faults: everything has to arrive within a bounded number of turns."""
        self.refuse_next = False
        for _ in range(60):
            self.now += 1.0
            self.connect()
            self.carry_up(10_000)
            self.carry_down(10_000)
            for _ in range(1 + len(self.pushed)):
                self.take()

    # --- the service -----------------------------------------------------------------------------------------------

    def _break(self, wire: Wire, code: int | None) -> None:
        wire.broken = True
        self.wires.remove(wire)
        if self.owner is wire:
            self.owner = None
        self.breaks += code is None
        self.core.lost(wire.link, code, "", self.now)

    def _serve(self, wire: Wire, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "connect":
            self._claim(wire)
            limits = {
                "message_bytes": 65536,
                "messages_per_s": 1000.0,
                "messages_burst": 1000,
                "backlog_messages": 1000,
            }
            wire.down.append(
                {"type": "session_started", "session": "s", **self._answer(), "next_seq": 1, "limits": limits}
            )
        elif kind == "restore_session":
            assert message["recovery_token"] in self.valid
            assert message["acked"] <= len(self.stored)
            assert message["received"] <= len(self.taken)
            self.released = max(self.released, message["received"])
            self._claim(wire)
            wire.pushed = message["received"]
            answer = {"accepted": len(self.stored), "replaying": len(self.pushed) - wire.pushed}
            wire.down.append({"type": "session_restored", "session": "s", **self._answer(), **answer})
        elif wire is self.owner:
            self._take(wire, message)

    def _claim(self, wire: Wire) -> None:
        old, self.owner = self.owner, wire
        if old is not None:
            old.down.append({"type": "close", "code": 4001})
        self.told_gap = 0

    def _answer(self) -> dict[str, Any]:
        self.tokens += 1
        token = f"s.{self.tokens}"
        self.valid.add(token)
        peer = {"state": "paired", "id": "w"}
        return {"recovery_token": token, "token_ttl_ms": 1, "peer": peer, "heartbeat_ms": 10_000_000}

    def _take(self, wire: Wire, message: dict[str, Any]) -> None:
        if message["type"] == "ack":
            # Nothing is acknowledged that the application has not finished with.
            assert message["seq"] <= len(self.taken)
            self.released = max(self.released, message["seq"])
        elif message["type"] == "message":
            expected = len(self.stored) + 1
            error = {"type": "error", "message": "", "expected": expected, "fatal": False}
            if message["seq"] < expected:
                wire.down.append({"type": "ack", "seq": len(self.stored)})
            elif message["seq"] > expected:
                if self.told_gap != expected:
                    self.told_gap = expected
                    wire.down.append({**error, "code": "gap"})
            elif self.refuse_next:
                self.refuse_next = False
                self.told_gap = expected
                wire.down.append({**error, "code": "backlog", "retry_after_ms": 300})
            else:
                self.stored.append(message["data"])
                self.told_gap = 0
                wire.down.append({"type": "ack", "seq": expected})
