"""The states of apps as the nodes of a story have logged them."""

import json
from collections import defaultdict
from pathlib import Path

STATES = ("connected", "authenticated", "terminating", "disconnected")


def states_by_app(directory: Path) -> dict[str, list[list[str]]]:
    """Return for each instance the states of its connections, one after the other, in the order of the nodes' names and the log."""
    found: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for log in sorted(directory.glob("demo-*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and '"app_state"' in line:
                entry = json.loads(line)
                found[entry["instance"], log.stem, entry["connection"]].append(entry["state"])
    by_app: dict[str, list[list[str]]] = defaultdict(list)
    for (instance, _, _), states in found.items():
        by_app[instance].append(states)
    return by_app


def judge_states(connections: list[list[str]], *, cut: int) -> None:
    """Each connection goes through the states in their order and ends; `cut` of them may lack the end, because their node was killed."""
    unfinished = 0
    for states in connections:
        places = [STATES.index(state) for state in states]
        assert places == sorted(set(places)), states
        assert states[0] == "connected", states
        unfinished += states[-1] != "disconnected"
        # One that was asked had been let in.
        assert "terminating" not in states or "authenticated" in states, states
    assert unfinished <= cut, connections


def times_terminating(connections: list[list[str]]) -> int:
    """Return how often an app was asked to terminate."""
    return sum("terminating" in states for states in connections)
