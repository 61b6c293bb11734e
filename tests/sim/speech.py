"""What workers say in streams and do for jobs in a simulation: drawn here, spoken by the parties, put into frames at their carriers.

The SDK knows neither streams nor jobs. A worker's handler says of a message which piece it is (`s` in its data); the carrier makes
that a piece of a text, and the client's carrier makes the text the data again. So moves, resumes and repeated frames are the SDK's.
"""

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from signald.sdk.writing import Frame

if TYPE_CHECKING:
    from tests.sim.scene import Scene


@attrs.frozen
class JobPlan:
    """One job that is submitted."""

    at: float
    client: int
    deadline_ms: int = 0
    """0: none."""
    cancel_after_s: float = 0.0
    """0: never."""
    again: bool = False
    """It is submitted once more after the answer, with the same key."""


@attrs.frozen
class Speech:
    """What a plan has of streams and jobs."""

    streams: float
    """How much of what workers say are pieces of streams."""
    adopts: float
    """How often a worker goes on with a stream that it finds open."""
    cancels: float
    """How often a client that is shown a piece asks for the end of its stream."""
    reloads: float
    """How often a client that comes back does not know what it has."""
    jobs: tuple[JobPlan, ...] = ()


ADOPT_S = 2.0
"""`worker.adopt_streams_s`."""
KEEP_S = 200.0
"""`jobs.keep_s`: beyond the end of a run, and below the time in which everything of a session must be gone."""
PIECES_OF_JOB_MAX = 3


def draw_speech(r: random.Random, clients: int) -> Speech | None:
    """Return what a plan with so many clients has, or None: most have nothing of it."""
    if r.random() >= 0.35:
        return None
    jobs = [
        JobPlan(
            round(r.uniform(0.5, 28.0), 3),
            r.randrange(clients),
            r.choice((0, 0, 0, 500, 4000)),
            r.choice((0.0, 0.0, 0.0, 0.05, 1.0)),
            r.random() < 0.3,
        )
        for _ in range(r.choice((0, 2, 6, 12)))
    ]
    return Speech(
        r.choice((0.0, 0.5, 0.9, 0.9)),
        r.choice((0.0, 0.7, 1.0)),
        r.choice((0.0, 0.0, 0.1)),
        r.choice((0.0, 0.5)),
        tuple(jobs),
    )


@attrs.frozen
class Given:
    """A job in the hands of a worker."""

    job: str
    attempt: int


@attrs.define(eq=False)
class AtWorker:
    """What one life of a worker has of one session."""

    found: list[dict[str, Any]] = attrs.field(factory=list)
    """Streams that it was told are open."""
    cancelled: set[str] = attrs.field(factory=set)
    """Streams, and jobs, that it was asked to end."""
    plain: set[int] = attrs.field(factory=set)
    """Messages whose pieces were refused: they are said as no piece of anything."""
    has: dict[str, int] = attrs.field(factory=dict)
    """Job → attempt."""
    given: tuple[trio.MemorySendChannel[Given], trio.MemoryReceiveChannel[Given]] = attrs.field(
        factory=lambda: trio.open_memory_channel[Given](1000)
    )


class Speaking:
    """What goes over the carriers of a scene whose plan has streams or jobs."""

    def __init__(self, scene: "Scene", speech: Speech) -> None:
        self._scene = scene
        self.speech = speech
        self._random = scene.chance.random("speech")
        self._parties = {one.name for one in scene.plan.clients}
        self._parties |= {one.name for one in scene.plan.workers if not one.old}
        self._at: dict[tuple[str, int, str], AtWorker] = {}

    def knows(self, party: str) -> bool:
        """Tell whether it is a program that knows streams: a liar, a thief and an old worker do not."""
        return party in self._parties

    def at(self, worker: str, session: str) -> AtWorker:
        """Return what the present life of `worker` has of `session`."""
        party = next(one for one in self._scene.workers if one.name == worker)
        return self._at.setdefault((worker, party.lives, session), AtWorker())

    # --- what parties send ------------------------------------------------------------------------------------------

    def sends(self, party: str, kind: str, frame: Frame) -> Frame:
        """Return a frame as it goes over the wire."""
        text, payload = frame
        if party.startswith("w"):
            if kind == "message":
                return text, self._piece(party, payload)
            if kind == "app_ready":
                return text, self._ready(party, payload)
        elif kind == "restore_session" and self._random.random() < self.speech.reloads:
            self._scene.reached("client reloaded")
            said = json.loads(payload)
            said.pop("received", None)
            said["history"] = 50
            return text, _dumped(said)
        return frame

    def _ready(self, party: str, payload: bytes | bytearray | memoryview) -> bytes:
        said = json.loads(bytes(payload))
        said["jobs"] = ["*"]
        for position in said.get("sessions", ()):
            position["jobs"] = sorted(self.at(party, position["session"]).has)
        return _dumped(said)

    def _piece(self, party: str, payload: Any) -> Any:
        said = json.loads(bytes(payload))
        mark = said["data"].get("s")
        if mark is None:
            return payload
        session, seq = said["session"], said["seq"]
        stream, attempt, end = mark
        at = self.at(party, session)
        if end and stream in at.has:
            del at.has[stream]
        if seq in at.plain:
            return payload
        piece = json.dumps(said["data"], separators=(",", ":"))
        said |= {"stream": stream, "fold": "text", "data": piece}
        if attempt != 1:
            said["attempt"] = attempt
        if end:
            said["end"] = True
        if end not in ("", "complete"):
            said["outcome"] = end
        self._scene.check.streams.said(session, seq, stream, attempt, piece)
        return _dumped(said)

    # --- what parties take ------------------------------------------------------------------------------------------

    def takes(self, party: str, wire: str, kind: str, frame: Any) -> tuple[Any, list[Frame]]:
        """Return a frame as the SDK gets it (None: not at all), and frames to be said at once."""
        if party.startswith("w"):
            return self._worker_takes(party, kind, frame), []
        return self._client_takes(party, wire, kind, frame)

    def _worker_takes(self, party: str, kind: str, frame: Any) -> Any:
        if kind == "session_assigned":
            said = json.loads(frame)
            at = self.at(party, said["session"])
            at.plain.clear()
            at.has.clear()
            at.cancelled.clear()
            with suppress(trio.WouldBlock):
                # What waits is of the assignment before. The channel stays: a session that is assigned again may keep its handler.
                while True:
                    at.given[1].receive_nowait()
            at.found = said.get("open_streams", [])
            self._scene.check.streams.found(said["session"], at.found)
        elif kind == "job":
            said = json.loads(frame)
            at, job, attempt = self.at(party, said["session"]), said["job"], said["attempt"]
            if at.has.get(job, 0) < attempt:
                at.has[job] = attempt
                at.given[0].send_nowait(Given(job, attempt))
            return None
        elif kind in ("job_cancel", "stream_cancel"):
            said = json.loads(frame)
            at = self.at(party, said["session"])
            at.cancelled.add(said.get("job") or said["stream"])
            at.has.pop(said.get("job", ""), None)
            self._scene.reached(kind)
            return None
        elif kind == "error":
            return self._refused(party, frame)
        return frame

    def _refused(self, party: str, frame: Any) -> Any:
        said = json.loads(frame)
        if said["code"] not in ("stream_over", "stream_superseded"):
            return frame
        # The SDK says it again from there on, as after a full backlog, and this time it is no piece. (A gap would be taken for one that
        # an earlier refusal of the same number has answered.)
        self.at(party, said["session"]).plain.add(said["expected"])
        self._scene.reached(f"piece refused: {said['code']}")
        return _as(frame, {**said, "code": "backlog", "retry_after_ms": 1})

    def _client_takes(self, party: str, wire: str, kind: str, frame: Any) -> tuple[Any, list[Frame]]:
        check, client = self._scene.check.streams, next(one for one in self._scene.clients if one.name == party)
        if kind == "message" and isinstance(frame, str | bytes):
            said = json.loads(frame)
            stream = said.get("stream")
            if stream is None:
                return frame, []
            check.shown(client, said)
            self._scene.check.jobs.shown(client, wire, stream)
            again: list[Frame] = []
            if not said.get("end") and self._scene.chaos and self._random.random() < self.speech.cancels:
                again.append((True, _dumped({"type": "stream_cancel", "stream": stream, "reason": "enough"})))
            return _as(frame, {"type": "message", "seq": said["seq"], "data": json.loads(said["data"])}), again
        if kind == "session_restored":
            check.restored(client, json.loads(frame))
        elif kind == "stream_state":
            check.ended(client, json.loads(frame))
            return None, []
        elif kind == "job_state":
            self._scene.check.jobs.told(client, wire, json.loads(frame))
        return frame, []


def _dumped(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


def _as(frame: str | bytes, said: dict[str, Any]) -> str | bytes:
    return _dumped(said) if isinstance(frame, bytes) else _dumped(said).decode()
