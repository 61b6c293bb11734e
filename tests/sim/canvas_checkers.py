"""Canvases: all pages of one see the store's log in its order, and nothing that was seen is lost.

The store's log is the truth, and a page is held to it with each frame. A page that is told everything of others in
order has the state that is the fold of the log, its own edits in their places.
"""

import json
from typing import TYPE_CHECKING, Any

import attrs

from signald.core.rooms import Publication
from signald.dialects.canvas.chats import CHATS_MAX
from signald.store.base import Op, Result
from signald.store.room.ops import Post, Posted
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.canvas_sockets import CanvasSocket, Said, State
    from tests.sim.scene import Scene

PREFIX = "canvas:"
LOG_HOLDS_ALL = 200
"""A log of so many publications has all chats of a run, so no chat needs its copy."""
CLOSES = frozenset({1001, 1013, 1000, 4408, 4508})
"""Codes for which a page may find its connection closed that has done nothing wrong."""


@attrs.frozen
class Entry:
    """One publication of the log."""

    member: str
    said: dict[str, Any]
    """It, as a page says it: a `patch`, a `message`, or another object."""

    @property
    def is_told_to(self) -> str:
        """The type of what pages are told of it."""
        return "canvas_update" if "patch" in self.said else "chat_message" if "message" in self.said else "note"


@attrs.define
class Log:
    """The log of one canvas, from one epoch to the next."""

    epoch: str = ""
    entries: list[Entry] = attrs.field(factory=list)
    """The one at index n has the version n + 1."""
    places: dict[str, int] = attrs.field(factory=dict)
    """Mark → the version under which it stands, of all messages but those without an id."""

    @property
    def version(self) -> int:
        """Of the last entry."""
        return len(self.entries)

    def state(self, upto: int) -> "State":
        """Return the fold of the edits up to a version."""
        state: State = {}
        for one in self.entries[:upto]:
            apply(state, one)
        return state

    def chats(self, upto: int) -> list[str]:
        """Return the chat up to a version."""
        return [one.said["message"] for one in self.entries[:upto] if "message" in one.said][-CHATS_MAX:]


def apply(state: "State", one: Entry) -> None:
    """Apply an entry to a state: its keys are replaced whole, and null removes one."""
    for key, value in one.said.get("patch", {}).items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value


class CanvasOrder(Checker):
    """All pages see one order and end with the fold of the log; nothing is taken twice, and what came back is kept."""

    name = "canvas-order"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._logs: dict[str, Log] = {}
        self._with_id: set[str] = set()
        """The marks that were said with an id."""
        plan = scene.plan
        self._loses = plan.store_may_lose or plan.clock_steps
        """The canvas may be another one in between: by the store, or because it counts as left alone since an hour."""
        self._goes_back = any(step.what == "fail_over" for step in plan.steps)

    # --- the store --------------------------------------------------------------------------------------------------

    def applied(self, op: Op, result: Result) -> None:
        """The store has carried out an operation."""
        if self._loses or not isinstance(op, Post) or not isinstance(result, Posted) or not op.room.startswith(PREFIX):
            return None
        if result.replayed:
            self.scene.reached("canvas message taken once of two")
            return None
        head = self.scene.world.rows.room(op.room)
        log = self._logs.setdefault(op.room, Log())
        one = Entry(op.member, _said(op.publication))
        if head is not None and not log.entries:
            log.epoch = head.epoch
        if head is None or head.epoch != log.epoch:
            return self.broken(f"{op.room} is another one: {head}, and had {log.version} entries of {log.epoch}")
        log.entries.append(one)
        if result.position != log.version:
            self.broken(f"{op.room} is at {log.version}, and {result}")
        mark = _mark(one)
        if mark in self._with_id and log.places.setdefault(mark, log.version) != log.version:
            self.broken(f"{mark} in {op.room} was taken as {log.places[mark]}, and again as {log.version}")
        return None

    # --- what pages say and are told --------------------------------------------------------------------------------

    def _log(self, page: "CanvasSocket") -> Log | None:
        """Return the log that a page is held to; None: it is not judged."""
        return None if self._loses else self._logs.setdefault(f"{PREFIX}{page.plan.canvas}", Log())

    def says(self, page: "CanvasSocket", one: "Said") -> None:
        """A page says something with an id."""
        if one.mark in self._with_id:
            self.broken(f"{page!r} says {one.mark} twice")
        self._with_id.add(one.mark)

    def restored(self, page: "CanvasSocket", said: dict[str, Any]) -> None:
        """A page is told what its session has."""
        page.is_behind = False
        log, version = self._log(page), said["version"]
        if log is None:
            return None
        if version > log.version:
            return self.broken(f"{page!r} is told of version {version}, and the store has {log.version}")
        if said["canvas_state"] != log.state(version):
            self.broken(f"{page!r} is restored to {said['canvas_state']}, and the log has {log.state(version)}")
        told, kept = [one["message"] for one in said["chat_history"]], log.chats(version)
        if told != kept and not (self._may_lack and _is_part(told, kept)):
            self.broken(f"{page!r} is told the chat {told} at {version}, and the log has {kept}")
        return None

    @property
    def _may_lack(self) -> bool:
        """A message is out of a short log, and its copy is not made yet, or was lost with its node."""
        canvassing = self.scene.canvassing
        return canvassing is not None and canvassing.canvases.history < LOG_HOLDS_ALL

    def told(self, page: "CanvasSocket", said: dict[str, Any]) -> None:
        """A page is told of something that was published, or passed on."""
        log, kind = self._log(page), said["type"]
        if not page.member:
            return self.broken(f"{page!r} is not restored, and is told {said}")
        if kind == "cursor":
            if said["of"] == page.name:
                self.broken(f"{page!r} is told of its own {said}")
            return None
        if log is None or page.is_behind:
            return None
        version = said["version"] if kind == "canvas_update" else log.places.get(said.get("message") or said["mark"], 0)
        if not page.at < version <= log.version:
            return self.broken(f"{page!r} was told up to {page.at} of {log.version}, and is told {said} of {version}")
        if not self._passes(page, log, version - 1):
            return None
        one = log.entries[version - 1]
        same = one.said == {key: said[key] for key in one.said if key in said} and one.is_told_to == kind
        if not same or (kind != "note" and said["from"] != one.member):
            self.broken(f"{page!r} is told {said}, and the log has {one} at {version}")
        if one.member == page.member and kind != "chat_message":
            self.broken(f"{page!r} is told its own {said}")
        page.at = version
        apply(page.state, one)
        return None

    def _passes(self, page: "CanvasSocket", log: Log, upto: int) -> bool:
        """Go over the entries that a page is not told: its own, but for the chat. False: there are others between."""
        while page.at < upto:
            one = log.entries[page.at]
            page.at += 1
            if one.member != page.member or "message" in one.said:
                if not self._may_lack:
                    self.broken(f"{page!r} was not told {one} at {page.at}")
                # Its node finds a hole in a short log, and restores the page: what comes until then is told as well.
                self.scene.reached("canvas page behind a short log")
                page.is_behind = True
                return False
            apply(page.state, one)
        return True

    def confirmed(self, page: "CanvasSocket", one: "Said") -> None:
        """A page has a sign that a message was taken."""
        log = self._log(page)
        if log is not None and one.mark not in log.places:
            self.broken(f"{page!r} has seen a sign of {one.mark}, and the store does not have it")

    def refused(self, page: "CanvasSocket", said: dict[str, Any]) -> None:
        """A page is told an error that does not ask it to wait. One that is turned away at the door is told for how long."""
        if not self._loses and "retry_after_ms" not in said:
            self.broken(f"{page!r} is told {said}")

    def closed(self, page: "CanvasSocket", code: int, why: str) -> None:
        """A page finds its connection closed."""
        scene = self.scene
        if code == 1012 and not page.was_in:
            # A connection that is being opened when its node closes all is not asked for the codes of its wire.
            return scene.reached("canvas socket closed with 1012 at the door")
        if code not in CLOSES and not self._loses:
            self.broken(f"{page!r} is closed with {code} {why}")
        if scene.plan.planned_only and scene.chaos and code != 1001:
            self.broken(f"{page!r} is closed with {code} {why} in planned rollouts")
        return None

    # --- the end ----------------------------------------------------------------------------------------------------

    def lacks(self, page: "CanvasSocket") -> str:
        """Say what a page has not; empty: it has everything."""
        if self._goes_back:
            return ""
        text = f"{page!r} on {page.wire} at {page.at}"
        log = self._log(page)
        # Of an edit over which the page has drawn since, and behind which it has not chatted, its wire gives no sign.
        signs = {one.mark for one in page.outbox.values() if "message" not in one.frame} if log is None else log.places
        waits = [one for mark, one in page.outbox.items() if mark not in signs]
        if not page.member or not page.finished or waits or page.is_behind:
            return f"{text}: member {page.member!r}, waits {waits}"
        if log is not None:
            rest = [one for one in log.entries[page.at :] if one.member != page.member or "message" in one.said]
            if rest:
                return f"{text} of {log.version}: was not told {rest}"
        return ""

    def at_end(self) -> None:
        """All pages have caught up."""
        canvassing = self.scene.canvassing
        if canvassing is None or self._loses:
            return
        rows = self.scene.world.rows
        for page in canvassing.sockets:
            room = f"{PREFIX}{page.plan.canvas}"
            log = self._logs[room]
            self._passes(page, log, log.version)
            changes, _ = rows.room_changes(room, 0, 100_000)
            kept = {name: json.loads(dict(one.properties)["value"]) for name, one in changes if one.properties}
            if not page.state == kept == log.state(log.version):
                self.broken(f"{page!r} has {page.state}, the store {kept}, and the log {log.state(log.version)}")
            if self.scene.plan.planned_only and page.connections > 1 + len(self.scene.plan.steps):
                self.broken(f"{page!r} has connected {page.connections} times")
        missing = sorted(self._with_id - {mark for log in self._logs.values() for mark in log.places})
        if missing:
            self.broken(f"the store has nothing of {missing}")

    def ghosts(self) -> list[str]:
        """Return what is left of canvases when all pages are closed."""
        if self.scene.canvassing is None:
            return []
        left = [f"canvas {name}" for name in self.scene.world.rows._rooms]
        for node in self.scene.alive():
            if node.node is not None:
                left += [f"canvas {name} in {node.name}" for name in node.node.hub.rooms.hall.rooms]
        return left


def _is_part(some: list[str], whole: list[str]) -> bool:
    """Tell whether `some` is what is left of `whole` when messages are taken out."""
    rest = iter(whole)
    return all(one in rest for one in some)


def _mark(one: Entry) -> str:
    said = one.said
    if "patch" in said:
        return str(next(value for key, value in said["patch"].items() if key.startswith("last:")))
    return str(said.get("message") or said["mark"])


def _said(publication: Publication) -> dict[str, Any]:
    """Return what the store has of a publication, as it was said."""
    if publication.body:
        data = json.loads(b"{" + publication.body[1:])["data"]
        return data if isinstance(data, dict) else {"message": data}
    patch: dict[str, Any] = {name: json.loads(dict(record)["value"]) for name, record in publication.puts}
    return {"patch": patch | dict.fromkeys(publication.removes)}
