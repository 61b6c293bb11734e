"""What parties do that they should not, or that a proxy does in their name, and what is seen of their frames.

Every frame of every party goes through a `Tapped` carrier: it is noted there, and may be said twice, said on a connection
the party has left already, read late, or not understood.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.network import Carrier, CarrierClosed
from signald.sdk.writing import Frame

if TYPE_CHECKING:
    from tests.sim.scene import Scene

MAY_COME_TWICE = ("message", "ack", "receipt", "session_accept", "app_state")
"""What is said of a session that stands; opening messages are claims, and a claim of another connection is another claim."""


@attrs.frozen
class DuplicateFrame:
    """A `share` of the frames that may be is said twice, by either side."""

    share: float


@attrs.frozen
class AnswersOnOldConnection:
    """A worker that has moved says a `share` of what it says on its old connection as well, up to `up_to_s` later."""

    share: float
    up_to_s: float


Habit = DuplicateFrame | AnswersOnOldConnection


class Tapped:
    """A carrier that notes what goes over it, and treats it as its party's habits are."""

    def __init__(self, carrier: Carrier, scene: "Scene", party: str, wire: str) -> None:
        self._carrier = carrier
        self._scene = scene
        self._party = party
        self._wire = wire
        self._again: list[str | bytes] = []
        self._closed = False
        habits = scene.plan.habits
        self._twice = next((one.share for one in habits if isinstance(one, DuplicateFrame)), 0.0)
        self._old = next((one for one in habits if isinstance(one, AnswersOnOldConnection)), None)
        if not party.startswith("w"):
            self._old = None
        self._before = [one for one in scene.carriers.get(party, []) if not one._closed]
        scene.carriers[party] = [*self._before, self]

    async def receive(self) -> str | bytes:
        scene = self._scene
        scene.conduct.taken(self._wire)
        while True:
            if self._again:
                return self._again.pop()
            await scene.reads(self._party)
            try:
                data = await self._carrier.receive()
            except CarrierClosed as closed:
                self._closed = True
                scene.trace(self._wire, f"closed {closed.code} {closed.reason}")
                scene.check.closed(self._wire, closed.code, closed.reason)
                raise
            scene.trace.frame(self._wire, "<", data, said)
            kind = kind_of(data)
            if kind == "error":
                scene.check.told(data)
            scene.conduct.told(self._wire, kind, data)
            if scene.speaking is not None and scene.speaking.knows(self._party):
                data, again = scene.speaking.takes(self._party, self._wire, kind, data)
                if again:
                    await self._carrier.send(again)
                if data is None:
                    continue
            if scene.rooming is not None and scene.rooming.knows(self._party):
                data = scene.rooming.takes(self, self._party, kind, data)
                if data is None:
                    continue
            if kind == "goaway" and self._party in scene.at_goaway:
                scene.at_goaway[self._party](self._wire)
            if kind == "goaway" and self._party in scene.old_clients:
                scene.reached("goaway to a program that does not know it")
                continue
            if self._twice and scene.chaos and kind in MAY_COME_TWICE and scene.luck.random() < self._twice:
                self._again.append(data)
            return data

    async def send(self, frames: Sequence[Frame]) -> None:
        out: list[Frame] = []
        late: list[Frame] = []
        scene = self._scene
        for text, payload in frames:
            kind = kind_of(payload)
            if scene.speaking is not None and scene.speaking.knows(self._party):
                text, payload = scene.speaking.sends(self._party, kind, (text, payload))
            if scene.rooming is not None and scene.rooming.knows(self._party):
                text, payload = scene.rooming.sends(self, self._party, kind, (text, payload))
            scene.trace.frame(self._wire, ">", payload, said)
            out.append((text, payload))
            if self._party.startswith("w"):
                scene.conduct.said(self._wire, kind, payload)
            if scene.chaos and kind in MAY_COME_TWICE:
                if self._twice and scene.luck.random() < self._twice:
                    scene.reached("frame said twice")
                    out.append((text, payload))
                if self._old is not None and self._before and scene.luck.random() < self._old.share:
                    late.append((text, payload))
        if late and self._old is not None:
            seconds = scene.luck.uniform(0.0, self._old.up_to_s)
            for one in self._before:
                if not one._closed:
                    scene.later(seconds, one._say_late, late)
        await self._carrier.send(out)

    async def say(self, frames: Sequence[Frame]) -> None:
        """Say what the SDK knows nothing of. Raises CarrierClosed."""
        for _, payload in frames:
            self._scene.trace.frame(self._wire, ">", payload, said)
        await self._carrier.send(frames)

    async def _say_late(self, frames: Sequence[Frame]) -> None:
        if self._closed:
            return
        self._scene.reached("worker said something on a connection it had left")
        self._scene.trace(self._wire, f"> {len(frames)} frames, once more here")
        try:
            with trio.move_on_after(5.0):
                await self._carrier.send(frames)
        except (CarrierClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was over already

    async def aclose(self, code: int, reason: str) -> None:
        self._closed = True
        await self._carrier.aclose(code, reason)

    def abort(self) -> None:
        self._closed = True
        self._carrier.abort()


def kind_of(frame: str | bytes) -> str:
    """Return the type of a frame: it stands before anything an application has said."""
    head = frame[:200] if isinstance(frame, str) else frame[:200].decode(errors="replace")
    return head.partition('"type":"')[2].partition('"')[0]


def parsed(frame: str | bytes) -> dict[str, Any]:
    """What a frame says; of raw bytes only how many there are."""
    message: dict[str, Any]
    if isinstance(frame, bytes) and frame[:1] != b"{":
        length = int.from_bytes(frame[:2], "big")
        message = {**json.loads(frame[2 : 2 + length]), "data": f"{len(frame) - 2 - length} bytes"}
    else:
        message = json.loads(frame)
    return message


def said(frame: str | bytes) -> str:
    """A frame in a few words."""
    message = parsed(frame)
    kind = message.pop("type")
    return " ".join([kind, *(f"{key}={_short(value)}" for key, value in message.items())])


def _short(value: object) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) < 120 else f"{text[:40]}...({len(text)})"
