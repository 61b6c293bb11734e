"""A short share of the campaign with a core server in moods (core_server.py), and its judge, which finds what it is for."""

import json
from pathlib import Path

import pytest

from signald.core.webhooks import secrets_of, signed_headers
from tests.real.core_notes import Asked, Expected, Judge, admitted_unasked, read_notes
from tests.real.core_server import SECRETS, Plan, Policy, play
from tests.real.moody_core import AUTHORIZE, EVENTS, MOODS

SESSION = "s_" + "a" * 24
STALLED_MS = 5000.0
"""Far above what a busy machine adds, and far below what a session would have waited that stood in line behind events: each attempt
at a mute core server takes 2 s, and there are dozens."""


class Notes:
    """The notes of a core server that was told what a test says, one request after the other."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._line = 0

    def event(
        self, n: int, kind: str, *, status: int = 204, secrets: tuple[str, ...] = SECRETS, **data: object
    ) -> Asked:
        """One attempt at an event of the session, which was answered."""
        self._line += 2
        body = json.dumps({"type": kind, "data": {"session": SESSION, "n": n, **data}}).encode()
        at = 1000.0 + self._line
        headers = signed_headers(f"msg_{SESSION}_{n}_1000", int(at), body, secrets_of(*secrets))
        one = Asked(at, EVENTS, "well", headers, body, self._line, self._line + 1, at + 0.5, status)
        self.asked.append(one)
        return one

    def judged(self, **expected: tuple[str, ...]) -> list[str]:
        """What is wrong with all that."""
        judge = Judge(SECRETS)
        judge.read(self.asked)
        return judge.wrong + judge.taken(Expected(**expected))


def whole() -> Notes:
    """A session that was told as it should be, with an attempt that failed."""
    notes = Notes()
    notes.event(1, "session.started")
    notes.event(2, "session.paired", status=500)
    notes.event(2, "session.paired")
    notes.event(3, "session.ended")
    return notes


def test_a_session_that_was_told() -> None:
    """Nothing is wrong; repetitions are fine."""
    assert whole().judged(sessions=(SESSION,)) == []


def test_what_the_judge_finds() -> None:
    """Each broken promise has its line."""
    lost = whole()
    del lost.asked[-1]
    assert lost.judged(sessions=(SESSION,)) == [f"{SESSION} had ['session.started', 'session.paired']"]

    hole = whole()
    hole.event(5, "job.ended")
    assert any("says n 5 behind 3" in line for line in hole.judged())

    early = Notes()
    early.event(1, "session.started", status=500)
    early.event(2, "session.ended")
    assert any("came before 1 was taken" in line for line in early.judged())

    never = whole()
    never.event(4, "job.ended", status=503)
    assert never.judged() == [f"msg_{SESSION}_4_1000 was not taken"]

    changed = whole()
    changed.event(3, "session.ended", reason="another")
    assert any(" and is " in line for line in changed.judged())

    dropped = whole()
    dropped.event(4, "job.ended", dropped=2)
    assert any("2 were dropped" in line for line in dropped.judged())

    crossed = whole()
    crossed.asked[0].over_at = crossed.asked[1].at + 10
    assert any("while" in line for line in crossed.judged())


@pytest.mark.parametrize("secrets", [SECRETS[:1], SECRETS[1:], (SECRETS[0], SECRETS[0])])
def test_a_missing_signature_is_found(secrets: tuple[str, ...]) -> None:
    """Both secrets sign, or it is wrong."""
    notes = whole()
    notes.event(4, "job.ended", secrets=secrets)
    assert notes.judged()


def test_a_deploy_that_was_told_twice_or_never() -> None:
    """Each planned stop is told once."""
    notes = whole()
    for n in (4, 5):
        notes.event(n, "deploy.finished", node="left-1")
    assert notes.judged(deploys=("left-1", "left-2")) == [
        "left-1 was told to have finished 2 times",
        "left-2 was told to have finished 0 times",
        "left-1 was told to have finished 2 times",
    ]


def test_who_came_in_without_a_yes() -> None:
    """A yes is the whole object of the contract, in an answer of 200 that went out."""
    asked = []
    answers = [
        (200, b'{"allow":true}'),
        (200, b'{"allow":"yes"}'),
        (500, b'{"allow":true}'),
        (200, b"<html>"),
        (0, b""),
    ]
    for n, (status, answer) in enumerate(answers):
        body = json.dumps({"meta": {"name": f"guest {n}"}}).encode()
        asked.append(Asked(0.0, AUTHORIZE, "", {}, body, status=status, answer=answer))
    sessions = {f"s_{n}": f"guest {n}" for n in range(6)}
    assert admitted_unasked(asked, sessions) == ["s_1", "s_2", "s_3", "s_4", "s_5"]


@pytest.mark.real
@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_a_short_share(tmp_path: Path, policy: Policy) -> None:
    """Every event is told as promised, guests come in as the policy says, and no session waits for the core server."""
    result = await play(Plan("redis", policy, 14.0, seed=5, sessions=6, workers=2, guests=2), tmp_path)
    assert result.wrong == []
    assert result.counts["deploys"] >= 1
    assert result.counts["kills"] == 1
    assert result.round_trips_ms["max"] < STALLED_MS
    # Chance and the pauses between attempts leave out a mood or two; nothing reaches one that is down.
    assert len({one.mood for one in read_notes(tmp_path / "core.notes")} & {*MOODS}) >= 4
