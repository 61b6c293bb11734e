"""Makes a plan that breaks a promise smaller, as long as it still breaks the same one.

Every part that can be left out is left out by turns, numbers are lowered, values become their defaults. What is left
out changes the schedule of all else, so a smaller plan gets a few seeds of its own before it counts as harmless.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import attrs

from tests.sim.plan import Plan
from tests.sim.scene import Outcome, Transport, play
from tests.sim.speech import Speech

Kind = TypeVar("Kind")

SEEDS = 3
"""How many seeds a smaller plan is tried with."""

LEAST = {"clients": 1, "workers": 1}
PLAIN = {"lag_s": 0.0, "nodes": 1}
"""What parts of a plan are when nothing is special."""


def shrink(plan: Plan, transport: Transport, *, tries: int = 400, tell: Callable[[str], None] = print) -> Plan:
    """Return the smallest plan found in so many `tries`. Raises ValueError when `plan` breaks no promise."""
    outcome = play(plan, transport=transport)
    if not outcome.violations:
        raise ValueError(f"seed {plan.seed} breaks no promise")
    broken = outcome.violations[0][0]
    left = tries
    again = True
    while again:
        again = False
        for words, smaller in smaller_than(plan):
            if left <= 0:
                tell("no tries left")
                return plan
            for seed in seeds_for(plan.seed):
                left -= 1
                candidate = changed(smaller, seed=seed)
                if breaks(play(candidate, transport=transport), broken):
                    tell(f"{tries - left:4} tries: {words}")
                    plan, again = candidate, True
                    break
            if again:
                break  # what was tried in vain before may go now
    return plan


def breaks(outcome: Outcome, checker: str) -> bool:
    """Tell whether this very promise was broken first."""
    return bool(outcome.violations) and outcome.violations[0][0] == checker


def seeds_for(seed: int) -> list[int]:
    """The seed itself, and others."""
    return [seed, *(seed + 1_000_003 * number for number in range(1, SEEDS))]


def smaller_than(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Yield plans with something less, the ones with the most less first, and in a few words what it is."""
    for name in ("steps", "net", "store", "habits", "releases", "clients", "workers"):
        for less in fewer(getattr(plan, name), LEAST.get(name, 0)):
            yield f"{len(less)} {name}", changed(plan, **{name: less})
    if plan.poison is not None:
        yield "no poison", changed(plan, poison=None)
    if plan.speech is not None:
        yield from _less_speech(plan, plan.speech)
    if plan.recalls is not None:
        yield "no callers", changed(plan, recalls=None)
        for less in fewer(plan.recalls.callers, 1):
            yield f"{len(less)} callers", changed(plan, recalls=changed(plan.recalls, callers=less))
    yield from _less_asked(plan)
    for section, values in plan.sections.items():
        yield f"no [{section}]", changed(plan, sections=_without(plan.sections, section))
        for key in values:
            sections = {**plan.sections, section: _without(values, key)}
            yield f"no {section}.{key}", changed(plan, sections=sections)
    for name, value in PLAIN.items():
        if getattr(plan, name) != value:
            yield f"{name} = {value}", changed(plan, **{name: value})
    for name in ("clients", "workers", "steps"):
        parts = getattr(plan, name)
        for index, part in enumerate(parts):
            for words, simpler in simpler_than(part):
                yield words, changed(plan, **{name: (*parts[:index], simpler, *parts[index + 1 :])})


def _less_asked(plan: Plan) -> Iterator[tuple[str, Plan]]:
    if plan.blobs is not None:
        yield "no blobs", changed(plan, blobs=None)
        for less in fewer(plan.blobs.uploads, 1):
            yield f"{len(less)} uploads", changed(plan, blobs=changed(plan.blobs, uploads=less))
        for less in fewer(plan.blobs.spells, 0):
            yield f"{len(less)} spells of the media", changed(plan, blobs=changed(plan.blobs, spells=less))
    if plan.rooms is not None:
        yield "no rooms", changed(plan, rooms=None)
        for less in fewer(plan.rooms.members, 0):
            yield f"{len(less)} members", changed(plan, rooms=changed(plan.rooms, members=less))
        for less in fewer(plan.rooms.posts, 0):
            yield f"{len(less)} posts", changed(plan, rooms=changed(plan.rooms, posts=less))
    if plan.canvases is not None:
        yield "no canvases", changed(plan, canvases=None)
        for less in fewer(plan.canvases.sockets, 1):
            yield f"{len(less)} pages", changed(plan, canvases=changed(plan.canvases, sockets=less))
    if plan.fleet is not None:
        yield "no fleet", changed(plan, fleet=None)
        for less in fewer(plan.fleet.apps, 1):
            yield f"{len(less)} apps", changed(plan, fleet=changed(plan.fleet, apps=less))
    if plan.core is not None:
        yield "no core server", changed(plan, core=None, sections=_without(plan.sections, "core"))
        for less in fewer(plan.core.spells, 0):
            yield f"{len(less)} spells", changed(plan, core=changed(plan.core, spells=less))


def _less_speech(plan: Plan, speech: Speech) -> Iterator[tuple[str, Plan]]:
    yield "no speech", changed(plan, speech=None)
    for less in fewer(speech.jobs, 0):
        yield f"{len(less)} jobs", changed(plan, speech=changed(speech, jobs=less))
    for share in ("streams", "adopts", "cancels", "reloads"):
        if getattr(speech, share):
            yield f"{share} = 0", changed(plan, speech=changed(speech, **{share: 0.0}))


def fewer(parts: Sequence[Any], least: int) -> Iterator[tuple[Any, ...]]:
    """Yield `parts` without one half, without the other, without a quarter, and so on down to single ones."""
    size = len(parts)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(parts), size):
            rest = (*parts[:start], *parts[start + size :])
            if least <= len(rest) < len(parts):
                yield rest
    if len(parts) == 1 and not least:
        yield ()


def simpler_than(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield `part` with one value that is smaller or plainer."""
    for field in attrs.fields(type(part)):
        value = getattr(part, field.name)
        name = getattr(part, "name", getattr(part, "what", ""))
        plain: list[Any] = []
        if field.default is not attrs.NOTHING and not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
            plain.append(field.default)
        if isinstance(value, bool):
            plain.append(False)
        elif isinstance(value, int) and field.name in ("messages", "pad"):
            plain += [value // 4, value // 2, value - 1]
        elif isinstance(value, float) and field.name in ("starts_at", "seconds", "talks_share", "thinks_s"):
            plain.append(0.0)
        for other in plain:
            if other != value and (not isinstance(value, int | float) or 0 <= other < value):
                yield f"{name}: {field.name} = {other}", changed(part, **{field.name: other})


def changed(part: Kind, **values: Any) -> Kind:
    """Return `part` with other values."""
    return cast("Any", attrs.evolve)(part, **values)  # type: ignore[no-any-return]


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}
