"""The benchmark of jobs submits, works and counts as a client and a worker of today do, and its baseline answers."""

import os

import pytest

from tests.bench import jobs
from tests.bench.errors import BenchError
from tests.bench.http_links import HttpLink
from tests.bench.servers import Cores


def link() -> tuple[HttpLink, list[tuple[int, bytes]]]:
    """Return a connection on which an answer is waited for, and the answers it has had."""
    made, answers = HttpLink.__new__(HttpLink), list[tuple[int, bytes]]()
    made._tail, made._answered = b"", lambda status, body: answers.append((status, body))
    return made, answers


def test_an_answer_is_taken_whole() -> None:
    """An answer that comes in several reads counts once, when its body is complete."""
    under_test, answers = link()
    for part in (b"HTTP/1.1 202 \r\nContent-", b"Length: 5\r\n\r\nhe", b"llo"):
        assert answers == []
        under_test.on_data(part)
    assert answers == [(202, b"hello")]


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 \r\n\r\n", b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nab"])
def test_an_answer_of_another_form_ends_the_run(data: bytes) -> None:
    """An answer without a length, or with more behind it, is not what was asked for."""
    under_test, _ = link()
    with pytest.raises(BenchError):
        under_test.on_data(data)


@pytest.mark.real
def test_jobs_are_done_and_counted() -> None:
    """Each 202 has a result behind it, and plain messages and the baseline are measured beside."""
    core = min(os.sched_getaffinity(0))
    cores = Cores(core, core, core)
    rows = jobs.scenario("signald-memory", cores, clients=2, workers=1, seconds=0.2, slices=1)
    assert [row["what"] for row in rows] == ["jobs", "messages"]
    for row in (*rows, jobs.baseline(cores, 2, 0.2, 1)):
        assert isinstance(row["per s"], float)
        assert row["per s"] > 0


@pytest.mark.real
def test_a_refused_job_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is not accepted is no figure."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(jobs, "BODY", b"{}")
    with pytest.raises(BenchError, match="answered with 400"):
        jobs.scenario("signald-memory", Cores(core, core, core), clients=1, workers=1, seconds=0.2, slices=1)
