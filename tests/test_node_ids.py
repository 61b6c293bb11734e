"""Names of nodes: which are admitted, how a default is made of any host name, and where a long one puts its socket."""

import os
import socket
from pathlib import Path

import pytest

from signald.config import ConfigError, load
from signald.config.checks import NODE_ID_CHARS_MAX, SOCKET_PATH_BYTES_MAX, fit_node_id
from signald.config.paths import admin_socket

ADMITTED = [
    "signald-0",
    "blue",
    "n",
    "signald-7c9d8f6b5-x2x4z",  # a pod
    "ip-10-0-3-17.eu-central-1.compute.internal",
    "WEB01.corp.example",
    "my_container_1",
    "a" * NODE_ID_CHARS_MAX,
]

REFUSED = [
    "../x",
    "/etc/passwd",
    "..",
    ".hidden",
    "a/b",
    "a b",
    " ",
    "a\t",
    "a\nb",
    "a\x00b",
    "a:b",
    "a{b}",
    "a*",
    "-a",
    "a-",
    "n\u00f6rd",
    "\u0430dmin",
    "\U0001f600",
    "a" * 254,
    "a" * 300,
]


def env(node: str) -> dict[str, str]:
    return {"SIGNALD_NODE__ID": node}


@pytest.mark.parametrize("node", ADMITTED)
def test_names_of_pods_and_hosts_are_admitted(node: str) -> None:
    """What Kubernetes calls a pod and what a host may be called is a node id, unchanged."""
    assert load(None, env(node)).node.id == node


@pytest.mark.parametrize("node", REFUSED)
def test_other_names_are_refused_with_key_and_place(node: str) -> None:
    """A path, a blank, a control character, another script, a name too long: one problem, which names the key and its place."""
    with pytest.raises(ConfigError) as caught:
        load(None, env(node))
    [problem] = caught.value.problems
    assert (problem.where, problem.key) == ("SIGNALD_NODE__ID", "node.id")
    assert str(problem).isascii()
    assert str(problem).isprintable()
    assert len(str(problem)) < 400


def test_a_file_that_names_a_bad_id_is_shown_with_its_line(tmp_path: Path) -> None:
    """The problem stands with file and line, as `check-config` prints it."""
    path = tmp_path / "s.toml"
    path.write_text('[node]\nid = "../x"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value.problems[0]).startswith(f"{path}:2: node.id: expected letters and digits")


def test_an_empty_id_means_the_default() -> None:
    """An empty variable is as none: a manifest may leave it empty."""
    assert load(None, env("")).node.id.startswith(fit_node_id(socket.gethostname(), 64))


@pytest.mark.parametrize(
    ("host", "begin"),
    [
        ("m\u00fcller", "m-ller-"),
        ("", "node-"),
        ("...", "node-"),
        ("-a_", "a-"),
        ("h" * 300, "h" * 244 + "-"),
        ("a b", "a-b-"),
    ],
)
def test_a_default_is_made_to_fit(host: str, begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without an id starts whatever its host is called."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    node = load(None, {}).node.id
    assert node.startswith(begin)
    assert len(node) == len(begin) + 8


def test_a_release_is_bounded() -> None:
    """A release is shown in health, metrics and lists: a commit hash fits, a text without end does not."""
    assert load(None, {"SIGNALD_NODE__RELEASE": "v1.2+build (main)"}).node.release == "v1.2+build (main)"
    with pytest.raises(ConfigError, match=r"node\.release: has 129 characters"):
        load(None, {"SIGNALD_NODE__RELEASE": "r" * 129})


@pytest.mark.parametrize("node", [*ADMITTED, "a" * 100])
@pytest.mark.parametrize("suffix", ["", "-4194304"])
def test_every_admitted_id_has_a_socket(node: str, suffix: str, tmp_path: Path) -> None:
    """The admin socket of an id lies in the directory, has a path that a socket may have, and is different for each id."""
    directory = Path("/tmp/signald-65534")
    path = admin_socket(directory, node, suffix)
    assert path.parent == directory
    assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX
    assert admin_socket(directory, node[:-1] + "X", suffix) != path or node.endswith("X")
