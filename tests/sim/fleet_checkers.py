"""A fleet: an app is ended in the order of its guide, found again where it was kept, and hears its client in order."""

from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.store.base import Op, Result
from signald.store.registry.ops import ClaimNamed, RemoveWorker, Sessions, WorkerClaimed
from tests.sim.checkers import Checker
from tests.sim.net import ResetConnection

if TYPE_CHECKING:
    from tests.sim.fleet_apps import FleetApp, FleetClient
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene

ASKED_S = 0.2
"""How much an app may find its time to clean up shortened by the way there and back, where the network is not late."""
WRONG = frozenset({4400, 4401, 4403, 4429})
"""Close codes of an app that has done something wrong."""


@attrs.frozen
class _Claim:
    """An app was let in by the store."""

    at: float
    was_kept: bool


class FleetOrder(Checker):
    """Apps clean up before they are closed, are restored where a registration was kept, and hear and are heard in order."""

    name = "fleet-order"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._registered: dict[str, str] = {}
        """Worker → its instance."""
        self._nonces: set[str] = set()
        self._claims: dict[tuple[str, str], list[_Claim]] = {}
        """Instance and node → the claims that were granted there."""
        self._on: dict[str, tuple[str, int]] = {}
        """App → its connection, and the number of the client's message that it was given last there."""
        plan = scene.plan
        self._loses = plan.store_may_lose or plan.clock_steps
        self._reads_all = scene.transport == "messages"
        """Over bytes the library of an app reads ahead: it has shown to have read what the app loses with its connection."""
        self._is_prompt = all(isinstance(one, ResetConnection) for one in plan.net)

    def applied(self, op: Op, result: Result) -> None:
        """The store has carried out an operation."""
        if isinstance(op, ClaimNamed) and isinstance(result, WorkerClaimed) and op.nonce not in self._nonces:
            self._nonces.add(op.nonce)
            claim = _Claim(trio.current_time(), op.worker in self._registered)
            self._claims.setdefault((op.instance, op.node), []).append(claim)
            self._registered[op.worker] = op.instance
        elif isinstance(op, RemoveWorker) and isinstance(result, Sessions):
            self._registered.pop(op.worker, None)

    def _node(self, wire: str) -> "SimNode":
        name = self.scene.network.by_name[wire].node
        return next(one for one in self.scene.nodes if one.name == name)

    # --- what an app is told ----------------------------------------------------------------------------------------

    def let_in(self, app: "FleetApp", wire: str, said: dict[str, Any]) -> None:
        """An app is answered."""
        opened_at, node = self.scene.network.by_name[wire].opened_at, self._node(wire)
        kept = {one.was_kept for one in self._claims.get((app.name, node.name), ()) if one.at >= opened_at}
        if said["type"] != ("reconnection_ack" if app.returns else "app_accepted"):
            return self.broken(f"{app!r} said reconnection={app.returns}, and is told {said}")
        if not kept:
            return self.broken(f"{app!r} is told {said}, and the store has not let it in")
        if app.returns:
            self.scene.reached("app restored" if said["session_restored"] else "app back, and not kept")
            if said["session_restored"] not in kept and not self._loses:
                self.broken(f"{app!r} is told {said}, and its registration was kept: {kept}")
        return None

    def asked(self, app: "FleetApp", wire: str) -> None:
        """An app is asked to clean up."""
        node = self._node(wire)
        if node.config.deepstream.on_drain != "terminate" or not node.draining:
            self.broken(f"{app!r} is asked to clean up by {node.name}, which does not end apps")
        if app.asked_at <= trio.current_time():
            self.broken(f"{app!r} is asked to clean up twice")

    def closed(self, app: "FleetApp", wire: str, code: int | None) -> None:
        """An app finds its connection closed."""
        node, now = self._node(wire), trio.current_time()
        if code in WRONG and not self._loses:
            self.broken(f"{app!r} is closed with {code}")
        if code == 1000 and app.answered_at > now and not app.gone:
            self.broken(f"{app!r} is closed with 1000, and has not cleaned up")
        quiet = node.signals == 1 and self._is_prompt and not self.scene.network.gate(node.name).stood_s
        if code != 1001 or not quiet or node.config.deepstream.on_drain != "terminate" or not app.is_in:
            return
        # An operator's drain that was under way before the signal has its own deadline.
        least = node.config.deepstream.terminate_timeout_s - ASKED_S
        if node.signalled_at is None or node.node is None or node.node.shutdown.status.began_at < node.signalled_at:
            return
        if app.asked_at > now:
            self.broken(f"{app!r} is closed with 1001 by {node.name}, and was not asked to clean up")
        elif now - app.asked_at < least:
            self.broken(f"{app!r} is closed with 1001 after {now - app.asked_at:.2f} s")
        elif app.answered_at - app.asked_at < least:
            self.broken(f"{app!r} has cleaned up, and is closed with 1001")

    # --- messages ---------------------------------------------------------------------------------------------------

    def app_got(self, app: "FleetApp", said: dict[str, Any]) -> None:
        """An app is given a message of its client."""
        wire, last = self._on.get(app.name, ("", 0))
        number = said["n"]
        if number > app.got + 1 and self._reads_all and not self._loses:
            self.broken(f"{app!r} has {app.got}, and is given {number}")
        if wire == app.wire and number != last + 1 and not self._loses:
            self.broken(f"{app!r} is given {number} behind {last} on one connection")
        if number <= app.got:
            self.scene.reached("app given a message again")
        self._on[app.name] = app.wire, number

    def client_heard(self, client: "FleetClient") -> None:
        """A client hears its app."""
        if len(client.heard) < 2 or self._loses:
            return
        before, now = client.heard[-2][1]["k"], client.heard[-1][1]["k"]
        if now <= before:
            self.broken(f"{client!r} hears {client.heard[-1]} behind {client.heard[-2]}")

    def client_over(self, client: "FleetClient", why: str) -> None:
        """The session of a client is over."""
        if not self._loses:
            self.scene.violate("nobody-lost", f"{client!r}: {why}")

    # --- the end ----------------------------------------------------------------------------------------------------

    def lacks(self, client: "FleetClient") -> str:
        """Say what an app and its client have not; empty: they have everything."""
        app = client.app
        if self._loses or client.gone is not None:
            return ""
        text = f"{client!r} ({client.session}) said {client.said}, the app has {app.got}"
        if client.client is None or not client.finished or not app.is_in:
            return f"{text}; app in: {app.is_in}, client done: {client.finished}"
        core = client.client._core
        missing = self._reads_all and app.got != client.said
        if core.session.unacked or core.current is None or missing:
            return f"{text}; unacked {core.session.unacked}, on {core.current}"
        if client.client.peer_state not in ("paired", "replaced"):
            return f"{text}; peer {client.client.peer_state}"
        return ""
