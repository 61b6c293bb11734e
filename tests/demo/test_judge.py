"""The judge's counting, without any clock, socket or process."""

import signal

import pytest

from signald.demo.judge import Judge, Ledger, Moment, Numbers, Verdict, claims_peak, gaps, kill_plan, quantile


def numbers(sent: int, *received: int) -> tuple[int, int, int]:
    """Return (lost, duplicated, reordered) when 1..sent were sent and these were received."""
    direction = Numbers()
    for _ in range(sent):
        direction.give()
    for number in received:
        direction.receive(number)
    return direction.lost, direction.duplicated, direction.reordered


@pytest.mark.parametrize(
    ("sent", "received", "verdict"),
    [
        (0, (), (0, 0, 0)),
        (3, (1, 2, 3), (0, 0, 0)),
        (3, (1, 2), (1, 0, 0)),
        (3, (1, 3), (1, 0, 0)),
        (3, (3,), (2, 0, 0)),
        (3, (1, 3, 2), (0, 0, 1)),
        (3, (1, 2, 2, 3), (0, 1, 0)),
        (3, (1, 3, 2, 2, 1), (0, 2, 1)),
        (5, (2, 5, 1, 5), (2, 1, 1)),
    ],
)
def test_numbers_tell_loss_repeat_and_order_apart(
    sent: int, received: tuple[int, ...], verdict: tuple[int, int, int]
) -> None:
    """A hole is a loss, a repeat a duplicate, and a number after a later one reordered: each counted once."""
    assert numbers(sent, *received) == verdict


def talk(judge: Judge, ledger: Ledger, asked_at: float, answered_at: float, worker: str = "worker_a") -> None:
    """One question, delivered, and its answer."""
    question = judge.asked(ledger, asked_at)
    ledger.questions.receive(question)
    judge.answered(ledger, question=question, reply=ledger.replies.give(), worker=worker, now=answered_at)


def judge_with(*names: str) -> tuple[Judge, list[Ledger]]:
    """A judge and one ledger per client."""
    judge = Judge()
    return judge, [judge.open_ledger(name) for name in names]


def finished(judge: Judge, now: float = 100.0) -> Verdict:
    """The verdict, once no deploy is under way any more."""
    for deploy in judge.deploys:
        if deploy.exit_code is None:
            deploy.exit_code = -signal.SIGKILL if deploy.kill else 0
    return judge.verdict(now)


def test_a_quiet_run_is_ok() -> None:
    """Every message there, in order, from one worker: exit 0, with both directions counted."""
    judge, (alice, bob) = judge_with("alice", "bob")
    talk(judge, alice, 1.0, 1.1)
    talk(judge, bob, 1.0, 1.1)
    verdict = finished(judge)
    assert verdict.ok
    assert (verdict.sessions, verdict.messages, verdict.same_worker) == (2, 4, 2)


def test_an_unanswered_question_is_lost_and_its_wait_is_a_gap() -> None:
    """What has no answer when everything has gone quiet counts as lost, and as waited for until then."""
    judge, (alice,) = judge_with("alice")
    talk(judge, alice, 0.0, 0.1)
    deploy = judge.begin_deploy(kill=False, workers_move=True, now=1.0)
    judge.asked(alice, 2.0)
    deploy.ended_at = 3.0
    verdict = finished(judge, now=10.0)
    assert not verdict.ok
    assert (verdict.lost, verdict.gap_ms["max"]) == (1, 8000.0)


def test_a_session_that_ended_early_is_lost_with_its_reason() -> None:
    """A session that ends before its client says bye fails the run, and the reason is said in words."""
    judge, (alice,) = judge_with("alice")
    talk(judge, alice, 0.0, 0.1)
    alice.why_lost = "the session is gone: expired"
    verdict = finished(judge)
    assert not verdict.ok
    assert verdict.sessions_lost == 1
    assert any("alice: the session is gone" in sentence for sentence in verdict.in_words())


def test_another_worker_is_told_from_the_answers() -> None:
    """A session whose answers came from two workers did not keep its worker, whatever the server says."""
    judge, (alice, bob) = judge_with("alice", "bob")
    talk(judge, alice, 0.0, 0.1, "worker_a")
    talk(judge, alice, 1.0, 1.1, "worker_b")
    talk(judge, bob, 1.0, 1.1, "worker_b")
    assert finished(judge).same_worker == 1


def test_gap_is_the_longest_round_trip_under_way_in_the_deploy() -> None:
    """Sent within the deploy or waiting when it began: counted. Answered before it, or sent after its end: not."""
    judge, (alice,) = judge_with("alice")
    talk(judge, alice, 0.0, 0.9)  # answered before
    question = judge.asked(alice, 0.95)  # waiting when it begins
    deploy = judge.begin_deploy(kill=False, workers_move=True, now=1.0)
    judge.answered(alice, question=question, reply=1, worker="worker_a", now=1.25)
    talk(judge, alice, 1.5, 1.6)
    deploy.ended_at = 2.0
    talk(judge, alice, 2.5, 4.5)  # sent after
    assert list(deploy.gaps_s.values()) == [pytest.approx(0.3)]
    assert finished(judge).steady_ms == {"p50": 900.0, "p99": 2000.0, "max": 2000.0}  # the two outside


def test_gap_of_a_late_answer_belongs_to_the_deploy_it_was_sent_in() -> None:
    """An answer that comes only in the next deploy is a gap of both; one sent after the first is a gap of the second."""
    judge, (alice,) = judge_with("alice")
    first = judge.begin_deploy(kill=True, workers_move=True, now=1.0)
    question = judge.asked(alice, 1.5)
    first.ended_at = 2.0
    second = judge.begin_deploy(kill=False, workers_move=True, now=3.0)
    judge.answered(alice, question=question, reply=1, worker="worker_a", now=3.5)
    second.ended_at = 4.0
    assert first.gaps_s == {"alice": pytest.approx(2.0)}
    assert second.gaps_s == {"alice": pytest.approx(2.0)}


def test_gaps_of_planned_deploys_and_kills_are_kept_apart() -> None:
    """`gap_ms` is that of planned deploys and `gap_kill_ms` that of kills; with one kind only, `gap_ms` is that."""
    judge, (alice,) = judge_with("alice")
    for kill, began_at, gap_s in ((False, 1.0, 0.25), (True, 2.0, 0.5)):
        deploy = judge.begin_deploy(kill=kill, workers_move=True, now=began_at)
        talk(judge, alice, began_at, began_at + gap_s)
        deploy.ended_at = began_at + gap_s
    verdict = finished(judge)
    assert (verdict.gap_ms["max"], verdict.gap_kill_ms and verdict.gap_kill_ms["max"]) == (250.0, 500.0)
    judge.deploys.pop(0)
    assert judge.verdict(100.0).gap_ms["max"] == 500.0


def test_reconnects_are_the_most_dials_of_one_party_in_one_deploy() -> None:
    """Dials before the first deploy are no reconnects; each later one counts for the deploy it falls in, failed or not."""
    judge, _ = judge_with("alice")
    judge.dialed("alice")
    judge.begin_deploy(kill=False, workers_move=True, now=1.0)
    judge.dialed("alice")
    judge.dialed("worker_a")
    assert finished(judge).reconnects_per_party_max == 1
    judge.begin_deploy(kill=True, workers_move=True, now=2.0)
    judge.dialed("alice")
    judge.dialed("alice")
    assert finished(judge).reconnects_per_party_max == 2


@pytest.mark.parametrize(
    ("worker_ready_at", "workers_move", "violations"),
    [
        (Moment(1.0, 1.1), True, 0),
        (Moment(1.19, 1.3), True, 0),  # their intervals meet: it may have been the earlier one
        (Moment(1.25, 1.3), True, 1),
        (None, True, 1),
        (None, False, 0),
    ],
)
def test_goaway_before_the_worker_is_ready_is_a_violation(
    worker_ready_at: Moment | None, workers_move: bool, violations: int
) -> None:
    """A client certainly told before its worker's resume was answered counts, unless workers enter by another node."""
    judge, (alice,) = judge_with("alice")
    talk(judge, alice, 0.0, 0.1)
    judge.begin_deploy(kill=False, workers_move=workers_move, now=1.0)
    if worker_ready_at is not None:
        judge.resumed("worker_a", ["s_1", "s_2"], worker_ready_at, is_worker=True)
    judge.told_goaway("s_1", Moment(1.1, 1.2))
    verdict = finished(judge)
    assert verdict.goaway_before_pair_ready == violations
    assert verdict.ok is (violations == 0)


def test_a_clean_exit_is_part_of_the_verdict() -> None:
    """A node that was asked to end and did not end with 0 fails the run; a killed one must have died of our signal."""
    for kill, exit_code, ok in (
        (False, 0, True),
        (False, 1, False),
        (False, -9, False),
        (True, -9, True),
        (True, 1, False),
    ):
        judge, (alice,) = judge_with("alice")
        talk(judge, alice, 0.0, 0.1)
        judge.begin_deploy(kill=kill, workers_move=True, now=1.0).exit_code = exit_code
        assert judge.verdict(2.0).ok is ok


def test_no_session_is_no_success() -> None:
    """A run without a message proves nothing."""
    assert not Judge().verdict(1.0).ok


@pytest.mark.parametrize(
    ("claims", "peak"),
    [
        ((), 0),
        (((0.0, 20), (0.5, 20), (0.99, 1)), 41),
        (((0.0, 20), (1.0, 20)), 20),
        (((0.0, 1), (0.9, 5), (1.5, 5), (1.95, 1)), 10),
    ],
)
def test_claims_peak_is_the_fullest_sliding_second(claims: tuple[tuple[float, int], ...], peak: int) -> None:
    """The window slides over the claims themselves; a second is open at its far end."""
    assert claims_peak(claims) == peak


def test_quantiles_are_values_that_were_seen() -> None:
    """The quantile is the nearest rank: never a value between two, and 0 when nothing was seen."""
    values = [float(value) for value in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([7.0], 0.5) == 7.0
    assert quantile([], 0.99) == 0.0
    assert gaps([]) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_kills_are_spread_among_the_deploys() -> None:
    """Exactly as many as asked for, and neither all first nor all last."""
    assert kill_plan(3, 1) == [False, True, False]
    assert kill_plan(5, 2) == [False, True, False, True, False]
    for deploys in range(8):
        for kills in range(deploys + 1):
            assert sum(kill_plan(deploys, kills)) == kills


def test_json_has_exactly_the_promised_names() -> None:
    """Other programs read these names; the gap of kills is there only when there were kills."""
    judge, (alice,) = judge_with("alice")
    talk(judge, alice, 0.0, 0.1)
    judge.begin_deploy(kill=False, workers_move=True, now=1.0)
    promised = [
        "deploys",
        "kills",
        "sessions",
        "sessions_lost",
        "same_worker",
        "messages",
        "lost",
        "duplicated",
        "reordered",
        "reconnects_per_party_max",
        "goaway_before_pair_ready",
        "gap_ms",
        "drain_s",
        "claims_per_s_peak",
        "exit_codes",
    ]
    assert list(finished(judge).as_json()) == [*promised, "steady_ms"]
    judge.begin_deploy(kill=True, workers_move=True, now=2.0)
    assert list(finished(judge).as_json()) == [*promised, "steady_ms", "gap_kill_ms"]
