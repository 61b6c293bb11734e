"""Recording and replaying: a vector is played, and what comes of it is written into it or compared."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.vectors.clock import Clock
from tests.vectors.party import PartyPlayer
from tests.vectors.requests import ReadingPlayer, RequestPlayer, RollUpPlayer
from tests.vectors.scenarios.words import talking, vector, working

FOLDER = Path(__file__).parent / "transcripts"
FORMAT = 1

BYTES_MAX = 400_000
"""Of all transcripts together: each clone of the repository carries them, and each SDK a copy."""

STEPS_MAX = 10_000
"""Moments of one vector. More of them are timers that never end."""

BEGINNINGS = {
    "a client that is paired": vector("", "", talking()),
    "a worker with one session": vector("", "", working(), party="worker"),
}
"""Steps with which most vectors begin: each file has them once."""

Step = dict[str, Any]
Vector = dict[str, Any]


class Player(Protocol):
    """What plays one kind of vector."""

    clock: Clock

    def play(self, step: Step) -> list[Step]:
        """Do one step at the current time."""

    def timer(self) -> int | None:
        """Return when something is due by itself, in milliseconds."""


_PLAYERS: dict[str, Callable[[Vector], Player]] = {
    "client": PartyPlayer,
    "worker": PartyPlayer,
    "request": RequestPlayer,
    "reading": ReadingPlayer,
    "roll_up": RollUpPlayer,
}


def played(vector: Vector) -> list[Step]:
    """Play the inputs of a vector; return its steps with what came of each. What comes by itself is a step of its own."""
    player: Player = _PLAYERS[vector["party"]](vector)
    done: list[Step] = []
    for step in vector["steps"]:
        if step.get("time"):
            continue  # an outcome of an earlier recording
        done += _passed(player, step["at"])
        player.clock.ms = step["at"]
        said = {name: value for name, value in step.items() if name != "out"}
        done.append({**said, "out": player.play(said)})
    return done


def _passed(player: Player, at: int) -> Iterator[Step]:
    """Let the time pass until just before `at`, or up to it where something is due in between."""
    for _ in range(STEPS_MAX):
        due = player.timer()
        if due is None or due >= at:
            return
        player.clock.ms = due
        out = player.play({"time": True})
        if out:
            yield {"at": due, "time": True, "out": out}
    raise AssertionError("timers without end")


def recorded(vector: Vector) -> Vector:
    """Return a vector with what comes of its inputs."""
    return {**vector, "steps": played(vector)}


def differences(vector: Vector) -> list[str]:
    """Replay a vector; return what is otherwise than it says, one line for each step."""
    found = []
    played_now = played(vector)
    for number in range(max(len(played_now), len(vector["steps"]))):
        said = vector["steps"][number] if number < len(vector["steps"]) else None
        got = played_now[number] if number < len(played_now) else None
        if said != got:
            found.append(f"{vector['name']}, step {number}: {json.dumps(got)} and not {json.dumps(said)}")
    return found


def files() -> dict[str, list[Vector]]:
    """Return the vectors by the topic of their file, each with all of its steps."""
    return {path.stem: _whole(json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))}


def _whole(file: dict[str, Any]) -> list[Vector]:
    found = []
    for one in file["vectors"]:
        vector = dict(one)
        begins = vector.pop("begins", None)
        found.append({**vector, "steps": [*(file["beginnings"][begins] if begins else []), *vector["steps"]]})
    return found


def text_of(topic: str, vectors: list[Vector]) -> str:
    """Return a file of transcripts: JSON with one step on each line, so that a change of one is seen as one."""
    beginnings = {name: played(vector) for name, vector in BEGINNINGS.items()}
    lines = ["{", f'"format": {FORMAT}, "topic": {json.dumps(topic)}, "beginnings": {{']
    for number, (name, common) in enumerate(beginnings.items()):
        lines += [f"{json.dumps(name)}: [", *_lines(common), "]" + ("," if number < len(beginnings) - 1 else "")]
    lines.append('}, "vectors": [')
    for number, one in enumerate(vectors):
        head = {name: value for name, value in one.items() if name != "steps"}
        steps = one["steps"]
        for name, common in beginnings.items():
            if steps[: len(common)] == common:
                head["begins"], steps = name, steps[len(common) :]
        lines.append(json.dumps(head)[:-1] + ', "steps": [')
        lines += _lines(steps)
        lines.append("]}" + ("," if number < len(vectors) - 1 else ""))
    return "\n".join([*lines, "]}", ""])


def _lines(steps: list[Step]) -> list[str]:
    return [json.dumps(step) + ("," if number < len(steps) - 1 else "") for number, step in enumerate(steps)]
