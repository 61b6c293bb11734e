"""The application of a vector: the calls that it makes, and what it is told."""

import base64
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from signald.sdk.client_core import ClientCore
from signald.sdk.core import SessionCore
from signald.sdk.notices import Assigned, SessionEvent, Taken, Terminate
from signald.sdk.room_core import RoomCore
from signald.sdk.rooms_core import Rooms
from signald.sdk.stream_fields import Of
from signald.sdk.worker_core import WorkerCore
from signald.wire.messages import StreamError
from tests.vectors.clock import Clock
from tests.vectors.values import Named, data_of, decoded, entry, event

Step = dict[str, Any]

_OF_A_STREAM = ("stream", "attempt", "fold", "content_type", "end", "outcome", "blob")


class Talk:
    """One session for its application: what it sends when there is room, and what it reads."""

    def __init__(self, core: SessionCore, rooms: Rooms, touched: Callable[[], None]) -> None:
        self.core = core
        self.rooms = rooms
        self.touched = touched
        core.blob_of = Named
        self.wanted = 0
        """Messages that the application asks for, one behind the other."""
        self._handed_out = 0
        self._to_send: deque[Step] = deque()
        self._rooms: dict[str, RoomCore] = {}
        self._told: set[str] = set()

    def call(self, step: Step) -> list[Step]:
        """Make one call of the application."""
        match step["call"]:
            case "send":
                self._to_send.append(step)
            case "read":
                self.wanted += step["count"]
            case "ack":
                if self.core.finish(step["seq"]):
                    self.touched()
            case "bye":
                self.core.bye = step["reason"]
                self.touched()
            case _:
                return self._of_a_room(step)
        return []

    def _of_a_room(self, step: Step) -> list[Step]:
        name = step["room"]
        if step["call"] == "join":
            options = {key: step[key] for key in ("state", "history", "presence") if key in step}
            self._rooms[name] = self.rooms.join(name, **options)
            self.touched()
            return []
        room = self._rooms.get(name) or self.rooms.get(name)
        assert room is not None
        number: int | None = None
        match step["call"]:
            case "publish":
                number = self.rooms.publish(room, data_of(step), step.get("kind"))
            case "change":
                remove = tuple(step.get("remove", ()))
                number = self.rooms.change(room, step.get("put", {}), step.get("patch", {}), remove)
            case "presence":
                room.set_presence(self.rooms.presence_of(step["presence"]))
            case "snapshot":
                self.rooms.snapshot(room, step["position"], base64.b64decode(step["base64"]))
            case "resync":
                room.resync()
            case "leave":
                self.rooms.leave(room)
            case "look":
                members = {who: decoded(said) for who, said in room.members.known.items()}
                records = {key: entry(record) for key, record in room.records.items()}
                return [{"room": name, "records": records, "members": members, "unconfirmed": len(room.out)}]
        self.touched()
        return [] if number is None else [{"room": name, "number": number}]

    def news(self) -> list[Step]:
        """Send what there is room for, and return what the application is handed."""
        told: list[Step] = []
        while self._to_send and (self.core.room or self.core.ended is not None):
            step = self._to_send.popleft()
            told.append({"error": "SessionGone"} if self.core.ended is not None else self._send(step))
        while self.wanted:
            if self.core.finish(self._handed_out):
                self.touched()
            message = self.core.take()
            if message is None:
                break
            self.wanted -= 1
            self._handed_out = message.seq
            told.append(entry(message))
        return told + self._news_of_rooms()

    def _send(self, step: Step) -> Step:
        error = StreamError(**step["error"]) if "error" in step else None
        of = Of(**{name: step[name] for name in _OF_A_STREAM if name in step}, error=error)
        try:
            seq = self.core.send(
                data_of(step), kind=step.get("kind"), history=step.get("history"), trace=step.get("trace"), of=of
            )
        except ValueError:
            return {"error": "ValueError"}
        self.touched()
        return {"seq": seq}

    def _news_of_rooms(self) -> list[Step]:
        told: list[Step] = []
        user = self.rooms.of_the_user
        if user is not None and user.name not in self._rooms:
            self._rooms[user.name] = user
        for name, room in self._rooms.items():
            while (one := room.news.take()) is not None:
                told.append({"room": name, **event(one)})
            if room.epoch and name not in self._told:
                self._told.add(name)
                told.append({"room": name, "in": True, "history": [entry(each) for each in room.history]})
        for name in [name for name, room in self._rooms.items() if room.ended is not None]:
            told.append({"room": name, "left": self._rooms.pop(name).ended})
            self._told.discard(name)
        return told


class Application(ABC):
    """See the module."""

    @abstractmethod
    def call(self, step: Step) -> list[Step]:
        """Make one call; return what it gave."""

    @abstractmethod
    def news(self) -> list[Step]:
        """Return what the party has left for the application."""


class ClientApplication(Application):
    """That of a client."""

    def __init__(self, core: ClientCore, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._talk = Talk(core.session, core.rooms, core.changed)

    def call(self, step: Step) -> list[Step]:
        """As in the base."""
        core = self._core
        try:
            match step["call"]:
                case "realtime":
                    return [{"carried": core.realtime(data_of(step))}]
                case "cancel":
                    core.cancel(step["stream"], step["reason"])
                case "renew_auth":
                    core.renew_auth(step["auth"])
                case "state":
                    state = core.state()
                    return [{"session": state.session, "received": state.received, "next_seq": state.next_seq,
                             "unacked": len(state.unacked), "attempts": state.attempts}]  # fmt: skip
                case "job":
                    return [self._job(step["job"])]
                case _:
                    return self._talk.call(step)
        except ValueError:
            return [{"error": "ValueError"}]
        return []

    def _job(self, name: str) -> Step:
        job, parts = self._core.jobs.get(name), []
        while (part := self._core.jobs.take(job)) is not None:
            parts.append({"attempt": part.attempt, "data": entry(part.data)})
        return {"job": name, "state": job.state, "attempt": job.attempt, "progress": entry(job.progress),
                "over": job.over, "parts": parts}  # fmt: skip

    def news(self) -> list[Step]:
        """As in the base."""
        core, told = self._core, []
        while core.events:
            told.append(event(core.events.popleft()))
        while core.stream_news:
            told.append(event(core.stream_news.popleft()))
        return told + self._talk.news()


class WorkerApplication(Application):
    """That of a worker, for all its sessions."""

    def __init__(self, core: WorkerCore, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._talks: dict[str, Talk] = {}

    def call(self, step: Step) -> list[Step]:
        """As in the base."""
        core = self._core
        try:
            match step["call"]:
                case "set_state":
                    core.set_state(**{n: step[n] for n in ("capacity", "load", "leaving") if n in step})
                case "terminated":
                    core.terminated(step["request_id"])
                case "leave":
                    core.bye(step["reason"])
                case "renew_auth":
                    core.renew_auth(step["auth"])
                case _:
                    return self._of_a_session(step)
        except ValueError:
            return [{"error": "ValueError"}]
        return []

    def _of_a_session(self, step: Step) -> list[Step]:
        core, talk = self._core, self._talks[step["session"]]
        match step["call"]:
            case "release":
                core.release(talk.core, step["reason"], self._clock.now)
            case "realtime":
                return [{"carried": core.realtime(data_of(step), step["session"])}]
            case "job_progress":
                core.job_progress(talk.core, step["job"], step["attempt"], step["progress"])
            case "job_ended":
                core.job_ended(talk.core, step["job"], step["attempt"], step["seq"])
            case _:
                return talk.call(step)
        return []

    def news(self) -> list[Step]:
        """As in the base."""
        core, told = self._core, []
        while core.notices:
            match core.notices.popleft():
                case Assigned() as one:
                    told.append(self._assigned(one))
                case Taken(name, reason):
                    self._talks.pop(name, None)
                    told.append({"taken": name, "reason": reason})
                case SessionEvent(name, what):
                    told.append({"session": name, **event(what)})
                case Terminate() as one:
                    told.append({"terminate": one.request_id, "reason": one.reason, "deadline_ms": one.deadline_ms})
                case other:
                    told.append(event(other))
        for name, talk in list(self._talks.items()):
            told += [{"session": name, **one} for one in talk.news()]
        return told

    def _assigned(self, one: Assigned) -> Step:
        name = one.core.name or ""
        core = one.core
        self._talks[name] = Talk(core, one.rooms, lambda: self._core.touched(core))
        told: Step = {"assigned": name, "attempt": one.attempt, "chat_history": entry(one.chat_history)}
        for key in ("meta", "subject", "state", "settings"):
            if (value := getattr(one, key)) is not None:
                told[key] = entry(value)
        if one.open_streams:
            told["open_streams"] = entry(one.open_streams)
        return told
