"""What a core server of the tests has noted, and the judge of it: `moody_core` writes, this reads.

The judge knows which sessions and workers there were, which deploys, and under which secrets the nodes sign. It demands:

    signed      each request has a right signature by each secret that is in force, and a time of its own
    same        each attempt at an event has the bytes of the first
    dense       the events of a queue come first in the order 1, 2, 3 …, each behind an answer 2xx to the one before
    alone       no two attempts at one queue are under way at a time
    told        each queue is told from its first event to its last, and each planned stop is told once
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from signald.core.webhooks import BadSignature, secrets_of, verify
from tests.real.moody_core import AUTHORIZE, EVENTS

CROSSED_S = 1.0
"""How long an attempt may seem to last into the next one of its queue: a busy core server hears late that its caller has closed."""

ENDS = {"s": ("session.started", "session.ended"), "w": ("worker.registered", "worker.lost")}
"""By the first letter of an id: the first and the last event of its queue."""


@define
class Asked:
    """One request."""

    at: float
    path: str
    mood: str
    headers: dict[str, str]
    body: bytes
    line: int = 0
    answer_line: int = 0
    """Where the notes say that its answer goes out."""
    over_at: float = float("inf")
    status: int = 0
    """Of an answer that went out whole; 0: there was none."""
    answer: bytes = b""

    @property
    def said(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        """The id that it names."""
        return self.headers.get("webhook-id", "")

    @property
    def queue(self) -> str:
        """The queue that it comes from."""
        data = self.said["data"]
        return str(data.get("session") or data.get("worker") or "cluster")


def read_notes(path: Path) -> list[Asked]:
    """Return the requests in the order in which they came."""
    asked: dict[int, Asked] = {}
    for number, line in enumerate(path.read_text().splitlines(keepends=True)):
        if not line.endswith("\n"):
            break  # it is being written
        note = json.loads(line)
        if "request" in note:
            body = note["body"].encode("latin-1")
            asked[note["request"]] = Asked(note["at"], note["path"], note["mood"], note["headers"], body, number)
        elif "answering" in note:
            asked[note["answering"]].answer_line = number
        elif "over" in note:
            asked[note["over"]].over_at = note["at"]
        elif "answered" in note:
            one = asked[note["answered"]]
            one.status, one.answer = note["status"], note["body"].encode("latin-1")
    return list(asked.values())


@define
class Expected:
    """What must have been told."""

    sessions: Collection[str] = ()
    """Those that have ended."""
    workers: Collection[str] = ()
    """Those that have left."""
    deploys: Collection[str] = ()
    """Nodes that were stopped as planned, and that another node has outlived."""


@define
class Judge:
    """Reads the requests one by one. `wrong` holds a line for each promise that was broken."""

    secrets: Sequence[str]
    """All in force: each signs each request."""
    wrong: list[str] = field(factory=list)
    told: dict[str, list[dict[str, Any]]] = field(factory=lambda: defaultdict(list))
    """Queue → its events, as each came first."""
    _newest: dict[str, str] = field(factory=dict)
    """Queue → the id of the last of these."""
    attempts: int = 0
    questions: int = 0
    by_mood: Counter[str] = field(factory=Counter)
    _first: dict[str, Asked] = field(factory=dict)
    _taken: set[str] = field(factory=set)
    """Ids of events that an answer 2xx has gone out for, whole."""
    _last: dict[str, Asked] = field(factory=dict)
    """Queue → its latest attempt."""

    def read(self, asked: Sequence[Asked]) -> None:
        """Judge all that came; called once."""
        taken = [one for one in asked if one.path == EVENTS and 200 <= one.status < 300]
        taken.sort(key=lambda one: one.answer_line, reverse=True)
        for one in asked:
            while taken and taken[-1].answer_line < one.line:
                self._taken.add(taken.pop().id)
            self._signed(one)
            self.by_mood[one.mood] += 1
            if one.path == EVENTS:
                self.attempts += 1
                self._event(one)
            elif one.path == AUTHORIZE:
                self.questions += 1
            else:
                self.wrong.append(f"a request to {one.path}")
        self._taken.update(one.id for one in taken)

    def _signed(self, one: Asked) -> None:
        for number, secret in enumerate(self.secrets):
            try:
                verify(one.headers, one.body, secrets_of(secret), one.at)
            except BadSignature as error:
                self.wrong.append(f"{one.path} {one.id}, secret {number}: {error}")
        if len(one.headers.get("webhook-signature", "").split(" ")) != len(self.secrets):
            self.wrong.append(f"{one.id} is signed by {one.headers.get('webhook-signature')!r}")

    def _event(self, one: Asked) -> None:
        before = self._last.get(one.queue)
        if before is not None and before.over_at > one.at + CROSSED_S:
            self.wrong.append(
                f"{one.id} came while {before.id} was under way, which ended {before.over_at - one.at:.1f} s later"
            )
        self._last[one.queue] = one
        first = self._first.setdefault(one.id, one)
        if first is not one:
            if first.body != one.body:
                self.wrong.append(f"{one.id} was {first.body!r}, and is {one.body!r}")
            return
        data, told = one.said["data"], self.told[one.queue]
        before_n = told[-1]["data"]["n"] if told else 0
        if data["n"] != before_n + 1 or not one.id.startswith(f"msg_{one.queue}_{data['n']}_"):
            self.wrong.append(f"{one.id} says n {data['n']} behind {before_n}")
        if told and self._newest[one.queue] not in self._taken:
            self.wrong.append(f"{one.id} came before {before_n} was taken")
        if data.get("dropped"):
            self.wrong.append(f"{one.id} says that {data['dropped']} were dropped")
        told.append(one.said)
        self._newest[one.queue] = one.id

    def taken(self, expected: Expected) -> list[str]:
        """What of `expected` was not told to its end, or told otherwise; empty when all was."""
        missing = []
        types_of: dict[str, list[str]] = defaultdict(list)
        for told in self.told.values():
            for one in told:
                types_of[one["data"].get("session") or one["data"].get("worker", "")].append(one["type"])
        for name in (*expected.sessions, *expected.workers):
            types = types_of[name]
            first, last = ENDS[name[0]]
            if types[:1] != [first] or types[-1:] != [last] or types.count(first) != 1 or types.count(last) != 1:
                missing.append(f"{name} had {types}")
        missing += [f"{one} was not taken" for one in self._first if one not in self._taken]
        finished = Counter(self.finished())
        missing += [
            f"{node} was told to have finished {finished[node]} times"
            for node in expected.deploys
            if finished[node] != 1
        ]
        return missing + [
            f"{node} was told to have finished {count} times" for node, count in finished.items() if count > 1
        ]

    def finished(self) -> list[str]:
        """The nodes whose planned stop was told."""
        return [one["data"]["node"] for told in self.told.values() for one in told if one["type"] == "deploy.finished"]


def admitted_unasked(asked: Sequence[Asked], sessions: Mapping[str, str]) -> list[str]:
    """Return those of `sessions` (id → the name in its `meta`) for whom the core server has not said yes."""
    allowed = set()
    for one in asked:
        if one.path == AUTHORIZE and one.status == 200 and _allows(one.answer):
            allowed.add((one.said.get("meta") or {}).get("name"))
    return [session for session, name in sessions.items() if name not in allowed]


def _allows(answer: bytes) -> bool:
    try:
        said = json.loads(answer)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("allow") is True and isinstance(said.get("want", {}), dict)
