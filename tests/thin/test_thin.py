"""The wheel without the libraries of a server: what works there, what it says where it does not, and what a type checker finds.

A user's program is one of docs/examples; it runs there against a node of this environment.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from signald.entry import NEEDS_SERVER
from signald.exit_codes import ExitCode
from tests.example_programs.stage import EXAMPLES
from tests.real.harness import open_nodes, url_of
from tests.thin.wheel import build, environment, packages

pytestmark = pytest.mark.real

WHOLE = {"anyio", "attr", "attrs", "h11", "idna", "msgspec", "signald", "sniffio", "typing_extensions", "websockets"}
"""What the base may bring."""

TALK = """
import sys
from signald.sdk.asyncio import WorkerSession, open_client, open_worker, run

async def echo(session: WorkerSession) -> None:
    async for message in session:
        await session.send(message.data)

async def main() -> None:
    async with open_worker(sys.argv[1], echo, instance_id="echo"), open_client(sys.argv[1], jobs=True) as client:
        await client.send({"text": "hello"})
        async for message in client:
            print(message.data["text"], "trio" in sys.modules)
            return

run(main)
"""
IMPORTS = """
import json, sys
from pathlib import Path
import signald.sdk
missing = {}
for path in sorted(Path(signald.sdk.__file__).parent.rglob("*.py")):
    name = ".".join(("signald.sdk", *path.relative_to(Path(signald.sdk.__file__).parent).with_suffix("").parts))
    try:
        __import__(name.removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        missing[name] = str(error)
print(json.dumps(missing))
"""


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the base alone."""
    directory = tmp_path_factory.mktemp("thin")
    return environment(directory / "environment", build(directory))


def say(python: Path, *arguments: str, code: int = 0) -> str:
    """Run `python` outside of this tree, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=python.parent, env=clean, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_base_is_thin(thin: Path) -> None:
    """Nothing of a server comes along, and the package says that it is typed."""
    there = {path.name for path in packages(thin).iterdir() if path.is_dir() and "." not in path.name}
    there |= {path.stem for path in packages(thin).glob("*.py")}
    assert there - {"__pycache__", "sniffio"} <= WHOLE
    assert (packages(thin) / "signald" / "py.typed").is_file()


def test_all_but_trio_is_imported(thin: Path) -> None:
    """Each module of the SDK is imported, but for those on Trio, and these name the extra that they need."""
    missing = json.loads(say(thin, "-c", IMPORTS))
    assert set(missing) == {"signald.sdk.trio", "signald.sdk.trio_carrier", "signald.sdk.trio_run"}
    assert "pip install 'signald[trio]'" in missing["signald.sdk.trio"]


def test_the_command_says_what_it_needs(thin: Path) -> None:
    """`signald serve` ends with a sentence and no traceback."""
    said = say(thin, "-m", "signald.entry", "serve", code=ExitCode.UNAVAILABLE)
    assert said.startswith(NEEDS_SERVER)
    assert "Traceback" not in said


async def test_a_client_and_a_worker_talk_without_trio(thin: Path, tmp_path: Path) -> None:
    """A program on asyncio speaks with a node, and has never imported Trio."""
    async with open_nodes(tmp_path, "memory:") as nodes:
        node = await nodes.start("node")
        said = await trio.to_thread.run_sync(say, thin, "-c", TALK, url_of(node))
    assert said == "hello False\n"


def test_a_users_program_is_strict(thin: Path, tmp_path: Path) -> None:
    """mypy passes on programs of an author who has the base alone, and finds an error that is put into one of them."""
    wanted = ("chat.py", "llm_worker.py", "streaming_client.py", "streaming_worker.py", "jobs_worker.py", "room.py")
    for name in wanted:
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    wrong = (EXAMPLES / "echo_worker.py").read_text().replace("session.send(", "session.sends(")
    (tmp_path / "wrong.py").write_text(wrong)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", thin, "."],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "wrong.py" in checked.stdout
    assert '"WorkerSession" has no attribute "sends"' in checked.stdout
    assert checked.stdout.endswith("Found 1 error in 1 file (checked 7 source files)\n"), checked.stdout
