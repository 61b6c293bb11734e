"""A page with a canvas, as its guide has it: it restores, draws, chats, pings, and comes again when its connection is over.

A message with an id waits in its outbox until there is a sign of it, and is said again on each new connection:

    a chat            it comes back, live or in the history
    another message   a chat that was said behind it on the same connection comes back, or its mark stands in the state
"""

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier, CarrierClosed
from tests.sim.habits import said as in_words

if TYPE_CHECKING:
    from tests.sim.canvases import SocketPlan
    from tests.sim.scene import Scene

State = dict[str, Any]

WRITE_EVERY_S = 0.06
"""Between two messages: below the least rate of a plan, which is 20 a second."""
PING_S, PONG_S = 5.0, 10.0
"""How often a page pings, and how long it waits for the answer."""
ANSWER_S = 20.0
"""How long it waits for what its session has: the store may be away for some seconds."""
FIRST_S, LONGEST_S = 0.2, 2.0
"""Its waits before it dials again, but for 1001, behind which it comes at once."""
AGAIN_S = 1.0
"""The wait behind an error that says no other."""
UNCONFIRMED_MAX = 10
"""With so much in its outbox a page says nothing new: the least burst of a plan."""
KEYS = 3
"""Shapes that all pages of a canvas draw."""

WAITS = frozenset({"rate", "busy", "unavailable"})
"""Errors behind which a message is said again."""


@attrs.define(eq=False)
class Said:
    """One message of a page."""

    mark: str
    """Unique in the run."""
    frame: dict[str, Any]
    wire: str = ""
    """The connection on which it was said last; empty: it is to be said."""
    place: int = 0
    """Its place among all that the page has sent."""
    not_before: float = -math.inf

    @property
    def is_chat(self) -> bool:
        """It comes back to its sender."""
        return bool(self.frame["type"] == "chat_message")


class CanvasSocket:
    """See the module."""

    def __init__(self, scene: "Scene", name: str, plan: "SocketPlan") -> None:
        self.scene = scene
        self.name = name
        self.plan = plan
        self.outbox: dict[str, Said] = {}
        self.wire = ""
        """Its connection; empty: it has none."""
        self.member = ""
        """What it is called on this connection; empty: its session is not restored."""
        self.was_in = False
        """Its session was restored on the connection before."""
        self.at = 0
        """Up to this version it was told of all that others did."""
        self.state: State = {}
        self.is_behind = False
        """It has missed something, and is to be restored."""
        self.gone = False
        self.finished = False
        """It has said its last chat."""
        self.connections = 0
        self._carrier: Carrier | None = None
        self._scope = trio.CancelScope()
        self._restore_at = math.inf
        """When it asks once more for what its session has."""
        self._pinged_at = 0.0
        self._restored_at = 0.0
        self._failures = 0
        self._count = self._sent = 0
        self._news = trio.Event()
        self._random = scene.chance.random(f"page {name}")

    def __repr__(self) -> str:
        return f"{self.name} in {self.plan.canvas}"

    # --- its life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until it leaves, or is cancelled."""
        await trio.sleep_until(self.scene.began_at + self.plan.at)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk)
            while not self.gone:
                pause_s = await self._visit()
                await trio.sleep(pause_s)
            nursery.cancel_scope.cancel(reason="the page is closed")

    async def leave(self) -> None:
        """Close the page."""
        self.gone = True
        if self._carrier is not None:
            with suppress(CarrierClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._carrier.aclose(1000, "")
        self._scope.cancel(reason="the page is closed")

    async def _visit(self) -> float:
        """Be connected once; return how long to wait before the next time."""
        scene, code, why = self.scene, None, "no way there"
        with trio.CancelScope() as self._scope:
            try:
                async with scene.connect(self.name, f"ws://lb/ws/{self.plan.canvas}") as (carrier, wire):
                    self.connections += 1
                    self._carrier, self.wire = carrier, wire
                    self._pinged_at, self._restored_at = math.inf, trio.current_time()
                    self._restore_at = -math.inf
                    code, why = await self._converse(carrier)
            except DialFailed:
                pass
            finally:
                self.was_in = bool(self.member)
                self._carrier, self.wire, self.member = None, "", ""
        if self._scope.cancelled_caught:
            why = "given up"
        return self._pause(code, why)

    def _pause(self, code: int | None, why: str) -> float:
        if code is not None:
            self.scene.reached(f"canvas socket closed with {code}")
            self.scene.check.canvas_order.closed(self, code, why)
        if code == 1001:
            return 0.0
        if code == 1013 and why.startswith("come again in "):
            return float(why.split()[3]) * self._random.uniform(0.5, 1.0)
        self._failures += 1
        return min(LONGEST_S, FIRST_S * 2.0**self._failures) * self._random.uniform(0.5, 1.0)

    async def _converse(self, carrier: Carrier) -> tuple[int | None, str]:
        """Speak until the connection is over; return with which code and why."""
        scene, wire = self.scene, self.wire
        ended: tuple[int | None, str] = (None, "given up")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, carrier, nursery.cancel_scope)
            try:
                while True:
                    data = await carrier.receive()
                    scene.trace.frame(wire, "<", data, in_words)
                    self._take(json.loads(data))
            except CarrierClosed as closed:
                scene.trace(wire, f"closed {closed.code} {closed.reason}")
                scene.check.closed(wire, closed.code, closed.reason)
                ended = closed.code, closed.reason
            nursery.cancel_scope.cancel(reason="the connection is over")
        return ended

    # --- what it says -----------------------------------------------------------------------------------------------

    async def _write(self, carrier: Carrier, scope: trio.CancelScope) -> None:
        """Say what waits, in order; give up a connection that does not answer."""
        ping_at = trio.current_time() + PING_S
        while True:
            news, now = self._news, trio.current_time()
            if now - self._pinged_at > PONG_S or (not self.member and now - self._restored_at > ANSWER_S):
                self.scene.reached("canvas socket without an answer")
                carrier.abort()
                scope.cancel(reason="no answer")
                return
            one = self._next(now)
            frame: dict[str, Any] | None = None
            if self._restore_at <= now:
                self._restore_at = math.inf
                frame = {"type": "restore_session", "session_id": self.plan.canvas}
            elif ping_at <= now:
                ping_at, self._pinged_at = now + PING_S, min(self._pinged_at, now)
                frame = {"type": "ping"}
            elif one is not None:
                if one.wire:
                    self.scene.reached("canvas message said again")
                self._sent += 1
                one.wire, one.place = self.wire, self._sent
                frame = one.frame
            if frame is not None:
                await self._say(carrier, frame)
            if frame is not None:
                await trio.sleep(WRITE_EVERY_S)
                continue
            with trio.move_on_after(PING_S):
                await news.wait()

    def _next(self, now: float) -> Said | None:
        if not self.member and not self.plan.eager:
            return None
        return next((one for one in self.outbox.values() if one.wire != self.wire and one.not_before <= now), None)

    async def _say(self, carrier: Carrier, frame: dict[str, Any]) -> None:
        payload = json.dumps(frame, separators=(",", ":")).encode()
        self.scene.trace.frame(self.wire, ">", payload, in_words)
        # Where it does not go out, the connection is over, and its reader finds that out.
        with suppress(CarrierClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await carrier.send([(True, payload)])

    async def _talk(self) -> None:
        scene = self.scene
        while self._count < self.plan.messages and scene.chaos:
            await trio.sleep(self._random.uniform(0.0, 2 * self.plan.every_s))
            if len(self.outbox) >= UNCONFIRMED_MAX:
                continue
            self._count += 1
            await self._do()
            if self._count in self.plan.breaks and self.wire and scene.chaos:
                await trio.sleep(self._random.choice((0.0, 0.0, 0.05)))
                if self.wire:
                    scene.reached("canvas socket broke behind a message")
                    scene.network.by_name[self.wire].reset()
        while scene.chaos:  # noqa: ASYNC110
            await trio.sleep(0.25)
        self._count += 1
        self._put({"type": "chat_message", "message": self._mark})
        self.finished = True

    @property
    def _mark(self) -> str:
        return f"{self.name}.{self._count}"

    async def _do(self) -> None:
        """Draw or say one thing."""
        how, mark = self._random.random(), self._mark
        shape = f"s{self._random.randrange(KEYS)}"
        patch = {f"last:{self.name}": mark, shape: None if self._random.random() < 0.2 else mark}
        if how < 0.4:
            self._put({"type": "chat_message", "message": mark})
        elif how < 0.75:
            self._put({"type": "canvas_update", "patch": patch})
        elif how < 0.85:
            self._put({"type": "note", "mark": mark})
        elif self._carrier is not None and self.member:
            # Without an id it is said once, whatever comes of it.
            edit = {"type": "canvas_update", "patch": patch}
            await self._say(self._carrier, edit if how < 0.92 else {"type": "cursor", "of": self.name, "mark": mark})

    def _put(self, frame: dict[str, Any]) -> None:
        mark = self._mark
        one = self.outbox[mark] = Said(mark, {**frame, "id": mark})
        self.scene.check.canvas_order.says(self, one)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- what it is told --------------------------------------------------------------------------------------------

    def _take(self, said: dict[str, Any]) -> None:
        check, kind = self.scene.check.canvas_order, said["type"]
        if kind == "pong":
            self._pinged_at = math.inf
        elif kind == "error":
            self._refused(said)
        elif kind == "session_restored":
            self.scene.reached("canvas restored again" if self.connections > 1 else "canvas restored")
            self.member, self._failures = said["member"], 0
            check.restored(self, said)
            self.at, self.state = said["version"], dict(said["canvas_state"])
            marks = {one["message"] for one in said["chat_history"]}
            for one in list(self.outbox.values()):
                if one.mark in marks if one.is_chat else self.state.get(f"last:{self.name}") == one.mark:
                    self._confirm(one)
            self._wake()
        else:
            check.told(self, said)
            if kind == "chat_message" and (own := self.outbox.get(said["message"])) is not None:
                self._comes_back(own)

    def _comes_back(self, chat: Said) -> None:
        """A chat of its own is told: all that it has said in front of it on this connection is stored."""
        for one in list(self.outbox.values()):
            if one is chat or (chat.wire == self.wire == one.wire and one.place < chat.place):
                self._confirm(one)

    def _confirm(self, one: Said) -> None:
        del self.outbox[one.mark]
        self.scene.check.canvas_order.confirmed(self, one)

    def _refused(self, said: dict[str, Any]) -> None:
        """Say later again what was not taken."""
        code = said["code"]
        self.scene.reached(f"canvas error {code}")
        self.scene.check.told(json.dumps(said))
        if code not in WAITS:
            self.scene.check.canvas_order.refused(self, said)
        again_at = trio.current_time() + max(AGAIN_S, said.get("retry_after_ms", 0) / 1000)
        one = self.outbox.get(said.get("id", ""))
        if one is not None:
            one.wire, one.not_before = "", again_at
        elif "id" not in said:
            self._restore_at = again_at
        self.scene.late(again_at - trio.current_time(), self._wake)
