"""A DeepStream fleet in a simulation: its apps, and the clients that want one of them each.

An app knows the guide of its fleet alone, with its waits: 5 s behind 1001, 10 s behind 1013, else a second and twice as long each time. Of
its health the balancer of the scene knows. `fleet-order` judges both.
"""

import random
from typing import TYPE_CHECKING

import attrs
import trio

from tests.sim.fleet_apps import FleetApp, FleetClient

if TYPE_CHECKING:
    from tests.sim.scene import Scene

SHARE = 0.07
"""Of the plans. An app and its client stand in the place of other clients."""

CLIENTS_LEAST = 2
"""Of a plan with a fleet: drains and faults have other parties before them, too."""

TERMINATE_S = 3.0
"""`deepstream.terminate_timeout_s`: the shortest drain of a plan has time for it."""

OTHERS = {"kind": "ai"}
"""What the other workers of a plan are, and its other clients want: none of them is given an app."""

STRANGERS = frozenset({"lie", "lie_as_worker", "crowd", "steal_token", "show_token"})
"""Steps whose parties want nothing, and would be given an app."""


@attrs.frozen
class AppPlan:
    """One app, and what its client says."""

    at: float
    """When it starts, in seconds after the start of the run."""
    cleans_up_s: float
    """How long it takes to answer `terminate_app`; below 0: it never does."""
    says_busy: bool
    """It asks for more time first."""
    every_s: float
    """Between two detections."""
    messages: int
    """Of its client."""
    breaks: tuple[int, ...] = ()
    """Behind which of its client's messages its network breaks."""


@attrs.frozen
class Fleet:
    """What a plan has of a fleet."""

    apps: tuple[AppPlan, ...]
    on_drain: str
    resume_timeout_s: float


def draw_fleet(r: random.Random, lasts_s: float, *, planned_only: bool) -> Fleet | None:
    """Return the fleet of a plan, or None: most plans have none."""
    if r.random() >= SHARE:
        return None
    apps = tuple(_draw_app(r, lasts_s, planned_only=planned_only) for _ in range(r.choice((1, 2, 2))))
    return Fleet(apps, r.choice(("terminate", "terminate", "reconnect")), r.choice((3.0, 120.0)))


def _draw_app(r: random.Random, lasts_s: float, *, planned_only: bool) -> AppPlan:
    messages = r.randint(3, 30)
    breaks = sorted(r.sample(range(1, messages + 1), r.choice((0, 0, 1, 3))))
    return AppPlan(
        round(r.choice((0.0, r.uniform(0.0, lasts_s / 3))), 3),
        r.choice((-1.0, 0.0, 0.5, 2.0)),
        r.random() < 0.3,
        r.choice((0.2, 1.0)),
        messages,
        () if planned_only else tuple(breaks),
    )


def fleet_section(fleet: Fleet) -> dict[str, object]:
    """Return the section `deepstream` of a plan."""
    return {
        "on_drain": fleet.on_drain,
        "resume_timeout_s": fleet.resume_timeout_s,
        "terminate_timeout_s": TERMINATE_S,
    }


class Cameras:
    """The apps and clients of a scene whose plan has a fleet."""

    def __init__(self, scene: "Scene", fleet: Fleet) -> None:
        self.scene = scene
        self.fleet = fleet
        self.apps = [FleetApp(scene, f"a{number}", plan) for number, plan in enumerate(fleet.apps)]
        self.clients = [FleetClient(scene, f"k{number}", app) for number, app in enumerate(self.apps)]
        scene.network.old_programs |= {one.name for one in self.apps}

    def begin(self, nursery: trio.Nursery) -> None:
        """Let apps and clients live."""
        for app, client in zip(self.apps, self.clients, strict=True):
            nursery.start_soon(app.run)
            nursery.start_soon(client.run)

    def waiting(self) -> list[str]:
        """Each app and client that has not everything yet."""
        return [text for one in self.clients if (text := self.scene.check.fleet_order.lacks(one))]

    async def leave(self, within_s: float) -> None:
        """End all sessions, then all apps."""
        with trio.move_on_after(within_s):
            for client in self.clients:
                await client.leave()
            for app in self.apps:
                await app.leave()
