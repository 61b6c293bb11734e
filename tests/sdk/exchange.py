"""A model of signald between one client and its workers: both logs, the attachments, and connections that lose what is under way.

Only what the wire says: of a party the connection claimed last may write, a gap is told once, an ack counts for ever, a worker
is asked before it gets a session, and what no worker has acked goes to the next one. The parties are the SDK's own cores.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from signald.sdk.client_core import ClientCore
from signald.sdk.link import Link
from signald.sdk.worker_core import WorkerCore

SESSION = "s_1"
LIMITS = {"message_bytes": 65536, "messages_per_s": 1000.0, "messages_burst": 1000, "backlog_messages": 1000}


class Wire:
    """One connection: frames under way in both directions."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.up: deque[dict[str, Any]] = deque()
        self.down: deque[dict[str, Any]] = deque()
        self.pushed = 0
        """How many messages of the party's log it was given, those it had before included."""
        self.told_gap = 0


class Side:
    """One party: its core, its connections, and what the service holds of it."""

    def __init__(self, core: ClientCore | WorkerCore) -> None:
        self.core = core
        self.wires: list[Wire] = []
        self.owner: Wire | None = None
        self.refuse_next = False
        self.tokens = 0
        self.valid: list[str] = []
        """The newest token, and the one before until the newest was shown or anything else was said."""

    def lose_all(self) -> None:
        """The process is gone, with all its connections."""
        self.wires.clear()
        self.owner = None


class Exchange:
    """The service and the network; the tests call `send`, `take` and `finish` of the cores in the place of applications."""

    def __init__(self, client: ClientCore, worker: WorkerCore) -> None:
        self.now = 0.0
        self.client = Side(client)
        self.worker = Side(worker)
        self.log: dict[str, list[Any]] = {"up": [], "down": []}
        """What the service has stored: `up` is what the client said."""
        self.acked = {"up": 0, "down": 0}
        self.started = False
        self.pairing = ""
        """`asked` while the worker has not accepted the session, then `paired`."""
        self.begun_at: list[int] = []
        """After which seq a worker that has accepted the session was served, each time."""

    def side(self, party: str) -> Side:
        """The client's or the worker's."""
        return self.client if party == "client" else self.worker

    # --- the network -----------------------------------------------------------------------------------------------

    def dial(self, party: str) -> None:
        """Open what the core plans, waiting for its time."""
        side = self.side(party)
        attempt = side.core.plan(self.now)
        if attempt is not None:
            self.now = max(self.now, attempt.at)
            side.wires.append(Wire(side.core.opened(attempt.url, self.now)))

    def carry_up(self, party: str, count: int) -> None:
        """Let the party write, and the service take up to `count` frames of each connection."""
        side = self.side(party)
        for wire in list(side.wires):
            wire.up.extend(json.loads(payload) for _, payload in side.core.write(wire.link, self.now))
            for _ in range(min(count, len(wire.up))):
                self._serve(party, wire, wire.up.popleft())

    def carry_down(self, party: str, count: int) -> None:
        """Let the service write, and the party take up to `count` frames of each connection. Raises LinkBroken."""
        side = self.side(party)
        self._push(party)
        for wire in list(side.wires):
            for _ in range(min(count, len(wire.down))):
                message = wire.down.popleft()
                if message["type"] == "close":
                    self._over(side, wire, message["code"])
                    break
                side.core.receive(wire.link, json.dumps(message), self.now)

    def cut(self, party: str, which: int) -> None:
        """Break a connection: what is under way on it is lost."""
        side = self.side(party)
        if side.wires:
            self._over(side, side.wires[which % len(side.wires)], None)

    def repeat(self, party: str, count: int) -> None:
        """What is under way to the service arrives twice, and what was pushed last is pushed again."""
        side = self.side(party)
        for wire in side.wires:
            wire.up.extend([one for one in wire.up if one["type"] in ("message", "ack", "session_accept")])
        if side.owner is not None:
            way = "down" if party == "client" else "up"
            side.owner.pushed = max(self.acked[way], side.owner.pushed - count)

    def go_away(self, party: str) -> None:
        """The party's node says that it leaves."""
        owner = self.side(party).owner
        if owner is not None:
            owner.down.append({"type": "goaway", "reason": "drain", "not_before_ms": 0, "deadline_ms": 5000})

    def _over(self, side: Side, wire: Wire, code: int | None) -> None:
        side.wires.remove(wire)
        if side.owner is wire:
            side.owner = None
        side.core.lost(wire.link, code, "", self.now)

    # --- the service -----------------------------------------------------------------------------------------------

    def worker_died(self, core: WorkerCore) -> None:
        """The service knows that the worker will not come back: another one registers, and gets the session."""
        self.worker = Side(core)
        self.pairing = ""

    def _push(self, party: str) -> None:
        owner = self.side(party).owner
        if owner is None:
            return
        if party == "worker" and not self.pairing and self.started:
            self.pairing = "asked"
            said = {"type": "session_assigned", "session": SESSION, "client": {"meta": None}, "chat_history": []}
            owner.down.append({**said, "next_seq": len(self.log["down"]) + 1})
        if party == "worker" and self.pairing != "paired":
            return
        log = self.log["down" if party == "client" else "up"]
        while owner.pushed < len(log):
            owner.pushed += 1
            self._tell(party, owner, {"type": "message", "seq": owner.pushed, "data": log[owner.pushed - 1]})

    def _tell(self, party: str, wire: Wire, message: dict[str, Any]) -> None:
        wire.down.append(message if party == "client" else {**message, "session": SESSION})

    def _serve(self, party: str, wire: Wire, message: dict[str, Any]) -> None:
        openings: dict[str, Callable[[Wire, dict[str, Any]], None]] = {
            "connect": self._connect, "restore_session": self._restore, "app_ready": self._register,
        }  # fmt: skip
        side, kind = self.side(party), message["type"]
        if kind in openings:
            openings[kind](wire, message)
        elif wire is side.owner:
            del side.valid[:-1]  # a party that says anything has the newest token
            if kind == "session_accept" and self.pairing == "asked":
                self.pairing = "paired"
                wire.pushed = self.acked["up"]
                self.begun_at.append(wire.pushed)
            elif kind == "session_refuse":
                self.pairing = ""
            elif kind in ("message", "ack") and (party == "client" or self.pairing == "paired"):
                self._take(party, side, wire, message)

    def _claim(self, side: Side, wire: Wire, presented: str | None) -> dict[str, Any]:
        assert presented is None or presented in side.valid, f"{presented} was left behind: {side.valid}"
        side.tokens += 1
        side.valid = [*([presented] if presented else []), f"x.{side.tokens}"]
        if side.owner is not None:
            side.owner.down.append({"type": "close", "code": 4001})
        side.owner = wire
        return {"recovery_token": side.valid[-1], "token_ttl_ms": 1, "heartbeat_ms": 10_000_000}

    def _connect(self, wire: Wire, _: dict[str, Any]) -> None:
        # A client whose answer is lost knows of no session, and asks for another one: that one is gone with what is in it.
        assert not self.log["up"], "who has said something knows its session"
        self.started = True
        answer = {**self._claim(self.client, wire, None), "peer": {"state": "waiting"}, "limits": LIMITS}
        wire.down.append({"type": "session_started", "session": SESSION, "next_seq": 1, **answer})

    def _restore(self, wire: Wire, message: dict[str, Any]) -> None:
        assert message["acked"] <= len(self.log["up"])
        assert self.acked["down"] <= message["received"] <= len(self.log["down"])
        answer = self._claim(self.client, wire, message["recovery_token"])
        self.acked["down"] = wire.pushed = message["received"]
        replaying = len(self.log["down"]) - wire.pushed
        answer |= {"accepted": len(self.log["up"]), "replaying": replaying, "peer": {"state": "paired", "id": "w"}}
        wire.down.append({"type": "session_restored", "session": SESSION, **answer})

    def _register(self, wire: Wire, message: dict[str, Any]) -> None:
        answer = {"status": "OK", "worker": "w", **self._claim(self.worker, wire, message.get("recovery_token"))}
        if not message["reconnection"]:
            self.pairing = ""
            wire.down.append({"type": "app_accepted", **answer})
            return
        kept, listed = [], {one["session"]: one for one in message["sessions"]}
        if self.pairing and SESSION in listed:
            assert listed[SESSION]["acked"] <= len(self.log["down"])
            if self.pairing == "paired":
                self.acked["up"] = max(self.acked["up"], listed[SESSION]["received"])
            wire.pushed = self.acked["up"]
            replaying = len(self.log["up"]) - wire.pushed
            kept.append({"session": SESSION, "accepted": len(self.log["down"]), "replaying": replaying})
        else:
            self.pairing = ""
        lost = [name for name in listed if not kept]
        answer |= {"session_restored": not lost, "server_status": "running", "sessions": kept, "lost": lost}
        wire.down.append({"type": "reconnection_ack", **answer})

    def _take(self, party: str, side: Side, wire: Wire, message: dict[str, Any]) -> None:
        mine, others = ("up", "down") if party == "client" else ("down", "up")
        seq, expected = message["seq"], len(self.log[mine]) + 1
        error = {"type": "error", "message": "", "expected": expected, "fatal": False}
        if message["type"] == "ack":
            assert seq <= len(self.log[others]), "nobody acks what is not stored"
            self.acked[others] = max(self.acked[others], seq)
        elif seq < expected:
            self._tell(party, wire, {"type": "ack", "seq": expected - 1})
        elif seq > expected:
            if wire.told_gap != expected:
                wire.told_gap = expected
                self._tell(party, wire, {**error, "code": "gap"})
        elif side.refuse_next:
            side.refuse_next = False
            wire.told_gap = expected
            self._tell(party, wire, {**error, "code": "backlog", "retry_after_ms": 300})
        else:
            self.log[mine].append(message["data"])
            self._tell(party, wire, {"type": "ack", "seq": expected})
