"""A campaign on real processes: nodes and Redis die at random moments under load, and applications count what they get.

Run it from the root of the repository::

    python -m tests.real.chaos --kills 200 --redis-restarts 50 --store both --seed 7

Two places, each with a node that a supervisor starts again whenever it ends; 30 clients and 4 workers that talk all the time
and know both places; one store. A deck of moves is shuffled from the seed: SIGKILL, SIGTERM, both nodes, a node while it
drains, its successor, a node while it starts, Redis alone, Redis with a node, Redis under a drain. (With the store `sentinel`
a death of Redis is a failover to a replica, which then has all that was acked.) Moments are random. Now and then the
parties fall silent, and everything that was ever said must have arrived: once, and in order. The seed gives the same moves
at the same planned moments; what the processes make of them is theirs. A failure leaves its directory behind: the time line
of all that was done and seen, the account of every session, and the logs of the nodes.
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from signald.demo.judge import spread
from signald.sdk.events import LogLost, Replaced
from tests.real.harness import Chatter, Settings, Talk, open_nodes, open_talk
from tests.real.places import Broken, Chronicle, Place
from tests.real.watched import ACK_REPLICA, Watched, watched
from tests.store.redis_servers import Server, servers

TIME_LINE = "timeline.txt"
SETTLE_EVERY = 25
"""Moves between two looks at whether everything has arrived."""
SETTLE_S = 60.0
NOTABLE_S = 5.0
"""A wait that is worth a line, of the first party that has it."""
STALL_S = 45.0
"""A question unanswered for so long is a session that has stopped, whatever was done to the nodes."""
# With budgets that outlast an outage of everything: no worker is to be given up here, as all of them live.
SETTINGS: Settings = {
    "drain": {
        "timeout_s": 50.0,
        "successor_timeout_s": 2.0,
        "worker_timeout_s": 40.0,
        "client_timeout_s": 40.0,
        "stop_timeout_s": 130.0,
    },
    "worker": {"resume_timeout_s": 120.0},
    # Slow enough for something to happen while a node drains.
    "pace": {"sessions_per_s": 20.0},
}


@frozen
class Plan:
    """One campaign on one store."""

    store: str
    kills: int
    redis_restarts: int
    seed: int
    sessions: int = 30
    workers: int = 4
    interval_s: float = 0.4
    """Between two bursts of questions of one client."""
    burst: int = 3
    """Questions asked at once: whatever happens, happens while many are under way."""
    pause_s: float = 2.6
    """Between two moves, on the average."""


class Campaign:
    """See the module."""

    def __init__(self, plan: Plan, talk: Talk, places: tuple[Place, Place], redis: Server | Watched | None) -> None:
        self.chronicle = places[0].chronicle
        self.gaps_s: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
        """For each kind of move, and each of its times and each session: the longest wait for an answer after it."""
        self._plan = plan
        self._talk = talk
        self._places = places
        self._redis = redis
        self._rng = random.Random(plan.seed)
        self._latest = (0, "start")
        self._noted_at = 0.0
        node_moves: dict[Callable[[], Awaitable[None]], tuple[int, int]] = {
            # move: (its weight, its SIGKILLs)
            self._kill_one: (30, 1),
            self._kill_both: (8, 2),
            self._kill_one_after_the_other: (8, 2),
            self._kill_while_it_starts: (10, 2),
            self._kill_the_draining: (14, 1),
            self._kill_the_successor: (12, 1),
            self._drain_one: (14, 0),
            self._drain_both: (4, 0),
            self._hurry_a_drain: (4, 0),
        }
        redis_moves = [
            self._kill_while_redis_is_away,
            self._restart_redis,
            self._restart_redis_and_kill,
            self._restart_redis,
            self._restart_redis_under_a_drain,
        ]
        self._deck: list[Callable[[], Awaitable[None]]] = []
        restarts = plan.redis_restarts if redis else 0
        drawn_redis = [redis_moves[number % len(redis_moves)] for number in range(restarts)]
        kills = sum(move in (self._kill_while_redis_is_away, self._restart_redis_and_kill) for move in drawn_redis)
        while kills < plan.kills:
            (move,) = self._rng.choices(list(node_moves), [weight for weight, _ in node_moves.values()])
            self._deck.append(move)
            kills += node_moves[move][1]
        self._deck += drawn_redis
        self._rng.shuffle(self._deck)

    # --- moves ----------------------------------------------------------------------------------------------------

    def _pair(self) -> tuple[Place, Place]:
        first, second = self._rng.sample(self._places, 2)
        return first, second

    async def _moment(self, most_s: float) -> None:
        await trio.sleep(self._rng.uniform(0.0, most_s))

    async def _hit(self, place: Place) -> None:
        """SIGKILL, as soon as there is a node to be killed."""
        while not place.signal(signal.SIGKILL):  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.02)

    async def _kill_one(self) -> None:
        await self._hit(self._rng.choice(self._places))

    async def _kill_both(self) -> None:
        for place in self._pair():
            await self._hit(place)

    async def _kill_one_after_the_other(self) -> None:
        first, second = self._pair()
        await self._hit(first)
        await self._moment(1.5)
        await self._hit(second)

    async def _kill_while_it_starts(self) -> None:
        place = self._rng.choice(self._places)
        for _ in range(2):
            await self._hit(place)
            await self._moment(1.2)

    async def _kill_the_draining(self) -> None:
        place = self._rng.choice(self._places)
        place.signal(signal.SIGTERM)
        await self._moment(1.5)
        await self._hit(place)

    async def _kill_the_successor(self) -> None:
        draining, successor = self._pair()
        draining.signal(signal.SIGTERM)
        await self._moment(1.5)
        await self._hit(successor)

    async def _drain_one(self) -> None:
        self._rng.choice(self._places).signal(signal.SIGTERM)

    async def _drain_both(self) -> None:
        for place in self._pair():
            place.signal(signal.SIGTERM)
            await self._moment(1.0)

    async def _hurry_a_drain(self) -> None:
        place = self._rng.choice(self._places)
        for _ in range(self._rng.choice((2, 3))):
            place.signal(signal.SIGTERM)
            await self._moment(0.3)

    async def _restart_redis(self) -> None:
        redis = self._redis
        assert redis is not None
        await redis.kill()
        self.chronicle.count("Redis killed", "")
        await self._moment(self._rng.choice((0.0, 0.5, 2.0)))
        await redis.start()
        self.chronicle.note("Redis answers again")

    async def _kill_while_redis_is_away(self) -> None:
        """What a node has taken and not stored dies with it: it must not have been acked."""
        assert self._redis is not None
        await self._redis.kill()
        self.chronicle.count("Redis killed", "")
        await self._moment(0.4)
        await self._hit(self._rng.choice(self._places))
        await self._moment(1.0)
        await self._redis.start()
        self.chronicle.note("Redis answers again")

    async def _restart_redis_and_kill(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._restart_redis)
            await self._moment(0.7)
            await self._hit(self._rng.choice(self._places))

    async def _restart_redis_under_a_drain(self) -> None:
        self._rng.choice(self._places).signal(signal.SIGTERM)
        await self._moment(1.0)
        await self._restart_redis()

    # --- the course -----------------------------------------------------------------------------------------------

    async def run(self, until: float) -> None:
        """Make all moves of the deck, or as many as there is time for."""
        for number, move in enumerate(self._deck, start=1):
            if trio.current_time() > until:
                break
            name = move.__name__.strip("_").replace("_", " ")
            self._latest = (number, name)
            self.chronicle.count("move", f"{number}: {name}")
            await move()
            await trio.sleep(self._rng.uniform(0.3, 2 * self._plan.pause_s - 0.3))
            if number % SETTLE_EVERY == 0:
                await self._settle()
                self._talk.begin(self._plan.interval_s, self._plan.burst)
        await self._settle()

    async def _settle(self) -> None:
        self.chronicle.note("everybody falls silent")
        await self._talk.settle(SETTLE_S)
        for chatter in self._talk.chatters:
            if chatter.saw(LogLost) or chatter.saw(Replaced) or len(chatter.ledger.workers) != 1:
                raise Broken(f"{chatter.ledger.name} lost its worker or its log:\n{self._talk.account()}")
        self.chronicle.note("all has arrived")

    async def watch(self) -> None:
        """See that no party waits for ever, and that nothing comes twice: at once, not at the end."""
        while True:
            await trio.sleep(0.5)
            now = trio.current_time()
            for chatter in self._talk.chatters:
                ledger = chatter.ledger
                if ledger.asked_at and now - next(iter(ledger.asked_at.values())) > STALL_S:
                    raise Broken(f"{ledger.name} has waited for {STALL_S} s:\n{self._talk.account()}")
                if any(numbers.duplicated or numbers.reordered for numbers in (ledger.questions, ledger.replies)):
                    raise Broken(f"{ledger.name} got something twice or out of order:\n{self._talk.account()}")

    def heard(self, chatter: Chatter, asked_at: float) -> None:
        """An answer has come."""
        number, name = self._latest
        key = (number, chatter.ledger.name)
        waited_s = trio.current_time() - asked_at
        self.gaps_s[name][key] = max(self.gaps_s[name].get(key, 0.0), waited_s)
        if waited_s > NOTABLE_S and trio.current_time() > self._noted_at + NOTABLE_S:
            self._noted_at = trio.current_time()
            self.chronicle.note(f"{chatter.ledger.name} has waited for {waited_s:.1f} s")

    async def end(self) -> None:
        """Say goodbye; the nodes end as they are asked to, and nothing is left in the store."""
        async with trio.open_nursery() as nursery:
            for chatter in self._talk.chatters:
                nursery.start_soon(chatter.client.bye, "the end")
        for place in self._places:
            place.closing = True
            while place.node is not None and place.node.process.poll() is None:
                if place.ready and not place.sent:
                    place.signal(signal.SIGTERM)
                await trio.sleep(0.05)

    def figures(self) -> dict[str, object]:
        """What came of it."""
        directions = [
            one for chatter in self._talk.chatters for one in (chatter.ledger.questions, chatter.ledger.replies)
        ]
        kinds = {name: spread(gaps.values()) for name, gaps in sorted(self.gaps_s.items())}
        counts = self.chronicle.counts
        return {
            "store": self._plan.store,
            "seed": self._plan.seed,
            "moves": counts["move"],
            "kills": counts["SIGKILL"],
            "terms": counts["SIGTERM"],
            "redis_restarts": counts["Redis killed"],
            "node_starts": sum(place.starts for place in self._places),
            "sessions": len(self._talk.chatters),
            "messages": sum(one.sent for one in directions),
            "lost": sum(one.lost for one in directions),
            "duplicated": sum(one.duplicated for one in directions),
            "reordered": sum(one.reordered for one in directions),
            "gap_ms": spread(gap for gaps in self.gaps_s.values() for gap in gaps.values()),
            "gap_ms_after": kinds,
        }


@asynccontextmanager
async def store_of(kind: str, directory: Path) -> AsyncIterator[tuple[str, Server | Watched | None]]:
    """A store that keeps what it has acked; it must be whole at the end, and hold no session."""
    if kind == "redis":
        redis = Server(directory / "redis", "--appendonly", "yes", "--appendfsync", "always")
        async with servers(redis):
            yield redis.url, redis
            left = left_in(redis)
    elif kind == "sentinel":
        async with watched(directory / "redis") as three:
            yield three.url, three
            left = left_in(three)
    else:
        file = directory / "store.db"
        yield f"sqlite:{file}", None
        with closing(sqlite3.connect(file)) as database:
            checked = database.execute("PRAGMA integrity_check").fetchall()
            if checked != [("ok",)]:
                raise Broken(f"the database is not whole: {checked}")
            nowhere = "history WHERE session NOT IN (SELECT session FROM past)"
            left = [rows for rows in ("session", "entry", "place", nowhere) if _rows(database, rows)]
    if left:
        raise Broken(f"after the end of all sessions the store still holds {left}")


PAST = b"P"
"""How the history of a session begins that has ended, as `keep_history` of session.lua writes it."""

OUTLIVE = (b":trail", b":jobs", b":pieces", b":events")


def left_in(redis: Server | Watched) -> list[str]:
    """What still speaks of sessions: all but trails, jobs, events and kept histories, which outlive them for a while that is set."""
    keys: list[bytes] = redis.ask("KEYS", "signald:{s_*")
    return [key.decode() for key in keys if not _outlives(redis, key) or redis.ask("PTTL", key) < 0]


def _outlives(redis: Server | Watched, key: bytes) -> bool:
    if key.endswith(b":history"):
        return bool((redis.ask("LINDEX", key, 0) or b"")[:1] == PAST)
    return key.endswith(OUTLIVE)


def _rows(database: sqlite3.Connection, rows: str) -> int:
    return int(database.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])


async def play(plan: Plan, directory: Path, within_s: float) -> dict[str, object]:
    """Carry a campaign out, and return its figures. Raises what broke, with the time line in `directory`."""
    chronicle = Chronicle()
    rng = random.Random(plan.seed)
    settings: Settings = {**SETTINGS, "node": {"lease_ttl_s": rng.choice((2.0, 5.0, 10.0))}}
    if plan.store == "sentinel":
        settings |= ACK_REPLICA
    chronicle.note(f"{plan} {settings}")
    try:
        async with store_of(plan.store, directory) as (url, redis), open_nodes(directory, url, settings) as nodes:
            places = tuple(Place(name, nodes, chronicle, rng.random() < 0.5) for name in ("left", "right"))
            assert len(places) == 2
            async with open_talk(within_s + 4 * SETTLE_S) as talk, trio.open_nursery() as nursery:
                campaign = Campaign(plan, talk, places, redis)
                for place in places:
                    nursery.start_soon(place.run)
                await _populate(plan, talk, campaign, places)
                watching = await nursery.start(_scoped, campaign.watch)
                talk.begin(plan.interval_s, plan.burst)
                await campaign.run(trio.current_time() + within_s)
                watching.cancel(reason="nobody asks any more")
                figures = campaign.figures()
                await campaign.end()
            return figures
    except Exception:
        chronicle.note(traceback.format_exc())
        raise
    finally:
        (directory / TIME_LINE).write_text("\n".join(chronicle.lines) + "\n")


async def _scoped(
    run: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await run()


async def _populate(plan: Plan, talk: Talk, campaign: Campaign, places: tuple[Place, Place]) -> None:
    urls = [place.address.url for place in places]
    for n in range(plan.workers):
        await talk.worker(f"worker {n}", urls[n % 2], urls[1 - n % 2], capacity=plan.sessions)
    for n in range(plan.sessions):
        # Every other one stands where its worker does, more or less: the matchmaker decides.
        chatter = await talk.client(f"client {n}", urls[n // 2 % 2], urls[1 - n // 2 % 2])
        chatter.on_answer = partial(campaign.heard, chatter)


def main() -> int:
    """Run; the status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs in all, shared among the stores")
    parser.add_argument("--redis-restarts", type=int, default=50)
    parser.add_argument("--store", choices=("sqlite", "redis", "sentinel", "both"), default="both")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="make no further moves after that time, for each store"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="otherwise a random one")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    parser.add_argument("--keep", action="store_true", help="keep the time line and the logs of what went well, too")
    options = parser.parse_args()
    stores = ("sqlite", "redis") if options.store == "both" else (options.store,)
    results, broken = [], 0
    for number, store in enumerate(stores):
        share = options.kills // len(stores) + (number < options.kills % len(stores))
        plan = Plan(store, share, options.redis_restarts, options.seed)
        directory = Path(tempfile.mkdtemp(prefix=f"chaos-{store}-{options.seed}-"))
        began = time.monotonic()
        try:
            figures = trio.run(play, plan, directory, options.minutes * 60)
        except Exception:
            traceback.print_exc()
            print(f"seed {options.seed} on {store} failed: see {directory}/{TIME_LINE}", file=sys.stderr)
            broken += 1
            continue
        if not options.keep:
            shutil.rmtree(directory)
        figures["seconds"] = round(time.monotonic() - began)
        results.append(figures)
        if not options.json:
            print(*(f"{name}: {value}" for name, value in figures.items()), sep="\n", flush=True)
    if options.json:
        print(json.dumps({"campaigns": results, "broken": broken}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
