"""What the suite has said, against what it is known to say: `expected.json`, frozen and kept by hand.

Each case has an outcome, `behaviour / close behaviour / close code`, such as `OK / OK / 1000`. Any difference counts, also one for the
better: the file then no longer says how signald behaves.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FROZEN = Path(__file__).with_name("expected.json")
FROZEN_COMPRESSED = Path(__file__).with_name("expected-compressed.json")
"""With compression on, in either of its modes."""

GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"})
"""What a behaviour may be; of a close, all but NON-STRICT and UNIMPLEMENTED."""
GOOD_CLOSE = frozenset({"OK", "INFORMATIONAL"})


def outcomes(said: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the outcome of each case in what the suite `said`."""
    return {
        case: f"{entry['behavior']} / {entry['behaviorClose']} / {entry['remoteCloseCode']}"
        for case, entry in sorted(said.items(), key=lambda item: _order(item[0]))
    }


def load(file: Path = FROZEN) -> tuple[dict[str, str], dict[str, str]]:
    """Return the frozen outcome of each case in `file`, and the reason of each that is not simply OK."""
    frozen = json.loads(file.read_text())
    expected = {case: outcome for outcome, cases in frozen["outcomes"].items() for case in cases.split()}
    return dict(sorted(expected.items(), key=lambda item: _order(item[0]))), frozen["reasons"]


def freeze(got: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """Return the text of `expected.json` for these outcomes."""
    outcomes: dict[str, list[str]] = {}
    for case, outcome in got.items():
        outcomes.setdefault(outcome, []).append(case)
    grouped = {outcome: " ".join(cases) for outcome, cases in sorted(outcomes.items())}
    return json.dumps({"outcomes": grouped, "reasons": reasons}, indent=2) + "\n"


def is_good(outcome: str) -> bool:
    """Tell whether an outcome may stand in the frozen file at all."""
    behaviour, close, _ = outcome.split(" / ")
    return behaviour in GOOD and close in GOOD_CLOSE


def faults(got: Mapping[str, str], expected: Mapping[str, str], reasons: Mapping[str, str]) -> list[str]:
    """Return one line for whatever is not as frozen, or never may be; none when all is well."""
    lines = []
    for case in sorted(got.keys() | expected.keys(), key=_order):
        outcome, frozen = got.get(case, "not run"), expected.get(case, "not known")
        if outcome != frozen:
            lines.append(f"{case}: {outcome}, frozen: {frozen}")
        if case in got and not is_good(outcome):
            lines.append(f"{case}: {outcome} is a failure")
        if needs_reason(outcome) and case not in reasons:
            lines.append(f"{case}: {outcome} without a reason")
    return lines


def needs_reason(outcome: str) -> bool:
    """Tell whether an outcome has to be explained case by case: what is neither OK nor about compression."""
    return "NON-STRICT" in outcome or "INFORMATIONAL" in outcome


def summary(got: Mapping[str, str]) -> str:
    """Return how often each behaviour occurred."""
    counts: dict[str, int] = {}
    for outcome in got.values():
        behaviour = outcome.split(" / ", 1)[0]
        counts[behaviour] = counts.get(behaviour, 0) + 1
    return f"{len(got)} cases: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _order(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]
