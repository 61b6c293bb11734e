"""The drill of the command line, small enough for every day."""

from pathlib import Path

import pytest

from tests.proxies.weights import Options, run

pytestmark = pytest.mark.real


async def test_receipts_say_how_many_pages_were_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deploy by weights and one that is called off midway, on Redis: nothing lost, and both counts agree."""
    drill = await run(Options(deploys=2, rollbacks=1, clients=10, pace=5.0, edit_ms=200), tmp_path)
    drill.show()
    assert not drill.problems(), capsys.readouterr().out
    kinds = [row.kind for row in drill.rows]
    assert sorted(kinds) == ["called off", "deploy", "rollback"]
    rows = dict(zip(kinds, drill.rows, strict=True))
    assert rows["deploy"].closed >= 1
    assert 1 <= rows["called off"].closed <= 10
    assert len(drill.rollbacks_s) == 1
