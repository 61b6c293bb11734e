"""The programs stand on their own: what they are made of is pinned, and they know nothing of the service but its contract."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.systems.program import PROGRAMS

HERE = Path(__file__).parent
FOREIGN = re.compile(r"\b(signald|tests)\.\w|from (signald|tests)\b|import (signald|tests)\b")


def test_the_lock_file_names_no_host() -> None:
    """Versions and digests are pinned, and no registry: the packages come from the one that a machine has."""
    text = (HERE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert "http" not in text
    assert all("integrity" in package for name, package in packages.items() if name)
    assert {"node_modules/ws", "node_modules/yjs"} <= packages.keys()


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.iterdir() if path.is_file()))
def test_a_program_knows_the_contract_alone(program: str) -> None:
    """No program imports anything of signald or of its tests."""
    code = "\n".join(
        line for line in (PROGRAMS / program).read_text().splitlines() if re.match(r"\s*(from|import)\b", line)
    )
    assert not FOREIGN.search(code)


def test_the_page_links_each_program_and_each_play() -> None:
    """docs/systems.md says of each program which row it shows, and which play judges it."""
    page = (HERE.parent.parent / "docs/systems.md").read_text()
    linked = set(re.findall(r"\(\.\./tests/systems/(?:programs|plays)/([\w.]+)\)", page))
    files = {path.name for folder in ("programs", "plays") for path in (HERE / folder).iterdir() if path.is_file()}
    assert linked == files - {"__init__.py", "page.mjs", "api.mjs", "recording.mjs"}


@pytest.mark.real
def test_node_has_what_the_programs_import() -> None:
    """Without the set-up of tests/environment.sh this fails, and says so; it is not skipped."""
    try:
        asked = subprocess.run(
            ["node", "-e", "import('ws'); import('yjs')"], cwd=HERE, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.fail("node is missing: `. tests/environment.sh` installs it, and what the programs import")
    assert asked.returncode == 0, f"`. tests/environment.sh` installs what the programs import: {asked.stderr}"
