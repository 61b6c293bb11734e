"""The parts of a party that claims positions which were never given out, be it a client or a worker."""

import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import trio

from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier, CarrierClosed
from signald.wire.fields import SEQ_MAX
from tests.sim.parties import dial_through

if TYPE_CHECKING:
    from tests.sim.plan import Step
    from tests.sim.scene import Scene

PATIENCE_S = 5.0
"""Longer than an honest answer takes without faults. With them, the liar gives up: it has no right to more."""

HONEST_MESSAGES = 3
"""Messages that every liar has sent: its claims lie above them."""

Json = dict[str, Any]


class FalseParty:
    """A party that speaks over a carrier by hand, and judges no answer but that all numbers in it can be said."""

    def __init__(self, scene: "Scene", name: str, step: "Step") -> None:
        self.scene = scene
        self.name = name
        self.ahead = round(step.seconds) + HONEST_MESSAGES
        """The position that it claims; the largest of a plan is one that no message may hold."""
        self.word = step.how
        """The field in which it claims it."""
        self.token = ""

    def expect_nothing_of(self, session: str) -> None:
        """Tell the checkers that nothing is promised to this session."""
        self.scene.liars.add(session)
        self.scene.stolen.add(session)

    def connected(self, role: str, party: str = "") -> AbstractAsyncContextManager[Carrier]:
        """Connect as a client or a worker; `party` is the name in the network, its own unless given."""
        return dial_through(self.scene, party or self.name)(f"ws://lb/v1/{role}")

    def credential(self, role: str) -> str:
        """The proof that it is the subject of its name."""
        return self.scene.credential(self.name, role)

    @contextmanager
    def faults(self, whose: str = "") -> Iterator[None]:
        """Let a fault of the network or of a node end the block."""
        try:
            yield
        except* (CarrierClosed, DialFailed, trio.TooSlowError) as why:
            self.scene.trace(self.name, f"{whose}is cut off: {why!r}")

    async def say(self, carrier: Carrier, **message: object) -> None:
        """Send one message, in time."""
        with trio.fail_after(PATIENCE_S):
            await carrier.send([(True, json.dumps(message).encode())])

    async def receive(self, carrier: Carrier) -> Json:
        """Receive one message."""
        message: Json = json.loads(await carrier.receive())
        return message

    async def hear(self, carrier: Carrier) -> Json:
        """Receive one message, in time."""
        with trio.fail_after(PATIENCE_S):
            message = await self.receive(carrier)
        self.scene.trace(self.name, f"hears {message}")
        for field, value in message.items():
            if isinstance(value, int) and value > SEQ_MAX:
                self.scene.violate("nobody-hurts", f"{self.name} hears {field} {value}, which no party can say")
        return message
