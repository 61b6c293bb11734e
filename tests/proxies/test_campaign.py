"""The campaign of the command line, small enough for every day."""

from pathlib import Path

import pytest

from tests.proxies.campaign import Options, run, show
from tests.proxies.proxy import KINDS, Kind

pytestmark = pytest.mark.real


@pytest.mark.parametrize("kind", KINDS)
async def test_receipts_say_what_the_applications_saw(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deploy and one that is rolled back, on Redis: nothing lost, and both counts agree."""
    options = Options(kind, deploys=2, rollbacks=1, sessions=40, workers=4, rate=2.0, pace=80.0)
    report = await run(options, tmp_path)
    show(report)
    assert not report["problems"], capsys.readouterr().out
    deploy, called_off, rollback = sorted(report["rows"], key=lambda row: str(row["kind"] != "deploy"))
    assert (deploy["sessions"], deploy["moved"], deploy["resumed"]) == (40, 40, 40)
    assert called_off["kind"] == "called off"
    assert 20 <= called_off["resumed"] <= 40
    assert rollback["moved"] == rollback["resumed"] >= 20
