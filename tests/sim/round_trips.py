"""Round trips: from the moment a client says something to the answer of its worker, in simulated time."""

from typing import TYPE_CHECKING, Any

import trio

from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.parties import ClientParty
    from tests.sim.scene import Scene


class RoundTrips(Checker):
    """Every answer comes within the time of the plan, if it has one; what is asked before the first pairing waits for that."""

    name = "round-trip"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self.longest_s = 0.0
        self.count = 0
        self._asked: dict[tuple[str, int], float] = {}

    def says(self, client: "ClientParty", number: int) -> None:
        """A client is about to say its message `number`."""
        if self.scene.plan.round_trip_s:
            self._asked[client.name, number] = trio.current_time()

    def heard(self, client: "ClientParty", said: dict[str, Any]) -> None:
        """A client has heard what a worker said."""
        asked_at = self._asked.pop((client.name, said.get("of", 0)), None)
        if asked_at is None:
            return
        took_s = trio.current_time() - asked_at
        self.count += 1
        self.longest_s = max(self.longest_s, took_s)
        if took_s > self.scene.plan.round_trip_s:
            self.broken(f"{client.name} waited {took_s:.3f} s for the answer to {said['of']}")
