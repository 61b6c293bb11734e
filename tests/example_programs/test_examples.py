"""Each example of docs/examples does what it says, while its nodes are deployed and killed."""

import re
from configparser import RawConfigParser
from pathlib import Path

import pytest
import trio

from tests.example_programs.stage import EXAMPLES, Stage, play
from tests.example_programs.stories import STORIES, loaded
from tests.real.harness import open_nodes

PLAY_S = 180.0


@pytest.mark.real
async def test_examples_survive_a_deploy_and_a_kill(tmp_path: Path) -> None:
    """All stories are played on one store of SQLite; every program of the folder takes part in one of them."""
    with trio.fail_after(PLAY_S):
        async with open_nodes(tmp_path, f"sqlite:{tmp_path}/signald.db") as nodes:
            stage = Stage(nodes, tmp_path)
            await play(stage, STORIES)
    run = " ".join(program.name for program in stage.programs)
    assert not [path.name for path in EXAMPLES.glob("*.py") if path.stem not in run]


def test_the_unit_fits_the_program() -> None:
    """systemd waits longer than the program does, starts the program that is there, and is told when it is ready."""
    unit = RawConfigParser(strict=False)
    unit.read(EXAMPLES / "steady-worker.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert float(service["TimeoutStopSec"]) > loaded("steady_worker").LEAVE_S
    program = Path(service["ExecStart"].split()[1]).name
    assert (EXAMPLES / program).is_file()


def test_the_page_on_streaming_shows_what_runs() -> None:
    """The code of docs/streaming.md stands word for word in the examples."""
    page = (EXAMPLES.parent / "streaming.md").read_text(encoding="utf-8")
    programs = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py"))
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    assert all(block in programs for block in blocks)


def test_the_page_lists_each_example() -> None:
    """The table of the folder names each file of it."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert not [
        path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".service") and path.name not in page
    ]
