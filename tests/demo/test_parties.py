"""The parties of the demo against a real node."""

import time
from pathlib import Path

import pytest
import trio

from signald.demo.judge import Judge
from signald.demo.main import node_settings
from signald.demo.options import DemoOptions
from signald.demo.parties import Parties
from tests.real.harness import open_nodes, until, url_of

TRIES = 8
"""The order of two tasks that are due is a toss."""


@pytest.mark.real
async def test_who_is_hushed_asks_nothing_more(tmp_path: Path) -> None:
    """Not even what was due already: once all has its answer, the clients may leave, and nothing counts as lost."""
    options = DemoOptions(sessions=4, workers=1, rate=100.0)
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", node_settings(options)) as nodes:
        url = url_of(await nodes.start("node"))
        for number in range(TRIES):
            judge = Judge()
            parties = Parties(options, judge, url, url, group=f"{number}")
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    await parties.start(nursery)
                    await until(lambda judge=judge: judge.answers > 4, 10)
                    # Busy for so long that every client's next question is due when the others run again.
                    time.sleep(2 / options.rate)  # noqa: ASYNC251 - this is what is tested
                    await trio.lowlevel.checkpoint()
                    parties.hush()
                    asked = [ledger.questions.sent for ledger in judge.ledgers]
                    await until(lambda judge=judge: not judge.waiting, 10)
                    await parties.leave()
                    nursery.cancel_scope.cancel(reason="every party has left")
            assert [ledger.questions.sent for ledger in judge.ledgers] == asked
            verdict = judge.verdict(trio.current_time())
            assert (verdict.lost, verdict.sessions_lost) == (0, 0), verdict.in_words()
