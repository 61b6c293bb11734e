"""The parts of the dialect by themselves: its messages, what a process uses, its configuration, and the commands of an operator."""

import json
from typing import Any

import pytest

from signald.config.checks import cross_checks
from signald.ctl import show
from signald.dialects.deepstream import messages, usage
from signald.dialects.deepstream.usage import Usage
from signald.errors import BadMessage
from signald.ids import SeededEntropy, is_named, named_worker, new_worker_id
from signald.testing.cluster import config_for
from tests.deepstream.fleet import on


@pytest.mark.parametrize(
    ("until_ms", "seconds"),
    [
        (1500, 1.5),
        (0, 0.0),
        (-1, 0.0),
        (2.5, 0.0025),
        (1_700_000_005_000, 5.0),
        (1_600_000_000_000, 0.0),
        (10**30, (10**30 - 1_700_000_000_000) / 1000),
        (None, 0.0),
        ("1500", 0.0),
        (True, 0.0),
    ],
)
def test_how_long_an_app_is_busy(until_ms: Any, seconds: float) -> None:
    """A duration, or a time since 1970; nothing readable is no time."""
    said = messages.read_busy(json.dumps({"type": "app_busy", "until_ms": until_ms}).encode())
    assert said.wait_s(1_700_000_000_000) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "frame", [b"", b"{", b"[]", b'"x"', b"{}", b'{"type":""}', b'{"type":1}', b'{"type":"%s"}' % (b"x" * 65)]
)
def test_no_message(frame: bytes) -> None:
    """A frame that is no object with a type of 1 to 64 characters is none; neither is a binary one, nor one that is too deep."""
    with pytest.raises(BadMessage):
        messages.type_of(True, frame, 32)


def test_a_message() -> None:
    """Text, an object, not too deep."""
    assert messages.type_of(True, b' {"a": [1], "type": "x"} ', 2) == "x"
    for text, depth in ((False, 32), (True, 1)):
        with pytest.raises(BadMessage):
            messages.type_of(text, b'{"a": [1], "type": "x"}', depth)


def test_ids_of_names() -> None:
    """The same name is the same worker, another name another; no worker with a token has such an id."""
    assert named_worker("a") == named_worker("a") != named_worker("b")
    assert is_named(named_worker("a"))
    assert len(named_worker("a")) == len("w_named_") + 24
    assert not is_named(new_worker_id(SeededEntropy(1)))


def test_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of a core between two readings that are a second apart; memory is none where the kernel does not say."""
    now, cpu_s = 100.0, 5.0
    used = Usage(lambda: now, lambda: cpu_s)
    now, cpu_s = 100.5, 5.4
    assert (used.read().cpu, used.read().uptime_s) == (0.0, 0.5)
    now, cpu_s = 102.0, 5.5
    assert used.read().cpu == 25.0
    cpu_s = 9.0
    assert used.read().cpu == 25.0  # too soon for another reading
    assert 0 < used.read().memory < 100
    monkeypatch.setattr(usage, "STATM", usage.STATM / "none")
    assert used.read().memory == 0.0


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"terminate_timeout_s": 10.0}, 0),
        ({"terminate_timeout_s": 87.0}, 1),
        ({"terminate_timeout_s": 87.0, "on_drain": "reconnect"}, 0),
    ],
)
def test_the_time_of_an_app_fits_its_drain(keys: dict[str, object], found: int) -> None:
    """A time that no drain has is refused, where apps are asked at all."""
    assert len(list(cross_checks(config_for("a", **on(**keys))))) == found
    assert list(cross_checks(config_for("a", deepstream=keys))) == []


def test_apps_as_text() -> None:
    """The table of an operator: where an app is, for how long it is away, and how many are not shown."""
    away = {
        "instance": "cam-2",
        "state": "disconnected",
        "node": "",
        "subject": "",
        "tenant": None,
        "sessions": 0,
        "away_s": 7.0,
    }
    here = {
        **away,
        "instance": "cam-1",
        "state": "authenticated",
        "node": "a",
        "subject": "fleet",
        "tenant": "",
        "away_s": 0.0,
    }
    text = show.apps({"apps": [here, away], "total": 5})
    assert "cam-1     authenticated  a" in text
    assert "away 7.0 s" in text or "away 7 s" in text
    assert text.endswith("... and 3 more (--limit)")
    assert show.apps({"apps": [], "total": 0}) == "no app is registered"
    assert show.terminated({"instance": "cam-1", "node": "a", "worker": "w"}) == "cam-1 at a is asked to clean up"
