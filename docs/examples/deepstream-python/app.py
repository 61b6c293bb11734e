"""An app of a DeepStream fleet on `websockets`: the fleet's guide alone, nothing of signald. usage: python app.py CONFIG

It prints a line of JSON for each thing that it saw or did, and ends with a status of sysexits.h.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

NORMAL, GOING_AWAY, ABNORMAL, REFUSED = 1000, 1001, 1006, 1013
FINAL = {
    **dict.fromkeys((1002, 1003, 1007, 1008, 1009, 4400), os.EX_PROTOCOL),
    **dict.fromkeys((4401, 4403), os.EX_NOPERM),
    **dict.fromkeys((4409, 4410), os.EX_UNAVAILABLE),
}
"""Closes that no new connection can mend, and the status to end with."""
JITTER = 0.25
"""A fleet that was cut off together must not come back together: up to a quarter comes on top of each wait."""
ANSWER_TIMEOUT_S = 10.0
STEADY_S = 5.0
"""A first app_ready has no answer: a connection that has stood for so long was taken."""
GOODBYE_TIMEOUT_S = 15.0
"""The server closes after the last answer, at the latest when its own 10 s are over."""

Fields = dict[str, Any]
Note = Callable[..., None]


def print_note(saw: str, **more: object) -> None:
    """Print a line of JSON."""
    print(json.dumps({"saw": saw, "at": time.time(), **more}), flush=True)


@dataclass(frozen=True)
class Config:
    """What the file says; times are in seconds."""

    url: str
    instance_id: str
    health_url: str = ""
    token_file: str = ""
    frames_per_s: float = 5.0
    eos_s: float = 0.0
    busy_s: float = 0.0
    going_away_s: float = 5.0
    refused_s: float = 10.0
    base_s: float = 1.0
    cap_s: float = 60.0
    tries: int = 10
    health_timeout_s: float = 5.0
    health_interval_s: float = 30.0
    time_scale: float = 1.0

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Read a file; raises OSError, ValueError or TypeError when it is none or names an unknown key."""
        sections = tomllib.loads(path.read_text())
        return cls(**{key: value for section in sections.values() for key, value in section.items()})

    @property
    def health(self) -> str:
        """Where the health is asked for."""
        return self.health_url or f"http{self.url.removeprefix('ws').rstrip('/')}/deepstream/health"

    def headers(self) -> dict[str, str]:
        """Return the credential as it is now, in a header: a URL is written to the logs of every proxy."""
        if not self.token_file:
            return {}
        return {"Authorization": f"Bearer {Path(self.token_file).read_text().strip()}"}

    def wait_s(self, code: int, tries: int, chance: float) -> float:
        """Return the wait before try `tries` (from 0) after a close with `code`; `chance` is from 0 to 1."""
        usual = min(self.cap_s, self.base_s * 2 ** min(tries, 30))
        wait = {GOING_AWAY: self.going_away_s, REFUSED: self.refused_s}.get(code, usual)
        return self.time_scale * wait * (1 + JITTER * chance)


class App:
    """One app: a connection, and a source of detections that stands for the pipeline."""

    def __init__(self, config: Config, note: Note = print_note) -> None:
        self.config = config
        self.note = note
        self._socket: ClientConnection | None = None
        self._ready = asyncio.Event()
        """The server takes messages."""
        self._stop = asyncio.Event()
        """The source is to drain."""
        self._leave = asyncio.Event()
        self._hurry = asyncio.Event()
        self._source: asyncio.Task[None] | None = None
        self._known = False
        """The server has taken this instance before."""
        self._taken = False
        """And it has done so on this connection."""
        self._terminating = False
        self._answered = False
        self._last_code: int | None = None
        self._tries = 0
        """Failed tries in a row."""
        self._frame = 0

    def leave(self) -> None:
        """Drain the source, close with 1000, and return from `run`; the second time, return at once."""
        (self._hurry if self._leave.is_set() else self._leave).set()

    async def send(self, fields: Fields) -> None:
        """Send, or wait until the server is ready. Other threads use `asyncio.run_coroutine_threadsafe(app.send(...), loop)`."""
        text = json.dumps(fields)
        while True:
            await self._ready.wait()
            socket = self._socket
            try:
                if socket is not None:
                    await socket.send(text)
                    return
            except ConnectionClosed:
                pass
            await asyncio.sleep(0.01)  # until the end of the connection is seen below

    # --- the source: with GStreamer, the pipeline ---

    async def _play(self) -> None:
        """Play frames until `_stop`, then drain: send EOS into the pipeline, and wait for it on the bus."""
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1 / self.config.frames_per_s)
                break
            await self.send({"type": "detections", "frame": self._frame + 1, "objects": ["person"]})
            self._frame += 1
        await asyncio.sleep(self.config.eos_s)
        await self.send({"type": "end_of_stream", "frames": self._frame})
        self.note("end of stream", frames=self._frame)

    async def _drain(self) -> None:
        self._stop.set()
        self._ready.set()  # the last messages go out also while the server says that it will be gone
        if self._source is not None:
            await self._source

    async def _terminate(self, socket: ClientConnection, said: Fields) -> None:
        """Clean up, then answer."""
        self.note("terminate", reason=said.get("reason"))
        self.note("state", state="terminating")
        request = {"request_id": said.get("request_id")}
        with suppress(ConnectionClosed):
            if self.config.busy_s:
                busy = {
                    "type": "app_busy",
                    **request,
                    "until_ms": int(self.config.busy_s * 1000),
                    "reason": "it drains",
                }
                await socket.send(json.dumps(busy))
            await self._drain()
            answer = {"type": "app_terminated", **request, "status": "OK", "message": "the pipeline has ended"}
            await socket.send(json.dumps(answer))
            self._answered = True
            self.note("terminated")
            await asyncio.sleep(GOODBYE_TIMEOUT_S)
            await socket.close()

    # --- the connection ---

    async def run(self) -> int:
        """Serve until the server or the operator ends it; returns the exit status."""
        serving = asyncio.create_task(self._serve())
        leaving = asyncio.create_task(self._leave.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not serving.done():
            ending = asyncio.create_task(self._end())
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            hurry.cancel()
            serving.cancel()
        with suppress(asyncio.CancelledError):
            return await serving
        return os.EX_OK

    async def _end(self) -> None:
        if self._socket is not None:
            await self._drain()
        if self._socket is not None:
            await self._socket.close()

    async def _serve(self) -> int:
        try:
            while self._tries < self.config.tries:
                code = await self._connection() if await self._is_healthy() else None
                if code is None:
                    self._tries += 1
                elif self._answered or code == NORMAL:
                    return os.EX_OK
                elif code in FINAL:
                    return FINAL[code]
                # The first wait is the same behind a connection and without one.
                tries = self._tries if self._last_code else self._tries - 1
                wait_s = self.config.wait_s(code or ABNORMAL, tries, random.random())
                self.note("waiting", code=code or ABNORMAL, tries=self._tries, seconds=wait_s)
                await asyncio.sleep(wait_s)
            self.note("gave up")
            return os.EX_UNAVAILABLE
        finally:
            if self._source is not None:
                self._source.cancel()

    async def _is_healthy(self) -> bool:
        status = await asyncio.to_thread(self._ask_health)
        self.note("health", status=status)
        return status == 200

    def _ask_health(self) -> int:
        """Return the status, 0 without an answer."""
        try:
            with urllib.request.urlopen(self.config.health, timeout=self.config.health_timeout_s) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    async def _connection(self) -> int | None:
        """Connect and serve; returns the code of the close, None when there was no connection."""
        url = f"{self.config.url.rstrip('/')}/deepstream/ws"
        try:
            # A server that answers no ping for two of them is not there.
            ping_s = max(1.0, self.config.time_scale * self.config.health_interval_s / 2)
            socket = await connect(
                url,
                additional_headers=self.config.headers(),
                compression=None,
                ping_interval=ping_s,
                ping_timeout=ping_s,
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            self.note("not connected", why=type(error).__name__)
            return None
        self.note("state", state="connected")
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._open(socket)
            tasks |= {asyncio.create_task(self._settle(socket)), asyncio.create_task(self._watch())}
            async for text in socket:
                with suppress(ValueError):  # what is no JSON is nothing of the guide
                    said = json.loads(text)
                    if isinstance(said, dict):
                        self._obey(socket, said, tasks)
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await socket.close()
            self._lost()
        code = socket.close_code or ABNORMAL
        self.note("closed", code=code)
        self.note("state", state="disconnected")
        self._last_code = code
        return code

    async def _open(self, socket: ClientConnection) -> None:
        self._socket = socket
        ready: Fields = {"type": "app_ready", "instance_id": self.config.instance_id, "reconnection": self._known}
        if self._last_code is not None:
            ready["last_close_code"] = self._last_code
        ready["config"] = {"frames_per_s": self.config.frames_per_s}
        await socket.send(json.dumps(ready))
        if not self._known:
            self._usable()

    def _obey(self, socket: ClientConnection, said: Fields, tasks: set[asyncio.Task[None]]) -> None:
        match said.get("type"):
            case "reconnection_ack":
                self.note("reconnected", restored=said.get("session_restored"))
                self._tries = 0
                self._usable()
            case "terminate_app":
                if not self._terminating:  # once is enough, however often it is said
                    self._terminating = True
                    tasks.add(asyncio.create_task(self._terminate(socket, said)))
            case kind:
                self.note("message", type=kind)

    async def _settle(self, socket: ClientConnection) -> None:
        """Count the tries from zero again when the connection has stood, and leave one that has no answer."""
        await asyncio.sleep(STEADY_S)
        if self._taken:
            self._tries = 0
        await asyncio.sleep(ANSWER_TIMEOUT_S - STEADY_S)
        if not self._taken:
            await socket.close(GOING_AWAY, "no answer")

    async def _watch(self) -> None:
        """While connected, ask whether the server will go soon: new messages wait then."""
        while True:
            await asyncio.sleep(self.config.time_scale * self.config.health_interval_s)
            healthy = await asyncio.to_thread(self._ask_health) != 503
            if self._taken and not self._stop.is_set() and healthy != self._ready.is_set():
                self.note("sends open" if healthy else "sends blocked")
                (self._ready.set if healthy else self._ready.clear)()

    def _usable(self) -> None:
        self._known = self._taken = True
        self._ready.set()
        if self._source is None:
            self._stop.clear()
            self._source = asyncio.create_task(self._play())

    def _lost(self) -> None:
        """Let messages wait. A request to terminate that was not answered is void: the source goes on with the next connection."""
        self._socket = None
        self._taken = False
        self._ready.clear()
        if self._terminating and not self._answered:
            self._terminating = False
            if self._source is not None:
                self._source.cancel()
            self._source = None


async def main() -> int:
    """Run the app of the configuration that the command line names."""
    try:
        app = App(Config.load(Path(sys.argv[1])))
    except (IndexError, OSError, ValueError, TypeError) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return os.EX_CONFIG
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.leave)
    return await app.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
