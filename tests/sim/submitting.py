"""Programs that submit jobs at the nodes, as the HTTP API does, and again when they do not know what came of it."""

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from signald.core.callers import ALL
from signald.errors import StoreUnavailable
from signald.http.api.job_views import JobRefused, ShownJob, Submission
from signald.ids import parse_job
from signald.service.api.jobs import HttpJobs
from tests.sim.speech import JobPlan

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene

ANSWER_S = 5.0
"""How long a program waits for an answer; a node that was killed gives none."""
AGAIN_S = 0.5


class Submitting:
    """All programs of a scene that submit jobs."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self._random = scene.chance.random("submitting")
        self._apis: dict[str, HttpJobs] = {}

    def _node(self) -> "SimNode | None":
        nodes = [
            one for one in self._scene.nodes if one.ready.is_set() and not one.gone.is_set() and one.node is not None
        ]
        return self._random.choice(nodes) if nodes else None

    def _api(self, node: "SimNode") -> HttpJobs:
        assert node.node is not None
        return self._apis.setdefault(node.name, HttpJobs(node.node.hub.parts))

    async def run(self, number: int, plan: JobPlan) -> None:
        """Submit one job, and see to it until it has ended."""
        scene = self._scene
        await trio.sleep(plan.at)
        client = scene.clients[plan.client]
        while not client.session and client.gone is None:  # noqa: ASYNC110
            await trio.sleep(AGAIN_S)
        key = f"key {number}"
        job = await self._submit(client.session, key, number, plan)
        if not job:
            return
        if plan.again:
            await trio.sleep(self._random.uniform(0.0, 2.0))
            await self._submit(client.session, key, number, plan)
        with trio.move_on_after(plan.cancel_after_s or float("inf")):
            await self._watch(job)
            return
        await self._cancel(job)
        await self._watch(job)

    async def _submit(self, session: str, key: str, number: int, plan: JobPlan) -> str:
        """Return the job; empty when there is none to be had, for instance because the session is over."""
        digest = sha256(key.encode()).digest()
        data = json.dumps({"job": number}).encode()
        deadline = plan.deadline_ms or None
        asked = Submission(session, ALL, digest, digest, "tts", data, "", deadline, None)  # type: ignore[arg-type]
        scene, tries = self._scene, 0
        while True:
            node = self._node()
            tries += 1
            if node is not None:
                with trio.move_on_after(ANSWER_S) as waiting:
                    try:
                        made = await self._api(node).submit(asked)
                    except JobRefused as refused:
                        scene.trace("job", f"{key} at {node.name}: {refused.because}")
                        if refused.because not in ("key_in_use", "full"):
                            self._lost(session, key, refused.because)
                            return ""
                    except StoreUnavailable:
                        scene.reached("submit without an answer")
                    else:
                        scene.trace("job", f"{key} at {node.name}: {made.first.job} {made.replayed}")
                        if made.replayed:
                            scene.reached("submit replayed")
                        scene.check.jobs.submitted(session, key, made.first.job)
                        return made.first.job
                if waiting.cancelled_caught:  # the node waits for its store as long, and this scope ends first
                    scene.reached("submit without an answer")
            await trio.sleep(AGAIN_S)

    def _lost(self, session: str, key: str, because: str) -> None:
        check, scene = self._scene.check.jobs, self._scene
        if because in ("no_session", "gone") and (session, key) not in check.made:
            return
        if check.promised and session not in scene.stolen:
            # Of a session that is over no job is made, but the one that was made is still shown.
            scene.trace("job", f"{key}: {because} after {check.made.get((session, key))}")

    async def _read(self, job: str, node: "SimNode") -> ShownJob | None:
        session, n = parse_job(job) or ("", 0)
        with trio.move_on_after(ANSWER_S):
            try:
                return await self._api(node).read(session, n, ALL)  # type: ignore[arg-type]
            except StoreUnavailable:
                return None
            except JobRefused as refused:
                if self._scene.check.jobs.promised:
                    self._scene.check.jobs.broken(f"{job} was promised, and {node.name} says {refused.because}")
        return None

    async def _cancel(self, job: str) -> None:
        session, n = parse_job(job) or ("", 0)
        for _ in range(5):
            node = self._node()
            if node is not None:
                with trio.move_on_after(ANSWER_S):
                    try:
                        await self._api(node).cancel(session, n, ALL)  # type: ignore[arg-type]
                    except (StoreUnavailable, JobRefused):
                        pass
                    else:
                        self._scene.reached("job cancelled")
                        return
            await trio.sleep(AGAIN_S)

    async def _watch(self, job: str) -> None:
        """Look at a job at one node and another until it has ended, and a little longer."""
        ended: ShownJob | None = None
        looks = 3
        while looks:
            await trio.sleep(self._random.uniform(0.1, 1.0))
            node = self._node()
            shown = await self._read(job, node) if node is not None else None
            if shown is None or not self._scene.check.jobs.promised:
                looks -= not self._scene.check.jobs.promised
                continue
            if ended is not None and shown != ended:
                self._scene.check.jobs.broken(f"{job} was {ended}, and {node.name if node else ''} shows {shown}")
            if shown.over:
                if ended is None:
                    self._scene.reached(f"job {shown.state}")
                    if shown.state == "succeeded":
                        result = json.loads(bytes(shown.result)) if shown.result is not UNSET else None
                        self._scene.check.streams.result(shown.session, job, shown.attempt, result)
                ended = shown
                looks -= 1
