"""The JavaScript SDK: its own tests, its types, its size, and clients that notice no deploy."""

import json
import re
from pathlib import Path

import pytest

from tests.js.package import FOLDER, build, run
from tests.sdk.deploys.run import play

pytestmark = pytest.mark.real

DEPLOYS = 2

LEAST = {"vectors": 150, "front": 15}
"""Cases that a file has at least: fewer would mean that they are not found."""


OWN = sorted(path.name.removesuffix(".test.ts") for path in (FOLDER / "test").glob("*.test.ts"))
"""Its own files of tests."""


@pytest.mark.parametrize("name", OWN)
def test_its_own_tests_pass(name: str) -> None:
    """Vectors and scripts, on Node's runner; none is skipped."""
    done = run("test.mjs", "--tap", name)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"^# (tests|pass|fail|skipped|todo) (\d+)$", done.stdout, re.MULTILINE))
    assert int(counts["pass"]) == int(counts["tests"]) > LEAST.get(name, 0), counts


def test_what_is_built_is_what_was_written() -> None:
    """The front passes its tests on the files that a page loads, too: names that are shortened are not those of an application."""
    build()
    done = run("test.mjs", "--tap", "--built", "front")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    exported = json.loads((FOLDER / "package.json").read_text())["exports"]
    files = [file for entry in exported.values() if isinstance(entry, dict) for file in entry.values()]
    assert len(files) > 6
    assert [file for file in files if not (FOLDER / file).exists()] == []


def test_its_types_hold() -> None:
    """Sources and tests are right for the compiler, in its strictest form."""
    done = run("node_modules/typescript/bin/tsc", "--noEmit", "-p", "tsconfig.test.json")
    assert done.returncode == 0, done.stdout


def test_its_size_is_bounded() -> None:
    """A page loads at most 12 KiB of it."""
    done = run("size.mjs")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["gzip"] > 5000


def test_its_lock_names_no_host() -> None:
    """A registry is the choice of those who install; each package has a checksum."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    packages = [one for name, one in lock["packages"].items() if name]
    assert packages
    assert not [one for one in packages if "resolved" in one or "integrity" not in one]
    assert not json.loads((FOLDER / "package.json").read_text()).get("dependencies")


async def test_its_clients_notice_no_deploy(tmp_path: Path) -> None:
    """A deploy and a kill beneath eight clients: nothing is lost, doubled or reordered, and no text is wrong."""
    verdict = await play(tmp_path, "js", DEPLOYS, seed=2, clients=8, workers=2, kills=0.4)
    assert verdict.faults == []
    counts = verdict.counts
    assert counts["sent"] > 16, counts
    assert (verdict.deploys, verdict.kills) == (DEPLOYS, 1)
    assert counts["events"]["handed_over"] == 8, counts
    assert counts["events"]["disconnected"] >= 8, counts
    assert counts["connections"][0] >= 8 * (1 + DEPLOYS), counts


async def test_members_of_a_room_notice_no_deploy(tmp_path: Path) -> None:
    """A deploy and a kill beneath five members that draw and chat: all end with the same records, and each line came once and in order."""
    verdict = await play(tmp_path, "js-rooms", DEPLOYS, seed=2, clients=5, workers=1, kills=0.4)
    assert verdict.faults == []
    counts = verdict.counts
    assert counts["sent"] > 10, counts
    assert counts["shapes"] > 5, counts
    assert counts["events"]["handed_over"] == 5, counts
    assert counts["events"]["records"] > 20, counts
