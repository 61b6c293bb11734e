"""Two real nodes and a core server that is slow, mute, down, cut, lying, putting off and flooding in turns, through deploys and a kill.

    python -m tests.real.core_server [--store sqlite|redis] [--seconds 60] [--seed N] [--policy without closed open] [--keep]

Clients and workers talk all the time, and guests come and go. Nodes are stopped as in a deploy, and now and then killed, while the core
server (`moody_core`, a process of its own) goes through its moods. Then it is well, all parties leave, and it must have been told
everything. With the policies `closed` and `open` each new party is asked for as well (`core.authorize_url`), under `core.on_failure` of
that name; `without` has no core server at all, and is what the longest round trip of the others stands beside.

Judged: no round trip of a session above 1 s; each event told, in order, signed by both secrets (`core_notes`); a guest gets in without a
yes only where the policy is open, and where it is open none is refused. The status is 1 when one of these is broken.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Literal, get_args

import trio
from attrs import define, field, frozen

from signald.demo.cluster import free_port
from signald.demo.judge import Gaps, spread
from tests.real.chaos import store_of
from tests.real.core_notes import Expected, Judge, admitted_unasked, read_notes
from tests.real.harness import Chatter, Settings, Talk, open_nodes, open_talk, probe, until
from tests.real.moody_core import AUTHORIZE, EVENTS, HOST, MOODS, WELL
from tests.real.places import Chronicle, Place

Policy = Literal["without", "closed", "open"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

SECRETS = ("whsec_" + "bmV3LXNlY3JldC1vZi10aGUtY29yZS0wMDE=", "whsec_" + "b2xkLXNlY3JldC1vZi10aGUtY29yZS0wMDI=")
"""The present one and the previous one: the nodes rotate all the time."""
TOKEN = "a token of thirty-two characters"

ROUND_TRIP_S = 1.0
"""What the issue allows: below every time-out of a core server, so a session that waits for one is found."""

TELL_S = 40.0
"""What telling the rest may take once the core server is well: the lease of a killed node, 8 s, and the events of all sessions."""

METRIC = "signald_core_unanswered_total"
UNANSWERED = ("turned_away", "let_in")
"""What a node counts where the core server has no answer about a new party."""

SETTINGS: Settings = {
    "admin": {"token": TOKEN, "socket": "off"},
    "worker": {"resume_timeout_s": 5.0},
    "session": {"resume_ttl_s": 30.0},
}


@frozen
class Plan:
    """One run."""

    store: str
    policy: Policy
    seconds: float
    seed: int
    sessions: int = 12
    workers: int = 3
    guests: int = 3
    interval_s: float = 0.4
    kills: int = 1


@define
class Result:
    """What came of a run."""

    policy: Policy
    round_trips_ms: Gaps
    opening_ms: Gaps
    """How long guests waited until they were in, and had a worker."""
    counts: dict[str, int]
    by_mood: dict[str, int]
    wrong: list[str]


@define
class CoreProcess:
    """The core server."""

    process: trio.Process
    port: int
    notes: Path
    mood: str = WELL

    async def be(self, mood: str) -> None:
        """Change its mood."""
        assert self.process.stdin is not None
        self.mood = mood
        await self.process.stdin.send_all(f"{mood}\n".encode())

    def section(self, policy: Policy) -> dict[str, object]:
        """The section `[core]` of a node that it serves."""
        url = f"http://{HOST}:{self.port}"
        secret, previous = SECRETS
        section: dict[str, object] = {
            "events_url": url + EVENTS,
            "events_timeout_s": 2.0,
            "secret": secret,
            "secret_previous": previous,
        }
        if policy == "without":
            return {}
        return {**section, "authorize_url": url + AUTHORIZE, "on_failure": policy, "breaker_pause_s": 0.5}


@asynccontextmanager
async def core_process(directory: Path, seed: int) -> AsyncIterator[CoreProcess]:
    """A core server for the time of the block."""
    port, notes = free_port(), directory / "core.notes"
    notes.touch()
    command = ["nice", sys.executable, "-m", "tests.real.moody_core", str(port), str(notes), str(seed)]
    with (directory / "core.log").open("wb") as log:
        process: trio.Process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
        )
    try:
        with trio.fail_after(30):
            while not await _listens(port):  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(0.02)
        yield CoreProcess(process, port, notes)
    finally:
        process.kill()
        with trio.move_on_after(10, shield=True):
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        await trio.aclose_forcefully(await trio.open_tcp_stream(HOST, port))
    except OSError:
        return False
    return True


@define
class Run:
    """See the module."""

    plan: Plan
    talk: Talk
    core: CoreProcess
    places: Sequence[Place]
    rng: random.Random
    round_trips_s: list[float] = field(factory=list)
    openings_s: list[float] = field(factory=list)
    guests: dict[str, str] = field(factory=dict)
    """The session of each guest that got in → its name."""
    sessions: set[str] = field(factory=set)
    late: list[str] = field(factory=list)
    unanswered: dict[tuple[str, str], int] = field(factory=dict)
    """Node and outcome → new parties for which the core server had no answer, as far as they were read."""
    _coming: bool = True
    _visiting: int = 0

    @property
    def chronicle(self) -> Chronicle:
        """The time line."""
        return self.places[0].chronicle

    # --- parties ----------------------------------------------------------------------------------------------------

    def heard(self, name: str, asked_at: float) -> None:
        """An answer has come."""
        took_s = trio.current_time() - asked_at
        self.round_trips_s.append(took_s)
        if took_s > ROUND_TRIP_S:
            said = f"{name} waited {took_s:.2f} s, the core server being {self.core.mood}"
            self.late.append(said)
            self.chronicle.note(said)

    async def populate(self) -> None:
        """Let the lasting parties in."""
        urls = [place.address.url for place in self.places]
        for n in range(self.plan.workers):
            await self.talk.worker(f"worker {n}", urls[n % 2], urls[1 - n % 2], capacity=40)
        for n in range(self.plan.sessions):
            chatter = await self.talk.client(f"client {n}", urls[n // 2 % 2], urls[1 - n // 2 % 2])
            chatter.on_answer = partial(self.heard, f"client {n}")
            self.sessions.add(chatter.client.session)

    async def visit(self, number: int) -> None:
        """One guest after the other: it comes in, asks one question, and goes."""
        urls = [place.address.url for place in self.places]
        count = 0
        self._visiting += 1
        while self._coming:
            count += 1
            name = f"guest {number}.{count}"
            began = trio.current_time()
            with trio.CancelScope() as leaving:
                chatter = await self.talk.client(name, urls[count % 2], urls[1 - count % 2])
                # What it asks before it has a worker waits for one, which in a deploy is no matter of the core server.
                await until(lambda one=chatter: one.client.peer_state == "paired", 20, f"{name} has a worker")
                self.openings_s.append(trio.current_time() - began)
                self.guests[chatter.client.session] = name
                self.sessions.add(chatter.client.session)
                chatter.on_answer = partial(self.heard, name)
                await chatter.ask()
                await until(lambda one=chatter: one.answered == 1, 20, f"{name} is answered")
                await self._take_leave(chatter)
            assert not leaving.cancelled_caught
            await trio.sleep(self.rng.uniform(0.3, 1.0))
        self._visiting -= 1

    async def _take_leave(self, chatter: Chatter) -> None:
        self.talk.chatters.remove(chatter)
        await chatter.client.bye("the end")

    # --- what happens -----------------------------------------------------------------------------------------------

    async def moods(self) -> None:
        """Go through the moods again and again, in an order of the seed, with a moment of health between."""
        spell_s = min(3.0, self.plan.seconds / (len(MOODS) + 1) * 0.8)
        while True:
            for mood in self.rng.sample(MOODS, len(MOODS)):
                self.chronicle.note(f"the core server is {mood}")
                await self.core.be(mood)
                # What waits is tried in each mood, and not only in the one that made it wait for minutes.
                await self.retry()
                await trio.sleep(spell_s * self.rng.uniform(0.8, 1.2))
                await self.core.be(WELL)
                await trio.sleep(spell_s * 0.25)

    async def moves(self) -> None:
        """Stop one node after the other, each when the one before it is back; some of them as a power cut does."""
        number = 0
        while True:
            place = self.places[number % 2]
            # In the middle of the run, so that one killed node's leases are taken up within it.
            kill = number in range(1, 1 + 2 * self.plan.kills, 2)
            await self._move(place, SIGKILL if kill else SIGTERM)
            number += 1
            await trio.sleep(self.rng.uniform(0.2, 1.0))

    async def _move(self, place: Place, number: Signals) -> None:
        # The other one must have been its successor for a moment: parties know it by its address, and the store by its lease.
        await until(lambda: all(one.ready for one in self.places), 30, "both nodes are ready")
        node = place.node
        place.signal(number)
        await until(lambda: place.node is not node, 60, "there is another node")

    async def read_metrics(self) -> None:
        """Read again and again how many parties each node has turned away or let in without an answer; nodes come and go."""
        while True:
            for place in self.places:
                if place.ready and place.node is not None:
                    _, text = await probe(place.node, "/metrics")
                    for outcome in UNANSWERED:
                        if (
                            found := re.search(rf"^{METRIC}{{[^}}]*\"{outcome}\"}} (\S+)$", text, re.MULTILINE)
                        ) is not None:
                            self.unanswered[place.node.name, outcome] = int(float(found[1]))
            await trio.sleep(0.5)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def end(self) -> Expected:
        """All leave, the core server is well, and nothing is left to be told; return what it must have been told."""
        await self.core.be(WELL)
        await until(lambda: all(one.ready for one in self.places), 30, "both nodes are ready")
        self._coming = False
        await until(lambda: not self._visiting, 60, "the last guest has gone")
        await self.talk.settle(30)
        workers = [worker.worker for worker in self.talk.workers]
        for chatter in list(self.talk.chatters):
            await self._take_leave(chatter)
        for worker in self.talk.workers:
            await worker.leave("the end")
        deploys = [line.split()[1] for line in self.chronicle.lines if line.endswith(" ended with 0")]
        return Expected(self.sessions, workers, deploys)

    async def told(self, expected: Expected) -> Judge:
        """Wait until everything was told, and judge it."""
        judge = Judge(SECRETS)
        with trio.move_on_after(TELL_S):
            while True:
                await self.retry()
                judge = Judge(SECRETS)
                judge.read(read_notes(self.core.notes))
                if not judge.taken(expected):
                    break
                await trio.sleep(0.5)
        return judge

    async def retry(self) -> None:
        """End the pauses of what waits, as `signald ctl events retry` does, at each node that is there."""
        for place in self.places:
            await trio.to_thread.run_sync(_retry, place.address.http)


def _retry(port: int) -> None:
    url = f"http://{HOST}:{port}/v1/admin/events/retry"
    request = urllib.request.Request(url, b"", {"authorization": f"Bearer {TOKEN}"}, method="POST")
    # A node that starts or stops has no answer, and the one beside it has.
    with suppress(OSError, HTTPException), urllib.request.urlopen(request, timeout=2) as answer:
        answer.read()


async def play(plan: Plan, directory: Path) -> Result:
    """Carry a run out. Raises what broke on the way; what the judges find is in the result."""
    chronicle, rng = Chronicle(), random.Random(plan.seed)
    try:
        async with core_process(directory, plan.seed) as core, store_of(plan.store, directory) as (url, _):
            section = core.section(plan.policy)
            settings = {**SETTINGS, **({"core": section} if section else {})}
            async with open_nodes(directory, url, settings) as nodes:
                places = [Place(name, nodes, chronicle, keeps_its_id=False) for name in ("left", "right")]
                async with open_talk(plan.seconds + 240) as talk, trio.open_nursery() as nursery:
                    run = Run(plan, talk, core, places, rng)
                    for place in places:
                        nursery.start_soon(place.run)
                    await run.populate()
                    talk.begin(plan.interval_s)
                    await talk.goes_on(3)
                    run.round_trips_s.clear()
                    async with trio.open_nursery() as visits:
                        for n in range(plan.guests):
                            visits.start_soon(run.visit, n)
                        with trio.move_on_after(plan.seconds):
                            async with trio.open_nursery() as troubles:
                                troubles.start_soon(run.moods)
                                troubles.start_soon(run.moves)
                                troubles.start_soon(run.read_metrics)
                        expected = await run.end()
                    judge = await run.told(expected) if plan.policy != "without" else Judge(SECRETS)
                    for place in places:
                        place.closing = True
                        place.signal(SIGTERM)
                    return judged(run, judge, expected)
    except Exception:
        chronicle.note(traceback.format_exc())
        raise
    finally:
        (directory / "timeline.txt").write_text("\n".join(chronicle.lines) + "\n")


def sum_of(run: Run, outcome: str) -> int:
    """Return how often all nodes together came to `outcome`, as far as that was read."""
    return sum(count for (_, name), count in run.unanswered.items() if name == outcome)


def judged(run: Run, judge: Judge, expected: Expected) -> Result:
    """Put the verdicts together."""
    plan, wrong = run.plan, list(judge.wrong)
    unasked: list[str] = []
    if plan.policy != "without":
        wrong += judge.taken(expected)
        unasked = admitted_unasked(read_notes(run.core.notes), run.guests)
    if plan.policy == "closed":
        wrong += [f"{run.guests[session]} was let in without a yes" for session in unasked]
    if plan.policy == "open" and (turned := sum_of(run, "turned_away")):
        wrong.append(f"{turned} parties were turned away")
    counts = run.chronicle.counts
    return Result(
        plan.policy,
        spread(run.round_trips_s),
        spread(run.openings_s),
        {
            "deploys": len(expected.deploys),
            "kills": counts["SIGKILL"],
            "sessions": len(expected.sessions),
            "guests": len(run.guests),
            "guests let in without a yes": len(unasked),
            **{name.replace("_", " "): sum_of(run, name) for name in UNANSWERED},
            "questions": judge.questions,
            "attempts": judge.attempts,
            "events": sum(len(told) for told in judge.told.values()),
            "late round trips": len(run.late),
        },
        dict(judge.by_mood),
        wrong,
    )


def main() -> int:
    """Run; the status is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.real.core_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", choices=("sqlite", "redis"), default="redis")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each policy")
    parser.add_argument("--policy", choices=POLICIES, nargs="+", default=list(POLICIES))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="otherwise a random one")
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep notes and logs of what went well, too")
    options = parser.parse_args()
    broken = 0
    for policy in options.policy:
        plan = Plan(options.store, policy, options.seconds, options.seed, kills=options.kills)
        directory = Path(tempfile.mkdtemp(prefix=f"core-{policy}-{options.seed}-"))
        try:
            result = trio.run(play, plan, directory)
        except Exception:
            traceback.print_exc()
            print(f"seed {options.seed} with {policy} failed: see {directory}", file=sys.stderr)
            broken += 1
            continue
        show(result)
        # Without a core server it is the machine and the deploys alone: the line that the others stand beside.
        late = policy != "without" and result.counts["late round trips"]
        if result.wrong or late:
            broken += 1
            print(f"BROKEN, seed {options.seed}: see {directory}")
        elif not options.keep:
            shutil.rmtree(directory)
    return 1 if broken else 0


def show(result: Result) -> None:
    """Print what came of a run."""
    print(f"{result.policy}: longest round trip {result.round_trips_ms['max']:.0f} ms", end=", ")
    print(f"round trips ms {json.dumps(result.round_trips_ms)}, guests' way in ms {json.dumps(result.opening_ms)}")
    print("  " + ", ".join(f"{name} {count}" for name, count in result.counts.items()))
    print("  requests by mood: " + ", ".join(f"{mood} {count}" for mood, count in sorted(result.by_mood.items())))
    for line in result.wrong[:20]:
        print(f"  WRONG {line}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
