"""A worker that claims positions which were never given out, in the session of a client that stands by it and is honest.

What it says may cost its own place. Its client's messages are stored, and reach this worker or the next one.
"""

from typing import TYPE_CHECKING

import trio

from signald.sdk.network import Carrier
from tests.sim.false_party import PATIENCE_S, FalseParty, Json

if TYPE_CHECKING:
    from tests.sim.plan import Step
    from tests.sim.scene import Scene

LIFE_S = 25.0
VISITS = 5
"""How often it resumes: a fault may end each of its connections."""
REFUSED_ABOVE = 10**8
"""Positions that lie above every bound of a plan."""


async def lie_as_worker(scene: "Scene", step: "Step") -> None:
    """Let a client start a session that only its own worker suits, and let that worker lie in it."""
    liar = LyingWorker(scene, f"v{len(scene.liars)}x{step.number}", step)
    with trio.move_on_after(LIFE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(liar.stand_by)
            await liar.run()
            nursery.cancel_scope.cancel(reason="the liar has said enough")


class LyingWorker(FalseParty):
    """See the module."""

    def __init__(self, scene: "Scene", name: str, step: "Step") -> None:
        super().__init__(scene, name, step)
        self.session = ""
        self.started = trio.Event()

    async def stand_by(self) -> None:
        """Be the client: say something every second, and end the session in the end."""
        with self.faults("its client "):  # a node that stands still reads nothing
            async with self.connected("client", f"{self.name}c") as carrier:
                await self.say(carrier, type="connect", auth=self.credential("client"), want={"liar": self.name})
                started = await self.receive(carrier)
                if started["type"] != "session_started":
                    return
                self.session = started["session"]
                self.expect_nothing_of(self.session)
                self.started.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear_all, carrier)
                    for seq in range(1, 20):
                        await self.say(carrier, type="message", seq=seq, data={"n": seq})
                        await trio.sleep(1.0)
                    await self.say(carrier, type="bye")

    async def _hear_all(self, carrier: Carrier) -> None:
        while True:
            frame = await self.receive(carrier)
            if frame["type"] == "error" and frame["code"] not in ("rate", "backlog", "gap", "log_lost"):
                self.scene.violate("nobody-hurts", f"the client of {self.name} hears {frame}")

    async def run(self) -> None:
        """Be the worker: register, take the session, and lie in each visit but the first."""
        with trio.move_on_after(PATIENCE_S):
            await self.started.wait()
        for _ in range(VISITS if self.started.is_set() else 0):
            with self.faults():
                async with self.connected("worker", f"{self.name}w") as carrier:
                    await self._visit(carrier)
            await trio.sleep(0.3)

    async def _visit(self, carrier: Carrier) -> None:
        again = (
            {"reconnection": True, "recovery_token": self.token, "sessions": [self._position()]} if self.token else {}
        )
        await self.say(
            carrier,
            type="app_ready",
            auth=self.credential("worker"),
            instance_id=self.name,
            labels={"liar": self.name},
            capacity=1,
            **again,
        )
        answer = await self.hear(carrier)
        if answer["type"] == "reconnection_ack":
            self._judge(answer)
        self.token = answer.get("recovery_token", "")
        with trio.move_on_after(3.0):
            while True:
                await self._answer(carrier, await self.receive(carrier))
        if self.word == "ack":
            await self.say(carrier, type="ack", session=self.session, seq=self.ahead)
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
            await self.say(carrier, type="session_accept", session=session, epoch=frame["epoch"])
        elif frame["type"] == "session_assigned":
            await self.say(carrier, type="session_refuse", session=session, reason="full", epoch=frame["epoch"])
        elif frame["type"] == "message":
            self.scene.reached("message to a worker that lies")
            if frame["seq"] % 2:
                await self.say(carrier, type="ack", session=session, seq=frame["seq"])
