"""The recipes themselves: the proxies take them, and would not take a misspelt one."""

import re
import subprocess
from pathlib import Path

import pytest

from signald.config import AdmissionConfig, TimeoutsConfig
from tests.proxies.proxy import CONF, KINDS, MADE, Colours, Kind, Proxy

pytestmark = pytest.mark.real


def refused(proxy: Proxy) -> str:
    """What the proxy says against its configuration; "" when it takes it."""
    done = subprocess.run(proxy.check_command(), capture_output=True, text=True, timeout=20, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or "refused"


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxy_takes_its_recipe(kind: Kind, tmp_path: Path) -> None:
    """The shipped file is right, without a warning."""
    assert refused(MADE[kind](tmp_path, Colours())) == ""


# What is a name or a value of our own in the recipes, and not a word of the proxy's.
OURS = {
    "haproxy": {"signald", "parties", "party", "api", "blue", "green"},
    "nginx": {"signald", "close", "upgrade", "off"},  # `access_log offzq` is a file
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_word_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Whichever word of the proxy's it is: no text in the file is left unread."""
    proxy = MADE[kind](tmp_path, Colours())
    right = proxy.config.read_text()
    taken = []
    for found in re.finditer(r"(?<=[ \n])[a-z][a-z_-]+(?=[ ;\n])", right):
        line_begin = right.rfind("\n", 0, found.start()) + 1
        if found[0] in OURS[kind] or right[line_begin:].lstrip(" ").startswith("#"):
            continue
        proxy.config.write_text(f"{right[: found.start()]}{found[0]}zq{right[found.end() :]}")
        if not refused(proxy):
            taken.append(right[line_begin : found.end()].strip() + "zq")
    assert not taken


def seconds(pattern: str, text: str) -> float:
    """The time that `pattern` finds in `text`."""
    found = re.search(rf"^\s*{pattern}\s+(\d+)(s|m|h);?$", text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@pytest.mark.parametrize(
    ("file", "silence", "connect"),
    [
        ("haproxy/haproxy.cfg", "timeout tunnel", "timeout connect"),
        ("nginx/nginx.conf", "proxy_read_timeout", "proxy_connect_timeout"),
    ],
)
def test_the_timeouts_leave_dead_peers_to_signald(file: str, silence: str, connect: str) -> None:
    """No proxy cuts a party that signald still waits for, and none waits longer for a node than a party does for it."""
    text = (CONF / file).read_text()
    timeouts = TimeoutsConfig()
    assert seconds(silence, text) >= 2 * (timeouts.ping_interval_s + timeouts.pong_timeout_s)
    assert seconds(connect, text) < timeouts.handshake_s


@pytest.mark.parametrize(
    ("file", "pattern"), [("haproxy/haproxy.cfg", r"maxconn (\d+)"), ("nginx/nginx.conf", r"worker_connections (\d+)")]
)
def test_the_proxy_takes_as_many_as_a_node(file: str, pattern: str) -> None:
    """It is signald that refuses, with a hint when to come again."""
    found = re.search(pattern, (CONF / file).read_text())
    assert found is not None
    assert int(found[1]) >= AdmissionConfig().connections_max
