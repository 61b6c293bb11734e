"""The core server of a scene: what it is asked and told of, and the troubles that it has of its own.

It takes events and answers questions as the program of an operator would: it keeps what it has processed and judges nothing itself
(`event_checkers`). In a
spell it is slow, mute, down, cuts connections behind a request, lies about its state, floods its answers, or puts its callers off. In
some of these moods it has processed what its caller never gets an answer to.
"""

import json
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from signald.http.client import Answer, CallFailed

if TYPE_CHECKING:
    from tests.sim.scene import Scene

EVENTS_URL = "https://core.example/events"
AUTHORIZE_URL = "https://core.example/authorize"
SECRET = "whsec_" + "Y2FuYXJ5LXNlY3JldC1vZi1ldmVudHMtMDE="
SECRET_PREVIOUS = "whsec_" + "Y2FuYXJ5LXNlY3JldC1vZi1ldmVudHMtMDA="

MOODS = ("slow", "mute", "down", "cut", "lying", "flooding", "putting off")
ANSWER_S = (0.001, 0.05)
"""How long it takes to answer when it is well."""
SLOW_S = (0.5, 9.0)
LIES = (204, 302, 400, 404, 500, 502)
"""What it answers when it lies; one of them is a success that it has not processed: see `CoreServer.post`."""
PUT_OFF_S = (1, 20)


@attrs.frozen
class Spell:
    """A time in which the core server is in a mood."""

    at: float
    seconds: float
    mood: str


@attrs.frozen
class Core:
    """What a plan has of a core server."""

    spells: tuple[Spell, ...] = ()
    rotates: bool = False
    """The nodes sign with two secrets."""
    policy: str = ""
    """`core.on_failure`, when new parties are asked for; empty: they are not."""
    ttl_ms: int = 0
    """How long its answers count; 0: for the session."""


def draw_core(r: random.Random, lasts_s: float) -> Core | None:
    """Return the core server of a plan, or None: most plans have none."""
    if r.random() >= 0.25:
        return None
    spells = [
        Spell(round(r.uniform(0.0, lasts_s - 1), 3), r.choice((0.5, 2.0, 8.0)), r.choice(MOODS))
        for _ in range(r.choice((0, 1, 2, 4, 6)))
    ]
    return Core(
        tuple(sorted(spells, key=lambda one: one.at)),
        rotates=r.random() < 0.5,
        policy=r.choice(("", "open", "closed")),
        ttl_ms=r.choice((0, 1000, 5000)),
    )


def core_section(core: Core) -> dict[str, object]:
    """Return the section `[core]` of the nodes."""
    section: dict[str, object] = {"events_url": EVENTS_URL, "secret": SECRET}
    if core.rotates:
        section["secret_previous"] = SECRET_PREVIOUS
    if core.policy:
        section |= {"authorize_url": AUTHORIZE_URL, "on_failure": core.policy, "breaker_pause_s": 1.0}
    return section


class CoreServer:
    """See the module. It stands in for the HTTP client of each node."""

    def __init__(self, scene: "Scene", core: Core) -> None:
        self._scene = scene
        self._core = core
        self._random = scene.chance.random("core server")

    @property
    def _mood(self) -> str:
        now = trio.current_time() - self._scene.began_at
        if not self._scene.chaos:
            return ""
        return next((one.mood for one in self._core.spells if one.at <= now < one.at + one.seconds), "")

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Answer one request as the mood is. Raises CallFailed."""
        scene, r, mood = self._scene, self._random, self._mood
        if mood:
            scene.reached(f"core server {mood}")
        try:
            with trio.fail_after(timeout_s):
                return await self._answer(url, body, headers, mood, r)
        except trio.TooSlowError:
            raise CallFailed("slow", "no answer in time") from None

    async def _answer(self, url: str, body: bytes, headers: Mapping[str, str], mood: str, r: random.Random) -> Answer:
        await trio.sleep(r.uniform(*ANSWER_S) / 2)  # the way there
        if mood == "down":
            raise CallFailed("refused", "nothing listens")
        if mood == "mute":
            if r.random() < 0.5:
                self._process(url, body, headers, "mute")
            await trio.sleep_forever()
        if mood == "lying":
            status = r.choice(LIES)
            if url == AUTHORIZE_URL:
                return Answer(r.choice((200, status)), {}, r.choice((b"<html>", b"[]", b'{"allow":"yes"}')))
            if 200 <= status < 300:
                self._process(url, body, headers, "2xx")
            return Answer(status, {}, b"<html>")
        if mood == "putting off":
            return Answer(r.choice((429, 503)), {"retry-after": str(r.randint(*PUT_OFF_S))}, b"")
        self._process(url, body, headers, mood)
        if mood == "slow":
            await trio.sleep(r.uniform(*SLOW_S))
        if mood == "cut":
            raise CallFailed("broken", "cut behind the request")
        if mood == "flooding":
            raise CallFailed("too_long", "an answer without an end")
        await trio.sleep(r.uniform(*ANSWER_S) / 2)
        return Answer(200, {}, self._grant(body) if url == AUTHORIZE_URL else b"")

    def _grant(self, question: bytes) -> bytes:
        """Return the answer to a question: a party is let in, with settings that name it."""
        asked = json.loads(question)
        meta = asked.get("meta")
        name = meta.get("name", "") if isinstance(meta, dict) else ""
        self._scene.check.event_told.granted(name)
        answer: dict[str, object] = {"allow": True, "settings": {"for": name}}
        return json.dumps(answer | ({"ttl_ms": self._core.ttl_ms} if self._core.ttl_ms else {})).encode()

    def _process(self, url: str, body: bytes, headers: Mapping[str, str], mood: str) -> None:
        self._scene.trace("core", f"{headers.get('webhook-id')} {mood}")
        if url == EVENTS_URL:
            self._scene.check.event_told.received(headers, body)
        else:
            self._scene.check.event_told.signed(headers, body)
