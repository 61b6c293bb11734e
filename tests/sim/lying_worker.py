"""A worker that claims positions which were never given out, in the session of a client that stands by it and is honest.

What it says may cost its own place. Its client's messages are stored, and reach this worker or the next one.
"""

import json
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import trio

from signald.sdk.carrier import Carrier, CarrierClosed, DialFailed
from tests.sim.parties import dial_through

if TYPE_CHECKING:
    from tests.sim.plan import Step
    from tests.sim.scene import Scene

LIFE_S = 25.0
VISITS = 5
"""How often it resumes: a fault may end each of its connections."""
REFUSED_ABOVE = 10**8
"""Positions that lie above every bound of a plan."""

Json = dict[str, Any]


async def lie_as_worker(scene: "Scene", step: "Step") -> None:
    """Let a client start a session that only its own worker suits, and let that worker lie in it."""
    liar = LyingWorker(scene, f"v{len(scene.liars)}x{step.number}", round(step.seconds) + 3, step.how)
    with trio.move_on_after(LIFE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(liar.stand_by)
            await liar.run()
            nursery.cancel_scope.cancel(reason="the liar has said enough")


class LyingWorker:
    """See the module."""

    def __init__(self, scene: "Scene", name: str, ahead: int, word: str) -> None:
        self.scene = scene
        self.name = name
        self.ahead = ahead
        self.word = word
        self.token = ""
        self.session = ""
        self.started = trio.Event()

    async def stand_by(self) -> None:
        """Be the client: say something every second, and end the session in the end."""
        try:
            async with self._connected("client") as carrier:
                await self._say(carrier, type="connect", auth=self._credential("client"), want={"liar": self.name})
                started = json.loads(await carrier.receive())
                if started["type"] != "session_started":
                    return
                self.session = started["session"]
                self.scene.liars.add(self.session)
                self.scene.stolen.add(self.session)
                self.started.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear_all, carrier)
                    for seq in range(1, 20):
                        await self._say(carrier, type="message", seq=seq, data={"n": seq})
                        await trio.sleep(1.0)
                    await self._say(carrier, type="bye")
        except* (CarrierClosed, DialFailed, trio.TooSlowError) as why:  # a node that stands still takes nothing
            self.scene.trace(self.name, f"its client is cut off: {why!r}")

    async def _hear_all(self, carrier: Carrier) -> None:
        while True:
            frame = json.loads(await carrier.receive())
            if frame["type"] == "error" and frame["code"] not in ("rate", "backlog", "gap", "log_lost"):
                self.scene.violate("nobody-hurts", f"the client of {self.name} hears {frame}")

    async def run(self) -> None:
        """Be the worker: register, take the session, and lie in each visit but the first."""
        with trio.move_on_after(5.0):
            await self.started.wait()
        for _ in range(VISITS if self.started.is_set() else 0):
            try:
                async with self._connected("worker") as carrier:
                    await self._visit(carrier)
            except* (CarrierClosed, DialFailed, trio.TooSlowError) as why:
                self.scene.trace(self.name, f"is cut off: {why!r}")
            await trio.sleep(0.3)

    async def _visit(self, carrier: Carrier) -> None:
        again = (
            {"reconnection": True, "recovery_token": self.token, "sessions": [self._position()]} if self.token else {}
        )
        await self._say(
            carrier,
            type="app_ready",
            auth=self._credential("worker"),
            instance_id=self.name,
            labels={"liar": self.name},
            capacity=1,
            **again,
        )
        with trio.fail_after(5.0):
            answer = json.loads(await carrier.receive())
        self.scene.trace(self.name, f"hears {answer}")
        if answer["type"] == "reconnection_ack":
            self._judge(answer)
        self.token = answer.get("recovery_token", "")
        with trio.move_on_after(3.0):
            while True:
                await self._answer(carrier, json.loads(await carrier.receive()))
        if self.word == "ack":
            await self._say(carrier, type="ack", session=self.session, seq=self.ahead)
            await trio.sleep(0.5)

    def _position(self) -> Json:
        words = {"both": ("received", "acked"), "received": ("received",), "acked": ("acked",)}.get(self.word, ())
        return {"session": self.session, **dict.fromkeys(words, self.ahead)}

    def _judge(self, answer: Json) -> None:
        going_on = [one["session"] for one in answer["sessions"]]
        lies = len(self._position()) > 1
        if self.session in going_on and lies:
            self.scene.reached("lie of a worker believed")
            if self.ahead > REFUSED_ABOVE:
                self.scene.violate("nobody-hurts", f"{self.name} is believed: {self._position()}")
        elif lies:
            self.scene.reached("lie of a worker refused")

    async def _answer(self, carrier: Carrier, frame: Json) -> None:
        session = frame.get("session")
        if frame["type"] == "session_assigned" and session == self.session:
            await self._say(carrier, type="session_accept", session=session, epoch=frame["epoch"])
        elif frame["type"] == "session_assigned":
            await self._say(carrier, type="session_refuse", session=session, reason="full", epoch=frame["epoch"])
        elif frame["type"] == "message":
            self.scene.reached("message to a worker that lies")
            if frame["seq"] % 2:
                await self._say(carrier, type="ack", session=session, seq=frame["seq"])

    def _credential(self, role: str) -> str:
        return self.scene.credential(self.name, role)

    def _connected(self, role: str) -> AbstractAsyncContextManager[Carrier]:
        return dial_through(self.scene, f"{self.name}{role[0]}")(f"ws://lb/v1/{role}")

    async def _say(self, carrier: Carrier, **message: object) -> None:
        with trio.fail_after(5.0):
            await carrier.send([(True, json.dumps(message).encode())])
