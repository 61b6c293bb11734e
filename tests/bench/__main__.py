"""`python -m tests.bench relay|idle|accept|drain|pairing|jobs|rooms|streams|sdk|blobs|late_joiner|guard`."""

import os
import sys
from typing import Annotated

from cyclopts import App, Parameter

from tests.bench import accept as accept_bench
from tests.bench import blobs as blobs_bench
from tests.bench import drain as drain_bench
from tests.bench import guard as guard_bench
from tests.bench import idle as idle_bench
from tests.bench import jobs as jobs_bench
from tests.bench import late_joiner as late_joiner_bench
from tests.bench import pairing as pairing_bench
from tests.bench import relay as relay_bench
from tests.bench import report
from tests.bench import rooms as rooms_bench
from tests.bench import sdk as sdk_bench
from tests.bench import streams as streams_bench
from tests.bench.errors import BenchError
from tests.bench.sdk_party import Slices
from tests.bench.servers import SEALING, SERVERS, Cores

app = App(
    name="python -m tests.bench",
    help="Benchmarks of signald beside baselines.",
    default_parameter=Parameter(negative="", consume_multiple=True),
)


def pinned() -> Cores:
    """Put this process, the load generator, on its core."""
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    return cores


def _known(_: type, names: tuple[str, ...]) -> None:
    if unknown := set(names) - {*SERVERS, *SEALING}:
        raise ValueError(f"{', '.join(sorted(unknown))}: not one of {', '.join((*SERVERS, *SEALING))}")


Servers = Annotated[tuple[str, ...], Parameter(validator=_known)]


@app.command
def relay(
    *,
    pairs: tuple[int, ...] = (1, 50, 500),
    sizes: Annotated[tuple[int, ...], Parameter(name="--bytes")] = (128, 4096),
    window: tuple[int, ...] = (1, 16),
    seconds: float = 1.0,
    slices: int = 5,
    servers: Servers = SERVERS,
    history: bool = False,
    json: bool = False,
) -> None:
    """Round trips per second and server CPU, client to worker and back.

    Parameters
    ----------
    pairs
        Clients, each with its worker.
    sizes
        Bytes of the application's data in each message.
    window
        Messages under way in each pair.
    seconds
        Length of one slice; the first slice of each scenario is a warm-up.
    slices
        Slices of which the median is shown.
    history
        Let the messages be part of the chat history, which signald then keeps too.
    """
    cores = pinned()
    rows = list(relay_bench.run(cores, servers, pairs, sizes, window, seconds, slices, history=history))
    report.show("relay", {"round trips": rows}, as_json=json)


@app.command
def idle(
    *,
    sessions: int = 2000,
    per_worker: int = 10,
    servers: Servers = SERVERS,
    json: bool = False,
) -> None:
    """Memory of an idle session."""
    cores = pinned()
    rows = [idle_bench.scenario(name, cores, sessions, per_worker) for name in servers]
    report.show("idle", {"memory": rows}, as_json=json)


@app.command
def accept(
    *,
    sessions: int = 1000,
    in_flight: int = 64,
    rounds: int = 3,
    servers: Servers = SERVERS[1:],
    json: bool = False,
) -> None:
    """New sessions and resumes per second."""
    cores = pinned()
    rows = [row for name in servers for row in accept_bench.scenario(name, cores, sessions, in_flight, rounds)]
    report.show("accept", {"set-ups": rows}, as_json=json)


@app.command
def drain(
    *,
    sessions: int = 2000,
    workers: int = 100,
    rate: float = 0.25,
    size: Annotated[int, Parameter(name="--bytes")] = 128,
    seconds: float = 10.0,
    servers: Servers = ("signald-redis",),
    json: bool = False,
) -> None:
    """One deploy under load: gaps, claims, seconds, and latency before and during it.

    Parameters
    ----------
    rate
        Messages per second of each client; each is echoed.
    seconds
        Steady traffic before the deploy and after it.
    """
    cores = pinned()
    seen = [drain_bench.scenario(name, cores, sessions, workers, rate, size, seconds) for name in servers]
    moves = [row for one in seen for row in one.moves]
    latencies = [row for one in seen for row in one.latencies]
    report.show("drain", {"moves": moves, "latency": latencies}, as_json=json)


@app.command
def sdk(*, turns: int = 5, slices: int = 3, trips: int = 1000, reconnects: int = 100, json: bool = False) -> None:
    """CPU of a round trip and of a reconnect in the process of one party: the SDK on Trio and asyncio, and bare websockets.

    Parameters
    ----------
    turns
        How often each client runs, one after the other.
    slices
        Slices of one turn, of which the median over all turns is shown.
    trips, reconnects
        Of one slice.
    """
    cores = pinned()
    rows = sdk_bench.run(cores, turns, Slices(slices, trips, reconnects))
    report.show("sdk", {"one party": rows}, as_json=json)


@app.command
def pairing(
    *,
    labels: int = 1000,
    waiting: int = 20_000,
    workers: int = 200,
    rounds: int = 100,
    stores: tuple[str, ...] = pairing_bench.STORES,
    json: bool = False,
) -> None:
    """A pass of the matchmaker and a suitable pair, beside sessions that no worker with room suits.

    Parameters
    ----------
    labels
        Different wants of the sessions that wait.
    waiting
        Sessions that wait; the baseline has 500.
    rounds
        Passes and pairs of which the median is shown.
    """
    pinned()
    rows = [row for name in stores for row in pairing_bench.scenario(name, labels, waiting, workers, rounds)]
    report.show("pairing", {"passes": rows}, as_json=json)


@app.command
def jobs(
    *,
    clients: int = 32,
    workers: int = 4,
    seconds: float = 2.0,
    slices: int = 5,
    servers: Servers = ("signald-redis", "signald-memory"),
    json: bool = False,
) -> None:
    """Jobs per second over HTTP, with their results at the client over its WebSocket.

    Parameters
    ----------
    clients
        Clients, each with one job under way.
    seconds
        Length of one slice; the first is a warm-up.
    slices
        Slices of which the median is shown.
    """
    cores = pinned()
    rows = [row for name in servers for row in jobs_bench.scenario(name, cores, clients, workers, seconds, slices)]
    rows.append(jobs_bench.baseline(cores, clients, seconds, slices))
    report.show("jobs", {"jobs": rows}, as_json=json)


@app.command
def rooms(
    *,
    members: tuple[int, ...] = (1, 100, rooms_bench.MANY),
    nodes: tuple[int, ...] = (1, 2),
    window: tuple[int, ...] = (1, 128),
    seconds: float = 1.0,
    rounds: int = 5,
    servers: tuple[str, ...] = rooms_bench.SYSTEMS,
    json: bool = False,
) -> None:
    """Messages delivered to the members of a room; the status is 1 when signald delivers fewer than it must.

    Parameters
    ----------
    members
        Members of the room, beside the publisher.
    nodes
        Nodes that share the members.
    window
        Publications under way.
    seconds
        Length of one turn of a server; its first one warms up.
    rounds
        Turns of which the median is shown.
    """
    cores = pinned()
    rows = [
        row for count in nodes for row in rooms_bench.scenario(cores, servers, count, members, window, seconds, rounds)
    ]
    limits, broken = rooms_bench.judge(rows)
    report.show("rooms", {"delivered": rows, "limits": limits}, as_json=json)
    if broken:
        sys.exit(1)


@app.command
def streams(
    *,
    sessions: int = 8,
    seconds: float = 2.0,
    slices: int = 5,
    tokens: int = 9000,
    quick: bool = False,
    servers: Servers = ("signald-redis",),
    json: bool = False,
) -> None:
    """Pieces per second of streams, and what an answer costs; the status is 1 when that is more than it may be.

    Parameters
    ----------
    sessions
        Sessions of the one worker, each with its client.
    seconds
        Length of one slice; the first is a warm-up.
    slices
        Slices of which the median is shown.
    tokens
        Length of the answer, which is said at 150 tokens per second, twice.
    quick
        An answer of 1,500 tokens, and short slices.
    """
    cores = pinned()
    if quick:
        seconds, slices, tokens = min(seconds, 0.5), min(slices, 3), min(tokens, 1500)
    rates: list[report.Row] = []
    answers: list[report.Row] = []
    limits: list[report.Row] = []
    broken = False
    for name in servers:
        rates += streams_bench.throughput(name, cores, sessions, seconds, slices)
        rows, verdicts, exceeded = streams_bench.shape(name, cores, tokens, streams_bench.RATE)
        answers, limits, broken = answers + rows, limits + verdicts, broken or exceeded
    report.show("streams", {"pieces": rates, "one answer": answers, "limits": limits}, as_json=json)
    if broken:
        sys.exit(1)


@app.command
def blobs(
    *,
    at_once: int = 20,
    mib: float = 10.0,
    seconds: float = 5.0,
    rounds: int = 3,
    servers: Servers = ("signald-sqlite",),
    json: bool = False,
) -> None:
    """Memory and loop lag of a node that carries large blobs both ways; the status is 1 when one is more than it may be.

    Parameters
    ----------
    at_once
        Uploads, and then downloads, under way at a time; so many sessions talk beside.
    mib
        MiB of each.
    seconds
        Length of the steady state before.
    rounds
        How often all upload and download.
    """
    cores = pinned()
    load = blobs_bench.Load(at_once, round(mib * blobs_bench.MIB), seconds, rounds)
    carried: list[report.Row] = []
    limits: list[report.Row] = []
    broken = False
    for name in servers:
        phases = blobs_bench.measure(name, cores, load)
        carried += blobs_bench.rows_of(name, phases, load.size)
        rows, exceeded = blobs_bench.judge(phases)
        limits, broken = [*limits, *rows], broken or exceeded
    report.show("blobs", {"carried": carried, "limits": limits}, as_json=json)
    if broken:
        sys.exit(1)


@app.command(name="late_joiner")
def late_joiner(
    *,
    records: int = 10_000,
    record_bytes: int = 600,
    sessions: int = 20,
    joins: int = 10,
    seconds: float = 10.0,
    servers: Servers = ("signald-redis",),
    json: bool = False,
) -> None:
    """Join a large room that goes on: memory of the node and latency of others; the status is 1 when one is more than it may be.

    Parameters
    ----------
    records
        Records of the room.
    record_bytes
        Bytes of each.
    sessions
        Sessions that talk beside.
    joins
        Members that join, one after the other.
    seconds
        Length of the steady state before.
    """
    cores = pinned()
    load = late_joiner_bench.Load(records, record_bytes, sessions, joins, seconds)
    seen: list[report.Row] = []
    limits: list[report.Row] = []
    broken = False
    for name in servers:
        phases, answers, drawer = late_joiner_bench.measure(name, cores, load)
        seen += late_joiner_bench.rows_of(name, phases, answers)
        rows, exceeded = late_joiner_bench.judge(phases, late_joiner_bench.wrong(answers, drawer.records_at))
        limits, broken = [*limits, *rows], broken or exceeded
    report.show("late_joiner", {"joins": seen, "limits": limits}, as_json=json)
    if broken:
        sys.exit(1)


@app.command
def guard(*, against: str, pairs: int | None = None, quick: bool = False, json: bool = False) -> None:
    """Compare what this tree costs with what a commit costs; the status is 1 when it is more than it may be.

    Parameters
    ----------
    against
        The commit.
    pairs
        Pairs of runs: 15, or 3 with `--quick`.
    quick
        Small loads: whether it works at all, not what anything costs.
    """
    cores = pinned()
    load, count = (guard_bench.QUICK, 3) if quick else (guard_bench.FULL, 15)
    rows, exceeded = guard_bench.run(cores, against, pairs if pairs is not None else count, load)
    report.show("guard", {f"this tree against {against}": rows}, as_json=json)
    if exceeded:
        sys.exit(1)


def main() -> None:
    """Run one benchmark."""
    try:
        app()
    except BenchError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
