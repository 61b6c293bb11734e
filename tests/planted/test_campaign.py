"""A campaign over planted bugs tries what it knows first, misses no seed, and goes on where it was cut off."""

import sys
from pathlib import Path

import pytest

from tests.planted import __main__ as program
from tests.planted import plant
from tests.planted.__main__ import campaign, line, table
from tests.planted.bug import Bug
from tests.planted.bugs import BUGS
from tests.planted.plant import Hunt
from tests.planted.record import Record, noticed, remember

BY_NAME = {bug.name: bug for bug in BUGS}
FIRST, SECOND = BY_NAME["append-not-fenced"], BY_NAME["ack-not-fenced"]
THIRD = next(bug for bug in BUGS if bug.noticed_by)
SEEDS = 300


class Hunts:
    """Hunts that find what `at` says, and what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **at: int) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.at = at
        monkeypatch.setattr(program, "hunt", self.hunt)

    def hunt(self, bug: Bug, seeds: int, *, first: int = 1) -> Hunt:
        """As `plant.hunt`, in a second, from the table."""
        self.asked.append((bug.name, first, seeds))
        at = self.at.get(bug.name, 0)
        return Hunt(bug, at, 1.0, "messages", "sticky", "seen") if first <= at <= seeds else Hunt(bug, seeds, 1.0)


def test_no_seed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed up to the last one is played against a bug that stays unnoticed, each once."""
    hunts = Hunts(monkeypatch)
    record = Record([FIRST])
    for _ in campaign(record, {}, SEEDS, 1):
        pass
    played = [seed for _, first, last in hunts.asked for seed in range(first, last + 1)]
    assert played == list(range(1, SEEDS + 1))
    assert "NOT CAUGHT by 300 seeds" in line(record.hunts[FIRST.name])
    assert f"| `{FIRST.name}` | - | - | - | 4 |" in table(record.hunts.values())


def test_what_is_known_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed that noticed a bug is tried first, which the table says; if it does not any more, all seeds are played."""
    hunts = Hunts(monkeypatch, **{FIRST.name: 200, SECOND.name: 30})
    record = Record([FIRST, SECOND])
    for _ in campaign(record, {FIRST.name: 200, SECOND.name: 250}, SEEDS, 1):
        pass
    assert hunts.asked[0] == (FIRST.name, 200, 200)
    assert [one[1:] for one in hunts.asked if one[0] == SECOND.name] == [(250, 250), (1, 25), (26, 125)]
    rows = table(record.hunts.values())
    assert f"| `{FIRST.name}` | sticky | 200* | messages | 1 |" in rows
    assert f"| `{SECOND.name}` | sticky | 30 | messages | 3 |" in rows


def test_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a record says of the same code is not done again, and nothing that it says of other code counts."""
    path = tmp_path / "record"
    Hunts(monkeypatch, **{FIRST.name: 7})
    before = Record([FIRST, SECOND], path)
    for _ in campaign(before, {}, 60, 1):
        pass
    hunts = Hunts(monkeypatch)
    after = Record([FIRST, SECOND], path)
    assert after.hunts[FIRST.name] == before.hunts[FIRST.name]
    for _ in campaign(after, {SECOND.name: 40}, SEEDS, 1):
        pass
    assert [one[1:] for one in hunts.asked] == [(61, 125), (126, 225), (226, 300)]
    path.write_text(path.read_text().replace('"code": "', '"code": "other '))
    assert [one.seed for one in Record([FIRST, SECOND], path).left] == [0, 0]


def test_what_names_its_tests_is_hunted_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No seed is played for such a bug; the test that is known is run first, and the table and the line say which noticed."""
    asked = []

    def by_tests(bug: Bug, first: str = "") -> Hunt:
        asked.append((bug.name, first))
        return Hunt(bug, 0, 1.0, "test", first, "seen")

    hunts = Hunts(monkeypatch)
    monkeypatch.setattr(program, "hunt_by_tests", by_tests)
    for test in ("tests/test_x.py::test_y", ""):
        record = Record([THIRD])
        for _ in campaign(record, {THIRD.name: test} if test else {}, SEEDS, 1):
            pass
        one = record.hunts[THIRD.name]
        assert one.caught == bool(test)
        assert ("NOT CAUGHT by tests/" in line(one)) == (not test)
        assert f"| `{THIRD.name}` | {test or '-'} | " in table([one])
    assert asked == [(THIRD.name, "tests/test_x.py::test_y"), (THIRD.name, "")]
    assert hunts.asked == []


def test_a_search_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A search whose process dies, or does not end, is told with its bug, and the others are hunted all the same."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    one = plant.hunt(FIRST, 3)
    assert not one.caught
    assert "tests.planted.search itself failed" in line(one)
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 600\n")
    endless.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(endless))
    monkeypatch.setattr(plant, "SEARCH_WALL_S", 0.1)
    assert "no end of tests.planted.search 1 3" in line(plant.hunt(FIRST, 3))


def test_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1 when too few were noticed, and the table is written as the campaign goes."""
    Hunts(monkeypatch, **{FIRST.name: 7})
    path = tmp_path / "table"
    monkeypatch.setattr(sys, "argv", ["", "--only", FIRST.name, "--table", str(path), "--from-first"])
    assert program.main() == 0
    assert f"| `{FIRST.name}` | sticky | 7 |" in path.read_text()
    monkeypatch.setattr(sys, "argv", ["", "--only", FIRST.name, "--only", SECOND.name, "--from-first"])
    assert program.main() == 1
    assert f"not caught: {SECOND.name}" in capsys.readouterr().out


def test_remembered(tmp_path: Path) -> None:
    """The seeds that noticed something are kept, those of other bugs stay, and what is kept is of bugs there are."""
    path = tmp_path / "noticed.json"
    path.write_text('{"another": 3}')
    by_test = Hunt(THIRD, 0, 1.0, "test", "tests/test_x.py::test_y", "seen")
    remember([Hunt(FIRST, 7, 1.0, "messages", "sticky", "seen"), Hunt(SECOND, 1000, 1.0), by_test], path)
    assert noticed(path) == {"another": 3, FIRST.name: 7, THIRD.name: "tests/test_x.py::test_y"}
    assert set(noticed()) <= {bug.name for bug in BUGS}
    by_tests = {bug.name for bug in BUGS if bug.noticed_by}
    for name, kept in noticed().items():
        if name in by_tests:
            assert str(kept).startswith("tests/")
        else:
            assert 1 <= int(kept) <= 1000
