"""The package as a registry would have it: judged by the tools of its users, and installed and run in an empty project."""

import json
import subprocess
from pathlib import Path

import pytest
import trio

from tests.js.package import FOLDER, NODE, build
from tests.real.harness import PATIENCE, Address, open_nodes, term, until

pytestmark = pytest.mark.real

TOOLS = Path(__file__).parent / "tools"

WORKER = """
import sys
from signald.sdk.trio import WorkerSession, run, run_worker

async def echo(session: WorkerSession) -> None:
    async for message in session:
        await session.send({"echo": message.data["text"]})

async def main() -> None:
    print("working", flush=True)
    await run_worker(sys.argv[1:], echo, instance_id="echo-1", capacity=10)

run(main)
"""

PROGRAM = """
import { connect } from "signald";
import { WebSocket } from "ws";

const client = connect({ url: process.argv.slice(2), WebSocket });
let heard = 0;
client.on("message", async (message) => {
  console.log(`heard ${message.data.echo}`);
  if (++heard === 60) {
    await client.bye();
    console.log("over");
  }
});
for (let number = 0; number < 60; number++) {
  client.send({ text: `${number}` });
  await new Promise((resolve) => setTimeout(resolve, 50));
}
"""

TYPES = """
import { connect, type Client, type ClientEvents } from "signald";
import { rooms, type Room } from "signald/rooms";
import { jobs } from "signald/jobs";
import { blobs } from "signald/blobs";
import { historyOf } from "signald/history";
import * as sse from "signald/sse";
import * as react from "signald/react";
import { chatTransport } from "signald/ai-sdk";
import * as webrtc from "signald/webrtc";
import * as service from "signald/test";

const client: Client = connect({ url: ["wss://one.example", "wss://two.example"], getToken: async () => "token" });
client.on("message", (message: ClientEvents["message"]) => console.log(message.seq, message.data));
const room: Room = rooms(client).join("canvas:1", { state: true });
export const all: unknown[] = [room, jobs(client), blobs, historyOf, sse, react, chatTransport(client), webrtc, service];
// @ts-expect-error -- a URL is needed
connect({});
"""


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `npm publish` would send."""
    build()
    where = tmp_path_factory.mktemp("packed")
    done = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(where)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    return where / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project that has installed it, without a network, beside a WebSocket for Node."""
    home = tmp_path_factory.mktemp("project")
    (home / "package.json").write_text(json.dumps({"name": "mine", "private": True, "type": "module"}))
    sources = [
        str(tarball),
        *[str(FOLDER / "node_modules" / name) for name in ("ws", "@types/ws", "@types/react", "@types/node")],
    ]
    command = ["npm", "install", "--offline", "--silent", "--no-audit", "--no-fund", "--install-links=false", *sources]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def test_its_files_are_what_a_user_needs(tarball: Path) -> None:
    """What is built, its types and a page that says what it is: no source, test or tool."""
    listed = subprocess.run(["tar", "-tf", str(tarball)], capture_output=True, text=True, check=True).stdout.split()
    assert {"package/package.json", "package/README.md", "package/dist/index.js", "package/dist/index.d.ts"} <= set(
        listed
    )
    assert {name.split("/")[1] for name in listed} == {"package.json", "README.md", "dist"}
    assert {Path(name).suffix for name in listed if "/dist/" in name} <= {".js", ".ts", ".map"}


def test_publint_finds_nothing(tarball: Path) -> None:
    """Its entries are where its package.json says, in the form that it says."""
    done = subprocess.run(
        [str(TOOLS / "node_modules" / ".bin" / "publint"), "--strict", str(tarball)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "All good" in done.stdout


def test_its_types_are_found_from_each_resolution(tarball: Path) -> None:
    """`attw`, for a package of ES modules alone: each entry, from Node and from a bundler."""
    command = [str(TOOLS / "node_modules" / ".bin" / "attw"), "--profile", "esm-only", "--format", "json", str(tarball)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    entries = json.loads(done.stdout)["analysis"]["entrypoints"]
    exported = json.loads((FOLDER / "package.json").read_text())["exports"]
    assert set(entries) == set(exported)
    resolved = [
        entry["resolutions"][kind].get("resolution") for entry in entries.values() for kind in ("bundler", "node16-esm")
    ]
    assert None not in resolved


@pytest.mark.parametrize("resolution", [["nodenext", "nodenext"], ["esnext", "bundler"]], ids=["nodenext", "bundler"])
def test_a_program_of_a_user_is_typed(project: Path, resolution: list[str]) -> None:
    """Each entry, in the strictest form of the compiler, the declarations of the package included."""
    (project / "typed.ts").write_text(TYPES)
    module, how = resolution
    flags = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--target", "es2022"]
    flags += ["--lib", "es2022,dom,dom.iterable", "--types", "node", "--module", module, "--moduleResolution", how]
    compiler = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [NODE, str(compiler), *flags, "typed.ts"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


async def test_it_runs_in_an_empty_project(project: Path, tmp_path: Path) -> None:
    """A program on Node talks with a worker in Python through a deploy: each answer once and in order."""
    program = trio.Path(project) / "talk.mjs"
    await program.write_text(PROGRAM)
    here, there = Address(), Address()
    output, working = tmp_path / "talk.out", tmp_path / "worker.out"
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        old = await nodes.start("old", here)
        await nodes.spawn(["-c", WORKER, here.url, there.url], working)
        await until(lambda: "working" in working.read_text(), 30, str(working))
        talk = await nodes.spawn_program([NODE, str(program), here.url, there.url], output)
        await until(lambda: "heard 3" in output.read_text(), 30, str(output))
        await nodes.start("new", there)
        term(old)
        with trio.fail_after(60 * PATIENCE):
            assert await talk.wait() == 0, output.read_text()
    assert output.read_text().splitlines() == [*[f"heard {number}" for number in range(60)], "over"]
