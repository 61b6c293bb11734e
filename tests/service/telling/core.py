"""A core server in memory for tests: it notes each attempt, judges its signature, and answers as the test says."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import msgspec
import trio

from signald.core.webhooks import BadSignature, secrets_of, verify
from signald.http.client import Answer, CallFailed
from signald.testing.cluster import Cluster

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://core.test/events"


@attrs.frozen
class Attempt:
    """One request, as it came."""

    at: float
    url: str
    id: str
    body: bytes
    said: dict[str, Any]

    @property
    def type(self) -> str:
        """The type of the event."""
        return str(self.said["type"])

    @property
    def data(self) -> dict[str, Any]:
        """What the event tells."""
        found = self.said["data"]
        assert isinstance(found, dict)
        return found

    @property
    def queue(self) -> str:
        """The queue of the event."""
        return str(self.data.get("session") or self.data.get("worker") or "cluster")


Behave = Callable[[Attempt], Awaitable[Answer]]


def answer(status: int, **headers: str) -> Answer:
    """Return an answer with `headers`, whose names have `_` for `-`."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


def always(status: int, **headers: str) -> Behave:
    """Answer each request the same."""

    async def behave(_: Attempt) -> Answer:
        await trio.lowlevel.checkpoint()
        return answer(status, **headers)

    return behave


async def away(_: Attempt) -> Answer:
    """Refuse the connection."""
    await trio.lowlevel.checkpoint()
    raise CallFailed("refused", "core.test does not answer: connection refused")


async def silent(_: Attempt) -> Answer:
    """Take the request, and never answer."""
    await trio.sleep_forever()
    raise AssertionError


def slow(seconds: float, status: int = 200) -> Behave:
    """Answer after a while."""

    async def behave(_: Attempt) -> Answer:
        await trio.sleep(seconds)
        return answer(status)

    return behave


class Core:
    """See the module. `post` is that of `signald.http.client.HttpClient`."""

    def __init__(self, cluster: Cluster) -> None:
        """Judge times by the clock of the store of `cluster`."""
        self.now_s: Callable[[], float] = lambda: cluster.world.now_ms() / 1000
        """By the clock of the store."""
        self.behave: Behave = always(200)
        self.attempts: list[Attempt] = []
        self.told: list[Attempt] = []
        """Those that were answered 2xx."""
        self.wrong: list[str] = []
        """Attempts whose signature or time is wrong, and those whose bytes differ from an earlier attempt's."""
        self.secrets = secrets_of(SECRET)
        self.at_once = 0
        self.at_once_max = 0
        self._bodies: dict[str, bytes] = {}

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Take a request."""
        assert bytes_max > 0
        assert headers["content-type"] == "application/json"
        attempt = Attempt(trio.current_time(), url, headers["webhook-id"], body, msgspec.json.decode(body))
        self.attempts.append(attempt)
        try:
            verify(headers, body, self.secrets, self.now_s())
        except BadSignature as error:
            self.wrong.append(f"{attempt.id}: {error}")
        if self._bodies.setdefault(attempt.id, body) != body:
            self.wrong.append(f"{attempt.id}: other bytes")
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            with trio.fail_after(timeout_s):
                answered = await self.behave(attempt)
        except trio.TooSlowError:
            raise CallFailed("slow", "core.test gives no whole answer") from None
        finally:
            self.at_once -= 1
        if 200 <= answered.status < 300:
            self.told.append(attempt)
        return answered

    def types(self, queue: str = "") -> list[str]:
        """The types of what was told, in order and without repetitions: of a queue, or all."""
        return [one.type for one in self.once(queue)]

    def once(self, queue: str = "") -> list[Attempt]:
        """What was told first of each event, in order."""
        seen: set[str] = set()
        found = []
        for one in self.told:
            if one.id not in seen and (not queue or one.queue == queue):
                seen.add(one.id)
                found.append(one)
        return found

    def check(self) -> None:
        """Each signature was right, and what was told first of each event came in order, without a gap."""
        assert not self.wrong
        by_queue: defaultdict[str, list[int]] = defaultdict(list)
        for one in self.once():
            by_queue[one.queue].append(one.data["n"])
        for queue, numbers in by_queue.items():
            assert numbers == list(range(1, len(numbers) + 1)), (queue, numbers)


def telling(**more: object) -> dict[str, dict[str, object]]:
    """The sections of a node that tells a core server."""
    return {"core": {"events_url": URL, "secret": SECRET, **more}}
