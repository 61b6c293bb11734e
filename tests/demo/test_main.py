"""The demo as a whole: what it refuses, what it leaves behind, and one real run."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from signald.config import load
from signald.demo.cluster import free_port, let_go, render_toml
from signald.demo.main import EXIT_NOTICED, node_settings, run, why_impossible
from signald.demo.options import DemoOptions

DEADLINE_S = 90


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (DemoOptions(sessions=0), "session"),
        (DemoOptions(workers=0), "worker"),
        (DemoOptions(deploys=-1), "deploys"),
        (DemoOptions(rate=0.0), "--rate"),
        (DemoOptions(rate=2000.0), "--rate"),
        (DemoOptions(kill=4), "--kill"),
        (DemoOptions(kill=-1), "--kill"),
        (DemoOptions(store="memory:"), "memory:"),
        (DemoOptions(web=True, store="memory:"), "memory:"),
        (DemoOptions(web=True, every=1.0), "--every"),
        (DemoOptions(web=True, every=float("nan")), "--every"),
        (DemoOptions(web=True, port=-1), "--port"),
        (DemoOptions(web=True, port=65_536), "--port"),
        (DemoOptions(web=True, sessions=5), "without a page"),
        (DemoOptions(web=True, json=True), "without a page"),
        (DemoOptions(port=8080), "--web"),
        (DemoOptions(every=20.0), "--web"),
    ],
)
def test_impossible_options_are_refused_in_words(
    options: DemoOptions, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started for options that make no sense; the text names what is wrong, the exit code says wrong usage."""
    assert run(options) == os.EX_USAGE
    assert named in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page finds its port taken, as by another demo: nothing is started, and the option that helps is named."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(DemoOptions(web=True, port=port)) == EXIT_NOTICED
    said = capsys.readouterr().err
    assert f"port {port} cannot be listened at" in said
    assert "--port" in said


def test_the_defaults_are_possible() -> None:
    """The README's first command needs no option."""
    assert why_impossible(DemoOptions()) is None
    assert why_impossible(DemoOptions(web=True)) is None


@pytest.mark.parametrize("options", [DemoOptions(), DemoOptions(rate=100.0), DemoOptions(sessions=5000, workers=1)])
def test_nodes_get_a_configuration_that_loads_and_carries_the_load(options: DemoOptions, tmp_path: Path) -> None:
    """What the demo writes for its nodes passes the loader, and allows the rate and the sessions asked for."""
    file = tmp_path / "node.toml"
    file.write_text(render_toml({"store": {"url": 'sqlite:/a path/with "quotes"'}, **node_settings(options)}))
    config = load(file, {})
    assert config.store.url == 'sqlite:/a path/with "quotes"'
    assert config.limits.messages_per_s >= 2 * options.rate
    assert config.limits.sessions_per_worker_max >= options.sessions / options.workers


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A port for a node must not be one the system may give to a party's connection before the node listens."""
    assert all(10_000 <= free_port() < 32_768 for _ in range(20))


def test_a_free_port_is_kept_for_its_server() -> None:
    """No other process is given it before its server listens, nor while that is being started again; then it is let go."""
    port = free_port()

    def claim() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))

    for _ in range(2):
        with pytest.raises(OSError, match="in use"):
            claim()
        with socket.create_server(("127.0.0.1", port)):
            pass
    let_go(port)
    claim()


def demo(*arguments: str, directory: Path) -> "subprocess.Popen[str]":
    """Start `signald demo` as a user does; its temporary files go to `directory`."""
    return subprocess.Popen(
        [sys.executable, "-m", "signald.cli", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )


@pytest.mark.real
def test_two_deploys_are_not_noticed(tmp_path: Path) -> None:
    """Ten sessions, two workers, two deploys, real processes: nothing lost, and every promised figure is there."""
    with demo(
        "--json", "--sessions", "10", "--workers", "2", "--deploys", "2", "--rate", "5", directory=tmp_path
    ) as process:
        said, complaints = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, complaints
    figures = json.loads(said)
    assert (figures["deploys"], figures["kills"], figures["sessions"]) == (2, 0, 10)
    assert (figures["lost"], figures["duplicated"], figures["reordered"], figures["sessions_lost"]) == (0, 0, 0, 0)
    assert (figures["same_worker"], figures["reconnects_per_party_max"]) == (10, 1)
    assert figures["goaway_before_pair_ready"] == 0
    assert figures["exit_codes"] == [0, 0]
    assert figures["messages"] > 40
    assert figures["gap_ms"]["max"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_is_left_behind(end: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL of the demo end every process it started."""
    with demo("--sessions", "4", "--workers", "1", "--deploys", "50", directory=tmp_path) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            assert "4 sessions are talking" in lines[1], process.communicate()
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2
            process.send_signal(end)
            gone, left = psutil.wait_procs(children, timeout=20)
            assert left == []
            assert len(gone) == len(children)
            process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    if end is not signal.SIGKILL:
        assert process.returncode == 130
        assert list(tmp_path.iterdir()) == []
