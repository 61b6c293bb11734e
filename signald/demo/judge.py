"""What really happened, counted at the applications.

The judge believes neither the SDK's nor the server's counters. Every message carries a number its application gave it, per
session and direction, so "1, 2, 3, …" at the receiving application is the whole proof: a hole is a loss, a repeat is a
duplicate, a number that comes after a later one was reordered. What a party's connections said (dials, goaways, answers to
a resume) is noted where the party dials, beneath the SDK. Times are seconds of one monotonic clock, given by the caller;
nothing here reads a clock, so the same notes always give the same verdict.
"""

import signal
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

from attrs import define, field, frozen

CLAIMS_WINDOW_S = 1.0


class Moment(NamedTuple):
    """When something arrived, as far as that can be known."""

    earliest: float
    latest: float


class Numbers:
    """One direction of one session: the numbers given out, and those that arrived at the other application."""

    __slots__ = ("_missing", "_next", "duplicated", "reordered", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.duplicated = 0
        self.reordered = 0
        self._next = 1
        # Invariant: every number below `_next` has arrived, or is in here.
        self._missing: set[int] = set()

    def give(self) -> int:
        """Return the number of the next message."""
        self.sent += 1
        return self.sent

    def receive(self, number: int) -> None:
        """Note that `number` has arrived at the application."""
        if number == self._next:
            self._next += 1
        elif number > self._next:
            self._missing.update(range(self._next, number))
            self._next = number + 1
        elif number in self._missing:
            self._missing.remove(number)
            self.reordered += 1
        else:
            self.duplicated += 1

    @property
    def lost(self) -> int:
        """How many of those sent have not arrived (so far)."""
        return self.sent - (self._next - 1) + len(self._missing)


class Ledger:
    """One session: its two directions, the workers that answered, and the questions that still wait for their answer."""

    __slots__ = ("asked_at", "name", "questions", "replies", "session", "why_lost", "workers")

    def __init__(self, name: str) -> None:
        self.name = name
        """The client's name."""
        self.session = ""
        """The session's id, once it has started."""
        self.questions = Numbers()
        """Client to worker."""
        self.replies = Numbers()
        """Worker to client."""
        self.workers: set[str] = set()
        """Names of the workers that answered, taken from the answers."""
        self.why_lost: str | None = None
        """Set when the session ended before its client said `bye`."""
        self.asked_at: dict[int, float] = {}
        """When each question that has no answer yet was sent."""


@define(eq=False)
class Deploy:
    """One replacement of one node, from its signal to the moment everything had moved."""

    number: int
    kill: bool
    """SIGKILL rather than SIGTERM."""
    workers_move: bool
    """Whether workers enter by this node: only then do clients have to wait for them."""
    started_at: float
    ended_at: float | None = None
    drain_s: float = 0.0
    """SIGTERM to exit; for a kill, SIGKILL to the moment the last party was back."""
    exit_code: int | None = None
    dials: Counter[str] = field(factory=Counter)
    gaps_s: dict[str, float] = field(factory=dict)
    """The longest round trip of each session, by the client's name."""
    worker_ready_at: dict[str, Moment] = field(factory=dict)
    """When the worker's resume that carries this session was answered, by session id."""
    client_told_at: dict[str, Moment] = field(factory=dict)
    """When the client was told `goaway`, by session id."""
    moved: set[str] = field(factory=set)
    """Names of the parties that have resumed since."""
    client_claims: deque[tuple[float, int]] = field(factory=deque)
    worker_claims: deque[tuple[float, int]] = field(factory=deque)
    """When a party's resume was answered, and for how many sessions. Each kind has the pace for itself."""

    @property
    def claims_peak(self) -> int:
        """The most sessions that moved within any second with one kind of party."""
        return max(claims_peak(self.client_claims), claims_peak(self.worker_claims))

    @property
    def told_too_early(self) -> int:
        """How many clients were certainly told `goaway` before their worker was answered on another node."""
        if not self.workers_move:
            return 0
        never = Moment(float("inf"), float("inf"))
        return sum(
            told_at.latest < self.worker_ready_at.get(session, never).earliest
            for session, told_at in self.client_told_at.items()
        )

    @property
    def clean_exit(self) -> bool:
        """Whether the node ended as it was asked to, or by our SIGKILL and not before it."""
        return self.exit_code == (-signal.SIGKILL if self.kill else 0)


class Gaps(TypedDict):
    """Milliseconds until an answer came."""

    p50: float
    p99: float
    max: float


@frozen
class Verdict:
    """What the demo found; `as_json` is its public form."""

    deploys: int
    kills: int
    sessions: int
    sessions_lost: int
    same_worker: int
    messages: int
    lost: int
    duplicated: int
    reordered: int
    reconnects_per_party_max: int
    goaway_before_pair_ready: int
    gap_ms: Gaps
    gap_kill_ms: Gaps | None
    steady_ms: Gaps
    """Round trips while nothing was deployed: what the machine and the load make of an answer anyway."""
    drain_s: list[float]
    claims_per_s_peak: int
    exit_codes: list[int | None]
    unclean_exits: int
    """Nodes that did not end as they were asked to."""
    why_lost: list[str]

    @property
    def ok(self) -> bool:
        """Nothing lost, duplicated, reordered or out of order, and every node that was asked to end did so with 0."""
        return not (
            self.lost
            or self.duplicated
            or self.reordered
            or self.sessions_lost
            or self.goaway_before_pair_ready
            or not self.sessions
            or self.unclean_exits
        )

    def as_json(self) -> dict[str, object]:
        """Return the figures under their public names."""
        figures: dict[str, object] = {
            "deploys": self.deploys,
            "kills": self.kills,
            "sessions": self.sessions,
            "sessions_lost": self.sessions_lost,
            "same_worker": self.same_worker,
            "messages": self.messages,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "reconnects_per_party_max": self.reconnects_per_party_max,
            "goaway_before_pair_ready": self.goaway_before_pair_ready,
            "gap_ms": self.gap_ms,
            "drain_s": self.drain_s,
            "claims_per_s_peak": self.claims_per_s_peak,
            "exit_codes": self.exit_codes,
        }
        figures["steady_ms"] = self.steady_ms
        if self.gap_kill_ms is not None:
            figures["gap_kill_ms"] = self.gap_kill_ms
        return figures

    def in_words(self) -> list[str]:
        """Return the verdict as sentences, the most important one first."""
        kinds = f"{self.deploys} {_plural(self.deploys, 'deploy')}"
        if self.kills:
            kinds += f" ({self.kills} by SIGKILL)"
        scope = f"{self.sessions} sessions and {self.messages} messages went through {kinds}"
        if self.ok:
            lines = [f"Nobody noticed. {scope}: nothing lost, duplicated or reordered."]
        else:
            lines = [f"It was noticed. {scope}, and this went wrong:"]
            lines += [f"  {what}: {count}" for what, count in self._faults() if count]
            lines += [f"  {reason}" for reason in self.why_lost[:5]]
        lines.append(
            f"{self.same_worker} of {self.sessions} sessions kept their worker; no party reconnected more than "
            f"{self.reconnects_per_party_max} {_plural(self.reconnects_per_party_max, 'time')} in one deploy."
        )
        lines.append(
            f"An answer takes {self.steady_ms['p50']:.1f} ms when nothing is deployed (p99 {self.steady_ms['p99']:.1f} ms)."
        )
        if self.kills < self.deploys:
            lines.append(f"The longest wait of each session during a deploy: {_in_words(self.gap_ms)}.")
        if self.gap_kill_ms is not None:
            lines.append(f"The same around a SIGKILL: {_in_words(self.gap_kill_ms)}.")
        return lines

    def _faults(self) -> list[tuple[str, int]]:
        return [
            ("runs without any session", int(not self.sessions)),
            ("sessions lost", self.sessions_lost),
            ("messages lost", self.lost),
            ("messages that arrived more than once", self.duplicated),
            ("messages that arrived after a later one", self.reordered),
            ("clients sent away before their worker had moved", self.goaway_before_pair_ready),
            ("nodes that did not end as asked", self.unclean_exits),
        ]


class Judge:
    """Takes notes while the demo runs and gives the verdict at its end."""

    def __init__(self) -> None:
        self.ledgers: list[Ledger] = []
        self.deploys: list[Deploy] = []
        self.answers = 0
        """How many answers have reached their clients."""
        self._steady_s = array("d")
        """Every round trip outside the deploys, to compare the gaps with: eight bytes each."""
        self.last_exit_codes: list[int] = []
        """Of the nodes that were in service to the end and then told to stop."""

    # --- at the applications -------------------------------------------------------------------------------------

    def open_ledger(self, name: str) -> Ledger:
        """Begin to count for the session of the client called `name`."""
        ledger = Ledger(name)
        self.ledgers.append(ledger)
        return ledger

    def asked(self, ledger: Ledger, now: float) -> int:
        """A client is about to send; return the number its message carries."""
        number = ledger.questions.give()
        ledger.asked_at[number] = now
        return number

    def answered(self, ledger: Ledger, *, question: int, reply: int, worker: str, now: float) -> None:
        """A client has received the answer to its `question`, the `reply`-th one, signed by `worker`."""
        self.answers += 1
        ledger.replies.receive(reply)
        ledger.workers.add(worker)
        asked_at = ledger.asked_at.pop(question, None)
        if asked_at is not None and not self._note_gap(ledger, asked_at, now):
            self._steady_s.append(now - asked_at)

    def _note_gap(self, ledger: Ledger, asked_at: float, now: float) -> bool:
        # A question belongs to every deploy it was under way in: sent in it, or still waiting when it began.
        inside = False
        for deploy in reversed(self.deploys):
            if deploy.ended_at is not None and asked_at > deploy.ended_at:
                break  # older deploys ended earlier still
            inside = True
            gap_s = now - asked_at
            if gap_s > deploy.gaps_s.get(ledger.name, -1.0):
                deploy.gaps_s[ledger.name] = gap_s
        return inside

    @property
    def waiting(self) -> int:
        """How many questions have no answer yet."""
        return sum(len(ledger.asked_at) for ledger in self.ledgers)

    # --- at the connections --------------------------------------------------------------------------------------

    @property
    def current(self) -> Deploy | None:
        """The deploy that what happens now belongs to: the last one begun, also after its end."""
        return self.deploys[-1] if self.deploys else None

    def dialed(self, party: str) -> None:
        """A party opens a connection, whatever becomes of it."""
        if self.deploys:
            self.deploys[-1].dials[party] += 1

    def told_goaway(self, session: str, at: Moment) -> None:
        """A client was told `goaway`; the first time in a deploy counts."""
        if self.deploys:
            self.deploys[-1].client_told_at.setdefault(session, at)

    def resumed(self, party: str, sessions: Sequence[str], at: Moment, *, is_worker: bool) -> None:
        """A party's resume was answered, for all of `sessions`."""
        if not self.deploys:
            return
        deploy = self.deploys[-1]
        (deploy.worker_claims if is_worker else deploy.client_claims).append((at.latest, len(sessions)))
        deploy.moved.add(party)
        if is_worker:
            for session in sessions:
                deploy.worker_ready_at.setdefault(session, at)

    # --- at the nodes --------------------------------------------------------------------------------------------

    def begin_deploy(self, *, kill: bool, workers_move: bool, now: float) -> Deploy:
        """The old node is about to get its signal."""
        deploy = Deploy(number=len(self.deploys) + 1, kill=kill, workers_move=workers_move, started_at=now)
        self.deploys.append(deploy)
        return deploy

    # --- the verdict ---------------------------------------------------------------------------------------------

    def verdict(self, now: float) -> Verdict:
        """Count everything. A question that still has no answer at `now` counts as lost, and its wait as a gap."""
        for ledger in self.ledgers:
            for asked_at in ledger.asked_at.values():
                self._note_gap(ledger, asked_at, now)
        planned = [deploy for deploy in self.deploys if not deploy.kill]
        kills = [deploy for deploy in self.deploys if deploy.kill]
        directions = [numbers for ledger in self.ledgers for numbers in (ledger.questions, ledger.replies)]
        return Verdict(
            deploys=len(self.deploys),
            kills=len(kills),
            sessions=len(self.ledgers),
            sessions_lost=sum(ledger.why_lost is not None for ledger in self.ledgers),
            same_worker=sum(len(ledger.workers) == 1 for ledger in self.ledgers),
            messages=sum(numbers.sent for numbers in directions),
            lost=sum(numbers.lost for numbers in directions),
            duplicated=sum(numbers.duplicated for numbers in directions),
            reordered=sum(numbers.reordered for numbers in directions),
            reconnects_per_party_max=max((max(deploy.dials.values(), default=0) for deploy in self.deploys), default=0),
            goaway_before_pair_ready=sum(deploy.told_too_early for deploy in self.deploys),
            gap_ms=gaps(planned or kills),
            gap_kill_ms=gaps(kills) if kills else None,
            steady_ms=spread(self._steady_s),
            drain_s=[round(deploy.drain_s, 3) for deploy in self.deploys],
            # A kill has no pace: everyone comes back at once, as they should. It counts only when nothing else did.
            claims_per_s_peak=max((deploy.claims_peak for deploy in planned or kills), default=0),
            exit_codes=[deploy.exit_code for deploy in self.deploys],
            unclean_exits=sum(not deploy.clean_exit for deploy in self.deploys) + sum(map(bool, self.last_exit_codes)),
            why_lost=[f"{ledger.name}: {ledger.why_lost}" for ledger in self.ledgers if ledger.why_lost is not None],
        )


def gaps(deploys: Iterable[Deploy]) -> Gaps:
    """Return the spread of the longest round trips, one per session and deploy."""
    return spread(gap_s for deploy in deploys for gap_s in deploy.gaps_s.values())


def spread(seconds: Iterable[float]) -> Gaps:
    """Return the middle, the 99th percentile and the longest of `seconds`, in milliseconds."""
    values = sorted(one * 1000 for one in seconds)
    return Gaps(p50=quantile(values, 0.5), p99=quantile(values, 0.99), max=quantile(values, 1.0))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the sorted `values` that at least `share` of them do not exceed; 0 when there are none."""
    if not values:
        return 0.0
    rank = -int(-share * len(values) // 1)  # ceiling
    return round(values[max(rank, 1) - 1], 2)


def claims_peak(claims: Iterable[tuple[float, int]]) -> int:
    """Return the highest number of sessions claimed within any second; `claims` are (when, how many), in order."""
    window: deque[tuple[float, int]] = deque()
    inside = peak = 0
    for at, count in claims:
        window.append((at, count))
        inside += count
        while window[0][0] <= at - CLAIMS_WINDOW_S:
            inside -= window.popleft()[1]
        peak = max(peak, inside)
    return peak


def kill_plan(deploys: int, kills: int) -> list[bool]:
    """Return which deploys are kills, spread evenly among them."""
    plan = [False] * deploys
    kills = min(kills, deploys)
    for kill in range(kills):
        plan[(2 * kill + 1) * deploys // (2 * kills)] = True
    return plan


def _in_words(gap: Gaps) -> str:
    return f"{gap['p50']:.1f} ms in the middle, {gap['p99']:.1f} ms at p99, {gap['max']:.1f} ms at worst"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"
