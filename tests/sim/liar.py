"""A client that claims positions which were never given out: what it says may cost its own session, and nothing else."""

from typing import TYPE_CHECKING

import trio

from signald.sdk.network import Carrier
from signald.wire.fields import SEQ_MAX
from tests.sim.false_party import HONEST_MESSAGES, FalseParty, Json

if TYPE_CHECKING:
    from tests.sim.plan import Step
    from tests.sim.scene import Scene

VISITS = 6
"""How often it resumes: a fault may end each of its connections."""


async def lie(scene: "Scene", step: "Step") -> None:
    """Start a session, claim too much in it, and go on with it for a while."""
    liar = Liar(scene, f"l{len(scene.liars)}x{step.number}", step)
    with trio.move_on_after(30.0):
        await liar.run()


class Liar(FalseParty):
    """See the module."""

    def __init__(self, scene: "Scene", name: str, step: "Step") -> None:
        super().__init__(scene, name, step)
        self.ahead = min(
            self.ahead, SEQ_MAX
        )  # a larger one costs the connection, and its session is what is judged here
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
            with self.faults():
                await self._visit()

    async def _start(self) -> None:
        with self.faults():
            async with self.connected("client") as carrier:
                await self.say(carrier, type="connect", auth=self.credential("client"))
                started = await self.hear(carrier)
                if started["type"] != "session_started":
                    return
                self.token = started["recovery_token"]
                self.expect_nothing_of(started["session"])
                for seq in range(1, HONEST_MESSAGES + 1):
                    await self.say(carrier, type="message", seq=seq, data={"n": seq})
                heard = await self._listen(carrier, 1.0)
                if self.word in ("ack", "seq"):
                    await self._lie_in_place(carrier)
                    heard += await self._listen(carrier, 1.0)
                self._judge(heard)
                carrier.abort()

    async def _visit(self) -> None:
        scene = self.scene
        async with self.connected("client") as carrier:
            await self.say(
                carrier,
                type="restore_session",
                recovery_token=self.token,
                auth=self.credential("client"),
                **self.lies,
            )
            answer = await self.hear(carrier)
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

    async def _lie_in_place(self, carrier: Carrier) -> None:
        if self.word == "ack":
            await self.say(carrier, type="ack", seq=self.ahead)
        else:
            await self.say(carrier, type="message", seq=max(10, self.ahead), data={"n": 0})

    async def _go_on(self, carrier: Carrier, answer: Json) -> None:
        seq = answer["accepted"] + 1
        if seq <= SEQ_MAX:
            await self.say(carrier, type="message", seq=seq, data={"n": seq})
        await self._listen(carrier, 3.0)
        await self.say(carrier, type="bye")
        await self._listen(carrier, 3.0)

    def _judge(self, heard: list[Json]) -> None:
        for frame in heard:
            if frame["type"] == "error" and frame["code"] == "too_far_ahead":
                self.scene.reached("lie refused")
                if self.ahead < 10_000:
                    self.scene.violate("nobody-hurts", f"{self.name} claims {self.ahead} and gets {frame}")

    async def _listen(self, carrier: Carrier, seconds: float) -> list[Json]:
        heard: list[Json] = []
        with trio.move_on_after(seconds):
            while True:
                heard.append(await self.hear(carrier))
        return heard
