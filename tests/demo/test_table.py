"""The live picture and the lines that stand for it where there is no terminal."""

from io import StringIO

from rich.console import Console

from signald.demo.judge import Judge, Moment
from signald.demo.table import Board, Picture, line


def drawn(board: Board, width: int = 120) -> str:
    """What a terminal would show now."""
    console = Console(file=StringIO(), width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(Picture(board, clock=iter([0.0, 2.0]).__next__).draw())
    return capture.get()


def test_the_picture_shows_each_deploy_where_it_stands() -> None:
    """A finished deploy shows its figures, the current one its phase and progress, a planned one only its signal."""
    judge = Judge()
    alice = judge.open_ledger("alice")
    done = judge.begin_deploy(kill=False, workers_move=True, now=1.0)
    judge.answered(alice, question=judge.asked(alice, 1.0), reply=1, worker="worker_a", now=1.025)
    judge.resumed("alice", ["s_1"], Moment(1.0, 1.1), is_worker=False)
    done.ended_at, done.exit_code, done.drain_s = 2.0, 0, 0.9
    judge.begin_deploy(kill=True, workers_move=True, now=3.0)
    judge.asked(alice, 4.0)
    rows = drawn(Board("the title", judge, [False, True, False], phase="coming back", moving=2)).splitlines()
    assert rows[0] == "the title"
    assert rows[4].split() == ["1", "SIGTERM", "done", "1", "0.9", "25.0", "25.0", "25.0", "0"]
    assert rows[5].split() == ["2", "SIGKILL", "coming", "back", "0", "of", "2", "0.0", "0.0", "0.0"]
    assert rows[6].split() == ["3", "SIGTERM"]
    assert rows[-1] == "0 answers/s, 1 so far, 1 on their way"
    assert line(done) == "deploy 1: SIGTERM, 1 parties moved in 0.9 s, gap p99 25.0 ms, max 25.0 ms, exit 0"


def test_the_picture_fits_a_terminal_of_80_columns() -> None:
    """Nothing is cut off or wrapped at 80 columns with a thousand sessions and a gap of a minute."""
    judge = Judge()
    alice = judge.open_ledger("alice")
    done = judge.begin_deploy(kill=True, workers_move=True, now=1.0)
    judge.answered(alice, question=judge.asked(alice, 1.0), reply=1, worker="worker_a", now=61.0)
    for number in range(1100):
        judge.resumed(f"party {number}", [], Moment(1.0, 1.1), is_worker=True)
    assert len(done.moved) == 1100
    rows = drawn(Board("the title", judge, [True], phase="coming back", moving=1100), width=80).splitlines()
    assert rows[4].split() == ["1", "SIGKILL", "coming", "back", "1100", "of", "1100", "60000", "60000", "60000"]
    assert max(map(len, rows)) <= 80
