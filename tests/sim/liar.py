"""A client that claims positions which were never given out: what it says may cost its own session, and nothing else."""

import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import trio

from signald.sdk.carrier import Carrier, CarrierClosed, DialFailed
from signald.wire.messages import SEQ_MAX
from tests.sim.parties import dial_through

if TYPE_CHECKING:
    from tests.sim.plan import Step
    from tests.sim.scene import Scene

PATIENCE_S = 5.0
"""Longer than an honest answer takes without faults. With them, the liar gives up: it has no right to more."""

VISITS = 6
"""How often it resumes: a fault may end each of its connections."""

Json = dict[str, Any]


async def lie(scene: "Scene", step: "Step") -> None:
    """Start a session, claim too much in it, and go on with it for a while."""
    name = f"l{len(scene.liars)}x{step.number}"
    liar = Liar(scene, name, min(round(step.seconds) + 3, SEQ_MAX), step.how)  # beyond the three messages it says
    with trio.move_on_after(30.0):
        await liar.run()


class Liar:
    """See the module."""

    def __init__(self, scene: "Scene", name: str, ahead: int, word: str) -> None:
        self.scene = scene
        self.name = name
        self.ahead = ahead
        self.word = word
        self.token = ""
        self.lies: dict[str, int] = {}
        """The positions that it claims when it resumes next."""

    async def run(self) -> None:
        """Live its whole life."""
        await self._start()
        lies = {"both": {"received": self.ahead, "acked": self.ahead}, "ack": {}, "seq": {}}
        self.lies = lies.get(self.word, {self.word: self.ahead})
        for _ in range(VISITS):
            if not self.token:
                return
            await trio.sleep(0.3)
            with self._faults():
                await self._visit()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except* (CarrierClosed, DialFailed, trio.TooSlowError) as why:
            self.scene.trace(self.name, f"is cut off: {why!r}")

    async def _start(self) -> None:
        with self._faults():
            async with self._connected() as carrier:
                await self._say(carrier, type="connect", auth=self.scene.credential(self.name, "client"))
                started = await self._hear(carrier)
                if started["type"] != "session_started":
                    return
                self.token = started["recovery_token"]
                self.scene.liars.add(started["session"])
                self.scene.stolen.add(started["session"])
                for seq in (1, 2, 3):
                    await self._say(carrier, type="message", seq=seq, data={"n": seq})
                heard = await self._listen(carrier, 1.0)
                if self.word in ("ack", "seq"):
                    await self._lie_in_place(carrier)
                    heard += await self._listen(carrier, 1.0)
                self._judge(heard)
                carrier.abort()

    async def _visit(self) -> None:
        scene = self.scene
        async with self._connected() as carrier:
            await self._say(
                carrier,
                type="restore_session",
                recovery_token=self.token,
                auth=self.scene.credential(self.name, "client"),
                **self.lies,
            )
            answer = await self._hear(carrier)
            if answer["type"] == "session_restored":
                scene.reached("lie believed" if self.lies else "liar resumed")
                if any(claim > 10**8 for claim in self.lies.values()):
                    scene.violate("nobody-hurts", f"{self.name} is believed: {self.lies}")
                self.token, self.lies = answer["recovery_token"], {}
                await self._go_on(carrier, answer)
                self.token = ""
            elif answer.get("code") == "too_far_ahead":
                self._judge([answer])
                self.lies = {}
            elif answer.get("code") in ("token_reuse", "token_revoked", "forbidden"):
                scene.violate("nobody-hurts", f"{self.name}: a refused claim has cost the session: {answer}")
            elif answer.get("code") == "nothing_to_resume":
                self.token = ""

    def _connected(self) -> AbstractAsyncContextManager[Carrier]:
        return dial_through(self.scene, self.name)("ws://lb/v1/client")

    async def _lie_in_place(self, carrier: Carrier) -> None:
        if self.word == "ack":
            await self._say(carrier, type="ack", seq=self.ahead)
        else:
            await self._say(carrier, type="message", seq=max(10, self.ahead), data={"n": 0})

    async def _go_on(self, carrier: Carrier, answer: Json) -> None:
        seq = answer["accepted"] + 1
        if seq <= SEQ_MAX:
            await self._say(carrier, type="message", seq=seq, data={"n": seq})
        await self._listen(carrier, 3.0)
        await self._say(carrier, type="bye")
        await self._listen(carrier, 3.0)

    def _judge(self, heard: list[Json]) -> None:
        for frame in heard:
            if frame["type"] == "error" and frame["code"] == "too_far_ahead":
                self.scene.reached("lie refused")
                if self.ahead < 10_000:
                    self.scene.violate("nobody-hurts", f"{self.name} claims {self.ahead} and gets {frame}")

    async def _say(self, carrier: Carrier, **message: object) -> None:
        with trio.fail_after(PATIENCE_S):
            await carrier.send([(True, json.dumps(message).encode())])

    async def _hear(self, carrier: Carrier) -> Json:
        with trio.fail_after(PATIENCE_S):
            frame = await carrier.receive()
        message: Json = json.loads(frame)
        self.scene.trace(self.name, f"hears {message}")
        for field, value in message.items():
            if isinstance(value, int) and value > SEQ_MAX:
                self.scene.violate("nobody-hurts", f"{self.name} hears {field} {value}, which no party can say")
        return message

    async def _listen(self, carrier: Carrier, seconds: float) -> list[Json]:
        heard: list[Json] = []
        with trio.move_on_after(seconds):
            while True:
                heard.append(await self._hear(carrier))
        return heard
