"""What a search must have met, or it was blind: rare situations, and how rare each may be.

A run that finds nothing proves nothing unless it was there. Each line names a situation as the simulation calls it
(`Scene.reached`) and the number of seeds in which it may occur once at the least, three to five times as many as it was
seen to take. A run of fewer seeds is not asked for it.
"""

from collections.abc import Mapping

import attrs


@attrs.frozen
class Sometimes:
    """One situation, on one of the transports."""

    what: str
    one_in: int


CORE_AND_BLOBS = (
    Sometimes("core server cut", 100),
    Sometimes("core server mute", 100),
    Sometimes("core server down", 100),
    Sometimes("core server putting off", 100),
    Sometimes("event told again", 60),
    Sometimes("told session.away", 40),
    Sometimes("told session.reassigned", 60),
    Sometimes("upload cut", 60),
    Sometimes("upload replayed", 60),
    Sometimes("upload without an answer", 60),
    Sometimes("blob removed", 60),
    Sometimes("media away", 100),
    Sometimes("media slow", 100),
)

ROOMS = (
    Sometimes("room joined again", 25),
    Sometimes("room replayed", 50),
    Sometimes("room joined with a hole", 60),
    Sometimes("member left a room", 40),
    Sometimes("member seen leaving", 60),
)

DIALECTS = (
    Sometimes("canvas restored again", 50),
    Sometimes("canvas message said again", 60),
    Sometimes("canvas message taken once of two", 100),
    Sometimes("canvas socket closed with 1001", 60),
    Sometimes("canvas socket broke behind a message", 60),
)

FRAMES = (
    Sometimes("handover with 0 workers", 20),
    Sometimes("timeout after apply during token rotation", 50),
    Sometimes("fenced write rejected", 25),
    Sometimes("kill between persist and ack", 100),
    Sometimes("replay longer than one batch", 50),
    Sometimes("token reuse detected", 250),
    Sometimes("slow consumer dropped", 150),
    Sometimes("store full", 100),
    Sometimes("backlog full", 20),
    Sometimes("frame said twice", 25),
    Sometimes("successor never ready", 50),
    Sometimes("two successors", 100),
    Sometimes("rollback while draining", 200),
    Sometimes("two releases at once", 50),
    Sometimes("client handed over", 10),
    Sometimes("worker handed over", 10),
    Sometimes("worker replaced", 20),
    Sometimes("worker_given_up", 10),
    Sometimes("deploy during a deploy", 20),
    Sometimes("drain called off", 25),
    Sometimes("double SIGTERM", 50),
    Sometimes("no_successor", 100),
    Sometimes("successor_lost", 100),
    Sometimes("node killed", 20),
    Sometimes("node killed while draining", 100),
    Sometimes("node vanished", 50),
    Sometimes("node paused", 50),
    Sometimes("node cut off from the parties", 25),
    Sometimes("connection reset", 20),
    Sometimes("connection cut", 20),
    Sometimes("store outage", 20),
    Sometimes("store: lost reply after apply", 20),
    Sometimes("store: lost request", 25),
    Sometimes("store: half a batch applied", 25),
    Sometimes("store: applied after it was given up", 100),
    Sometimes("store: wake-up lost", 20),
    Sometimes("node cut off from the store", 25),
    Sometimes("store came back empty", 100),
    Sometimes("store failed over", 100),
    Sometimes("clock set back", 100),
    Sometimes("clock set forward", 100),
    Sometimes("log went back with the store", 200),
    Sometimes("client restarted from its state", 20),
    Sometimes("client read nothing for a while", 25),
    Sometimes("goaway to a program that does not know it", 50),
    Sometimes("old program asked to terminate", 50),
    Sometimes("stolen token taken", 100),
    Sometimes("lie refused", 100),
    Sometimes("lie believed", 150),
    Sometimes("lie of a worker refused", 150),
    Sometimes("lie of a worker believed", 150),
    Sometimes("stranger with a token turned away", 150),
    Sometimes("worker crashed", 20),
    Sometimes("session handed over by its worker", 150),
    Sometimes("worker registered anew", 40),
    Sometimes("handler failed", 25),
    Sometimes("worker said something on a connection it had left", 50),
    Sometimes("recalled token refused", 30),
    Sometimes("recalled token refused by a later node", 60),
    Sometimes("caller came again after a recall", 30),
    *CORE_AND_BLOBS,
    *ROOMS,
    *DIALECTS,
)

MESSAGES = (
    Sometimes("handover with 0 workers", 10),
    Sometimes("timeout after apply during token rotation", 60),
    Sometimes("kill between persist and ack", 150),
    Sometimes("replay longer than one batch", 60),
    Sometimes("fenced write rejected", 60),
    Sometimes("token reuse detected", 250),
    Sometimes("backlog full", 25),
    Sometimes("store full", 60),
    Sometimes("slow consumer dropped", 100),
    Sometimes("frame said twice", 30),
    Sometimes("successor never ready", 60),
    Sometimes("two successors", 80),
    Sometimes("rollback while draining", 80),
    Sometimes("two releases at once", 25),
    Sometimes("client handed over", 10),
    Sometimes("worker handed over", 10),
    Sometimes("worker replaced", 20),
    Sometimes("worker_given_up", 20),
    Sometimes("deploy during a deploy", 10),
    Sometimes("drain called off", 20),
    Sometimes("double SIGTERM", 50),
    Sometimes("no_successor", 100),
    Sometimes("successor_lost", 200),
    Sometimes("client_given_up", 100),
    Sometimes("node killed", 20),
    Sometimes("node killed while draining", 100),
    Sometimes("node vanished", 30),
    Sometimes("node paused", 60),
    Sometimes("node cut off from the parties", 50),
    Sometimes("node cut off from the store", 30),
    Sometimes("node vanished while draining", 200),
    Sometimes("connection reset", 25),
    Sometimes("connection cut", 25),
    Sometimes("store outage", 20),
    Sometimes("store: lost reply after apply", 20),
    Sometimes("store: half a batch applied", 25),
    Sometimes("store: applied after it was given up", 100),
    Sometimes("store: lost request", 25),
    Sometimes("store: a batch applied twice", 60),
    Sometimes("store: wake-up lost", 20),
    Sometimes("store came back empty", 100),
    Sometimes("store failed over", 60),
    Sometimes("clock set back", 250),
    Sometimes("clock set forward", 150),
    Sometimes("log went back with the store", 150),
    Sometimes("log lost, and said", 4000),
    Sometimes("client restarted from its state", 25),
    Sometimes("client read nothing for a while", 25),
    Sometimes("goaway to a program that does not know it", 60),
    Sometimes("old program asked to terminate", 100),
    Sometimes("stolen token taken", 100),
    Sometimes("worker crashed", 25),
    Sometimes("session handed over by its worker", 400),
    Sometimes("worker said something on a connection it had left", 100),
    Sometimes("worker registered anew", 200),
    Sometimes("worker given up that another node has", 400),
    Sometimes("handler failed", 60),
    Sometimes("submit replayed", 25),
    Sometimes("submit without an answer", 100),
    Sometimes("job succeeded", 25),
    Sometimes("job expired", 40),
    Sometimes("job failed", 60),
    Sometimes("job_cancel", 40),
    Sometimes("client reloaded", 25),
    Sometimes("stream shown after a reload", 60),
    Sometimes("stream found open", 120),
    Sometimes("stream begun anew", 120),
    Sometimes("stream interrupted", 80),
    Sometimes("piece refused: stream_over", 80),
    Sometimes("recalled token refused", 40),
    Sometimes("recalled token refused by a later node", 50),
    Sometimes("caller came again after a recall", 40),
    Sometimes("token made after its recall", 600),
    *CORE_AND_BLOBS,
    *ROOMS,
    *DIALECTS,
)

REQUIRED = {"frames": FRAMES, "messages": MESSAGES}


def blind(transport: str, seeds: int, reached: Mapping[str, int]) -> list[str]:
    """Say what a run of `seeds` should have met more often."""
    return [
        f"{one.what}: in {reached.get(one.what, 0)} of {seeds} {transport} seeds, at least {seeds // one.one_in} expected"
        for one in REQUIRED[transport]
        if reached.get(one.what, 0) < seeds // one.one_in
    ]
