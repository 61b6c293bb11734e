"""Both fronts against each script of the lying node: all numbers once and in order or a clear error, no hang, no traceback."""

import asyncio
import json
import logging
import subprocess
import sys
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio

from signald.sdk import asyncio as asyncio_sdk
from signald.sdk import trio as trio_sdk
from tests.vectors.server import SCRIPTS, Play, script
from tests.vectors.talk import SAYS, Told, servers, talk

pytestmark = pytest.mark.real

NAMES = sorted(path.stem for path in SCRIPTS.glob("*.json"))
CASES = [(name, party) for name in NAMES for party in script(name).get("parties", ["client", "worker"])]
Results = dict[tuple[str, str], tuple[Play, Told]]


class Heard(logging.Handler):
    """What was logged as an error: a traceback of a party, or of its event loop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(self.format(record))


async def all_at_once(sdk: ModuleType, results: Results) -> None:
    """Let a party of its own meet each script, all at the same time."""
    with servers() as running:

        async def one(name: str, party: str) -> None:
            said = script(name)
            play, url = running.start_script(said, party)
            least = len(said.get("missing", []))
            results[name, party] = play, await talk(sdk, play, url, said.get("slow_ms", 0) / 1000, least)

        async with anyio.create_task_group() as tasks:
            for case in CASES:
                tasks.start_soon(one, *case)


@pytest.fixture(scope="module", params=["trio", "asyncio"])
def played(request: pytest.FixtureRequest) -> tuple[Results, list[str]]:
    """What came of all scripts in one event loop, and what was logged as an error."""
    results: Results = {}
    heard = Heard()
    logging.getLogger().addHandler(heard)
    if request.param == "trio":
        trio.run(all_at_once, trio_sdk, results)
    else:
        asyncio.run(all_at_once(asyncio_sdk, results))
    logging.getLogger().removeHandler(heard)
    return results, heard.records


@pytest.mark.parametrize(("name", "party"), CASES)
def test_a_lying_node_hurts_no_party(played: tuple[Results, list[str]], name: str, party: str) -> None:
    """Each number is heard once and in order, on both sides; what is missing is told by the error or the event that the script names."""
    said = script(name)
    play, told = played[0][name, party]
    notes = play.notes()
    assert not told.hung, (told, notes)
    assert told.error == said.get("error"), (told, notes)
    missing = said.get("missing", [])
    whole = [number for number in range(1, play.gives + 1) if number not in missing]
    if told.error is None:
        assert told.heard == whole, (told, notes)
        assert notes["stored"] == list(range(1, SAYS + 1)), (told, notes)
    else:
        assert told.heard == whole[: len(told.heard)], (told, notes)
        assert notes["stored"] == list(range(1, len(notes["stored"]) + 1)), (told, notes)
    if "event" in said:
        assert said["event"] in told.events, told
    if "ahead_max" in said:
        assert notes["ahead_max"] <= said["ahead_max"], notes


def test_nothing_is_logged_as_an_error(played: tuple[Results, list[str]]) -> None:
    """A lie of the node is no fault of the program: there is no traceback of it."""
    assert played[1] == []


def test_the_server_is_a_command() -> None:
    """It says its port, and at the end of its input what it has noted."""
    command = [sys.executable, "-m", "tests.vectors.server", "honest"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        async def say() -> None:
            async with trio_sdk.open_client(f"ws://127.0.0.1:{port}") as client:
                await client.send({"n": 7})
                assert (await anext(client)).data["n"] == 1
                await client.bye()

        port = int(process.stdout.readline())
        trio.run(say)
        notes: dict[str, Any] = json.loads(process.communicate("", timeout=20)[0])
    assert (notes["stored"], notes["connections"]) == ([7], 1)
