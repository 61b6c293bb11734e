"""Plans for the fast transport: few parties and messages, and many deploys, one upon the other."""

import random

import attrs

from signald.testing.seeded import Chance
from tests.sim.plan import Plan, Step, draw

LASTS_S = 8.0
MESSAGES_MAX = 10
RESUME_TTL_S = 40.0
"""An abandoned session is waited for at the end of a run, and time in which nothing else happens costs, too."""
SLOW_SHARE = 0.1
"""How often the pace is so slow that a handful of parties meets it."""

CUT_OFF_SHARE = 0.04
"""How often a node does not reach the store for so long that others give up a worker that it has had all the time."""
CUT_OFF_S = 8.0

DEPLOYS = (("deploy", (0.0, 0.5, 3.0)), ("stop_first", (0.5, 2.0)), ("drain_and_abort", (0.1, 1.0, 3.0)))


def draw_small(seed: int) -> Plan:
    """Return the small plan of `seed`: that of `draw` with fewer parties, in less time, and with more deploys."""
    plan = draw(seed)
    r = Chance(seed).random("small")
    most = r.randint(2, 3)
    shrunk = plan.lasts_s / LASTS_S
    clients = tuple(
        attrs.evolve(
            one,
            starts_at=one.starts_at / shrunk,
            messages=min(one.messages, r.randint(2, MESSAGES_MAX)),
            every_s=max(one.every_s, 0.3),
        )
        for one in plan.clients[:most]
    )
    workers = tuple(attrs.evolve(one, starts_at=one.starts_at / shrunk) for one in plan.workers[: r.randint(1, 2)])
    steps = [attrs.evolve(one, at=round(one.at / shrunk, 3)) for one in plan.steps]
    if not plan.planned_only:
        steps += _deploys(r)
    sections = {**plan.sections, "session": {**plan.sections["session"], "resume_ttl_s": RESUME_TTL_S}}
    if r.random() < SLOW_SHARE and not plan.planned_only:
        sections["pace"] = {"sessions_per_s": 0.3}
    speech = plan.speech
    if speech is not None:
        jobs = [
            attrs.evolve(one, at=round(one.at / shrunk, 3), client=one.client % len(clients)) for one in speech.jobs
        ]
        speech = attrs.evolve(speech, jobs=tuple(jobs))
    recalls = plan.recalls
    if recalls is not None:
        callers = [attrs.evolve(one, starts_at=round(one.starts_at / shrunk, 3)) for one in recalls.callers]
        recalls = attrs.evolve(recalls, callers=tuple(callers))
    blobs = plan.blobs
    if blobs is not None:
        uploads = [
            attrs.evolve(one, at=round(one.at / shrunk, 3), client=one.client % len(clients)) for one in blobs.uploads
        ]
        media = [attrs.evolve(one, at=round(one.at / shrunk, 3)) for one in blobs.spells]
        blobs = attrs.evolve(blobs, uploads=tuple(uploads), spells=tuple(media))
    rooms = plan.rooms
    if rooms is not None:
        members = [
            attrs.evolve(one, at=round(one.at / shrunk, 3), stays_s=round(one.stays_s / shrunk, 3))
            for one in rooms.members
            if one.client < len(clients)
        ]
        posts = [attrs.evolve(one, at=round(one.at / shrunk, 3)) for one in rooms.posts]
        rooms = attrs.evolve(rooms, members=tuple(members), posts=tuple(posts))
    canvases = plan.canvases
    if canvases is not None:
        sockets = [attrs.evolve(one, at=round(one.at / shrunk, 3)) for one in canvases.sockets]
        canvases = attrs.evolve(canvases, sockets=tuple(sockets))
    fleet = plan.fleet
    if fleet is not None:
        apps = [attrs.evolve(one, at=round(one.at / shrunk, 3), messages=min(one.messages, 12)) for one in fleet.apps]
        fleet = attrs.evolve(fleet, apps=tuple(apps))
    core = plan.core
    if core is not None:
        spells = [attrs.evolve(one, at=round(one.at / shrunk, 3), seconds=min(one.seconds, 2.0)) for one in core.spells]
        core = attrs.evolve(core, spells=tuple(spells))
    small = attrs.evolve(
        plan,
        core=core,
        blobs=blobs,
        speech=speech,
        recalls=recalls,
        rooms=rooms,
        canvases=canvases,
        fleet=fleet,
        nodes=min(plan.nodes, 2),
        sections=sections,
        clients=clients,
        workers=workers,
        steps=tuple(sorted(steps, key=_when)),
        lasts_s=LASTS_S,
    )
    r = Chance(seed).random("cut off")
    return _cut_off(small, r) if r.random() < CUT_OFF_SHARE and not plan.planned_only else small


def _cut_off(plan: Plan, r: random.Random) -> Plan:
    """Let a node be cut off until after its lease and the time its worker has to come back, and nothing else happen.

    What is deployed meanwhile would find the worker another place, and so would another worker the sessions.
    """
    step = Step(round(r.uniform(1.0, 3.0), 3), "partition", 0, CUT_OFF_S)
    return attrs.evolve(
        plan,
        nodes=2,
        sections={**plan.sections, "node": {"lease_ttl_s": 2.0}, "worker": {"resume_timeout_s": 3.0}},
        workers=plan.workers[:1],
        steps=(step,),
        lasts_s=step.at + CUT_OFF_S + 1.0,
    )


def _deploys(r: random.Random) -> list[Step]:
    steps = []
    for _ in range(r.randint(2, 5)):
        what, seconds = DEPLOYS[0] if r.random() < 0.6 else r.choice(DEPLOYS)
        steps.append(Step(round(r.uniform(1.0, LASTS_S - 1), 3), what, 0, r.choice(seconds)))
    return steps


def _when(step: Step) -> float:
    return step.at
