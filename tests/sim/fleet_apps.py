"""An app of a DeepStream fleet, by hand and from the guide alone, and the client that wants it, on the SDK."""

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from signald.sdk.dialing import DialFailed
from signald.sdk.events import LifecycleEvent, MessageReceived
from signald.sdk.network import Carrier, CarrierClosed
from signald.sdk.trio import Client, SessionGone
from signald.testing.sdk_parties import ClientApp
from tests.sim.habits import kind_of
from tests.sim.habits import said as in_words

if TYPE_CHECKING:
    from tests.sim.fleets import AppPlan
    from tests.sim.scene import Scene

PING_S, PONG_S = 5.0, 10.0
"""How often an app pings, and how long it waits for the answer."""
ANSWER_S = 20.0
"""How long it waits to be let in."""
AWAY_S, REFUSED_S = 5.0, 10.0
"""Its waits behind 1001 and 1013, by the guide."""
FIRST_S, LONGEST_S = 1.0, 16.0
"""Its waits behind anything else. The guide has 60 s for the longest, which is longer than a run settles."""
BEGUN_AGAIN_S = 1.0
"""Behind 1000 its process ends; its supervisor has another one by then."""
BUSY_MS = 4000
LEAVE_S = 10.0

ANSWERS = frozenset({"app_accepted", "reconnection_ack"})


class FleetApp:
    """See the module."""

    def __init__(self, scene: "Scene", name: str, plan: "AppPlan") -> None:
        self.scene = scene
        self.name = name
        self.plan = plan
        self.wire = ""
        """Its connection; empty: it has none."""
        self.is_in = False
        """It was answered on this connection."""
        self.returns = False
        """Its process was let in before, and says so when it comes again."""
        self.got = 0
        """The number of the client's last message that it has."""
        self.asked_at = math.inf
        """When it was asked on this connection to clean up."""
        self.answered_at = math.inf
        """When it has said that it has."""
        self.gone = False
        self._said = 0
        self._carrier: Carrier | None = None
        self._last_code: int | None = None
        self._failures = 0
        self._pinged_at = math.inf
        self._random = scene.chance.random(f"app {name}")

    def __repr__(self) -> str:
        return f"app {self.name}"

    async def run(self) -> None:
        """Live until it leaves, or is cancelled."""
        await trio.sleep_until(self.scene.began_at + self.plan.at)
        while not self.gone:
            pause_s = await self._visit()
            await trio.sleep(pause_s)

    async def leave(self) -> None:
        """Clean up and say so, without having been asked."""
        self.gone = True
        carrier = self._carrier
        if carrier is not None:
            await self._say(carrier, {"type": "app_terminated", "request_id": "", "status": "OK", "message": "over"})
            with trio.move_on_after(LEAVE_S):
                while self._carrier is carrier:  # noqa: ASYNC110
                    await trio.sleep(0.25)

    async def _visit(self) -> float:
        """Be connected once; return how long to wait before the next time."""
        code = None
        self.asked_at = self.answered_at = math.inf
        try:
            async with self.scene.connect(self.name, "ws://lb/deepstream/ws") as (carrier, wire):
                self._carrier, self.wire, self._pinged_at = carrier, wire, math.inf
                code = await self._converse(carrier)
        except DialFailed:
            pass
        finally:
            self._carrier, self.wire, self.is_in = None, "", False
        return self._pause(code)

    def _pause(self, code: int | None) -> float:
        self._last_code = code
        if code is not None:
            self.scene.reached(f"app closed with {code}")
        if code == 1000:
            self.returns, self._last_code = False, None
            return BEGUN_AGAIN_S
        if code == 1001:
            return AWAY_S
        if code == 1013:
            return REFUSED_S
        pause_s = min(LONGEST_S, FIRST_S * 2.0**self._failures)
        self._failures += 1
        return pause_s * self._random.uniform(0.9, 1.0)

    async def _converse(self, carrier: Carrier) -> int | None:
        """Speak until the connection is over; return with which code."""
        scene, wire, code = self.scene, self.wire, None
        async with trio.open_nursery() as nursery:
            await self._say(carrier, self._ready())
            nursery.start_soon(self._beat, carrier, nursery.cancel_scope)
            nursery.start_soon(self._detect, carrier)
            try:
                while True:
                    data = await carrier.receive()
                    scene.trace.frame(wire, "<", data, in_words)
                    kind = kind_of(data)
                    if kind == "terminate_app":
                        nursery.start_soon(self._clean_up, carrier, json.loads(data)["request_id"])
                    else:
                        await self._take(carrier, kind, json.loads(data))
            except CarrierClosed as closed:
                scene.trace(wire, f"closed {closed.code} {closed.reason}")
                scene.check.closed(wire, closed.code, closed.reason)
                code = closed.code
                scene.check.fleet_order.closed(self, wire, code)
            nursery.cancel_scope.cancel(reason="the connection is over")
        return code

    def _ready(self) -> dict[str, Any]:
        auth = self.scene.credential(self.name, "worker") if "auth" in self.scene.plan.sections else None
        return {
            "type": "app_ready",
            "instance_id": self.name,
            "reconnection": self.returns,
            "last_close_code": self._last_code,
            "config": {"ack": True},
            **({"auth": auth} if auth else {}),
        }

    async def _take(self, carrier: Carrier, kind: str, said: dict[str, Any]) -> None:
        check = self.scene.check.fleet_order
        if kind == "pong":
            self._pinged_at = math.inf
        elif kind in ANSWERS:
            check.let_in(self, self.wire, said)
            self.is_in = self.returns = True
            self._failures = 0
        elif kind == "error":
            self.scene.reached(f"app told of {said['code']}")
            self.scene.check.told(json.dumps(said))
        else:
            check.app_got(self, said)
            self.got = max(self.got, said["n"])
            await self._speak(carrier, {"type": "seen", "of": said["n"]})
            if said["n"] in self.plan.breaks and self.scene.chaos and self.wire:
                self.scene.reached("app broke behind a message")
                self.scene.network.by_name[self.wire].reset()

    async def _clean_up(self, carrier: Carrier, request: str) -> None:
        scene = self.scene
        scene.check.fleet_order.asked(self, self.wire)
        scene.reached("app asked to clean up")
        self.asked_at = trio.current_time()
        if self.plan.says_busy:
            await self._say(carrier, {"type": "app_busy", "request_id": request, "until_ms": BUSY_MS})
        if self.plan.cleans_up_s < 0:
            scene.reached("app does not clean up")
            return
        await trio.sleep(self.plan.cleans_up_s)
        self.answered_at = trio.current_time()
        done = {"type": "app_terminated", "request_id": request, "status": "OK", "message": "EOS sent"}
        await self._say(carrier, done)

    async def _detect(self, carrier: Carrier) -> None:
        while True:
            await trio.sleep(self._random.uniform(0.0, 2 * self.plan.every_s))
            if self.is_in and self.scene.chaos:
                await self._speak(carrier, {"type": "detection"})

    async def _speak(self, carrier: Carrier, said: dict[str, Any]) -> None:
        self._said += 1
        await self._say(carrier, {**said, "k": self._said})

    async def _beat(self, carrier: Carrier, scope: trio.CancelScope) -> None:
        began_at = trio.current_time()
        while True:
            await trio.sleep(PING_S)
            now = trio.current_time()
            if now - self._pinged_at > PONG_S or (not self.is_in and now - began_at > ANSWER_S):
                self.scene.reached("app without an answer")
                carrier.abort()
                scope.cancel(reason="no answer")
                return
            self._pinged_at = min(self._pinged_at, now)
            if self.is_in:
                await self._say(carrier, {"type": "ping"})

    async def _say(self, carrier: Carrier, said: dict[str, Any]) -> None:
        payload = json.dumps(said, separators=(",", ":")).encode()
        self.scene.trace.frame(self.wire, ">", payload, in_words)
        # Where it does not go out, the connection is over, and its reader finds that out.
        with suppress(CarrierClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await carrier.send([(True, payload)])


class FleetClient(ClientApp):
    """The client of one app."""

    def __init__(self, scene: "Scene", name: str, app: FleetApp) -> None:
        super().__init__(name, scene.dial(name), scene.chance)
        self.scene = scene
        self.app = app
        self.said = 0
        self.finished = False
        """It has said everything."""
        self._leaves = False
        self._random = scene.chance.random(f"client {name}")

    def __repr__(self) -> str:
        return f"{self.name} of {self.app!r}"

    def options(self) -> dict[str, Any]:
        """See `ClientApp.options`."""
        return {"auth": self.scene.credential(self.name, "client"), "want": {"instance": self.app.name}}

    def connected(self, client: Client) -> None:
        """See `ClientApp.connected`."""
        self.scene.trace(self.name, f"has {client.session}")

    def happened(self, event: LifecycleEvent) -> None:
        """See `ClientApp.happened`."""
        self.scene.trace(self.name, f"event {event}")

    def over(self, why: str) -> None:
        """See `ClientApp.over`."""
        self.scene.trace(self.name, f"over: {why}")
        if not self._leaves:
            self.scene.check.fleet_order.client_over(self, why)

    async def hears(self, client: Client, message: MessageReceived) -> None:
        """See `ClientApp.hears`."""
        del client
        self.scene.trace(self.name, f"hears {message.seq} {message.data}")
        self.scene.check.fleet_order.client_heard(self)

    async def talk(self, client: Client) -> None:
        """See `ClientApp.talk`."""
        with suppress(SessionGone):
            while self.said < self.app.plan.messages and self.scene.chaos:
                await trio.sleep(self._random.uniform(0.0, 1.0))
                number = self.said + 1
                await client.send({"type": "do", "n": number})
                self.said = number
            self.finished = True

    async def leave(self) -> None:
        """End the session."""
        self._leaves = True
        if self.client is not None:
            await self.client.bye("over")
