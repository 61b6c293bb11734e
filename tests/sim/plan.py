"""What a seed means: the cluster, its parties, the faults that may happen, and what the operator does, and when.

Everything is drawn here, before the run, as plain values: a plan can be printed, and made smaller while it still fails.
Each seed enables some of the faults only, at rates of its own, so that no kind of trouble always hides another.
"""

import random
from functools import cached_property

import attrs

from signald.config.moves import PACE_MARGIN
from signald.service.relay import LOOK_LIMIT
from signald.testing.seeded import Chance
from tests.sim.canvases import CLIENTS_LEAST, Canvases, canvas_section, draw_canvases
from tests.sim.core_server import Core, core_section, draw_core
from tests.sim.fleets import CLIENTS_LEAST as BESIDE_APPS
from tests.sim.fleets import STRANGERS, Fleet, draw_fleet, fleet_section
from tests.sim.habits import AnswersOnOldConnection, DuplicateFrame, Habit
from tests.sim.net import CutAtByte, Delay, HalfOpenStall, NetFault, ResetConnection, SmallWindow, WriteSplit
from tests.sim.poison import FAILURES_MAX, RESUME_TIMEOUT_S, UNCOUNTED, Poison, draw_poison
from tests.sim.recalls import Recalls, draw_recalls
from tests.sim.rooms import Rooms, draw_rooms, rooms_section
from tests.sim.speech import ADOPT_S, KEEP_S, Speech, draw_speech
from tests.sim.stores import (
    HalfBatch,
    LateApply,
    LostReplyAfterApply,
    LostRequest,
    LostWake,
    RepeatedBatch,
    SlowStore,
    StoreFault,
)
from tests.sim.uploading import Blobs, draw_blobs

CHAOS_S = 30.0
"""How long the operator works and the faults last."""

WORKER_DEPLOYS_SHARE = 0.12
"""Of the plans: those in which workers are deployed. Few, because what else a plan has ends most hand-outs before that."""


@attrs.frozen
class Step:
    """Something the operator does, or that happens, `at` seconds after the start."""

    at: float
    what: str
    """The name of a method of `Operator`."""
    number: int = 0
    seconds: float = 0.0
    how: str = ""
    """Which variety of it."""


@attrs.frozen
class ClientPlan:
    """One client."""

    name: str
    starts_at: float
    messages: int
    every_s: float
    receipts: bool
    says_bye: bool
    """It ends its session when it has said everything, troubles or not."""
    pad: int = 0
    """Bytes added to every seventh message."""
    heeds_goaway: bool = True
    """A program of before handovers does not: it dials again when its connection ends, and shows its token."""


@attrs.frozen
class WorkerPlan:
    """One worker."""

    name: str
    starts_at: float
    capacity: int
    thinks_s: float
    talks_share: float
    """How often it says something on its own."""
    fails_share: float = 0.0
    """How often its handler raises over a message."""
    old: bool = False
    """A program of before handovers: no subprotocol, no resuming; it understands `terminate_app` and starts afresh."""


@attrs.frozen
class Plan:
    """A whole run."""

    seed: int
    planned_only: bool
    """Deploys one after the other, and no faults: the strictest checks apply."""
    nodes: int
    sections: dict[str, dict[str, object]]
    lag_s: float
    """How late the load balancer hears of nodes."""
    clients: tuple[ClientPlan, ...]
    workers: tuple[WorkerPlan, ...]
    net: tuple[NetFault, ...]
    store: tuple[StoreFault, ...]
    steps: tuple[Step, ...]
    habits: tuple[Habit, ...] = ()
    releases: tuple[dict[str, dict[str, object]], ...] = ()
    """What each next node has differently, in turn."""
    lasts_s: float = CHAOS_S
    look_limit: int = LOOK_LIMIT
    """How many messages a node reads of a log at once: with few, a short replay is one of several pages."""
    poison: Poison | None = None
    """A message at which every worker fails as long as the faults last."""
    speech: Speech | None = None
    """Streams and jobs."""
    recalls: Recalls | None = None
    """Callers of the HTTP API, whose tokens are recalled."""
    blobs: Blobs | None = None
    """What is uploaded, and the troubles of the media."""
    core: Core | None = None
    """The operator's core server, which is told of events."""
    rooms: Rooms | None = None
    """The members of rooms, and what they do."""
    canvases: Canvases | None = None
    """The pages of canvases."""
    fleet: Fleet | None = None
    """The apps of a fleet, and a client of each."""
    round_trip_s: float = 0.0
    """Within it each message of a client is answered; 0: that is not judged."""

    @cached_property
    def store_may_lose(self) -> bool:
        """The store comes back with less than it had: what it alone knew is lost, and must be said to be."""
        return any(step.what in ("empty_store", "fail_over") for step in self.steps)

    @cached_property
    def clock_steps(self) -> bool:
        """The store's wall clock jumps: a time measured by it while no node looks ends too early or too late."""
        return any(step.what == "clock_step" for step in self.steps)

    @cached_property
    def store_is_well(self) -> bool:
        """The store is always there, and whole."""
        ails = ("outage", "answers_lost", "store_full", "partition", "pause", "clock_step", "empty_store", "fail_over")
        return not self.store and not any(step.what in ails for step in self.steps)

    def story(self) -> str:
        """Everything, to be read."""
        parts = [
            f"seed {self.seed}: {self.nodes} nodes, lag {self.lag_s:.2f} s, planned only: {self.planned_only}",
            *(f"  {name}: {values}" for name, values in self.sections.items()),
            *(f"  release {number}: {values}" for number, values in enumerate(self.releases)),
            *(f"  {fault}" for fault in (*self.net, *self.store, *self.habits)),
            *(f"  {party}" for party in (*self.clients, *self.workers)),
            *([f"  {self.poison}"] if self.poison is not None else []),
            *([f"  {self.speech}"] if self.speech is not None else []),
            *([f"  {self.recalls}"] if self.recalls is not None else []),
            *([f"  {self.blobs}"] if self.blobs is not None else []),
            *([f"  {self.core}"] if self.core is not None else []),
            *([f"  {self.rooms}"] if self.rooms is not None else []),
            *([f"  {self.canvases}"] if self.canvases is not None else []),
            *([f"  {self.fleet}"] if self.fleet is not None else []),
            *(f"  {step}" for step in self.steps),
        ]
        return "\n".join(parts)


def draw(seed: int) -> Plan:
    """Return the plan of `seed`."""
    r = Chance(seed).random("plan")
    planned_only = r.random() < 0.15
    workers = tuple(_worker(r, number, planned_only=planned_only) for number in range(r.choice(WORKERS)))
    most = r.choice(CLIENTS)
    clients = tuple(
        _client(r, number, planned_only=planned_only, crowd=most > 12)
        for number in range(r.randint(min(most, 2), most))
    )
    plan = Plan(
        seed=seed,
        planned_only=planned_only,
        nodes=1 if planned_only else r.choice(NODES),
        sections=_sections(r, pace_min_per_s=_enough(len(clients)) if planned_only else 0.0),
        releases=() if planned_only else _releases(r),
        lag_s=0.0 if planned_only else r.choice((0.0, 0.2, 2.0)),
        clients=clients,
        workers=workers,
        net=() if planned_only else _net(r),
        store=() if planned_only else _store(r),
        habits=() if planned_only else _habits(r),
        steps=_deploys(r) if planned_only else _steps(r, len(clients), len(workers)),
    )
    adding = (
        _drawn,
        _manned,
        _rarely,
        _lies,
        _lines,
        _deployed,
        _poisoned,
        _lies_of_workers,
        _credentials,
        _spoken,
        _recalled,
        _told,
        _uploaded,
        _gathered,
        _without_strangers,
    )
    for add in adding:
        plan = add(plan)
    return plan


def _manned(plan: Plan) -> Plan:
    """Let some plans have a fleet in the place of clients, from a stream of its own."""
    fleet = draw_fleet(Chance(plan.seed).random("fleet"), plan.lasts_s, planned_only=plan.planned_only)
    if fleet is None or plan.canvases is not None:
        return plan
    left = max(BESIDE_APPS, len(plan.clients) - 2 * len(fleet.apps))
    profiles: dict[str, object] = {"deepstream": True}
    sections = {**plan.sections, "profiles": profiles, "deepstream": fleet_section(fleet)}
    return attrs.evolve(plan, fleet=fleet, clients=plan.clients[:left], sections=sections)


def _without_strangers(plan: Plan) -> Plan:
    """Let no party want nothing in particular beside a fleet: it might be given an app."""
    if plan.fleet is None:
        return plan
    return attrs.evolve(plan, steps=tuple(step for step in plan.steps if step.what not in STRANGERS))


def _drawn(plan: Plan) -> Plan:
    """Let some plans have canvases in the place of clients, from a stream of its own."""
    r = Chance(plan.seed).random("canvases")
    canvases = draw_canvases(r, plan.lasts_s, planned_only=plan.planned_only)
    if canvases is None:
        return plan
    left = max(CLIENTS_LEAST, len(plan.clients) - 2 * len(canvases.sockets))
    profiles: dict[str, object] = {"canvas": True}
    sections = {**plan.sections, "profiles": profiles, "rooms": canvas_section(canvases)}
    return attrs.evolve(plan, canvases=canvases, clients=plan.clients[:left], sections=sections)


def _gathered(plan: Plan) -> Plan:
    """Let some plans have rooms, from a stream of its own."""
    rooms = draw_rooms(Chance(plan.seed).random("rooms"), len(plan.clients), plan.lasts_s)
    if rooms is None or plan.canvases is not None:
        return plan
    return attrs.evolve(plan, rooms=rooms, sections={**plan.sections, "rooms": rooms_section(rooms)})


def _uploaded(plan: Plan) -> Plan:
    """Let some plans have blobs, from a stream of its own."""
    blobs = draw_blobs(Chance(plan.seed).random("blobs"), len(plan.clients), plan.lasts_s)
    if blobs is not None and plan.planned_only:
        blobs = attrs.evolve(blobs, spells=(), late_share=0.0)
    return attrs.evolve(plan, blobs=blobs)


def _told(plan: Plan) -> Plan:
    """Let some plans have a core server, from a stream of its own."""
    core = draw_core(Chance(plan.seed).random("core"), plan.lasts_s)
    if core is None or plan.fleet is not None:
        return plan
    if plan.planned_only:
        core = attrs.evolve(core, spells=())
    return attrs.evolve(plan, core=core, sections={**plan.sections, "core": core_section(core)})


def _recalled(plan: Plan) -> Plan:
    """Let some plans have callers of the HTTP API, and an operator who recalls what they were given, from a stream of its own."""
    drawn = draw_recalls(Chance(plan.seed).random("recalls"))
    if drawn is None or plan.planned_only or plan.canvases is not None or plan.fleet is not None:
        return plan
    recalls, when = drawn
    steps = [*plan.steps, *[Step(at, "recall", number) for at, number in when]]
    auth = {"jwt_secret": JWT_SECRET, "api_token_ttl_s": recalls.ttl_s}
    return attrs.evolve(
        plan,
        recalls=recalls,
        sections={**plan.sections, "auth": {**plan.sections.get("auth", {}), **auth}},
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def _spoken(plan: Plan) -> Plan:
    """Let some plans have streams and jobs, from a stream of its own."""
    speech = draw_speech(Chance(plan.seed).random("speech"), len(plan.clients))
    if speech is None:
        return plan
    worker = {**plan.sections.get("worker", {}), "adopt_streams_s": ADOPT_S}
    jobs: dict[str, object] = {"keep_s": KEEP_S, "cancel_timeout_s": 2.0}
    return attrs.evolve(plan, speech=speech, sections={**plan.sections, "worker": worker, "jobs": jobs})


def _lines(plan: Plan) -> Plan:
    """Add what happens to the waiting line, from a stream of its own again."""
    r = Chance(plan.seed).random("lines")
    steps = list(plan.steps)
    if not plan.planned_only and r.random() < 0.08:
        steps.append(Step(round(r.uniform(0.0, 8.0), 3), "crowd", r.choice((600, 1500)), r.choice((5.0, 15.0))))
    if not plan.planned_only and r.random() < 0.15:
        at, away_s = _sometime(r), r.choice((1.0, 8.0, 20.0))
        client, worker = r.randrange(len(plan.clients)), r.randrange(len(plan.workers))
        steps.append(Step(at, "restart_client", client, away_s))
        steps.append(Step(round(at + r.uniform(0.0, 0.2), 3), "crash_worker", worker, r.choice((0.0, away_s))))
    return attrs.evolve(plan, steps=tuple(sorted(steps, key=lambda step: step.at)))


def _deployed(plan: Plan) -> Plan:
    """Let some plans have deploys of workers, from a stream of its own as well."""
    r = Chance(plan.seed).random("deploys of workers")
    if plan.planned_only or r.random() >= WORKER_DEPLOYS_SHARE:
        return plan
    steps = [
        Step(_sometime(r), "deploy_worker", r.randrange(len(plan.workers)), r.choice((0.0, 3.0)))
        for _ in range(r.randint(1, 3))
    ]
    return attrs.evolve(plan, steps=tuple(sorted([*plan.steps, *steps], key=lambda step: step.at)))


def _poisoned(plan: Plan) -> Plan:
    """Let a few plans have a message at which every worker fails, drawn from a stream of its own as well."""
    r = Chance(plan.seed).random("poison")
    poison = draw_poison(r, len(plan.clients))
    if poison is None or plan.planned_only:
        return plan
    if r.random() < 0.5:
        # With nothing else to end a hand-out, each of them counts, and is held to the strictest checks.
        plan = attrs.evolve(plan, steps=tuple(step for step in plan.steps if step.what not in UNCOUNTED))
    quick = {"failures_max": FAILURES_MAX, "resume_timeout_s": RESUME_TIMEOUT_S}
    sections = {**plan.sections, "worker": {**plan.sections.get("worker", {}), **quick}}
    return attrs.evolve(plan, poison=poison, sections=sections)


def _rarely(plan: Plan) -> Plan:
    """Add what chance alone brings about too seldom, drawn from a stream of its own: other choices stay as they are."""
    r = Chance(plan.seed).random("rarely")
    plan = attrs.evolve(plan, look_limit=r.choice((4, LOOK_LIMIT, LOOK_LIMIT, LOOK_LIMIT)))
    if plan.planned_only:
        return plan
    steps = list(plan.steps)
    if r.random() < 0.1:
        steps.append(Step(_sometime(r), "kill_at_store", r.randrange(4), r.choice((0.2, 2.0)), "persisted"))
    if r.random() < 0.1:
        steps.append(Step(_sometime(r), "store_full", 0, r.choice((0.5, 3.0, 8.0))))
    if r.random() < 0.1:
        steps.append(Step(round(r.uniform(1.0, 8.0), 3), "stop_reading", r.randrange(len(plan.clients)), 25.0))
        narrow = (*(one for one in plan.net if not isinstance(one, SmallWindow)), SmallWindow(256))
        plan = attrs.evolve(plan, net=narrow, sections={**plan.sections, "timeouts": {"write_s": 2.0}})
    if r.random() < 0.05:
        # The victim resumes, and goes on, between the theft and the use: the token is an old one by then.
        at, victim = round(r.uniform(3.0, 20.0), 3), r.randrange(len(plan.clients))
        steps += [Step(at, "steal_token", victim, 4.0), Step(round(at + 0.3, 3), "restart_client", victim)]
    return attrs.evolve(plan, steps=tuple(sorted(steps, key=lambda step: step.at)))


def _lies(plan: Plan) -> Plan:
    """Add clients that claim what is not so, again from a stream of its own."""
    r = Chance(plan.seed).random("lies")
    if plan.planned_only or r.random() >= 0.25:
        return plan
    lies = [
        Step(round(r.uniform(2.0, 22.0), 3), "lie", number, r.choice(CLAIMS), r.choice(WORDS))
        for number in range(r.randint(1, 3))
    ]
    return attrs.evolve(plan, steps=tuple(sorted([*plan.steps, *lies], key=lambda step: step.at)))


def _lies_of_workers(plan: Plan) -> Plan:
    """Add workers that claim what is not so, from one more stream of its own."""
    r = Chance(plan.seed).random("lies of workers")
    if plan.planned_only or r.random() >= 0.2:
        return plan
    lies = [
        Step(round(r.uniform(2.0, 15.0), 3), "lie_as_worker", number, r.choice(CLAIMS), r.choice(WORDS[:4]))
        for number in range(r.randint(1, 2))
    ]
    return attrs.evolve(plan, steps=tuple(sorted([*plan.steps, *lies], key=lambda step: step.at)))


def _credentials(plan: Plan) -> Plan:
    """Let the parties of some plans show credentials, and let a stranger with its own credential show their tokens."""
    r = Chance(plan.seed).random("credentials")
    if r.random() >= 0.2 or plan.canvases is not None:
        return plan
    plan = attrs.evolve(plan, sections={**plan.sections, "auth": {"jwt_secret": JWT_SECRET}})
    if plan.planned_only:
        return plan
    thefts = [
        Step(round(r.uniform(2.0, 20.0), 3), "show_token", r.randrange(8), r.choice((0.0, 0.3, 4.0)))
        for _ in range(r.randint(1, 4))
    ]
    return attrs.evolve(plan, steps=tuple(sorted([*plan.steps, *thefts], key=lambda step: step.at)))


JWT_SECRET = "canary-credential-7f3d-" * 2
"""Shared by the nodes and the authority; `no-secret` looks for it."""

CLAIMS = (3.0, 1000.0, 1e9, float(2**53 - 2), float(2**53 - 1))
"""Positions that a liar claims: by default the first two are believed, and the others refused."""
WORDS = ("received", "acked", "both", "ack", "seq")
"""In which field: of its resume, of an ack, or of a message."""


def _sometime(r: random.Random) -> float:
    return round(r.uniform(1.0, CHAOS_S - 1), 3)


def _enough(clients: int) -> float:
    """The least pace at which planned rollouts cut no party off.

    The pace is a ceiling for all draining nodes together, near a deadline as well: a party that it does not reach in time gets
    1001, rightly. So rollouts that may cut no party off must fit the pace, even if they all overlap:
    each moves every client, and every session with its worker.
    """
    return ROLLOUTS_MAX * 2 * clients / (PACE_MARGIN * MOVES_S)


ROLLOUTS_MAX = 3
MOVES_S = 14.0
"""The shortest drain less its last phases, and less what the last GOAWAY takes."""


NODES = (1, 1, 2, 2, 3, 6)
WORKERS = (1, 1, 2, 2, 3, 4, 8)
CLIENTS = (2, 3, 3, 4, 6, 6, 8, 12, 12, 50)
"""Mostly few: what goes wrong goes wrong with two, and few are searched faster."""


def _worker(r: random.Random, number: int, *, planned_only: bool) -> WorkerPlan:
    return WorkerPlan(
        f"w{number}",
        0.0 if number == 0 else r.choice((0.0, 0.0, r.uniform(0, 15))),
        r.choice((1, 2, 5, 50)) if number else 50,
        r.choice((0.0, 0.02, 0.3)),
        r.choice((0.0, 0.3)),
        0.0 if planned_only else r.choice((0.0, 0.0, 0.03)),
        not planned_only and r.random() < 0.08,
    )


def _client(r: random.Random, number: int, *, planned_only: bool, crowd: bool) -> ClientPlan:
    hasty = not crowd and r.random() < 0.02
    return ClientPlan(
        f"c{number}",
        r.choice((0.0, r.uniform(0, 20))),
        r.randint(300, 700) if hasty else r.randint(3, 12 if crowd else 60),
        0.005 if hasty else r.choice((0.05, 0.3, 1.0)),
        r.random() < 0.3,
        not planned_only and r.random() < 0.15,
        0 if hasty else r.choice((0, 0, 3000, 20000)),
        planned_only or r.random() < 0.9,
    )


def _sections(r: random.Random, *, pace_min_per_s: float) -> dict[str, dict[str, object]]:
    sections: dict[str, dict[str, object]] = {
        "session": {"resume_ttl_s": 120.0, "history_messages_max": r.choice((5, 100))},
        "limits": {
            "messages_per_s": r.choice((20.0, 1000.0)),
            "messages_burst": r.choice((10, 100)),
            "backlog_messages_max": r.choice((3, 20, 1000)),
            "send_queue_messages_max": r.choice((8, 1000)),
        },
    }
    if r.random() < 0.5:
        sections["drain"] = _drain(r)
    if r.random() < 0.4:
        sections["worker"] = {"resume_timeout_s": r.choice((3.0, 6.0))}
    if r.random() < 0.3:
        sections["pace"] = {"sessions_per_s": max(pace_min_per_s, r.choice((2.0, 10.0)))}
    if r.random() < 0.3:
        sections["node"] = {"lease_ttl_s": r.choice((2.0, 4.0))}
    return sections


def _drain(r: random.Random) -> dict[str, object]:
    return {
        "timeout_s": 20.0,
        "stop_timeout_s": 30.0,
        "margin_s": 2.0,
        "successor_timeout_s": r.choice((2.0, 8.0)),
        "worker_timeout_s": r.choice((2.0, 6.0)),
        "client_timeout_s": 3.0,
        "terminate_timeout_s": 2.0,
    }


def _releases(r: random.Random) -> tuple[dict[str, dict[str, object]], ...]:
    """Releases that differ in their names, and in what an operator may change from one to the next."""
    if r.random() < 0.7:
        return ()
    releases: list[dict[str, dict[str, object]]] = []
    for number in range(r.randint(2, 3)):
        release: dict[str, dict[str, object]] = {"node": {"release": f"r{number}"}}
        if r.random() < 0.5:
            release["limits"] = {
                "backlog_messages_max": r.choice((3, 20, 1000)),
                "send_queue_messages_max": r.choice((8, 50)),
            }
        if r.random() < 0.5:
            release["drain"] = _drain(r)
        releases.append(release)
    return tuple(releases)


def _net(r: random.Random) -> tuple[NetFault, ...]:
    faults: list[NetFault] = []
    if r.random() < 0.4:
        faults.append(Delay(r.choice((0.01, 0.2, 1.0))))
    if r.random() < 0.4:
        faults.append(WriteSplit(r.choice((0.1, 0.8))))
    if r.random() < 0.35:
        faults.append(ResetConnection(r.choice((1.0, 6.0, 20.0))))
    if r.random() < 0.25:
        faults.append(HalfOpenStall(r.choice((0.05, 0.3)), 20.0, r.choice((1.0, 8.0, 1000.0))))
    if r.random() < 0.3:
        faults.append(CutAtByte(r.choice((0.1, 0.4)), r.choice((400, 2000, 20000))))
    if r.random() < 0.3:
        faults.append(SmallWindow(r.choice((256, 2048))))
    return tuple(faults)


def _store(r: random.Random) -> tuple[StoreFault, ...]:
    faults: list[StoreFault] = []
    if r.random() < 0.3:
        faults.append(SlowStore(r.choice((0.05, 0.5)), r.choice((0.05, 0.5, 1.5))))
    if r.random() < 0.3:
        faults.append(LostReplyAfterApply(r.choice((0.01, 0.1, 0.3))))
    if r.random() < 0.2:
        faults.append(LostRequest(r.choice((0.01, 0.1, 0.3))))
    if r.random() < 0.2:
        faults.append(HalfBatch(r.choice((0.02, 0.2))))
    if r.random() < 0.1:
        faults.append(LateApply(r.choice((0.02, 0.1)), r.choice((0.05, 0.5))))
    if r.random() < 0.1:
        faults.append(RepeatedBatch(r.choice((0.02, 0.1)), r.choice((0.0, 0.5))))
    if r.random() < 0.3:
        faults.append(LostWake(r.choice((0.05, 0.5, 1.0))))
    return tuple(faults)


def _habits(r: random.Random) -> tuple[Habit, ...]:
    habits: list[Habit] = []
    if r.random() < 0.25:
        habits.append(DuplicateFrame(r.choice((0.02, 0.3))))
    if r.random() < 0.25:
        habits.append(AnswersOnOldConnection(r.choice((0.3, 1.0)), r.choice((0.0, 0.3, 2.0))))
    return tuple(habits)


def _deploys(r: random.Random) -> tuple[Step, ...]:
    return tuple(Step(3.0 + 9.0 * number, "deploy_and_wait") for number in range(r.randint(1, ROLLOUTS_MAX)))


BEFORE_OR_AFTER = ("before", "after")

HAPPENINGS: tuple[tuple[float, str, int, tuple[float, ...], int, tuple[str, ...]], ...] = (
    # share of the seeds, what, how often at most, seconds, numbers (0: clients, -1: workers), varieties
    (0.75, "deploy", 3, (0.0, 0.5, 3.0), 1, ("",)),
    (0.3, "stop_first", 2, (0.5, 4.0, 12.0), 1, ("",)),
    (0.1, "deploy_two", 1, (0.0, 1.0), 1, ("",)),
    (0.1, "deploy_stuck", 1, (2.0, 12.0), 1, ("",)),
    (0.1, "roll_back", 1, (0.2, 1.0, 4.0), 1, ("",)),
    (0.15, "orchestrate", 2, (0.3, 3.0, 15.0), 4, ("",)),
    (0.35, "kill", 2, (0.2, 2.0), 1, ("",)),
    (0.2, "kill_at_store", 2, (0.2, 2.0), 60, BEFORE_OR_AFTER),
    (0.1, "stop_at_store", 2, (0.2, 2.0), 60, BEFORE_OR_AFTER),
    (0.15, "kill_at_write", 2, (0.2, 2.0), 60, ("",)),
    (0.1, "stop_at_write", 2, (0.2, 2.0), 60, ("",)),
    (0.2, "vanish", 1, (0.2, 2.0), 1, ("",)),
    (0.15, "pause", 2, (0.1, 1.0, 5.0, 20.0, 60.0), 1, ("",)),
    (0.2, "drain_and_abort", 2, (0.1, 1.0, 5.0), 1, ("",)),
    (0.2, "signal_again", 3, (0.0,), 1, ("",)),
    (0.25, "outage", 2, (0.2, 2.0, 8.0), 1, ("",)),
    (0.2, "answers_lost", 2, (0.2, 2.0), 1, ("",)),
    (0.2, "partition", 2, (0.5, 5.0, 15.0), 1, ("",)),
    (0.15, "isolate", 2, (0.5, 5.0, 15.0), 1, ("refused", "silent")),
    (0.1, "empty_store", 1, (0.0,), 1, ("",)),
    (0.12, "fail_over", 2, (0.01, 0.1, 1.0, 5.0), 1, ("",)),
    (0.06, "clock_step", 1, (-3600.0, -2.0, 2.0, 90.0, 3600.0), 1, ("",)),
    (0.3, "restart_client", 2, (0.0, 3.0), 0, ("",)),
    (0.2, "stop_reading", 2, (1.0, 8.0, 25.0), 0, ("",)),
    (0.12, "steal_token", 1, (0.0, 0.5, 6.0), 0, ("",)),
    (0.35, "crash_worker", 2, (0.0, 1.0, 8.0), -1, ("",)),
    (0.2, "leave_worker", 2, (0.0, 3.0), -1, ("",)),
    (0.15, "change_network", 2, (1.0, 2.5), 0, ("",)),
    (0.15, "break_in_move", 2, (0.5, 2.0), 1, ("",)),
)


def _steps(r: random.Random, clients: int, workers: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    for share, what, most, seconds, numbers, hows in HAPPENINGS:
        if r.random() < share:
            most_numbers = {0: clients, -1: workers}.get(numbers, numbers)
            steps += [
                Step(_sometime(r), what, r.randrange(most_numbers), r.choice(seconds), r.choice(hows))
                for _ in range(r.randint(1, most))
            ]
    return tuple(sorted(steps, key=lambda step: step.at))
