"""`signald ctl` against real nodes: what an operator types, and what comes of it."""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from signald.cli import main
from signald.config import AuthConfig
from signald.ctl.client import AdminClient, CtlError
from signald.demo.cluster import Node
from signald.exit_codes import ExitCode
from signald.sdk.errors import Refused, SessionGone
from signald.sdk.trio import WorkerSession, open_client, open_worker
from signald.service.auth import mint
from tests.real.harness import Settings, Talk, dial, exit_of, kill, open_nodes, open_talk, term, until, url_of

pytestmark = pytest.mark.real

SOCKETS: Settings = {"admin": {"socket": ""}}
TOKEN = "an admin token of this test, long enough"


@pytest.fixture(autouse=True)
def _sockets_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nodes and ctl look for each other in a place of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("RUNTIME_DIRECTORY", "SIGNALD_SOCKET", "SIGNALD_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


class Ctl:
    """The command, and what it printed last."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.words = ""
        self.complaint = ""

    async def __call__(self, *arguments: str) -> int:
        """Run `signald ctl ...` in a thread, as it blocks; returns the exit status."""
        self._capfd.readouterr()
        status = await trio.to_thread.run_sync(main, ["ctl", *arguments])
        self.words, self.complaint = self._capfd.readouterr()
        return status

    async def json(self, *arguments: str) -> Any:
        """Run it, see it succeed, and return what it printed as JSON."""
        assert await self(*arguments, "--json") == os.EX_OK, self.complaint
        return json.loads(self.words)


@pytest.fixture
def ctl(capfd: pytest.CaptureFixture[str]) -> Ctl:
    """The command."""
    return Ctl(capfd)


@asynccontextmanager
async def blue_and_green(directory: Path) -> AsyncIterator[tuple[Node, Node, Talk]]:
    """Two nodes, and parties in conversation that came to the first one."""
    async with open_nodes(directory, f"sqlite:{directory}/signald.db", SOCKETS) as nodes, open_talk() as talk:
        blue = await nodes.start("blue")
        green = await nodes.start("green")
        await talk.worker("worker", url_of(blue), url_of(green))
        for number in range(3):
            await talk.client(f"client-{number}", url_of(blue), url_of(green))
        talk.begin(0.1)
        yield blue, green, talk


async def test_a_node_is_found_by_its_socket(tmp_path: Path, ctl: Ctl) -> None:
    """One node needs no name, two do; a name that is not there, or no node at all, is said with 69."""
    assert await ctl("status") == os.EX_UNAVAILABLE
    assert "no node runs here" in ctl.complaint
    async with open_nodes(tmp_path, f"sqlite:{tmp_path}/signald.db", SOCKETS) as nodes:
        await nodes.start("blue")
        assert (await ctl.json("status"))["node"] == "blue"
        green = await nodes.start("green")
        assert await ctl("status") == os.EX_USAGE
        assert "blue, green" in ctl.complaint
        assert (await ctl.json("status", "--node", "green"))["node"] == "green"
        assert await ctl("status", "--node", "red") == os.EX_UNAVAILABLE
        assert {one["node"] for one in (await ctl.json("nodes", "--node", "blue"))["nodes"]} == {"blue", "green"}
        # The registry entry of a killed node is no node.
        await kill(green)
        assert (await ctl.json("status"))["node"] == "blue"


async def test_a_gated_rollout_by_hand(tmp_path: Path, ctl: Ctl) -> None:
    """Workers over, clients over, the old node stopped, the receipt read: no session lost, and the gate says so by its status."""
    async with blue_and_green(tmp_path) as (blue, _, talk):
        assert await ctl("handover", "--workers", "--wait", "--node", "blue") == os.EX_OK
        assert "drained (workers)" in ctl.words
        assert {one["node"] for one in (await ctl.json("workers", "--node", "green"))["workers"]} == {"green"}
        assert len((await ctl.json("sessions", "--node", "blue"))["sessions"]) == 3
        assert await ctl("drain", "--clients", "--wait", "--node", "blue") == os.EX_OK
        assert (await ctl.json("status", "--node", "blue"))["state"] == "drained"
        term(blue)
        assert await exit_of(blue) == 0
        assert await ctl("receipt", "--fail-if", "lost>0", "--fail-if", "suspended>0") == os.EX_OK
        assert await ctl("receipt", "--fail-if", "moved>=3") == ExitCode.CONDITION_HOLDS
        assert "moved>=3 holds" in ctl.complaint
        assert await ctl("receipt", "--fail-if", "lots>0") == os.EX_USAGE
        assert await ctl("receipt", "nobody") == os.EX_DATAERR
        totals = (await ctl.json("receipt", "blue"))["totals"]
        assert (totals["moved"], totals["goaway_before_pair_ready"]) == (3, 0)
        await talk.settle()
        talk.check()


async def test_a_drain_is_called_off(tmp_path: Path, ctl: Ctl) -> None:
    """`abort` admits again; a drain that a signal has begun is final, and a node that does not drain says so."""
    async with blue_and_green(tmp_path) as (blue, _, talk):
        assert await ctl("abort", "--node", "blue") == ExitCode.NO_DRAIN
        assert "this node does not drain: there is nothing to call off" in ctl.complaint
        assert await ctl("drain", "--node", "blue") == os.EX_OK
        assert await ctl("abort", "--node", "blue") == os.EX_OK
        status = await ctl.json("status", "--node", "blue")
        assert (status["state"], status["drain"]) == ("ready", None)
        await talk.settle()
        talk.check()
        term(blue)
        assert await exit_of(blue) == 0


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "too-large", ExitCode.USAGE),
        (401, "unauthenticated", ExitCode.NOT_ALLOWED),
        (403, "no-token", ExitCode.NOT_ALLOWED),
        (404, "unknown-session", ExitCode.NO_SUCH_THING),
        (409, "not-draining", ExitCode.NO_DRAIN),
        (409, "final", ExitCode.STATE),
        (409, "shutting-down", ExitCode.STATE),
        (409, "not-reloadable", ExitCode.STATE),
        (422, "invalid", ExitCode.USAGE),
        (422, "configuration", ExitCode.CONFIGURATION),
        (500, "failed", ExitCode.SOFTWARE),
        (503, "starting", ExitCode.NOT_NOW),
        (503, "store-unavailable", ExitCode.NOT_NOW),
    ],
)
def test_each_problem_has_its_exit_code(status: int, kind: str, code: ExitCode) -> None:
    """An answer of a node never passes for a node that does not answer (69), and each kind of refusal has one code."""
    body = json.dumps({"type": f"urn:signald:problem:{kind}", "detail": "why"}).encode()
    with pytest.raises(CtlError, match="why") as error:
        AdminClient(url="http://127.0.0.1:1")._answer(status, body)
    assert error.value.status == code


def test_another_program_is_told_apart() -> None:
    """76: what answers is no signald."""
    with pytest.raises(CtlError, match="is no signald") as error:
        AdminClient(url="http://127.0.0.1:1")._answer(200, b"<html>")
    assert error.value.status == ExitCode.NO_SIGNALD


async def test_the_way_of_a_session_whose_node_was_killed(tmp_path: Path, ctl: Ctl) -> None:
    """`ctl trace` at another node tells all of it in order: started, paired, and where both parties went on."""
    async with blue_and_green(tmp_path) as (blue, _, talk):
        session = talk.chatters[0].client.session
        begun = [("blue", "client", "started"), ("blue", "worker", "assigned"), ("blue", "worker", "accepted")]
        resumed = {("green", "client", "resumed"), ("green", "worker", "resumed")}

        async def told() -> list[tuple[str, str, str]]:
            if await ctl("trace", session, "--json", "--node", "green") != os.EX_OK:
                return []
            steps = json.loads(ctl.words)["steps"]
            assert [step["at_ms"] for step in steps] == sorted(step["at_ms"] for step in steps)
            return [(step["node"], step["party"], step["what"]) for step in steps]

        async def all_begun() -> bool:
            return (await told())[:3] == begun

        async def all_resumed() -> bool:
            return resumed <= set((await told())[3:])

        # What is told is stored a moment after it happened.
        await until(all_begun, 10, "the way begins at the node that is killed")
        await kill(blue)
        await talk.settle()
        talk.check()
        await until(all_resumed, 10, "and goes on at the other")
        assert (await told())[:3] == begun
        assert await ctl("trace", session) == os.EX_OK
        assert "from blue" in ctl.words
        assert await ctl("trace", "s_nobody") == os.EX_DATAERR


async def test_over_tcp_with_the_token_only(tmp_path: Path, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin API on listen.http needs the token of the configuration; without one it is not there."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    async with open_nodes(tmp_path, "memory:") as nodes:
        closed = await nodes.start("closed")
        opened = await nodes.start("opened", admin={"token_file": str(file)})
        urls = [f"http://{node.http[0]}:{node.http[1]}" for node in (closed, opened)]
        assert await ctl("status", "--url", urls[0], "--token-file", str(file)) == os.EX_NOPERM
        assert "admin.token_file" in ctl.complaint
        assert await ctl("status", "--url", urls[1]) == os.EX_NOPERM
        monkeypatch.setenv("SIGNALD_ADMIN_TOKEN", TOKEN[:-1])
        assert await ctl("status", "--url", urls[1]) == os.EX_NOPERM
        assert TOKEN not in ctl.complaint
        assert (await ctl.json("status", "--url", urls[1], "--token-file", str(file)))["node"] == "opened"
        assert await ctl("status", "--url", "ftp://x") == os.EX_USAGE


async def test_the_other_looks(tmp_path: Path, ctl: Ctl) -> None:
    """`top`, `log-level` and the tables show what is there."""
    async with blue_and_green(tmp_path) as (_, _, talk):
        assert await ctl("top", "--count", "2", "--interval-s", "0.3", "--node", "blue") == os.EX_OK
        assert "accepted" in ctl.words
        assert ctl.words.count("NODE") == 2 * 2, "two pages, each with nodes and workers"
        assert await ctl("log-level", "debug", "--node", "blue") == os.EX_OK
        assert ctl.words == "info -> debug\n"
        assert await ctl("sessions", "--limit", "2", "--node", "blue") == os.EX_OK
        assert "and 1 more" in ctl.words
        assert await ctl("sessions", "--limit", "0", "--node", "blue") == os.EX_USAGE
        assert await ctl("jobs", "--node", "blue") == os.EX_OK
        assert "QUEUED" in ctl.words
        session = talk.chatters[0].client.session
        assert await ctl("jobs", session, "--node", "blue") == os.EX_OK
        assert ctl.words == f"{session} has no job\n"
        assert await ctl("jobs", "s_nobody", "--node", "blue") == os.EX_DATAERR
        assert await ctl("rooms", "--node", "blue") == os.EX_OK
        assert ctl.words == "no room has members here\n"
        assert await ctl("room", "lobby", "--node", "blue") == os.EX_DATAERR
        await talk.settle()
        talk.check()


async def test_a_subject_is_revoked(tmp_path: Path, ctl: Ctl, capfd: pytest.CaptureFixture[str]) -> None:
    """`token revoke` at one node ends the subject's connection at another, whose SDK does not come back with the old token."""
    config = AuthConfig(jwt_secret="a shared secret of at least 32 bytes")
    settings: Settings = {**SOCKETS, "auth": {"jwt_secret": config.jwt_secret}}
    async with open_nodes(tmp_path, f"sqlite:{tmp_path}/signald.db", settings) as nodes:
        await nodes.start("blue")
        green = await nodes.start("green")
        old = mint(config, subject="ann", role="client", ttl_s=600, now=time.time() - 5)
        async with open_client(url_of(green), auth=old) as client:
            capfd.readouterr()
            arguments = ["token", "revoke", "ann", "--node", "blue"]
            assert await trio.to_thread.run_sync(main, arguments) == os.EX_OK
            assert "tokens of ann that were issued before 20" in capfd.readouterr().out
            with pytest.raises(SessionGone), trio.fail_after(20):
                await anext(aiter(client))
        with pytest.raises(Refused):
            async with open_client(url_of(green), auth=old):
                pass
        assert await trio.to_thread.run_sync(main, ["token", "revoke", "", "--node", "blue"]) == os.EX_USAGE


async def test_a_session_that_is_set_aside_is_retried(tmp_path: Path, ctl: Ctl) -> None:
    """`sessions --stuck` lists it at its client's node, `retry` works at any node, and a wrong or needless retry is told so."""
    fails = True

    async def handler(session: WorkerSession) -> None:
        async for message in session:
            if fails:
                raise ValueError("a message that no handler can take")
            await session.send(message.data)

    settings: Settings = {**SOCKETS, "worker": {"failures_max": 2}}
    async with open_nodes(tmp_path, f"sqlite:{tmp_path}/signald.db", settings) as nodes:
        blue = await nodes.start("blue")
        green = await nodes.start("green")
        async with (
            open_worker(url_of(green), handler, instance_id="worker"),
            open_client(url_of(blue)) as client,
        ):
            await client.send("poison")
            with trio.fail_after(60):
                while not (stuck := (await ctl.json("sessions", "--stuck", "--node", "blue"))["sessions"]):  # noqa: ASYNC110
                    await trio.sleep(0.2)
            (one,) = stuck
            assert (one["stuck_at"], one["failures"]) == (1, 2)
            assert await ctl("sessions", "--stuck", "--node", "blue") == os.EX_OK
            assert "stuck at 1" in ctl.words
            assert "set aside at message 1" in (await ctl.json("trace", one["session"], "--node", "green"))["state"]
            fails = False
            assert await ctl("retry", one["session"], "--node", "green") == os.EX_OK, ctl.complaint
            assert "waits for a worker again" in ctl.words
            with trio.fail_after(60):
                assert (await anext(aiter(client))).data == "poison"
            assert await ctl("retry", one["session"], "--node", "green") == ExitCode.STATE
            assert "is not set aside" in ctl.complaint
            assert await ctl("retry", "s_0000000000000000000000", "--node", "green") == ExitCode.NO_SUCH_THING
            assert "there is no session" in ctl.complaint
            assert (await ctl.json("sessions", "--stuck", "--node", "blue"))["sessions"] == []
            assert await ctl("end", one["session"], "--node", "green") == os.EX_OK, ctl.complaint
            assert ctl.words == f"{one['session']} is ended\n"
            with trio.fail_after(60):
                assert [message async for message in client] == []
            assert client.ended == "ended"
            assert await ctl("end", one["session"], "--node", "green") == ExitCode.NO_SUCH_THING
        assert (await ctl.json("sessions", "--subject", "ann", "--node", "green"))["sessions"] == []
        assert await ctl("sessions", "--subject", "ann", "--stuck", "--node", "green") == os.EX_USAGE
        assert await ctl("sessions", "--tenant", "t", "--node", "green") == os.EX_USAGE


async def test_apps_are_listed_and_ended(tmp_path: Path, ctl: Ctl) -> None:
    """`apps` shows how far each is; `terminate` asks one once, leaves a busy one its time, and refuses names that are not there."""
    fleet: Settings = {"profiles": {"deepstream": True}, "deepstream": {"terminate_timeout_s": 0.5}}
    async with open_nodes(tmp_path, "memory:", {**SOCKETS, **fleet}) as nodes:
        blue = await nodes.start("blue")
        assert await ctl("apps") == os.EX_OK
        assert ctl.words == "no app is registered\n"
        ready = {"type": "app_ready", "config": {"ack": True}}
        async with (
            dial(url_of(blue), "/deepstream/ws", None) as app,
            dial(url_of(blue), "/deepstream/ws", None) as other,
        ):
            await app.ask({**ready, "instance_id": "cam-1"}, "app_accepted")
            await other.ask({**ready, "instance_id": "cam-2"}, "app_accepted")
            assert await ctl("apps") == os.EX_OK
            assert "cam-1     authenticated  blue" in ctl.words
            assert await ctl("apps", "--limit", "1") == os.EX_OK
            assert "and 1 more" in ctl.words
            listed = await ctl.json("apps")
            assert (listed["total"], listed["states"]) == (2, {"authenticated": 2})
            for wrong in (("cam-3",), ("cam-1", "--tenant", "t")):
                assert await ctl("terminate", *wrong) == ExitCode.NO_SUCH_THING
                assert f"there is no app {wrong[0]}" in ctl.complaint
            order = await ctl.json("terminate", "cam-1")
            assert order == {"instance": "cam-1", "worker": listed["apps"][0]["worker"], "node": "blue"}
            asked = await app.expect("terminate_app")
            await app.send({"type": "app_busy", "until_ms": 60_000, "reason": "the last file is written"})
            await trio.sleep(1)  # twice the time of an app that is not busy
            states = {one["instance"]: one["state"] for one in (await ctl.json("apps"))["apps"]}
            assert states == {"cam-1": "terminating", "cam-2": "authenticated"}
            assert await ctl("terminate", "cam-1") == os.EX_OK
            assert ctl.words == "cam-1 at blue is asked to clean up\n"
            await app.send({"type": "app_terminated", "request_id": asked["request_id"], "status": "OK", "message": ""})
            assert await app.closed() == 1000
            assert [one["type"] for one in app.aside] == [], "an app is asked once"

        async def away() -> bool:
            return [one["state"] for one in (await ctl.json("apps"))["apps"]] == ["disconnected"]

        await until(away, 10, "the second app has gone without a word")
        assert await ctl("terminate", "cam-2") == ExitCode.STATE
        assert "cam-2 is not connected" in ctl.complaint
