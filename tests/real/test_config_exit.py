"""What `signald serve` says and how it exits when it cannot serve: the codes of sysexits, which supervisors know."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from signald.demo.cluster import free_port
from tests.real.harness import HOST, Address, Nodes, dial, exit_of, open_nodes, url_of
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

EX_UNAVAILABLE, EX_OSERR, EX_CONFIG = 69, 71, 78


async def said(nodes: Nodes, **settings: Any) -> tuple[int, str]:
    """Start a node that cannot serve: its exit code, and all it wrote."""
    node = await nodes.start("node", ready=False, **settings)
    code = await exit_of(node, 20)
    return code, node.log.read_text()


def plain(text: str) -> list[str]:
    """The lines for people: what is not a log entry."""
    return [line for line in text.splitlines() if not line.startswith("{")]


def why(text: str) -> str:
    """Why the node could not serve: said once, in the log."""
    [entry] = [json.loads(line) for line in text.splitlines() if '"cannot_serve"' in line]
    assert plain(text) == []
    return str(entry["why"])


async def test_a_configuration_says_all_its_problems_at_once(tmp_path: Path) -> None:
    """Each with its file and line, its key and the nearest valid one; 78."""
    async with open_nodes(tmp_path, "sqlite:store.db") as nodes:
        code, text = await said(
            nodes,
            limits={"mesage_bytes_max": 5, "fragments_max": 0},
            drian={"timeout_s": 5},
            timeouts={"ping_interval_s": "soon"},
            drain={"timeout_s": 600.0},
        )
    assert code == EX_CONFIG
    file = tmp_path / "node.toml"
    lines = file.read_text().splitlines()
    problems = plain(text)

    def problem(key: str) -> str:
        found = [line for line in problems if f": {key}" in line]
        assert found, (key, problems)
        return found[0]

    def line_of(text: str) -> int:
        return next(number for number, line in enumerate(lines, 1) if line.startswith(text))

    assert problem("limits.mesage_bytes_max").startswith(f"{file}:{line_of('mesage_bytes_max')}: ")
    assert '"message_bytes_max"' in problem("limits.mesage_bytes_max")
    assert problem("limits.fragments_max").startswith(f"{file}:{line_of('fragments_max')}: ")
    assert problem('unknown section "drian"').startswith(f"{file}:{line_of('[drian]')}: ")
    assert '"drain"' in problem('unknown section "drian"')
    assert problem("timeouts.ping_interval_s").startswith(f"{file}:{line_of('ping_interval_s')}: ")
    assert problem("drain.timeout_s").startswith(f"{file}:{line_of('timeout_s = 600')}: ")
    assert problems[-1].startswith("signald: the configuration has ")
    assert "Traceback" not in text


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Nothing to read is a problem of the configuration as well."""
    async with open_nodes(tmp_path, "memory:") as nodes:
        output = tmp_path / "out"
        process = await nodes.spawn(["-m", "signald.cli", "serve", "--config", str(tmp_path / "no.toml")], output)
        assert await process.wait() == EX_CONFIG
        assert f"{tmp_path / 'no.toml'}: cannot be read" in output.read_text()


async def test_an_open_port_without_a_key_is_refused(tmp_path: Path) -> None:
    """A node that other hosts reach and that admits every party is refused unless the config says so."""
    async with open_nodes(tmp_path, "memory:") as nodes:
        code, text = await said(nodes, listen={"websocket": f"0.0.0.0:{free_port()}"})
    assert code == EX_CONFIG
    assert "auth.insecure" in text


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "redis+sentinel://127.0.0.1:{port}/main"])
async def test_an_unreachable_store(tmp_path: Path, url: str) -> None:
    """69, after the timeouts of the configuration and with a line that names the server; a supervisor tries again."""
    port = free_port()
    async with open_nodes(tmp_path, url.format(port=port)) as nodes:
        code, text = await said(nodes)
    assert code == EX_UNAVAILABLE, text
    assert str(port) in why(text)
    assert "Traceback" not in text


async def test_a_store_that_takes_connections_and_says_nothing(tmp_path: Path) -> None:
    """The same as one that is not there, within the timeouts."""
    with socket.create_server((HOST, 0)) as silent:
        async with open_nodes(tmp_path, f"redis://{HOST}:{silent.getsockname()[1]}") as nodes:
            code, text = await said(nodes)
    assert code == EX_UNAVAILABLE, text
    assert "Traceback" not in text


@pytest.mark.parametrize("half", ["websocket", "http"])
async def test_an_address_in_use(tmp_path: Path, half: str) -> None:
    """71, with the address; the node that has it is not disturbed."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
            code, text = await said(nodes, listen={half: f"{HOST}:{port}"})
    assert code == EX_OSERR, text
    assert why(text).startswith(f"listen.{half}: cannot listen on {HOST}:{port}: ")
    assert "in use" in why(text)
    assert "Traceback" not in text


async def test_the_address_of_another_node(tmp_path: Path) -> None:
    """A second node on the same address ends; the first one goes on, and the store is as it was."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        address = Address()
        first = await nodes.start("first", address)
        code, _ = await said(nodes, listen={"websocket": f"{HOST}:{address.websocket}"})
        assert code == EX_OSERR
        async with dial(url_of(first), "/v1/client") as peer:
            assert (await peer.ask({"type": "connect"}, "session_started"))["peer"]["state"] == "waiting"


async def test_an_evicting_redis_is_refused(tmp_path: Path) -> None:
    """78, and what to change: Redis would drop sessions when memory is short."""
    redis = Server(tmp_path / "redis", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    async with servers(redis), open_nodes(tmp_path, redis.url) as nodes:
        code, text = await said(nodes)
    assert code == EX_CONFIG, text
    assert "maxmemory-policy" in why(text)
    assert "noeviction" in why(text)
    assert "Traceback" not in text


async def test_a_password_that_is_wrong_is_not_shown(tmp_path: Path) -> None:
    """78: trying again would not mend it; neither log nor message repeats the secret."""
    redis = Server(tmp_path / "redis", "--requirepass", "right-horse")
    async with servers(redis), open_nodes(tmp_path, f"redis://:wrong-battery@{HOST}:{redis.port}") as nodes:
        code, text = await said(nodes)
    assert code == EX_CONFIG, text
    assert "wrong-battery" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("redis://{at}/99", "database"),
        ("redis+cluster://{at}", "cluster support disabled"),
        ("redis://u:right/horse@{at}/0", "percent-encoded"),
    ],
)
async def test_a_store_url_that_can_never_work(tmp_path: Path, form: str, named: str) -> None:
    """78, with what is wrong with it: no restart would mend that, and no password is shown."""
    redis = Server(tmp_path / "redis")
    async with servers(redis), open_nodes(tmp_path, form.format(at=f"{HOST}:{redis.port}")) as nodes:
        code, text = await said(nodes)
    assert code == EX_CONFIG, text
    assert named in text
    assert "horse" not in text
    assert "Traceback" not in text


async def test_a_store_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory that is not there is said with its path, and not as a bug of ours."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'nowhere' / 'store.db'}") as nodes:
        code, text = await said(nodes)
    assert code in (EX_UNAVAILABLE, EX_CONFIG), text
    assert "nowhere" in why(text)
    assert "Traceback" not in text


async def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    """A file of another program is neither used nor harmed."""
    file = tmp_path / "store.db"
    file.write_bytes(b"this is a letter, not a database\n" * 200)
    before = file.read_bytes()
    async with open_nodes(tmp_path, f"sqlite:{file}") as nodes:
        code, text = await said(nodes)
    assert code in (EX_UNAVAILABLE, EX_CONFIG), text
    assert "store.db" in why(text)
    assert file.read_bytes() == before
    assert "Traceback" not in text


@pytest.mark.parametrize("present", [True, False])
async def test_a_certificate_that_cannot_be_used(tmp_path: Path, present: bool) -> None:
    """TLS files that are missing or no certificate are a problem of the configuration, said together with the others."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if present:
        certificate.write_text("no certificate\n")
        key.write_text("no key\n")
    async with open_nodes(tmp_path, "memory:") as nodes:
        code, text = await said(
            nodes,
            listen={"tls_certificate_file": str(certificate), "tls_key_file": str(key)},
            auth={"jwt_public_key_file": str(key)},
        )
    assert code == EX_CONFIG, text
    assert "listen.tls_certificate_file: " in text
    assert "auth.jwt_public_key_file: " in text
    assert all(line.startswith(f"{tmp_path / 'node.toml'}") for line in plain(text)[:-1])
    assert "Traceback" not in text


async def test_a_directory_for_the_admin_socket_that_cannot_be_made(tmp_path: Path) -> None:
    """71, with the key, the path and what to do: on a read-only root the default lies where nothing can be written."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "admin.sock"
    async with open_nodes(tmp_path, "memory:") as nodes:
        code, text = await said(nodes, admin={"socket": str(path)})
    assert code == EX_OSERR, text
    assert why(text).startswith(f"admin.socket: cannot open {path}: ")
    assert '"off"' in why(text)
