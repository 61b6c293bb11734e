"""The short shares of `python -m tests.real.sockets`: what thousands of sockets do to a node, with hundreds."""

from pathlib import Path

import pytest

from tests.real.sockets import slow, slowloris, storm

pytestmark = pytest.mark.real


def test_sockets_that_drip(tmp_path: Path) -> None:
    """With the default bounds every visitor is served; the drippers are gone by the timeouts, their descriptors too."""
    figures = slowloris(tmp_path, 1600, timeout_s=4.0)
    assert figures["in_handshake"] == {"closed": 800}, figures
    assert figures["visitors"] > 10, figures


def test_clients_that_stop_reading(tmp_path: Path) -> None:
    """The node's memory stays bounded, they are closed with 4508, others go on; come back they have missed nothing."""
    slow(tmp_path, 20, 200, write_s=1.0)


def test_everybody_comes_back_at_once(tmp_path: Path) -> None:
    """After a SIGKILL: a party that finds no place is told when to come again, and all sessions go on."""
    figures = storm(tmp_path, 100, setups_max=4)
    assert figures["told"]["busy"], figures
    assert figures["resumes_max"] == 1, figures
