"""What a scripted node knows of its one party: tokens, and the two logs of one session."""

import json
from typing import Any

from attrs import define, field

Message = dict[str, Any]

LIMITS = {"message_bytes": 65536, "messages_per_s": 10_000.0, "messages_burst": 10_000, "backlog_messages": 1000}
_OF_A_SESSION = frozenset({"message", "ack", "receipt", "realtime", "session_ended", "stream_cancel"})


@define(eq=False)
class Log:
    """The session of a script, over all its connections."""

    party: str
    """`client` or `worker`."""
    heartbeat_ms: int = 300
    tokens: int = 0
    assigned: bool = False
    stored: list[Any] = field(factory=list)
    """What the party has said, once each."""
    given: int = 0
    """Numbers 1 to here are in the node's log for the party."""
    pad: int = 0
    """Characters beside each number."""
    acked: int = 0
    ahead_max: int = 0
    """Bytes that were written and not acked, at most."""

    @property
    def token(self) -> str:
        """Return a new recovery token."""
        self.tokens += 1
        return f"t.{self.tokens}"

    def dressed(self, message: Message) -> Message:
        """Return a message with the session's name, where a worker needs it."""
        named = self.party == "worker" and (message["type"] in _OF_A_SESSION or "expected" in message)
        return {**message, "session": "s_1"} if named or message.get("code") == "log_lost" else message

    def message(self, seq: int) -> Message:
        """Return a message of the node."""
        return self.dressed({"type": "message", "seq": seq, "data": {"n": seq, "pad": "x" * self.pad}})

    def expected(self) -> int:
        """The seq of the party's next message."""
        return len(self.stored) + 1

    def answer(self, opening: Message) -> list[Message]:
        """Return the honest answer to an opening message, and what follows it at once."""
        common: Message = {"recovery_token": self.token, "token_ttl_ms": 300_000, "heartbeat_ms": self.heartbeat_ms}
        peer = {"state": "paired", "id": "w_1"}
        match opening["type"]:
            case "connect":
                return [
                    {
                        **common,
                        "type": "session_started",
                        "session": "s_1",
                        "peer": peer,
                        "next_seq": 1,
                        "limits": LIMITS,
                    }
                ]
            case "restore_session":
                accepted = len(self.stored)
                replaying = self.given - opening["received"]
                restored = {"type": "session_restored", "accepted": accepted, "replaying": replaying}
                return [{**common, **restored, "session": "s_1", "peer": peer}]
        worker: Message = {**common, "status": "OK", "worker": "w_1"}
        kept = []
        if opening["reconnection"]:
            named = [one["session"] for one in opening["sessions"]]
            if "s_1" in named:
                kept = [{"session": "s_1", "accepted": len(self.stored), "replaying": 0}]
            answer = {**worker, "type": "reconnection_ack", "session_restored": True, "server_status": "ready",
                      "sessions": kept, "lost": []}  # fmt: skip
        else:
            answer = {**worker, "type": "app_accepted"}
        self.assigned = True
        assignment = {"type": "session_assigned", "session": "s_1", "client": {}, "next_seq": self.expected()}
        return [answer] if kept else [answer, assignment]

    def received(self, opening: Message) -> int:
        """Return how far the party has come by its opening message."""
        if opening["type"] == "restore_session":
            return int(opening["received"])
        named = {one["session"]: one["received"] for one in opening.get("sessions", [])}
        return int(named.get("s_1", self.acked))

    def take(self, message: Message, *, acks: int = 1) -> list[Message]:
        """Take a message of the party; return what an honest node says, each ack `acks` times."""
        match message["type"]:
            case "message":
                if message["seq"] > self.expected():
                    told = {"type": "error", "code": "gap", "message": "", "fatal": False, "expected": self.expected()}
                    return [self.dressed(told)]
                if message["seq"] == self.expected():
                    self.stored.append(message["data"])
                return [self.dressed({"type": "ack", "seq": len(self.stored)})] * acks
            case "ack":
                self.acked = max(self.acked, message["seq"])
            case "ping":
                return [{"type": "pong"}]
            case "bye":
                return [self.dressed({"type": "session_ended", "reason": "bye"})]
        return []

    def filled(self, value: Any) -> Any:
        """Return a value of a script with what stands for a number or a token."""
        if isinstance(value, dict):
            return {name: self.filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        match value:
            case "$token":
                return self.token
            case "$accepted":
                return len(self.stored)
            case "$seq":
                return self.given + 1
        return value


def decoded(opcode: int, payload: bytes) -> Message:
    """Return a message of the party, as JSON."""
    if opcode == 2:
        end = 2 + int.from_bytes(payload[:2], "big")
        payload = payload[2:end]
    return dict(json.loads(payload))
