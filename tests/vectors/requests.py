"""Requests over HTTP, downloads and rolled up streams through a vector: cores without a connection."""

import base64
from typing import Any

from attrs import define

from signald.ids import Entropy
from signald.sdk.api_core import Answer, Tries
from signald.sdk.blob_core import Reading, Sending, target_of
from signald.sdk.core import NEVER
from signald.sdk.credentials import Credentials
from signald.sdk.errors import ApiRefused, BlobFailed, SessionGone
from signald.sdk.link import Link
from signald.sdk.party_records import Over
from signald.sdk.streams_core import RollUp
from tests.vectors.clock import Clock, Constant

Step = dict[str, Any]


@define
class Party:
    """What a request sees of its party."""

    entropy: Entropy
    credentials: Credentials
    current: Link | None
    url: str = "ws://a.test/v1/client"
    over: Over | None = None

    def failure(self) -> Exception | None:
        """As that of a party."""
        return None if self.over is None or self.over.orderly else SessionGone(self.over.code, self.over.reason)


class RequestPlayer:
    """A request that is made again until an answer is one of success. With `upload` it is that of a blob."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.clock = Clock()
        options = vector["options"]
        credentials = Credentials(None, api=True)
        credentials.api_token = options["api_token"]
        self._party = Party(Constant(vector["random"]), credentials, Link("", 0.0, moving=False, token=None))
        self._sending = None
        if (upload := options.get("upload")) is not None:
            digest = bytes.fromhex(upload["sha256"])
            self._sending = Sending(upload["length"], digest, upload["content_type"], upload["key"])
        self._tries = Tries(self._party)
        self._again_at = -NEVER
        self._is_over = False

    def timer(self) -> int | None:
        """Return when the request is made again."""
        return None if self._again_at in (-NEVER, NEVER) else self.clock.next([self._again_at])

    def play(self, step: Step) -> list[Step]:
        """Do one step."""
        party = self._party
        if "url" in step:
            party.url = step["url"]
        if "api_token" in step:
            party.credentials.keep_api_token(step["api_token"])
        if "connected" in step:
            party.current = Link("", 0.0, moving=False, token=None) if step["connected"] else None
        if "over" in step:
            party.over = Over(step["over"], step["reason"], orderly=False)
        if "answer" in step:
            return self._answered(step["answer"])
        return self._ask() if self.clock.now >= self._again_at and not self._is_over else []

    def _ask(self) -> list[Step]:
        self._again_at = NEVER
        headers = self._tries.begin()
        said = {**headers, **self._sending.headers()} if self._sending is not None else headers
        return [{"ask": self._tries.url, "headers": said}]

    def _answered(self, said: Step | None) -> list[Step]:
        answer = None
        if said is not None:
            body = said.get("body", "").encode()
            answer = Answer(said["status"], said.get("headers", {}), body)
        try:
            if answer is not None and answer.succeeded:
                self._is_over = True
                return [{"done": True if self._sending is None else self._sending.kept(answer).id}]
            self._again_at = self.clock.now + self._tries.wait_s(answer)
        except (ApiRefused, SessionGone) as error:
            self._is_over = True
            final = self._sending.refused(error) if self._sending and isinstance(error, ApiRefused) else error
            status = {"status": error.status} if isinstance(error, ApiRefused) else {}
            return [{"error": type(final).__name__, **status}]
        return []


class ReadingPlayer:
    """The bytes of a blob, over as many answers as it takes."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.clock = Clock()
        options = vector["options"]
        self._target = (options["blob"], options.get("session"))
        self._reading = Reading(options.get("start", 0), options.get("end"))

    def timer(self) -> int | None:
        """Nothing is due by itself."""
        return None

    def play(self, step: Step) -> list[Step]:
        """Do one step."""
        reading = self._reading
        try:
            if "ask" in step:
                return [{"get": target_of(*self._target), "headers": reading.headers()}]
            if "head" in step:
                brings = reading.begin(step["head"]["status"], step["head"]["headers"])
                return [{"brings": brings, "size": reading.size}]
            piece = reading.took(base64.b64decode(step["piece"]))
        except ApiRefused as error:
            return [{"error": "ApiRefused", "status": error.status}]
        except BlobFailed as error:
            return [{"error": "BlobFailed", "kind": error.reason}]
        return [{"base64": base64.b64encode(piece).decode(), "over": reading.over}]


class RollUpPlayer:
    """A text that grows at a worker: which pieces leave when."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.clock = Clock()
        self._roll_up = RollUp(vector["options"]["roll_up_ms"] / 1000)

    def timer(self) -> int | None:
        """Return when what has gathered leaves."""
        return None if abs(self._roll_up.due) == NEVER else self.clock.next([self._roll_up.due])

    def play(self, step: Step) -> list[Step]:
        """Do one step."""
        self._roll_up.add(step.get("write", "") * step.get("times", 1))
        if not step.get("end") and self._roll_up.due > self.clock.now + 1e-9:
            return []
        piece = self._roll_up.take(self.clock.now)
        return [{"piece": piece}] if len(piece) < 100 else [{"characters": len(piece)}]
