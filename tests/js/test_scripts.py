"""Clients of the JavaScript SDK against each script of the lying node: all numbers once and in order or a clear error, and no hang."""

import json
import subprocess
from typing import Any

import pytest

from tests.js.package import FOLDER, NODE, bundled
from tests.vectors.server import SCRIPTS, Play, script
from tests.vectors.talk import HANG_S, SAYS, servers

pytestmark = pytest.mark.real

NAMES = [
    name
    for name in sorted(path.stem for path in SCRIPTS.glob("*.json"))
    if "client" in script(name).get("parties", ["client"])
]

EVENTS = {
    "LogLost": "log_lost",
    "Replaced": "replaced",
    "Disconnected": "disconnected",
    "AuthExpiring": "auth_expiring",
}
"""How the scripts name an event, and how this SDK does."""

Told = dict[str, Any]


@pytest.fixture(scope="module")
def played() -> dict[str, tuple[Play, Told]]:
    """What came of all scripts, at the same time in one process."""
    program = bundled("test/scripted.ts")
    with servers() as running:
        plays, cases = {}, []
        for name in NAMES:
            said = script(name)
            plays[name], url = running.start_script(said, "client")
            least = len(said.get("missing", []))
            gives = plays[name].gives
            cases.append({"name": name, "url": url, "slowMs": said.get("slow_ms", 0), "gives": gives, "least": least})
        done = subprocess.run(
            [NODE, str(program), json.dumps(cases)],
            cwd=FOLDER, capture_output=True, text=True, check=False, timeout=2 * HANG_S,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout.splitlines()[-1])
        return {name: (plays[name], told[name]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_lying_node_hurts_no_client(played: dict[str, tuple[Play, Told]], name: str) -> None:
    """Each number is heard once and in order, on both sides; what is missing is told by the error or the event that the script names."""
    said = script(name)
    play, told = played[name]
    notes = play.notes()
    assert not told["hung"], (told, notes)
    assert told["error"] == said.get("error"), (told, notes)
    missing = said.get("missing", [])
    whole = [number for number in range(1, play.gives + 1) if number not in missing]
    if told["error"] is None:
        assert told["heard"] == whole, (told, notes)
        assert notes["stored"] == list(range(1, SAYS + 1)), (told, notes)
    else:
        assert told["heard"] == whole[: len(told["heard"])], (told, notes)
        assert notes["stored"] == list(range(1, len(notes["stored"]) + 1)), (told, notes)
    if "event" in said:
        assert EVENTS[said["event"]] in told["events"], told
    if "ahead_max" in said:
        assert notes["ahead_max"] <= said["ahead_max"], notes
