"""The stop timeout of a systemd unit and its drop-ins, read as systemd reads it."""

import re
from collections.abc import Iterator, Sequence

import attrs

from signald.config.problems import Problem

DEFAULT_STOP_S = 90.0
"""DefaultTimeoutStopSec of a system manager with its defaults."""

# systemd.time(7). A month and a year are means, as there.
_units_s = {
    **dict.fromkeys(("usec", "us", "\u00b5s", "\u03bcs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86_400.0),
    **dict.fromkeys(("weeks", "week", "w"), 604_800.0),
    **dict.fromkeys(("months", "month", "M"), 2_629_800.0),
    **dict.fromkeys(("years", "year", "y"), 31_557_600.0),
}
_size = re.compile(r"([0-9]+)([KMGT]?)")
_sizes = {"": 1.0, **{unit: 1024.0**power for power, unit in enumerate("KMGT", 1)}}
_part = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z\u00b5\u03bc]*)\s*")


@attrs.frozen
class Unit:
    """The directives of a unit about its stop."""

    where: str
    key: str
    stop_s: float
    note: str
    """Why this value holds where the unit does not say it, for people; else ""."""
    problems: tuple[Problem, ...] = ()
    memory: tuple[str, str, float] | None = None
    """Where the unit limits memory, by which key, and to how many bytes; None where it does not."""


def parse_span_s(text: str) -> float:
    """Return the seconds of a time span such as `1min 30s`, `90` or `infinity`. Raises ValueError."""
    if text.strip() == "infinity":
        return float("inf")
    seconds, at = 0.0, 0
    if not text.strip():
        raise ValueError("a time span is missing")
    while at < len(text):
        found = _part.match(text, at)
        if found is None or found.group(2) not in _units_s:
            raise ValueError(f"expected a time span such as 75s or 1min 15s, got {text.strip()!r}")
        seconds += float(found.group(1)) * _units_s[found.group(2)]
        at = found.end()
    return seconds


def read_unit(texts: Sequence[tuple[str, str]]) -> Unit:
    """Read a unit and its drop-ins, given as (path, text) in the order systemd reads them: the last one counts."""
    found = Unit(texts[0][0], "TimeoutStopSec", DEFAULT_STOP_S, ", the default of systemd, for it says nothing")
    problems: list[Problem] = []
    service = False
    memory: tuple[str, str, float] | None = None
    for path, text in texts:
        for number, section, key, value in _settings(text):
            service = service or section == "Service"
            if section == "Service" and key == "MemoryMax":
                size = _size.fullmatch(value)  # a share of the host's memory, or infinity, is no limit known here
                memory = (f"{path}:{number}", key, int(size.group(1)) * _sizes[size.group(2)]) if size else None
            if section != "Service" or key not in ("TimeoutStopSec", "TimeoutSec"):
                continue
            where = f"{path}:{number}"
            if not value:
                found = Unit(where, key, DEFAULT_STOP_S, ", the default of systemd, for it is reset here")
                continue
            try:
                # Of old, 0 means that nothing is limited.
                found = Unit(where, key, parse_span_s(value) or float("inf"), "")
            except ValueError as error:
                problems.append(Problem(where, key, str(error)))
    if not service:
        problems.append(Problem(texts[0][0], "", "is no unit of a service: it has no setting in [Service]"))
    return attrs.evolve(found, problems=tuple(problems), memory=memory)


def _settings(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, section, key, value): comments left out, continued lines joined."""
    section, held, began = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip()[:1] in ("#", ";"):
            continue  # within a continued line as well
        began = began if held else number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        whole, held = (held + line).strip(), ""
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
        elif "=" in whole:
            key, _, value = whole.partition("=")
            yield began, section, key.strip(), value.strip()
