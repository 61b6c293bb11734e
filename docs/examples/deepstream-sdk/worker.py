"""The app of a DeepStream fleet as a worker on the SDK of signald. usage: python worker.py CONFIG

It has the configuration of ../deepstream-python. A deploy is a `goaway` here: the worker is at the next node before the old one goes,
so it waits for nothing, and what it has said is neither lost nor doubled. The fleet's waits remain for what no deploy announces.
"""

import asyncio
import json
import os
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from signald.sdk.asyncio import Backoff, Health, Refused, SessionGone, WorkerSession, run, run_worker


def note(saw: str, **more: object) -> None:
    """Print a line of JSON for each thing that it saw."""
    print(json.dumps({"saw": saw, "at": time.time(), **more}), flush=True)


class Worker:
    """A source of detections that stands for the pipeline, and the sessions of the clients that watch it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._server, self._app = config["server"], config["app"]
        self._waits = config.get("waits", {})
        self._stop = asyncio.Event()

    def credential(self) -> str:
        """Return the credential as it is now: the SDK asks before each connection."""
        return Path(self._server["token_file"]).read_text().strip()

    def backoff(self) -> Backoff:
        """Return the waits of the fleet, which are those of `Backoff.device(Health())`, as the configuration changes them."""
        scale = float(self._waits.get("time_scale", 1.0))
        return Backoff(
            base_s=scale * float(self._waits.get("base_s", 1.0)),
            cap_s=scale * float(self._waits.get("cap_s", 60.0)),
            going_away_s=scale * float(self._waits.get("going_away_s", 5.0)),
            refused_s=scale * float(self._waits.get("refused_s", 10.0)),
            tries_max=int(self._waits.get("tries", 10)),
            health=Health(interval_s=scale * float(self._waits.get("health_interval_s", 30.0))),
        )

    async def watch(self, session: WorkerSession) -> None:
        """Send each frame to one client. `send` waits while no node is ready, and nothing that it has taken is lost."""
        note("session", session=session.session)
        frame = 0
        while not self._stop.is_set():
            frame += 1
            await session.send({"type": "detections", "frame": frame, "objects": ["person"]})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1 / float(self._app.get("frames_per_s", 5.0)))
        note("end of stream", frames=frame)

    async def clean_up(self, reason: str) -> None:
        """End the stream; the SDK answers `terminate_app` when this returns."""
        note("terminate", reason=reason)
        self._stop.set()
        await asyncio.sleep(float(self._app.get("eos_s", 0.0)))  # here the pipeline drains

    async def run(self) -> int:
        """Serve until signald ends the worker; returns the exit status."""
        try:
            await run_worker(
                self._server["url"],
                self.watch,
                instance_id=self._app["instance_id"],
                labels={"profile": "deepstream", "instance": self._app["instance_id"]},
                auth=self.credential if "token_file" in self._server else None,
                backoff=self.backoff(),
                on_terminate=self.clean_up,
            )
        except Refused as refused:
            print(refused, file=sys.stderr)
            return os.EX_NOPERM
        except SessionGone as gone:
            print(gone, file=sys.stderr)
            return os.EX_UNAVAILABLE
        note("terminated")
        return os.EX_OK


def main() -> None:
    """Run the worker of the configuration that the command line names."""
    worker = Worker(tomllib.loads(Path(sys.argv[1]).read_text()))

    async def serve() -> None:
        sys.exit(await worker.run())

    run(serve)


if __name__ == "__main__":
    main()
