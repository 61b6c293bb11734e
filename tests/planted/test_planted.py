"""The planted bugs stay plantable, and the hunt for them hunts."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.js.package import run
from tests.planted import place
from tests.planted.bug import Bug
from tests.planted.bugs import BUGS
from tests.planted.plant import ROOT, DoesNotApply, hunt, hunt_by_tests, planted
from tests.sim.redis_server import RedisServer

BY_NAME = {bug.name: bug for bug in BUGS}
LUA = [bug for bug in BUGS if bug.file.endswith(".lua")]
PYTHON = [bug for bug in BUGS if bug.file.endswith(".py")]
TYPESCRIPT = [bug for bug in BUGS if bug.file.endswith(".ts")]
INVARIANTS = {
    "exactly-once", "single-owner", "worker-first", "bounded", "paced", "one-hop", "sticky", "token-once", "no-ghost",
    "bounded-memory", "no-orphan-task", "nobody-lost", "nobody-hurts", "liveness", "fair", "twin", "stream-prefix", "job-once",
    "no-token-after-recall", "event-told", "whole-blob", "room-order",
    "canvas-order", "fleet-order", "sealed", "js",
}  # fmt: skip


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A server that compiles scripts."""
    with RedisServer() as server, Redis(unix_socket_path=server.path) as client:
        yield client


@pytest.mark.long
@pytest.mark.parametrize("bug", PYTHON, ids=lambda bug: bug.name)
def test_applies(bug: Bug) -> None:
    """The pattern of every bug is in its function exactly once, and the file compiles with the bug in it, to something else."""
    source = (ROOT / bug.file).read_text()
    mutated = planted(bug, source)
    compile(mutated, bug.file, "exec")
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))


@pytest.mark.real
@pytest.mark.parametrize("bug", LUA, ids=lambda bug: bug.name)
def test_applies_to_a_script(bug: Bug, redis: Redis) -> None:
    """The pattern of every bug in Lua is in its function exactly once, and Redis compiles the script with the bug in it."""
    source = (ROOT / bug.file).read_text()
    mutated = planted(bug, source)
    redis.script_load(mutated)
    assert place.text_of(bug.file, mutated, "") != place.text_of(bug.file, source, "")


@pytest.mark.real
def test_applies_to_typescript(tmp_path: Path) -> None:
    """The pattern of every bug in TypeScript is in its file exactly once, and esbuild makes another program of the file with the bug."""
    pairs = {
        bug.name: ((ROOT / bug.file).read_text(), planted(bug, (ROOT / bug.file).read_text())) for bug in TYPESCRIPT
    }
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    done = run("--input-type=module", "--eval", SAME_PROGRAM, str(tmp_path / "pairs.json"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == []


# Without white space and comments, as a bug that only moves a line would be none.
SAME_PROGRAM = """
import { readFileSync } from "node:fs";
import { transformSync } from "esbuild";
const pairs = Object.entries(JSON.parse(readFileSync(process.argv[1], "utf8")));
const made = (text) => transformSync(text, { loader: "ts", minify: true }).code;
console.log(JSON.stringify(pairs.filter(([, [before, after]]) => made(before) === made(after)).map(([name]) => name)));
"""


@pytest.mark.long
@pytest.mark.parametrize("bug", PYTHON + LUA, ids=lambda bug: bug.name)
def test_layout_does_not_matter(bug: Bug) -> None:
    """A bug still applies when its file is laid out anew, commented, and has got something above and below it."""
    source = (ROOT / bug.file).read_text()
    if bug.file.endswith(".lua"):
        shaken = "-- a comment\n" + "\n".join(
            line if line == "end" else f"{line}  -- so" for line in source.splitlines()
        )
    else:
        head, _, rest = ast.unparse(ast.parse(source)).partition("\n")
        shaken = f"{head}\n{rest}\n# a comment\n"
    text = place.text_of(bug.file, planted(bug, source), bug.function)
    assert place.text_of(bug.file, planted(bug, shaken), bug.function) == text


def test_named_once() -> None:
    """Every bug has a name of its own, breaks an invariant there is, and is told in one sentence."""
    assert len(BY_NAME) == len(BUGS) >= 36
    for bug in BUGS:
        assert bug.breaks in INVARIANTS
        assert bug.story.endswith(".")
        assert bug.story.count(".") == 1


@pytest.mark.long
def test_tests_that_are_named_exist() -> None:
    """What a bug says it is noticed by is collected by pytest."""
    named = sorted({word for bug in BUGS for word in bug.noticed_by if word.startswith("tests/")})
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *named]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout[-2000:]


def test_the_documented_slips_are_noticed_as_is_said() -> None:
    """The table of those that went unnoticed once names slips there are, and the test of each."""
    rows = re.findall(
        r"^\| [^|]+ \| `([\w-]+)` \| `(tests/[^`]+)` \|$", (ROOT / "docs/search-log.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 8
    for name, test in rows:
        assert test in BY_NAME[name].noticed_by


def test_outdated_bug() -> None:
    """A bug whose text has gone from the code is an error, and not a bug that is overlooked; so is one whose function has gone."""
    bug = BY_NAME["append-not-fenced"]
    with pytest.raises(DoesNotApply):
        planted(bug, "")
    with pytest.raises(DoesNotApply):
        planted(bug, "def append():\n    pass\n")
    with pytest.raises(DoesNotApply):
        planted(LUA[-1], "local x = 1\n")


@pytest.mark.long
def test_functions_of_a_file() -> None:
    """The names of functions are those by which their texts are found, in Python and in Lua."""
    for file in ("signald/store/session/rules.py", "signald/core/log.py", "signald/store/session/session.lua"):
        source = Path(ROOT / file).read_text()
        for function in place.functions_of(file, source):
            assert place.replaced(file, source, function, place.text_of(file, source, function))


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["claim-keeps-the-epoch", "idle-session-kept", "moved-worker-told-its-sessions-are-over"]
)
def test_caught(name: str) -> None:
    """What breaks at once is caught within a few seeds."""
    found = hunt(BY_NAME[name], 12)
    assert found.caught


@pytest.mark.real
def test_caught_by_a_test() -> None:
    """A bug that names its tests is caught by one of them."""
    found = hunt_by_tests(BY_NAME["lua-epochs-as-text"])
    assert found.caught
