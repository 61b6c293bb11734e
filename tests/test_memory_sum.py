"""The budgets of memory, added up, are held to what a unit, a manifest or a cgroup grants."""

from pathlib import Path

import attrs
import pytest

from signald.config import BlobsConfig, Config, StoreConfig, check_memory, memory_problem
from signald.config.memory import MIB, memory_shares
from signald.config.problems import Problem

ROOT = Path(__file__).resolve().parents[1]


def test_the_defaults_fit_what_is_shipped() -> None:
    """The pod and the units in the tree grant what the default budgets add up to."""
    units = [[ROOT / "systemd/signald.service"], [ROOT / "systemd/signald@.service"]]
    assert [check_memory(Config(), units=unit, manifests=[]) for unit in units] == [[], []]
    assert check_memory(Config(), units=[], manifests=[ROOT / "k8s/base/rollout.yaml"]) == []


def test_every_budget_of_a_node_is_in_the_sum() -> None:
    """Raising any of the budgets raises the sum by as much."""
    before = sum(share.bytes for share in memory_shares(Config()))
    for section, key, times in (
        ("limits", "send_queues_bytes_max", 1),
        ("limits", "logs_bytes_max", 1),
        ("limits", "request_bodies_bytes_max", 1),
        ("admission", "http_connections_max", 72 * 1024),
        ("admission", "strangers_bytes_max", 2),
        ("admission", "connections_max", 16 * 1024),
        ("admission", "handshakes_in_progress_max", 2 * 12 * 1024),
        ("blobs", "uploads_in_progress_max", 128 * 1024),
        ("blobs", "downloads_in_progress_max", 128 * 1024),
        ("blobs", "threads", 256 * 1024),
    ):
        values = getattr(Config(), section)
        more = attrs.evolve(Config(), **{section: attrs.evolve(values, **{key: getattr(values, key) + 1000})})
        assert sum(share.bytes for share in memory_shares(more)) == before + 1000 * times, key


@pytest.mark.parametrize(
    ("store", "url", "mib"),
    [
        ("sqlite:a", "", 20),
        ("sqlite:a", "off", 0),
        ("redis://a", "", 0),
        ("redis://a", "file:/b", 20),
        ("redis://a", "s3://bucket", 36),
        ("memory:", "", 272),
    ],
)
def test_blobs_count_where_there_are_media(store: str, url: str, mib: int) -> None:
    """By their kind: a node without media has no budget for them."""
    config = attrs.evolve(Config(), store=StoreConfig(url=store), blobs=BlobsConfig(url=url))
    shares = [share.bytes for share in memory_shares(config) if "blobs" in share.what]
    assert sum(shares) == mib * MIB


def test_four_thousand_talking_sessions_fit() -> None:
    """In the default budgets four thousand sessions have 48 KiB of messages and 24 KiB of send queue each."""
    assert Config().limits.logs_bytes_max // 4000 >= 48 * 1024
    assert Config().limits.send_queues_bytes_max // 4000 >= 24 * 1024


POD = """
kind: Deployment
metadata: {{name: signald}}
spec: {{template: {{spec: {{containers: [
  {{name: sidecar, resources: {{limits: {{memory: 16Mi}}}}}},
  {{name: signald, resources: {{limits: {{memory: {limit}}}}}}}]}}}}}}
"""


@pytest.mark.parametrize(
    ("limit", "fits"),
    [("512Mi", False), ("1Gi", True), ("2G", True), ("600M", False), ("1073741824", True), ("1T", True)],
)
def test_a_pod_that_grants_too_little_is_named_with_the_sum(limit: str, fits: bool, tmp_path: Path) -> None:
    """The limit of signald's own container counts; what is too low is said with each part of the sum."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(POD.format(limit=limit))
    found = check_memory(Config(), units=[], manifests=[manifest])
    assert (found == []) is fits
    for problem in found:
        assert problem.key == "Deployment/signald: resources.limits.memory"
        assert "limits.logs_bytes_max" in problem.message
        assert "172 MiB (admission.connections_max 11000 x 16 KiB)" in problem.message


def test_a_pod_whose_limit_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """A limit that is no quantity is refused, not taken for none."""
    from signald.config import check_stop_timeouts

    manifest = tmp_path / "pod.yaml"
    manifest.write_text(POD.format(limit="much"))
    found = check_stop_timeouts(Config().drain, units=[], manifests=[manifest])
    assert any("resources.limits.memory" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("said", "fits"), [("512M", False), ("1G", True), ("infinity", True), ("50%", True), ("", True)]
)
def test_a_unit_that_grants_too_little_is_named(said: str, fits: bool, tmp_path: Path) -> None:
    """The last MemoryMax counts; a share of the host, infinity and nothing are no limit that is known here."""
    unit, drop_in = tmp_path / "signald.service", tmp_path / "memory.conf"
    unit.write_text("[Service]\nMemoryMax=1M\n")
    drop_in.write_text(f"[Service]\nMemoryMax={said}\n")
    found = check_memory(Config(), units=[unit, drop_in], manifests=[])
    assert [problem.where for problem in found] == ([] if fits else [f"{drop_in}:2"])


def test_the_sum_is_shown_with_the_limit() -> None:
    """The message has the limit, the sum and what to do."""
    found = memory_problem(Config(), 100 * MIB, "/limit", "")
    assert isinstance(found, Problem)
    assert found.message.startswith("grants 100 MiB, the budgets add up to 864 MiB: 80 MiB (the process) + ")
    assert found.message.endswith("Raise it, or lower one of them")
