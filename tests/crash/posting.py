"""A program that submits jobs over HTTP with idempotency keys, in bytes, and asks again for as long as it does not know what came of it."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from signald.sdk.api_core import Answer, NoAnswer
from signald.sdk.requests import Bytes, ask
from signald.store.session.jobs.ops import JobRead
from signald.testing.sdk_parties import NEW_LIFE_AFTER_S
from tests.sim.parties import ClientParty
from tests.sim.speech import Speech

if TYPE_CHECKING:
    from tests.crash.scene import CrashScene
    from tests.sim.nodes import SimNode

NAME = "h0"
"""Of its process."""

JOBS = 2
"""The first one is asked for at the first node, the other one at the second: one node is its worker's, the other one is not."""

PAD = 1000
"""Bytes that the second input has more than the first: a request of it that is cut in the middle is cut in its body."""

NOTHING_ELSE = Speech(0.0, 0.0, 0.0, 0.0)
"""Workers that do jobs, and say nothing else in streams."""

ANSWER_S = 2.0
"""How long an answer is waited for."""
AGAIN_S = 0.1

FOUND_BY_ITS_KEY = "is a job that was stored before, and not answered"

PASSING = frozenset({429, 503})
"""With these the same request is made again, and so it is with 409 `key-in-use`."""


class Poster:
    """See the module. Its keys are kept in a file, as it were: the next process has them, and does not know of any answer."""

    def __init__(self, scene: "CrashScene", client: ClientParty) -> None:
        """Submit jobs of the session of `client`, by its API token."""
        self.done = False
        self.answered: dict[str, bytes] = {}
        """Key → the body of its first answer, as the judge knows it."""
        self._scene = scene
        self._client = client
        self._token = ""
        self._process = trio.CancelScope()

    def die(self) -> None:
        """The process is gone."""
        self._process.cancel(reason="killed")

    async def run(self) -> None:
        """Live until all jobs have ended."""
        self._scene.steps.adopt(trio.lowlevel.current_task(), NAME)
        while not self.done:
            self._process = trio.CancelScope()
            with self._process:
                async with trio.open_nursery() as nursery:
                    for number in range(JOBS):
                        nursery.start_soon(self._see_to, number)
                self.done = True
            if not self.done:
                self._scene.trace(NAME, "was killed")
                await trio.sleep(NEW_LIFE_AFTER_S)

    def judge(self) -> None:
        """One job of each key, and no other one: what was stored and answered by an error was found by its key."""
        jobs, session = self._scene.check.jobs, self._client.session
        if not self.done:
            jobs.broken(f"{NAME} does not get its jobs done: {self.answered}")
        stored = jobs.stored(session)
        if len(stored) != JOBS:
            jobs.broken(f"{session}: {JOBS} keys made {stored}")

    async def _see_to(self, number: int) -> None:
        """Submit a job, read it until it has ended, and submit it once more."""
        jobs = self._scene.check.jobs
        key = f"key-{number}"
        job = await self._submit(number, key)
        shown = (await self._ask(number, "GET", f"/v1/jobs/{job}")).json()
        while shown["state"] in ("queued", "running"):
            await trio.sleep(AGAIN_S)
            shown = (await self._ask(number, "GET", f"/v1/jobs/{job}")).json()
        if await self._submit(number, key) != job:
            jobs.broken(f"{key} made {job}, and then another one")
        again = (await self._ask(number + 1, "GET", f"/v1/jobs/{job}")).json()
        if again != shown:
            jobs.broken(f"{job} was {shown}, and is {again}")

    async def _submit(self, number: int, key: str) -> str:
        body = json.dumps({"kind": "tts", "data": {"job": number, "pad": "x" * PAD * number}}).encode()
        headers = {"idempotency-key": key, "content-type": "application/json"}
        answer = await self._ask(number, "POST", "/v1/jobs", headers, body)
        jobs, said = self._scene.check.jobs, answer.json()
        job = said["job"]
        if not isinstance(read := jobs.read(job), JobRead):
            jobs.broken(f"{key} was answered with {job}, and the store says {read}")
        jobs.submitted(self._client.session, key, job)
        replayed = answer.headers.get("idempotency-replayed") == "true"
        if replayed and key not in self.answered:
            self._scene.trace(NAME, f"{key} {FOUND_BY_ITS_KEY}")
        elif not replayed and key in self.answered:
            jobs.broken(f"{key} was answered before, and the answer does not say so")
        first = self.answered.setdefault(key, answer.body)
        if answer.body != first:
            jobs.broken(f"{key} was answered {first!r}, and is answered {answer.body!r}")
        return str(job)

    async def _ask(
        self, at: int, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Ask one node after the other, from number `at` on, until one knows."""
        scene = self._scene
        while True:
            nodes = scene.listening()
            if self._client.client is not None:
                self._token = self._client.client.api_token
            if nodes:
                node = nodes[at % len(nodes)]
                said = {"authorization": f"Bearer {self._token}", **(headers or {})}
                try:
                    answer = await ask(
                        _to(scene, node),
                        f"ws://{node.name}",
                        method,
                        target,
                        headers=said,
                        body=Bytes(body),
                        timeout_s=ANSWER_S,
                    )
                except NoAnswer as error:
                    scene.trace(NAME, f"{method} {target} at {node.name}: {error}")
                else:
                    scene.trace(NAME, f"{method} {target} at {node.name}: {answer.status}")
                    if answer.status in (200, 202):
                        return answer
                    self._judge_refusal(f"{method} {target} at {node.name}", answer)
            at += 1
            await trio.sleep(AGAIN_S)

    def _judge_refusal(self, asked: str, answer: Answer) -> None:
        in_use = answer.status == 409 and str(answer.json().get("type", "")).endswith("key-in-use")
        if answer.status not in PASSING and not in_use:
            self._scene.check.jobs.broken(f"{asked} is answered with {answer.status} {answer.json()}")


def _to(scene: "CrashScene", node: "SimNode") -> Callable[..., Any]:
    async def opened(_url: str, _ssl: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return scene.connect_plain(NAME, node)

    return opened
