"""The units under a systemd that manages them: install, reload, restart, watchdog, a mistake, blue and green.

The tests share one container and build on its first installation, so they are read, and run, from top to bottom.
"""

import re
import shlex
import time
from pathlib import Path

import pytest

from tests.systemd.real.container import Container
from tests.systemd.real.load import talking
from tests.systemd.real.root import TREE

pytestmark = pytest.mark.real

CONFIG = "etc/signald/signald.toml"
PAGE = TREE / "docs/systemd.md"
WAIT_S = 40.0
"""For what takes a second: the machine has other things to do."""


def block(heading: str) -> str:
    """The first block of commands below a heading of the page."""
    found = re.search(rf"^## {heading}\n.*?^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def follow(container: Container, commands: str) -> None:
    """Type the commands of the page into a shell, as root, in the directory that holds `systemd/`; each must succeed."""
    done = container.run("sh", "-exc", f"cd /src\n{commands}")
    assert done.status == 0, f"{done.out}{done.err}{container.tail()}"


@pytest.fixture
def installed(container: Container) -> Container:
    """The page's installation, serving."""
    if container.run("systemctl", "is-active", "signald").status != 0:
        container.run("systemctl", "reset-failed")
        follow(container, block("Install"))
    return container


def test_the_install_block_of_the_page_works_line_by_line(container: Container) -> None:
    """Each command of the page ends with 0, also the check, and then the service serves under its sandbox."""
    follow(container, block("Install"))
    assert container.show("signald", "ActiveState") == "active"
    assert container.show("signald", "StatusText") == "serving 0 clients, 0 workers"
    assert container.show("signald", "DynamicUser") == "yes"
    assert container.show("signald", "NRestarts") == "0"
    # The warning that systemd gives for a directive or a value it does not take.
    assert not [line for line in container.journal().splitlines() if "signald.s" in line and "ignoring" in line]


def test_the_secret_reaches_the_service_as_a_credential_and_no_core_file_could_hold_it(installed: Container) -> None:
    """The process runs as an ephemeral user that may not read the file of the secret, and can leave no core file."""
    pid = installed.show("signald", "MainPID")
    limits = installed.do(f"cat /proc/{pid}/limits")
    assert re.search(r"Max core file size +0 +0 ", limits), limits
    status = installed.do(f"cat /proc/{pid}/status")
    uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    assert uid is not None
    assert int(uid[1]) >= 61184, "the range of DynamicUser="
    read = installed.run("setpriv", f"--reuid={uid[1]}", "--clear-groups", "cat", "/etc/signald/credentials/jwt-secret")
    assert read.status != 0
    secret = (installed.root / "etc/signald/credentials/jwt-secret").read_text().strip()
    assert secret not in installed.journal()
    # A client with a token of that secret is let in: the restart under load shows it.


def test_a_reload_that_is_good_is_applied_and_a_bad_one_fails(installed: Container) -> None:
    """`systemctl reload` ends with 0 or, when the file has a mistake, with another status; then the service goes on as before."""
    file = installed.root / CONFIG
    good = file.read_text()
    pid = installed.show("signald", "MainPID")
    file.write_text(good + "\n[pace]\nsessions_per_s = 150.0\n")
    installed.do("systemctl reload signald")
    assert '"applied": ["pace.sessions_per_s"]' in installed.journal("signald")
    for mistake in ("\n[pace]\nsessions_per_s = -1.0\n", "\nno toml"):
        file.write_text(good + mistake)
        done = installed.run("systemctl", "reload", "signald")
        assert done.status != 0, installed.tail()
        assert installed.show("signald", "ActiveState") == "active"
        assert installed.show("signald", "SubState") == "running"
    assert "pace.sessions_per_s" in installed.journal("signald")
    file.write_text(good)
    installed.do("systemctl reload signald")
    assert installed.show("signald", "MainPID") == pid


def test_a_hangup_is_a_reload_of_which_systemd_is_told(installed: Container) -> None:
    """SIGHUP by hand: systemd sees a reload begin and end, and the service stays active."""
    pid = installed.show("signald", "MainPID")
    installed.do("systemctl kill --signal=HUP --kill-whom=main signald")
    installed.until("signald", "SubState", "running", WAIT_S)
    assert installed.show("signald", "MainPID") == pid


def test_a_restart_under_load_refuses_nobody_and_waits_for_no_successor(installed: Container, tmp_path: Path) -> None:
    """Clients talk and knock all through two restarts: nothing is lost, no attempt is refused, and no budget is waited for."""
    with talking(installed, [8080], tmp_path / "errors") as load:
        for _ in range(2):
            installed.do("systemctl restart signald")
            load.goes_on()
            # successor_timeout_s is 10 s by default; a start takes seconds where the cores are busy.
            assert '"phase": "terminate", "by": "no_successor"' in installed.journal("signald")
            waited = re.findall(
                r'"phase": "terminate", "by": "no_successor", .*?"after_s": ([0-9.]+)', installed.journal()
            )
            assert all(float(after_s) < 5.0 for after_s in waited), waited
        counted = load.settle()
    hurried = '"phase": "done", "by": "budget"' in installed.journal("signald")
    assert hurried or set(counted["codes"]) == {"1012"}, counted
    assert counted["resumed"] == 2 * 12, counted
    assert set(counted["knocks"]) <= {"session_started", "1012", "1013"}, counted


def test_a_loop_that_is_stuck_is_killed_and_started_again(installed: Container, tmp_path: Path) -> None:
    """A service that says nothing for WatchdogSec is ended and restarted, and its parties go on."""
    override = installed.root / "etc/systemd/system/signald.service.d/short.conf"
    override.parent.mkdir(parents=True, exist_ok=True)
    # The unit's 30 s are long to wait for; a node on a busy machine is not late by 6.
    override.write_text("[Service]\nWatchdogSec=6\n")
    installed.do("systemctl daemon-reload")
    installed.do("systemctl restart signald")
    try:
        with talking(installed, [8080], tmp_path / "errors") as load:
            pid = installed.show("signald", "MainPID")
            installed.do("systemctl kill --signal=STOP --kill-whom=main signald")
            installed.until("signald", "NRestarts", "1", WAIT_S)
            installed.until("signald", "SubState", "running", WAIT_S)
            assert installed.show("signald", "MainPID") != pid
            load.goes_on()
            load.settle()
        assert "Watchdog timeout" in installed.journal()
    finally:
        override.unlink()
        installed.do("systemctl daemon-reload")
        installed.do("systemctl restart signald")


def test_a_mistake_in_the_file_costs_one_start_and_the_socket_stays(installed: Container) -> None:
    """Exit 78 is not tried again; the socket listens on, also while clients knock, and the mended file serves them."""
    file = installed.root / CONFIG
    good = file.read_text()
    try:
        file.write_text(good + "\nno toml")
        assert installed.run("systemctl", "restart", "signald").status != 0
        assert installed.show("signald", "ActiveState") == "failed"
        assert installed.show("signald", "ExecMainStatus") == "78"
        time.sleep(3)  # three times RestartSec=
        assert installed.show("signald", "NRestarts") == "0"
        assert installed.show("signald.socket", "ActiveState") == "active"
        knock = "import socket, sys, time; held = socket.create_connection(('127.0.0.1', 8080)); time.sleep(8)"
        installed.do(f"/opt/python/bin/python3 -c {shlex.quote(knock)}")
        assert installed.show("signald.socket", "ActiveState") == "active", installed.tail()
    finally:
        file.write_text(good)
    # Not start: that would join the attempt under way, which has read the file before.
    installed.do("systemctl restart signald")
    assert installed.show("signald", "ActiveState") == "active"


def test_as_pid_1_a_sigterm_in_the_first_second_ends_it(installed: Container) -> None:
    """The first process of a container ignores a signal without a handler; signald's is there before its imports."""
    script = (
        "import os, signal, subprocess, time\n"
        "made = subprocess.Popen(['unshare', '--pid', '--fork', '--mount-proc', 'signald', 'serve'], cwd='/tmp')\n"
        "child = ''\n"
        "deadline = time.monotonic() + 20\n"
        "def caught():\n"
        "    lines = open(f'/proc/{child}/status').read().splitlines()\n"
        "    return int([one for one in lines if one.startswith('SigCgt')][0].split()[1], 16) >> 14 & 1\n"
        "while time.monotonic() < deadline and not (child and caught()):\n"
        "    child = open(f'/proc/{made.pid}/task/{made.pid}/children').read().strip()\n"
        "began = time.monotonic()\n"
        "os.kill(int(child), signal.SIGTERM)\n"
        "print(made.wait(30), os.path.exists('/tmp/signald.db'))\n"
    )
    assert installed.do(f"/opt/python/bin/python3 -c {shlex.quote(script)}").splitlines()[-1] == "0 False"


def test_blue_and_green_hand_over_and_a_stopped_colour_stays_stopped(installed: Container, tmp_path: Path) -> None:
    """The page's blue-green: green takes all over; stopping blue stops its socket, and no stray connection starts it again."""
    installed.do("systemctl disable --now signald.socket signald.service")
    follow(installed, block("Blue and green on one host"))
    assert installed.show("signald@blue", "ActiveState") == "active"
    socket = installed.show("signald@blue.socket", "InvocationID")
    installed.do("systemctl restart signald@blue")
    installed.do("systemctl kill --signal=KILL --kill-whom=main signald@blue")
    installed.until("signald@blue", "NRestarts", "1", WAIT_S)
    installed.until("signald@blue", "SubState", "running", WAIT_S)
    assert installed.show("signald@blue.socket", "InvocationID") == socket, "what waits in the socket is not refused"
    with talking(installed, [8080, 8090], tmp_path / "errors") as load:
        installed.do("systemctl start signald@green")
        installed.do("systemctl stop signald@blue")
        load.goes_on()
        for unit in ("signald@blue.service", "signald@blue.socket"):
            assert installed.show(unit, "ActiveState") == "inactive"
        knock = "import socket\ntry: socket.create_connection(('127.0.0.1', 8080), 2)\nexcept OSError as error: print(error.errno)"
        assert installed.do(f"/opt/python/bin/python3 -c {shlex.quote(knock)}") == "111"
        assert installed.show("signald@blue.service", "ActiveState") == "inactive"
        counted = load.settle()
    assert counted["handed_over"] == 12, counted
    assert not counted["codes"], counted
