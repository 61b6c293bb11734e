"""One run: the nodes, the balancer, the parties, the operator, and what is demanded of them in the end."""

import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import attrs
import jwt
import trio

from signald.sdk.core import SessionCore
from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier
from signald.sdk.trio import Dial
from signald.sdk.trio_carrier import over_stream
from signald.service import relay
from signald.service.cluster import lag, sweeps
from signald.service.rooms import sweeping
from signald.store.base import Op, Result
from signald.store.registry.agenda import packing as agenda_packing
from signald.store.registry.agenda import records
from signald.store.registry.agenda import rules as agenda_rules
from signald.store.registry.ops import (
    Incarnation,
    ListNodes,
    ListOverdue,
    ListSuited,
    ListWaiting,
    ListWorkers,
    PutNode,
)
from signald.testing.cluster import config_for
from signald.testing.loop import Patch
from signald.testing.messages import over_messages, serve_messages
from signald.testing.network import Wire
from signald.testing.pipes import OldProgram
from signald.testing.seeded import Chance, JumpClock, determined_by
from signald.testing.trace import Trace, logs_to
from signald.wire.close_codes import CloseCode
from signald.wire.messages import SUBPROTOCOL
from tests.sim.canvases import Canvassing
from tests.sim.checkers import bridged
from tests.sim.checks import Checkers
from tests.sim.conduct_checkers import Conduct
from tests.sim.core_server import CoreServer
from tests.sim.fleets import Cameras
from tests.sim.habits import Tapped
from tests.sim.net import FaultyNetwork
from tests.sim.nodes import SimNode, only, run_node
from tests.sim.operator import Operator
from tests.sim.parties import CANARY, ClientParty, HandlerFailed, Handling, WorkerParty, dial_through
from tests.sim.plan import JWT_SECRET, Plan, Step, draw
from tests.sim.recalls import Calling
from tests.sim.redis_world import RedisWorld, server_of_this_process
from tests.sim.rooms import Rooming
from tests.sim.small import draw_small
from tests.sim.speech import Speaking
from tests.sim.stores import SimWorld, StoreTrouble
from tests.sim.submitting import Submitting
from tests.sim.uploading import Uploading

Transport = Literal["frames", "messages"]
"""How parties and nodes are connected: over faulty byte streams, or by whole messages, which is faster."""
Kept = Literal["memory", "redis"]
"""Where the store keeps it: in memory, by the rules in Python, or on a redis-server, by the scripts."""

COARSE: tuple[Patch, ...] = ((lag, "LAG_EVERY_S", 60.0), (sweeps, "SWEEP_S", 2.0))
"""For whole messages. In virtual time no loop is late, and its measurement would be a third of a run; sweeps may come later, too."""

ROOMS_SWEPT: tuple[Patch, ...] = ((sweeping, "AGAIN_S", 60.0),)
"""Seats of sessions that ended with their node are taken after two minutes, and not after half an hour."""

_SHELVES_SEEN = {**records.AHEAD_MAX_MS, "b": 240_000}
SHELVES_SWEPT: tuple[Patch, ...] = tuple(
    (module, "AHEAD_MAX_MS", _SHELVES_SEEN) for module in (agenda_rules, agenda_packing)
)
"""A shelf is looked at every four minutes, and not once a day: that is how an upload goes which a batch has begun that came twice."""

STARTED_MS = 1_700_000_000_000
SETTLE_S = 60.0
POLL_S = 0.25
BYE_S = 50.0
"""A party whose connection has stalled finds that out by its heartbeat, and then comes again to say it."""
GHOST_S = 420.0
"""Above twice the time to live of a session: one whose start was never heard of is held for so long."""

TOLD_S = 600.0
"""Above the longest pause between two attempts to tell an event, after as many failures as the faults of a run can cause."""

IDLE = frozenset({Incarnation, ListNodes, ListOverdue, ListSuited, ListWaiting, ListWorkers, PutNode})
"""What nodes ask of the store all the time: two thirds of all operations. Only how a node renews its lease is judged."""


@attrs.frozen
class Outcome:
    """What came of a run."""

    seed: int
    transport: Transport
    violations: tuple[tuple[str, str], ...]
    digest: str
    events: int
    rare: dict[str, int]
    lines: list[str]
    virtual_s: float
    deploys: int
    """Drains begun, by a signal or an operator, while there were parties."""


class Scene:
    """See the module."""

    def __init__(self, plan: Plan, *, keep: bool, transport: Transport = "frames", store: Kept = "memory") -> None:
        self.plan = plan
        self.transport = transport
        self.chance = Chance(plan.seed)
        self.trace = Trace(keep=keep)
        self.world = self._world(store)
        self.network = FaultyNetwork(plan.net, self.chance.random("network"))
        self.trouble = StoreTrouble(plan.store)
        self.nodes: list[SimNode] = []
        self.sessions: dict[str, ClientParty] = {}
        self.handlings: list[Handling] = []
        self.rare: Counter[str] = Counter()
        self.violations: list[tuple[str, str]] = []
        self.chaos = True
        self.settled = False
        """All parties have caught up, and take leave."""
        self.luck = self.chance.random("luck")
        self.carriers: dict[str, list[Tapped]] = {}
        """Party → its connections, as long as another one may still look at them."""
        self.old_clients = {one.name for one in plan.clients if not one.heeds_goaway}
        self.network.old_programs |= {one.name for one in plan.workers if one.old}
        self.at_goaway: dict[str, Callable[[str], None]] = {}
        """Party → what is done when it takes its next goaway, from the connection of that name."""
        self.dials_late: dict[str, float] = {}
        """Party → how long its next connection takes to be made."""
        self.stolen: set[str] = set()
        """Sessions a thief has a token of."""
        self.liars: set[str] = set()
        """Sessions one of whose parties claims what is not so; nothing is promised to those either."""
        self.over_http: set[str] = set()
        """Parties that open a connection for each request."""
        self.said_bye: set[str] = set()
        """Workers that left in good order."""
        self.brought_back: set[str] = set()
        """Sessions that were over, until a store that had failed over knew them again."""
        self.never_copied: set[str] = set()
        """Sessions that a store that has failed over had not heard of."""
        self.check = Checkers(self)
        self.conduct = Conduct(self)
        self.clients = [ClientParty(self, one) for one in plan.clients]
        self.workers = [WorkerParty(self, one) for one in plan.workers]
        self.operator = Operator(self)
        self.calling = Calling(self, plan.recalls) if plan.recalls is not None else None
        self.speaking = Speaking(self, plan.speech) if plan.speech is not None else None
        self.core = CoreServer(self, plan.core) if plan.core is not None else None
        self.uploading = Uploading(self, plan.blobs) if plan.blobs is not None else None
        self.rooming = Rooming(self, plan.rooms) if plan.rooms is not None else None
        self.canvassing = Canvassing(self, plan.canvases) if plan.canvases is not None else None
        cameras = Cameras(self, plan.fleet) if plan.fleet is not None else None
        self.of_dialects = [one for one in (self.canvassing, cameras) if one is not None]
        """The parties that speak other wires."""
        self.began_at = 0.0
        self._view: set[str] = set()
        self._news = 0
        self._heard: dict[str, int] = {}
        """Node → the number of the last news of it that the balancer has heard."""
        self._routes = self.chance.random("routes")
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._tasks_before = 0
        self.drains = 0

    def _world(self, store: Kept) -> SimWorld:
        if store == "memory":
            return SimWorld(started_ms=STARTED_MS)
        return RedisWorld(
            started_ms=STARTED_MS, server=server_of_this_process(), differs=lambda text: self.violate("twin", text)
        )

    # --- what the others call ---------------------------------------------------------------------------------------

    def violate(self, checker: str, text: str) -> None:
        """A promise was broken: the run is over."""
        if not self.violations:
            self.trace("CHECK", f"{checker}: {text}")
        self.violations.append((checker, text))
        self._scope.cancel(reason="a promise was broken")

    def reached(self, what: str) -> None:
        """A rare situation has occurred. What every run comes to at its end, when all take their leave, is none."""
        if not self.settled:
            self.rare[what] += 1

    def begin_handling(self, worker: str, session: str, core: SessionCore) -> Handling:
        """A worker's handler has begun."""
        handling = Handling(len(self.handlings), worker, session, core)
        self.handlings.append(handling)
        self.trace(f"h{handling.number}", f"{session} at {worker}")
        return handling

    def alive(self) -> list[SimNode]:
        """The nodes whose process runs."""
        return [node for node in self.nodes if node.node is not None and not node.gone.is_set() and not node.killed]

    def credential(self, party: str, role: str) -> str:
        """What a party shows to prove that it is the subject of its name."""
        if "auth" not in self.plan.sections:
            return CANARY
        claims = {"sub": party, "role": role, "exp": 4_000_000_000}
        return jwt.encode(claims, JWT_SECRET, algorithm="HS256")

    def dial(self, party: str) -> Dial:
        """The way of `party` to the load balancer."""
        return dial_through(self, party)

    def applied(self, node: str, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The store has carried out a batch."""
        if self.trace.keep:
            for op, result in zip(ops, results, strict=True):
                if type(op) not in IDLE:
                    self.trace.aside(node, f"{_words(op)} -> {_words(result)}")
        if IDLE.issuperset(map(type, ops)):
            renewals = [(op, result) for op, result in zip(ops, results, strict=True) if type(op) is PutNode]
            ops, results = [op for op, _ in renewals], [result for _, result in renewals]  # time goes on, none or not
        self.check.applied(ops, results)
        self.conduct.applied(node, ops, results)

    def logged(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """A node or an SDK has logged something."""
        error = fields.pop("exc_info", None)
        if event == "drain_phase" and fields["phase"] == "unready":
            self.drains += self.chaos
        text = f"{level} {event} {' '.join(f'{key}={value}' for key, value in fields.items())}"
        self.check.no_secret.text("a log", text)
        if self._nursery is not None:
            self.trace("log", text)
        if error:
            leaf = error[1] if isinstance(error, tuple) else error
            if leaf is True:
                leaf = sys.exc_info()[1]
            if not only(HandlerFailed, leaf):
                self.violate("no-crash", f"{event} {fields}\n{''.join(traceback.format_exception(leaf))}")
        elif event in ("log_lost", "claim_ahead", "claim_refused", "store_went_back"):
            self._said_lost(event, fields)
        elif event.startswith("sdk: ") and " cut: " in event and not self.plan.store_may_lose:
            why = event.partition(" cut: ")[2]
            if why.startswith("no sign of life"):
                self.reached("silence noticed by an SDK")
            if not why.startswith(("no sign of life", "no answer to the opening", "left, and not closed")):
                self.violate("wire", event)
        elif event == "session_ended" and fields["reason"] == "ended":
            self.check.found_over(fields["session"])
        elif event == "session_refused":
            self.conduct.refused(fields["session"], fields["worker"], fields["reason"])
        elif event in ("worker_given_up", "token_reuse", "successor_lost", "client_given_up", "no_successor"):
            self.reached(event)
            if event == "token_reuse" and fields.get("owner") not in self.stolen:
                self.violate("token-once", f"an honest party's token was called reused: {fields}")

    def _said_lost(self, event: str, fields: dict[str, Any]) -> None:
        if self.plan.store_may_lose:
            if event == "log_lost" and fields.get("session") not in self.liars:
                self.reached("loss of the store rang")
            return
        if event == "store_went_back":
            self.violate("nobody-hurts", f"a store that has lost nothing is said to have: {fields}")
        elif fields.get("session", fields.get("owner")) not in self.liars:
            self.violate("exactly-once", f"{event} of honest parties: {fields}")
        elif event == "log_lost":
            self.violate("nobody-hurts", f"a lie rings the alarm: {fields}")

    # --- the network ------------------------------------------------------------------------------------------------

    def learn(self, node: SimNode, *, up: bool) -> None:
        """The load balancer hears of a node, with its lag."""
        self._news += 1
        lag_s = self._routes.uniform(0.0, self.plan.lag_s) if self.plan.lag_s else 0.0
        self.late(lag_s, partial(self._learned, node.name, self._news, up=up))

    def _learned(self, name: str, number: int, *, up: bool) -> None:
        if number < self._heard.get(name, 0):
            return  # it has heard of something newer already
        self._heard[name] = number
        if up:
            self._view.add(name)
        else:
            self._view.discard(name)

    @asynccontextmanager
    async def connect(self, party: str, url: str) -> AsyncIterator[tuple[Carrier, str]]:
        """Connect `party` to the node the balancer chooses."""
        await trio.lowlevel.checkpoint()
        if party in self.dials_late:
            await trio.sleep(self.dials_late.pop(party))
        view = sorted(self._view)
        name = self._routes.choice(view) if view else ""
        node = next((one for one in self.nodes if one.name == name), None)
        if node is None or node.node is None or node.gone.is_set() or node.killed or node.stopping:
            self.trace(party, f"is refused at {name or 'the balancer'}")
            raise DialFailed(None, "connection refused")
        wire = self.network.connect(party, name, self._tap, self._lost_wire)
        self.conduct.dialled(party, wire.name, node)
        self.trace(party, f"dials {name} as {wire.name}")
        if self.transport == "messages":
            node.node.hub.spawn(serve_messages, node.node.server, wire.node_end)
            subprotocol = "" if party in self.network.old_programs else SUBPROTOCOL
            async with over_messages(wire.party_end, url, subprotocol) as messages:
                yield messages, wire.name
            return
        node.node.hub.spawn(node.node.server.serve_stream, wire.node_end)
        old = party in self.network.old_programs
        async with over_stream(OldProgram(wire.party_end) if old else wire.party_end, url) as carrier:
            yield carrier, wire.name

    def listening(self) -> list[SimNode]:
        """The nodes that take connections."""
        return [node for node in self.alive() if not node.stopping]

    def connect_plain(self, party: str, node: SimNode) -> trio.abc.Stream:
        """Open a connection of `party` to `node` on which nothing was said yet, for HTTP. Raises OSError."""
        if node.node is None or node.gone.is_set() or node.killed or node.stopping:
            raise ConnectionRefusedError
        self.over_http.add(party)
        wire = self.network.connect(party, node.name, self._tap, self._lost_wire)
        node.node.hub.spawn(node.node.server.serve_stream, wire.node_end)
        return wire.party_end

    def _lost_wire(self, wire: str, why: str) -> None:
        self.trace(wire, why)
        self.reached(f"connection {why}")

    def _tap(self, wire: Wire, data: bytes) -> None:
        node = next(one for one in self.nodes if one.name == wire.node)
        if node.writes_left >= 0:
            node.writes_left -= 1
            if node.writes_left < 0:
                node.at_write()
        self.check.written(node, wire, data)

    async def reads(self, party: str) -> None:
        """Return when `party` reads on."""
        client = next((one for one in self.clients if one.name == party), None)
        if client is not None and client.reads_from > trio.current_time():
            self.reached("client read nothing for a while")
            for wire in self.network.wires:
                wire.hurt = wire.hurt or wire.party == party
            while client.reads_from > trio.current_time() and self.chaos:  # noqa: ASYNC110
                await trio.sleep(POLL_S)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def start_node(self, *, stuck: bool = False) -> SimNode:
        """Start another node, of the next release; it is there when `ready` is set, unless it is `stuck`."""
        assert self._nursery is not None
        name = f"n{len(self.nodes) + 1}"
        releases = self.plan.releases
        release = releases[len(self.nodes) % len(releases)] if releases else {}
        sections = {section: dict(values) for section, values in self.plan.sections.items()}
        for section, values in release.items():
            sections[section] = {**sections.get(section, {}), **values}
        node = SimNode(name, config_for(name, **sections), stuck=stuck)
        self.nodes.append(node)
        self._nursery.start_soon(run_node, self, node)
        return node

    def late(self, seconds: float, deed: Callable[[], None]) -> None:
        """Do something `seconds` later."""
        assert self._nursery is not None
        if seconds <= 0.0:
            deed()
        else:
            self._nursery.start_soon(_later, seconds, deed)

    def later(self, seconds: float, deed: Callable[..., Awaitable[None]], *args: object) -> None:
        """Have something done by a task of its own, `seconds` later."""
        assert self._nursery is not None
        self._nursery.start_soon(_task_later, seconds, deed, args)

    async def _watch(self) -> None:
        while True:
            await trio.sleep(POLL_S)
            self.check.bounded_memory.poll()
            # A client that is dropped for not reading does not read the reason, either.
            if any(node.node and node.node.server.ended[CloseCode.SLOW_CONSUMER, "local"] for node in self.nodes):
                self.reached("slow consumer dropped")
            if len({node.config.node.release for node in self.up()}) > 1:
                self.reached("two releases at once")

    def up(self) -> list[SimNode]:
        """The nodes that serve and were not told to stop."""
        return [node for node in self.nodes if node.up]

    # --- the run ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play the plan and judge it."""
        self._tasks_before = trio.lowlevel.current_statistics().tasks_living
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                self.began_at = trio.current_time()
                first = [self.start_node() for _ in range(self.plan.nodes)]
                for node in first:
                    await node.ready.wait()
                async with trio.open_nursery() as parties:
                    parties.start_soon(self.network.run)
                    parties.start_soon(self._watch)
                    for worker in self.workers:
                        parties.start_soon(worker.run)
                    for client in self.clients:
                        parties.start_soon(client.run)
                    if self.speaking is not None:
                        submitting = Submitting(self)
                        for number, one in enumerate(self.speaking.speech.jobs):
                            parties.start_soon(submitting.run, number, one)
                    if self.uploading is not None:
                        for number, upload in enumerate(self.uploading.uploads):
                            parties.start_soon(self.uploading.run, number, upload)
                    if self.calling is not None:
                        parties.start_soon(self.calling.run)
                    if self.rooming is not None:
                        self.rooming.begin(parties)
                    for group in self.of_dialects:
                        group.begin(parties)
                    await self._play()
                    await self._heal()
                    if self.plan.poison is not None:
                        parties.start_soon(self.check.poison.retry_all)
                    await self._settle()
                    if self.calling is not None:
                        await self.calling.finish()
                    self.check.settled()
                    self.settled = True
                    await self._say_bye()
                    parties.cancel_scope.cancel(reason="the applications end")
                await self._no_ghosts()
                await self._all_told()
                await self._stop_all()
                self._nursery.cancel_scope.cancel(reason="the run is over")
            left = trio.lowlevel.current_statistics().tasks_living - self._tasks_before
            if left > 0:
                self.violate("no-orphan-task", f"{left} tasks are left")

    async def _play(self) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as deeds:
            for step in self.plan.steps:
                await trio.sleep_until(began + step.at)
                self.trace("OP", f"{step.what} {step.number} {step.seconds}")
                deed: Callable[[Step], Awaitable[None]] = getattr(self.operator, step.what)
                deeds.start_soon(deed, step)
            await trio.sleep_until(began + self.plan.lasts_s)

    async def _heal(self) -> None:
        self.trace("OP", "faults off")
        self.chaos = False
        self.network.heal()
        self.trouble.faulty = self.trouble.full = False
        self.world.outage = ""
        for node in self.nodes:
            self.operator.reconnect(node)
            self.network.gate(node.name).resume()
            node.writes_left = -1
            if node.store is not None:
                node.store.countdowns.clear()
            if node.stuck:
                self.operator.stop(node)
        self.check.liveness.healed()
        self.check.recalls.healed()
        if not self.up():
            node = self.start_node()
            await node.ready.wait()

    async def _settle(self) -> None:
        healed = trio.current_time()
        deadline = healed + SETTLE_S
        waiting = self.waiting()
        while waiting:
            if trio.current_time() - healed < GHOST_S and self._is_crowded_out():
                deadline = trio.current_time() + SETTLE_S
            if trio.current_time() > deadline:
                self.violate("liveness", "\n".join(waiting))
                return
            await trio.sleep(POLL_S)
            waiting = self.waiting()
        self.trace("OP", f"settled {trio.current_time() - healed:.1f} s after the faults")

    def _is_crowded_out(self) -> bool:
        """Tell whether each worker is full, and has sessions whose start no client has heard of: others wait until those have expired."""
        rows = self.world.rows
        held = [(one, rows.sessions_of(one.id)) for one in rows.workers()]
        return all(len(names) >= one.capacity for one, names in held) and any(
            name not in self.sessions for _, names in held for name in names
        )

    def waiting(self) -> list[str]:
        """Each client that waits, and what for; else the workers that linger."""
        return [text for client in self.clients if (text := self._waits(client))] or (
            [
                *self.conduct.lingering(),
                *self._speech_waits(),
                *(self.rooming.waiting() if self.rooming is not None else []),
                *[text for group in self.of_dialects for text in group.waiting()],
            ]
        )

    def _speech_waits(self) -> list[str]:
        if self.speaking is None:
            return []
        return [*self.check.streams.waiting(), *self.check.jobs.waiting()]

    def _waits(self, client: ClientParty) -> str:
        if client.gone is not None or client.session in self.stolen:
            return ""
        front = client.client
        if front is None:
            return f"{client.name} is not connected"
        if client.plan.says_bye and client.byed:
            return f"{client.name} waits for the end of {client.session}"
        core = front._core
        record = self.world.rows.session(client.session)
        if record is None:
            return f"{client.name}: the store does not know {client.session}"
        text = (
            f"{client.name} ({client.session}): said {client.said}, unacked {core.session.unacked}, "
            f"link {core.current}, peer {front.peer_state} {front.worker}, store up {record.up} down {record.down} "
            f"worker {record.worker!r} {record.worker_state!r} at {record.worker_side.node!r}, "
            f"client at {record.client.node!r}, heard {client.heard[-1:]}"
        )
        handlings = [one for one in self.handlings if one.session == client.session and not one.over]
        if core.session.unacked or core.current is None or record.up.acked < record.up.last or len(handlings) != 1:
            return f"{text}, handlers {[one.number for one in handlings]}"
        handling = handlings[0]
        if handling.core.unacked or record.down.acked < record.down.last:
            return f"{text}; h{handling.number} has {handling.core.unacked} unacked"
        # What counts as acked in a party's name it has, or it was told that it is lost. A worker begins behind what others had.
        begins = self.check.exactly_once.first_for.get((client.session, handling.worker), 1)
        got = max(handling.core.received, begins - 1)
        for who, has, core_of, last in (
            (client.name, core.session.received, core.session, record.down.last),
            (f"h{handling.number}", got, handling.core, record.up.last),
        ):
            if not bridged(has + 1, last, core_of._lost):
                return f"{text}; {who} has {has} of {last}, and was told of the loss of {core_of._lost}"
        if front.peer_state not in ("paired", "replaced") or front.worker != handling.worker:
            return f"{text}; h{handling.number} is at {handling.worker}"
        return ""

    async def _say_bye(self) -> None:
        async with trio.open_nursery() as byes:
            for client in self.clients:
                if client.session not in self.stolen:
                    byes.start_soon(self._bye, client)
            for group in self.of_dialects:
                byes.start_soon(group.leave, BYE_S)
        for worker in self.workers:
            worker.crash(1000.0, leaves=True)
        with trio.move_on_after(15):
            while any(worker.worker is not None for worker in self.workers):  # noqa: ASYNC110
                await trio.sleep(POLL_S)

    async def _bye(self, client: ClientParty) -> None:
        client.byed = True
        if client.client is not None:
            with trio.move_on_after(BYE_S) as scope:
                await client.client.bye("over")
            if scope.cancelled_caught:
                self.violate("liveness", f"{client.name} said bye, and nothing came of it")

    async def _no_ghosts(self) -> None:
        # A clock set back keeps abandoned records for as much longer; it is set right before they are looked for.
        if self.trouble.clock_ms < 0:
            self.trouble.clock_ms, self.trouble.clock_set_at = 0, trio.current_time()
        deadline = trio.current_time() + GHOST_S
        while left := [
            *self.check.no_ghost.left(),
            *self.check.room_order.ghosts(),
            *self.check.canvas_order.ghosts(),
        ]:
            if trio.current_time() > deadline:
                self.check.no_ghost.broken(", ".join(left[:8]))
                return
            await trio.sleep(1.0)

    async def _all_told(self) -> None:
        deadline = trio.current_time() + TOLD_S
        for check in (self.check.event_told, self.check.whole_blob):
            while left := check.waiting():
                if trio.current_time() > deadline:
                    check.broken(", ".join(left[:8]))
                    return
                await trio.sleep(1.0)
        self.check.event_told.settled()

    async def _stop_all(self) -> None:
        for node in self.nodes:
            if not node.gone.is_set():
                self.operator.stop(node)
        for node in self.nodes:
            if not node.gone.is_set():
                with trio.move_on_after(node.config.drain.stop_timeout_s + 5) as scope:
                    await node.gone.wait()
                if scope.cancelled_caught:
                    self.check.bounded.broken(f"{node.name} does not exit: {node.node and node.node.shutdown.status}")


async def _task_later(seconds: float, deed: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
    await trio.sleep(seconds)
    await deed(*args)


async def _later(seconds: float, deed: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    deed()


def _words(op: object) -> str:
    text = repr(op)
    return text if len(text) < 400 else text[:400] + "..."


def play(plan: Plan | int, *, keep: bool = False, transport: Transport = "frames", store: Kept = "memory") -> Outcome:
    """Run a plan, or that of a seed. Errors of the simulation itself come out as they are."""
    if isinstance(plan, int):
        plan = draw(plan) if transport == "frames" else draw_small(plan)
    return play_scene(Scene(plan, keep=keep, transport=transport, store=store))


def play_scene(scene: Scene) -> Outcome:
    """Play a scene that was made and not begun; what its checkers have counted is there afterwards."""
    plan, transport = scene.plan, scene.transport
    virtual_s = 0.0

    async def main() -> None:
        nonlocal virtual_s
        began = trio.current_time()
        with trio.fail_after(3000):
            await scene.run()
        virtual_s = trio.current_time() - began

    patches = (
        (relay, "LOOK_LIMIT", plan.look_limit),
        *(SHELVES_SWEPT if plan.blobs is not None else ()),
        *(ROOMS_SWEPT if plan.rooms is not None or plan.canvases is not None else ()),
        *(COARSE if transport == "messages" else ()),
    )
    with determined_by(plan.seed, patches), logs_to(scene.logged):
        try:
            trio.run(main, clock=JumpClock())
        except Exception as error:
            scene.violations.append(("no-crash", "".join(traceback.format_exception(error))))
    return Outcome(
        plan.seed,
        transport,
        tuple(scene.violations),
        scene.trace.digest,
        scene.trace.count,
        dict(scene.rare),
        scene.trace.lines,
        virtual_s,
        scene.drains,
    )
