"""Callers of the HTTP API in a simulation: a client and a worker with API tokens, and programs that show all they ever had at each node.

A step of the plan recalls what a caller was given (`Operator.recall`). The caller is turned away, tries its old credential once more,
and comes again with a new one, which is good. `no-token-after-recall` judges what the nodes answer.
"""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import attrs
import jwt
import trio

from signald.core.callers import CallerRefused
from signald.errors import StoreUnavailable
from signald.sdk.api_core import NoAnswer
from signald.sdk.requests import ask
from signald.sdk.trio import Client, ClientState, Refused, SessionGone, Worker, WorkerSession, open_client, open_worker
from signald.service.api.callers import HttpCallers

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.plan import Step
    from tests.sim.scene import Scene


@attrs.frozen
class CallerPlan:
    """One caller."""

    role: Literal["client", "worker"]
    starts_at: float
    away_s: float
    """How long it takes to come again after it was turned away."""
    dated: bool
    """Its first credential says when it was issued."""


@attrs.frozen
class Recalls:
    """What a plan has of callers."""

    callers: tuple[CallerPlan, ...]
    ttl_s: float
    """`auth.api_token_ttl_s`."""


def draw_recalls(r: random.Random) -> tuple[Recalls, tuple[tuple[float, int], ...]] | None:
    """Return the callers of a plan and the recalls (when, of which caller), or None: most plans have none."""
    if r.random() >= 0.15:
        return None
    roles: tuple[Literal["client", "worker"], ...] = r.choice((("client",), ("client", "worker"), ("client", "client")))
    callers = tuple(
        CallerPlan(role, round(r.uniform(0.0, 6.0), 3), r.choice((0.0, 1.0, 6.0)), r.random() < 0.8) for role in roles
    )
    when = tuple((round(r.uniform(4.0, 27.0), 3), r.randrange(len(roles))) for _ in range(r.randint(1, 2)))
    return Recalls(callers, r.choice((6.0, 6.0, 900.0))), when


@attrs.frozen
class Held:
    """Something that a caller can show."""

    subject: str
    text: str = attrs.field(repr=False)
    issued_ms: int | None
    """When the credential was issued by which its holder was let in; None: it does not say."""
    until_ms: float = float("inf")
    """When it runs out."""
    credential: bool = False
    """It is the credential itself."""


ANSWER_S = 4.0
POLL_S = 0.1
SHOWN_EVERY_S = 0.5
KEPT_MAX = 6
"""Of the things that a caller has had, the last ones are shown: with the shortest life that is 18 seconds of them."""
RECALL_TRIES = 40
LAST_LOOKS_S = 4.0
"""After all faults: above the two seconds in which each node must know, and the longest pause of a committer that was without its store."""


class Caller:
    """One caller, through all its credentials."""

    def __init__(self, scene: "Scene", number: int, plan: CallerPlan) -> None:
        self.name = f"{'a' if plan.role == 'client' else 'b'}{number}"
        self.plan = plan
        self.held: list[Held] = []
        self.session = ""
        self.party: Client | Worker | None = None
        self.leaving = False
        self.left = trio.Event()
        self._scene = scene
        self._state: ClientState | None = None
        self._credentials = 0

    def _credential(self) -> Held:
        """Return a new credential of the issuer, whose clock is right."""
        now_ms = self._scene.world.now_ms()
        claims: dict[str, Any] = {"sub": self.name, "role": self.plan.role, "exp": 4_000_000_000}
        dated = self.plan.dated or self._credentials > 0
        self._credentials += 1
        if dated:
            claims["iat"] = now_ms / 1000
        text = jwt.encode(claims, self._scene.plan.sections["auth"]["jwt_secret"], algorithm="HS256")  # type: ignore[arg-type]
        return Held(self.name, text, now_ms if dated else None, credential=True)

    def _keep(self, held: Held) -> None:
        self.held.append(held)
        del self.held[:-KEPT_MAX]

    async def run(self) -> None:
        """Live until it leaves."""
        await trio.sleep(self.plan.starts_at)
        while not self.leaving:
            credential = self._credential()
            self._keep(credential)
            for _ in range(2):  # the second time it does not know what has happened to it
                if not self.leaving:
                    await self._live(credential)
                    await trio.sleep(0.2)
            # An issuer whose clock is behind that of the nodes gives nothing that is good for a while.
            await trio.sleep(self.plan.away_s + self._credentials)
        self.left.set()

    async def _live(self, credential: Held) -> None:
        try:
            async with self._opened(credential) as self.party:
                self._scene.check.recalls.let_in(self, credential)
                while self.party._core.over is None:
                    self._note(self.party.api_token, credential)
                    if self.leaving:
                        await self._leave()
                    await trio.sleep(POLL_S)
        except (Refused, SessionGone) as gone:
            self._scene.trace(self.name, f"is turned away: {gone}")
            if isinstance(gone, SessionGone) and gone.code != 4401:
                self._state = None
        finally:
            if isinstance(self.party, Client) and self._state is not None:
                self._state = self.party.state()
            self.party = None

    def _opened(self, credential: Held) -> Any:
        scene, known = self._scene, {"auth": credential.text, "api": True, "dial": self._scene.dial(self.name)}
        entropy = scene.chance.entropy(f"{self.name}.{self._credentials}.{trio.current_time()}")
        if self.plan.role == "client":
            return open_client("ws://lb", entropy=entropy, state=self._state, pair=False, **known)  # type: ignore[arg-type]
        name = f"{self.name}-{self._credentials}"
        return open_worker("ws://lb", _no_session, instance_id=name, capacity=0, entropy=entropy, **known)  # type: ignore[arg-type]

    def _note(self, token: str, credential: Held) -> None:
        if isinstance(self.party, Client):
            self._state, self.session = self.party.state(), self.party.session
        if token and token not in [one.text for one in self.held]:
            said = json.loads(jwt.utils.base64url_decode(token.split(".")[1]))
            held = Held(self.name, token, credential.issued_ms, said["exp"] * 1000)
            self._keep(held)
            self._scene.trace(self.name, f"has an API token, its number {len(self.held)}")
            self._scene.check.recalls.given(held)

    async def _leave(self) -> None:
        party = self.party
        with trio.move_on_after(ANSWER_S), suppress(SessionGone):
            await (party.bye("over") if isinstance(party, Client) else party.leave("over"))  # type: ignore[union-attr]


async def _no_session(_session: WorkerSession) -> None:
    raise AssertionError("a worker without room was given a session")


class Calling:
    """All callers of a scene, and what is shown to its nodes."""

    def __init__(self, scene: "Scene", plan: Recalls) -> None:
        self.callers = [Caller(scene, number, one) for number, one in enumerate(plan.callers)]
        self._scene = scene
        self._random = scene.chance.random("calling")
        self._last = trio.Event()

    async def run(self) -> None:
        """Live until all callers have left."""
        async with trio.open_nursery() as nursery:
            for caller in self.callers:
                nursery.start_soon(caller.run)
            nursery.start_soon(self._show)
            for caller in self.callers:
                await caller.left.wait()
            nursery.cancel_scope.cancel(reason="the callers have left")

    async def finish(self) -> None:
        """When all faults are over: show everything everywhere, and leave."""
        await trio.sleep(LAST_LOOKS_S)
        for node in self._scene.listening():
            for held in [one for caller in self.callers for one in caller.held]:
                await self._ask(node, held)
        for caller in self.callers:
            caller.leaving = True
        with trio.move_on_after(4 * ANSWER_S + 10.0):
            for caller in self.callers:
                await caller.left.wait()

    async def _show(self) -> None:
        while True:
            await trio.sleep(self._random.uniform(0.0, 2 * SHOWN_EVERY_S))
            nodes = [one for one in self._scene.listening() if one.ready.is_set()]
            held = [one for caller in self.callers for one in caller.held]
            for node in nodes:
                self._scene.check.recalls.look(node, self.callers)
            if nodes and held:
                await self._ask(self._random.choice(nodes), self._random.choice(held))

    async def _ask(self, node: "SimNode", held: Held) -> None:
        """Show `held` at `node`: over HTTP where bytes go, else to what HTTP asks."""
        if held.credential and held.subject.startswith("b"):
            return  # no worker's credential is one of HTTP
        asked_at = trio.current_time()
        taken: bool | None = None
        with trio.move_on_after(ANSWER_S):
            taken = await (self._over_http if self._scene.transport == "frames" else self._directly)(node, held)
        self._scene.trace("calls", f"{held} at {node.name}: {taken}")
        if taken is not None:
            self._scene.check.recalls.shown(node, held, asked_at, taken=taken)

    async def _over_http(self, node: "SimNode", held: Held) -> bool | None:
        session = next(one.session for one in self.callers if one.name == held.subject) or f"s_{'a' * 24}"
        opened = _to(self._scene, node)
        headers = {"authorization": f"Bearer {held.text}"}
        try:
            answer = await ask(
                opened, f"ws://{node.name}", "GET", f"/v1/sessions/{session}", headers=headers, timeout_s=ANSWER_S
            )
        except NoAnswer:
            return None
        return None if answer.status in (429, 503) else answer.status != 401

    async def _directly(self, node: "SimNode", held: Held) -> bool | None:
        if node.node is None:
            return None
        try:
            await HttpCallers(node.node.hub.parts).verify(held.text, cookie=False)
        except CallerRefused as refused:
            return None if refused.because == "unavailable" else False
        return True


def _to(scene: "Scene", node: "SimNode") -> Callable[..., Any]:
    async def opened(_url: str, _ssl: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return scene.connect_plain("h", node)

    return opened


async def recall(scene: "Scene", step: "Step") -> None:
    """Recall what a caller was given, at some node; at another one when none has said that it is done."""
    calling = scene.calling
    if calling is None:
        return
    subject = calling.callers[step.number % len(calling.callers)].name
    for _ in range(RECALL_TRIES):
        nodes = [one for one in scene.listening() if one.ready.is_set() and one.node is not None]
        if nodes:
            node = calling._random.choice(nodes)
            assert node.node is not None
            scene.trace(node.name, f"is to recall {subject}")
            asked_ms = node.node.hub.context.now_ms()
            with trio.move_on_after(ANSWER_S) as patience, suppress(StoreUnavailable):
                said = await node.node.operations.revoke(subject, None)
                scene.check.recalls.told(node, subject, said["revoked_at_ms"])
                return
            if patience.cancelled_caught:
                scene.check.recalls.hung_up(node, asked_ms)
        await trio.sleep(SHOWN_EVERY_S)
