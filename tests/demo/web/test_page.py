"""The whole of `signald demo --web`: with a client of the SDK in place of the page, and with the page in a real browser."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import trio

from signald.demo.waiting import until
from signald.demo.web.story import answer
from signald.sdk.trio import Room, open_client
from tests.demo.web.visit import AXE, ROOT, open_demo
from tests.systems.plays.editors import find_browser

pytestmark = pytest.mark.real
VISIT_S = 180


def start_of(url: str) -> Any:
    """Return what the page is told when it begins."""
    with urlopen(f"{url}start.json") as response:
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return json.load(response)


def is_done(room: Room, number: int) -> bool:
    """Return whether a move of the nodes is over."""
    name = f"move-{number:06}"
    return name in room.records and room.records[name]["state"] == "done"


async def test_an_answer_goes_through_a_kill_and_a_deploy() -> None:
    """What the page asks for happens, stands in the room, and the answer is whole; Ctrl-C ends the demo well."""
    async with open_demo() as (url, end):
        start = await trio.to_thread.run_sync(start_of, url)
        async with (
            open_client(start["url"], want=start["want"], meta={"name": "visitor"}) as client,
            client.room(start["rooms"]["deploys"], state=True) as room,
        ):
            await client.send({"text": "Tell me about a deploy"}, kind="chat")
            for number, kind in enumerate(("kill", "rollback"), 1):
                await room.publish({"do": kind}, kind="wish")
                with trio.fail_after(60):
                    await until(partial(is_done, room, number))
            with trio.fail_after(60):
                await until(lambda: [text.open for text in client.streams.values()] == [False])
            (text,) = client.streams.values()
            await client.bye()
        first, second = (room.records[f"move-{number:06}"] for number in (1, 2))
    assert text.text == "".join(answer("deploy"))
    # There is nothing to roll back to: the second wish is a deploy.
    assert (first["kind"], first["release"], first["exit"]) == ("kill", "r1", -9)
    assert (second["kind"], second["release"], second["exit"]) == ("deploy", "r2", 0)
    assert end["exit"] == 0, end["said"]
    assert "Nobody noticed" in end["said"]


def test_a_visit_in_a_browser(tmp_path: Path) -> None:
    """Two tabs chat, draw and watch through a deploy, a rollback, a kill and a reload: nothing is lost, and axe-core finds nothing.

    The network of the test has loopback alone, where it may be made: nothing is loaded from elsewhere.
    """
    missing = "Chromium" if find_browser() is None else "axe-core" if not AXE.exists() else None
    if missing is not None:
        why = f"there is no {missing}; tests/run installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    command = [sys.executable, "-m", "tests.demo.web.visit"]
    if os.getuid() == 0 and sys.platform == "linux":
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=VISIT_S, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["story"], "the answer that went through a deploy, a rollback and a kill is not whole"
    assert found["reload"], "the answer that went through a reload is not whole"
    if found["video"]:
        frames, _gap, *lost_and_restarts = found["film"]
        assert int(frames.replace(",", "")) > 30
        assert lost_and_restarts == ["0", "0"]
    assert found["cuts"] == ["deploy r2", "rollback r1", "kill r1"]
    assert len(found["moves"]) == 3
    for figures in found["figures"]:
        assert (figures["lost"], figures["doubled"], figures["late"]) == ("0", "0", "0"), found
    assert set(found["strokes"]) == {"Shared canvas, 2 strokes"}
    assert found["axe"] == []
    assert found["complaints"] == []
    assert found["exit"] == 0, found["said"]
