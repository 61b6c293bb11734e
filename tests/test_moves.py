"""How many sessions a drain moves within its budget, and what `check-config` says of a configuration that promises more."""

import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.cli import main
from signald.config import Config, check_moves, drain_moves

CONFIG = 78
TEN_THOUSAND, THEIR_WORKERS = 10_000, 500


def test_the_defaults_fit_ten_thousand_sessions() -> None:
    """They are admitted, with their workers, and moved within the budget."""
    config = Config()
    assert TEN_THOUSAND + THEIR_WORKERS <= config.admission.connections_max <= drain_moves(config).sessions
    assert check_moves(config, "") == []


def test_the_time_for_moves_is_what_the_other_phases_leave() -> None:
    """90 s less 10 s for a successor, 10 s for programs that clean up, and 2 s each for FLUSH and CLOSE, at 0.85 of the pace."""
    moves = drain_moves(Config())
    assert (moves.seconds, moves.per_s, moves.sessions) == (66.0, 170.0, 11_220)
    assert str(moves) == "11220 sessions (170/s for 66 s)"


def test_a_configuration_that_promises_more_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 78, the key, both numbers, and what to do."""
    path = tmp_path / "signald.toml"
    path.write_text('[store]\nurl = "redis://127.0.0.1"\n[admission]\nconnections_max = 20000\n')
    assert main(["check-config", str(path)]) == CONFIG
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{path}: admission.connections_max: admits 20000, and a drain moves 11220 sessions (170/s for 66 s) within its budget: "
        "lower it to 11220, or raise drain.timeout_s to 142 (and stop_timeout_s, and what the supervisor grants), "
        "or raise pace.sessions_per_s to 357"
    )


def test_what_a_drain_moves_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator learns it where the configuration is checked."""
    path = tmp_path / "signald.toml"
    path.write_text("[pace]\nsessions_per_s = 400\n")
    assert main(["check-config", str(path)]) == 0
    assert "a drain moves 22440 sessions (340/s for 66 s)" in capsys.readouterr().out


def test_what_a_mistake_makes_unknown_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pace that cannot be read is its own problem, and not also one of the connections."""
    path, unit = tmp_path / "signald.toml", tmp_path / "signald.service"
    path.write_text('[pace]\nsessions_per_s = "fast"\n[admission]\nconnections_max = 20000\n')
    unit.write_text("[Service]\nTimeoutStopSec=105\n")
    assert main(["check-config", str(path), "--systemd", str(unit)]) == CONFIG
    said = capsys.readouterr().err
    assert "pace.sessions_per_s" in said
    assert "admission.connections_max" not in said


def test_a_store_in_memory_has_nothing_to_move() -> None:
    """Its sessions end with the process."""
    config = Config()
    config = attrs.evolve(
        config,
        store=attrs.evolve(config.store, url="memory:"),
        admission=attrs.evolve(config.admission, connections_max=10**6),
    )
    assert check_moves(config, "") == []


@given(
    connections=st.integers(1, 100_000),
    timeout_s=st.floats(5, 300),
    pace_per_s=st.floats(1, 2000),
    successor_s=st.floats(1, 30),
)
def test_each_remedy_is_one(connections: int, timeout_s: float, pace_per_s: float, successor_s: float) -> None:
    """What the message asks for is enough by itself."""
    config = Config()
    config = attrs.evolve(
        config,
        admission=attrs.evolve(config.admission, connections_max=connections),
        drain=attrs.evolve(config.drain, timeout_s=timeout_s, successor_timeout_s=successor_s),
        pace=attrs.evolve(config.pace, sessions_per_s=pace_per_s),
    )
    found = check_moves(config, "signald.toml")
    assert (found == []) is (connections <= drain_moves(config).sessions)
    for problem in found:
        for section, key, value in re.findall(r"raise (\w+)\.(\w+) to (\d+)", problem.message):
            mended = attrs.evolve(getattr(config, section), **{key: float(value)})
            assert check_moves(attrs.evolve(config, **{section: mended}), "") == []
        for value in re.findall(r"lower it to (\d+)", problem.message):
            mended = attrs.evolve(config.admission, connections_max=int(value))
            assert check_moves(attrs.evolve(config, admission=mended), "") == []
