"""Canvases in a simulation: the sockets of pages, and what is drawn and said in them.

A page knows the guide of its canvas alone: no token, no GOAWAY, no seq. It restores its session on each connection, and says each
message of which it has seen no sign again, under the same id. `canvas-order` judges it.
"""

import random
from typing import TYPE_CHECKING

import attrs
import trio

from tests.sim.canvas_sockets import CanvasSocket

if TYPE_CHECKING:
    from tests.sim.scene import Scene

SHARE = 0.1
"""Of the plans. Their sockets stand in the place of clients: a search costs as much as one without them."""

KEEP_S = 60.0
"""`rooms.keep_s`: beyond the time for which all sockets of a canvas may be away in a run, and soon over at its end."""

HISTORY = 50
"""`rooms.history_messages_max` where it is short: as much as all pages have in flight, which a node may not have copied yet."""

CLIENTS_LEAST = 2
"""Of a plan with canvases: drains and faults have both kinds of parties before them."""

MESSAGES_MAX = 30
"""Of one socket. Four of them stay below the 200 publications in which a node looks for a chat that has no copy yet."""


@attrs.frozen
class SocketPlan:
    """One page."""

    canvas: str
    at: float
    """When it is opened, in seconds after the start."""
    messages: int
    every_s: float
    eager: bool
    """It goes on with what it has to say before its session is restored."""
    breaks: tuple[int, ...] = ()
    """Behind which of its messages its network breaks."""


@attrs.frozen
class Canvases:
    """What a plan has of canvases."""

    sockets: tuple[SocketPlan, ...]
    history: int
    """`rooms.history_messages_max`: with few, a chat is told from its copies."""


def draw_canvases(r: random.Random, lasts_s: float, *, planned_only: bool) -> Canvases | None:
    """Return the canvases of a plan, or None: most plans have none."""
    if r.random() >= SHARE:
        return None
    names = ("b1", "b2")[: r.choice((1, 1, 1, 2))]
    sockets = tuple(
        _draw_socket(r, r.choice(names), lasts_s, planned_only=planned_only) for _ in range(r.choice((2, 2, 3, 4)))
    )
    return Canvases(sockets, r.choice((HISTORY, 1000, 1000)))


def _draw_socket(r: random.Random, canvas: str, lasts_s: float, *, planned_only: bool) -> SocketPlan:
    messages = r.randint(3, MESSAGES_MAX)
    breaks = sorted(r.sample(range(1, messages + 1), r.choice((0, 0, 1, 3))))
    return SocketPlan(
        canvas,
        round(r.choice((0.0, r.uniform(0.0, lasts_s / 2))), 3),
        messages,
        r.choice((0.1, 0.3, 1.0)),
        r.random() < 0.5,
        () if planned_only else tuple(breaks),
    )


def canvas_section(canvases: Canvases) -> dict[str, object]:
    """Return the section `rooms` of a plan."""
    return {"history_messages_max": canvases.history, "keep_s": KEEP_S}


class Canvassing:
    """The sockets of a scene whose plan has canvases."""

    def __init__(self, scene: "Scene", canvases: Canvases) -> None:
        self._scene = scene
        self.canvases = canvases
        self.sockets = [CanvasSocket(scene, f"p{number}", plan) for number, plan in enumerate(canvases.sockets)]
        scene.network.old_programs |= {one.name for one in self.sockets}

    def begin(self, nursery: trio.Nursery) -> None:
        """Let the pages live."""
        for one in self.sockets:
            nursery.start_soon(one.run)

    def waiting(self) -> list[str]:
        """Each page that has not everything yet, or has said what was not taken."""
        return [text for one in self.sockets if (text := self._scene.check.canvas_order.lacks(one))]

    async def leave(self, within_s: float) -> None:
        """Close all pages."""
        with trio.move_on_after(within_s):
            async with trio.open_nursery() as nursery:
                for one in self.sockets:
                    nursery.start_soon(one.leave)
