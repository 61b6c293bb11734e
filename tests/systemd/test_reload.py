"""Reload of the real daemon, by SIGHUP and by `signald ctl reload`, as a unit's ExecReload= does it."""

import json
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from signald.config import AuthConfig
from signald.demo.cluster import Node
from signald.service.auth import mint
from signald.testing.wire import Peer
from tests.real.authority import Authority
from tests.real.harness import DRAIN, HOST, dial, exit_of, logged, probe, term, until
from tests.systemd.manager import Manager, open_manager

pytestmark = pytest.mark.real

OLD, NEW = "the old secret, more than 32 bytes", "the new secret, more than 32 bytes"


def config(manager: Manager, node: Node) -> Path:
    """The node's configuration file."""
    return manager.directory / f"{node.name}.toml"


def edit(file: Path, old: str, new: str) -> None:
    """Change a file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def ctl(manager: Manager, node: Node, *arguments: str) -> tuple[int, str, str]:
    """Run `signald ctl` on the node's socket: exit code, standard output, standard error."""
    done: subprocess.CompletedProcess[bytes] = await trio.run_process(
        [
            sys.executable,
            "-m",
            "signald.cli",
            "ctl",
            *arguments,
            "--node",
            str(manager.directory / f"{node.name}.sock"),
        ],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def token(secret: str) -> str:
    """A client's token."""
    return mint(AuthConfig(jwt_secret=secret), subject="alice", role="client", ttl_s=600, now=time.time())


async def asks(peer: Peer, secret: str) -> str:
    """What a client with a token by `secret` is told first."""
    await peer.send({"type": "connect", "auth": token(secret)})
    answer = await peer.receive()
    return str(answer.get("code", answer["type"]))


async def test_a_secret_is_rotated_under_a_live_connection(tmp_path: Path) -> None:
    """A new secret in the file, `ctl reload --wait`: the old token is refused, the new one let in, and no connection is cut."""
    secret = tmp_path / "secret"
    secret.write_text(OLD)
    async with open_manager(tmp_path) as manager:
        url = f"ws://{HOST}:{manager.pass_socket('ws')}"
        node = await manager.start(auth={"jwt_secret_file": str(secret)})
        await manager.heard("READY")
        async with dial(url, "/v1/client") as here:
            assert await asks(here, OLD) == "session_started"
            secret.write_text(NEW)
            code, said, _ = await ctl(manager, node, "reload", "--wait", "--json")
            assert (code, json.loads(said)) == (0, {"applied": ["auth.jwt_secret"], "needs_restart": []})
            async with dial(url, "/v1/client") as peer:
                assert await asks(peer, OLD) == "unauthenticated"
            async with dial(url, "/v1/client") as peer:
                assert await asks(peer, NEW) == "session_started"
            await here.ask({"type": "ping"}, "pong")
        assert OLD not in node.log_tail()
        assert NEW not in node.log_tail()


async def test_a_mistake_changes_nothing_and_every_one_is_said(tmp_path: Path) -> None:
    """`ctl reload` exits with 78 and lists each problem with its line; the running configuration and its level of log stay."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start(log={"level": "info"}, pace={"sessions_per_s": 100.0})
        await manager.heard("READY")
        edit(config(manager, node), 'level = "info"', 'level = "debug"\nformt = "json"')
        edit(config(manager, node), "sessions_per_s = 100.0", "sessions_per_s = -1.0")
        code, said, error = await ctl(manager, node, "reload", "--wait")
        assert (code, said) == (78, "")
        assert "2 problems" in error
        assert f"{config(manager, node)}:" in error
        assert 'log.formt: unknown key; did you mean "format"?' in error
        assert "pace.sessions_per_s: " in error
        (entry,) = logged(node, "config_refused")
        assert (entry["level"], len(entry["problems"])) == ("error", 2)
        assert not logged(node, "config_reloaded")
        await until(
            lambda: len(manager.messages("READY")) == 2, 5, "systemd hears that the reload is over all the same"
        )


async def test_sighup_reloads_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    """SIGHUP is a reload: RELOADING with its time, READY after it; what cannot change now is named, the rest is applied."""
    async with open_manager(tmp_path) as manager:
        node = await manager.start(pace={"sessions_per_s": 100.0}, log={"level": "info"})
        await manager.heard("READY")
        edit(config(manager, node), "sessions_per_s = 100.0", "sessions_per_s = 50.0")
        edit(config(manager, node), f'http = "{HOST}:0"', f'http = "{HOST}:9"')
        node.send_signal(signal.SIGHUP)
        await manager.heard("READY", times=2)
        order = [next(iter(message)) for message in manager.said]
        assert order.index("RELOADING") == len(order) - 1 - order[::-1].index("READY") - 1
        assert int(manager.messages("RELOADING", "1")[0]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        (entry,) = logged(node, "config_reloaded")
        assert (entry["applied"], entry["needs_restart"]) == (["pace.sessions_per_s"], ["listen.http"])


async def test_a_hangup_in_a_drain_is_a_reload_and_no_hurry(tmp_path: Path) -> None:
    """SIGHUP while a signal's drain runs changes what can change, and neither hurries nor ends the drain."""
    budgets = {**DRAIN, "successor_timeout_s": 8.0, "timeout_s": 22.0, "stop_timeout_s": 30.0}
    async with open_manager(tmp_path) as manager:
        # A socket that systemd holds would mean that no successor is waited for.
        node = await manager.start(drain=budgets, pace={"sessions_per_s": 100.0})
        await manager.heard("READY")
        await until(lambda: logged(node, "ready"), 5)  # a thread writes the log, so the notice may be ahead of it
        url = f"ws://{HOST}:{logged(node, 'ready')[0]['websocket']}"
        async with dial(url, "/v1/client") as peer:
            await peer.ask({"type": "connect"}, "session_started")
            term(node)
            began = time.monotonic()
            await until(lambda: logged(node, "drain_phase"), 5)
            edit(config(manager, node), "sessions_per_s = 100.0", "sessions_per_s = 50.0")
            node.send_signal(signal.SIGHUP)
            await until(lambda: logged(node, "config_reloaded"), 3)
            assert await peer.closed() == 1012
        assert await exit_of(node) == 0
        assert time.monotonic() - began > 6
        assert not manager.messages("RELOADING"), "a service that stops is not reloading"


async def test_a_renewed_certificate_is_shown_to_the_next_who_connects(tmp_path: Path) -> None:
    """A certificate renewed in place is used for new handshakes after a reload, and a broken one changes nothing."""
    authority = Authority(tmp_path, "authority")
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    authority.issue(certificate, key)
    async with open_manager(tmp_path) as manager:
        port = manager.pass_socket("ws")
        node = await manager.start(
            listen={"tls_certificate_file": str(certificate), "tls_key_file": str(key)},
        )
        await manager.heard("READY")
        first = await shown(port, authority.file)
        certificate.write_text("no certificate")
        assert (await ctl(manager, node, "reload"))[0] == 78
        assert await shown(port, authority.file) == first
        authority.issue(certificate, key)
        code, said, _ = await ctl(manager, node, "reload", "--json")
        assert (code, json.loads(said)["applied"]) == (0, ["listen.tls_certificate_file", "listen.tls_key_file"])
        assert await shown(port, authority.file) != first


async def shown(port: int, trusted: Path) -> bytes:
    """The certificate a node shows to a new connection."""
    stream = trio.SSLStream(
        await trio.open_tcp_stream(HOST, port),
        ssl.create_default_context(cafile=str(trusted)),
        server_hostname=HOST,
        https_compatible=True,
    )
    try:
        await stream.do_handshake()
        found = stream.getpeercert(binary_form=True)
        assert found is not None
        return bytes(found)
    finally:
        await trio.aclose_forcefully(stream)


async def test_the_admin_token_and_the_log_level_change_at_once(tmp_path: Path) -> None:
    """Over TCP the old admin token opens nothing after a reload; `log.level` in the file holds, whatever ctl had set."""
    old, new = "o" * 40, "n" * 40
    async with open_manager(tmp_path) as manager:
        port = manager.pass_socket("http")
        node = await manager.start(admin={"token": old}, log={"level": "info"})
        await manager.heard("READY")
        edit(config(manager, node), old, new)
        edit(config(manager, node), 'level = "info"', 'level = "warning"')
        code, said, _ = await ctl(manager, node, "reload", "--json")
        assert (code, json.loads(said)["applied"]) == (0, ["admin.token", "log.level"])
        for given, status in ((old, 401), (new, 200)):
            said_by = await trio.run_process(
                [sys.executable, "-m", "signald.cli", "ctl", "status", "--url", f"http://{HOST}:{port}"],
                env={"SIGNALD_ADMIN_TOKEN": given, "PYTHONPATH": ":".join(sys.path)},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            assert said_by.returncode == (0 if status == 200 else 77)
        node.send_signal(signal.SIGHUP)
        await manager.heard("READY", times=3)
        assert len(logged(node, "signal")) == 0, "info is not written any more"
        assert (await probe(Node(node.name, node.process, node.websocket, (HOST, port), node.log)))[0] == 200


async def test_a_trial_node_ends_with_its_terminal(tmp_path: Path) -> None:
    """`serve --dev` has no configuration to read again: a hangup, as when its terminal closes, stops it."""
    async with open_manager(tmp_path) as manager:
        anywhere = {"SIGNALD_LISTEN__WEBSOCKET": f"{HOST}:0", "SIGNALD_LISTEN__HTTP": f"{HOST}:0"}
        node = await manager.start(arguments=["serve", "--dev"], env=anywhere)
        await manager.heard("READY")
        node.send_signal(signal.SIGHUP)
        assert await exit_of(node) == 0
