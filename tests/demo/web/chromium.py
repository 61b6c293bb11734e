"""Chromium without a window, driven through pipes by its own protocol (https://chromedevtools.github.io/devtools-protocol/).

The browser ends when its pipes are closed, so none is left over. It opens no port, so it runs in a network namespace of its own beside the
program under test.
"""

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--log-level=3",
    "--hide-scrollbars",
    # With loopback alone each of these two is needed: without them the browser offers not one address of its own.
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
WAIT_S = 30.0
"""Far above what a page takes on a busy machine."""
POLL_S = 0.05
KILL_S = 5.0
KEYS = {" ": ("Space", 32), "ArrowRight": ("ArrowRight", 39), "ArrowDown": ("ArrowDown", 40), "Tab": ("Tab", 9)}


class PageFault(Exception):
    """An expression raised in the page, or the browser refused a command."""


class Chromium:
    """One running browser."""

    def __init__(self, to: trio.lowlevel.FdStream, from_: trio.lowlevel.FdStream) -> None:
        self._to = to
        self._from = from_
        self._writing = trio.Lock()
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._asked: dict[int, trio.Event] = {}
        self.complaints: list[str] = []
        """What the pages wrote to their consoles as errors, and what they raised and did not catch."""

    async def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        number = self._number
        told: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            told["sessionId"] = session
        answered = self._asked[number] = trio.Event()
        async with self._writing:
            await self._to.send_all(json.dumps(told).encode() + b"\0")
        with trio.fail_after(WAIT_S):
            await answered.wait()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise PageFault(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Read answers and events until the browser is gone."""
        heard = bytearray()
        while data := await self._from.receive_some():
            heard += data
            *whole, rest = heard.split(b"\0")
            heard = bytearray(rest)
            for message in whole:
                self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            self._asked.pop(message["id"]).set()
        elif message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]["exceptionDetails"])[:800])
        elif message["method"] == "Runtime.consoleAPICalled" and message["params"]["type"] == "error":
            self.complaints.append(json.dumps(message["params"]["args"])[:800])
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(json.dumps(message["params"]["entry"])[:800])

    async def tab(self, url: str, *, width: int = 1280, height: int = 900, phone: bool = False) -> "Tab":
        """Open a page in a tab of its own."""
        # In a window of its own: a tab behind another one draws nothing.
        target = await self.command("Target.createTarget", url="about:blank", newWindow=True)
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"])
        for domain in ("Runtime", "Page", "Log"):
            await tab.command(f"{domain}.enable")
        await tab.command("Emulation.setFocusEmulationEnabled", enabled=True)
        await tab.look(width, height, phone=phone)
        await tab.command("Page.navigate", url=url)
        return tab


class Tab:
    """One page."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return await self._browser.command(method, self._session, **params)

    async def look(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Give the page a screen."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def value(self, expression: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageFault(json.dumps(answer["exceptionDetails"])[:800])
        return answer["result"].get("value")

    async def until(self, expression: str, within_s: float = WAIT_S) -> Any:
        """Wait until an expression is true, and return it."""
        last: object = None
        with trio.move_on_after(within_s):
            while True:
                try:
                    if last := await self.value(expression):
                        return last
                except PageFault as fault:  # as while the page is being loaded
                    last = fault
                await trio.sleep(POLL_S)
        raise AssertionError(f"not within {within_s:g} s: {expression} (last: {last}); {self._browser.complaints}")

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)}).textContent"))

    async def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        await self.drag(selector, [(0.5, 0.5)])

    async def drag(self, selector: str, way: list[tuple[float, float]], pause_s: float = 0.0) -> None:
        """Press the mouse, move it along points given as shares of an element's box, and let it go."""
        name = json.dumps(selector)
        await self.value(f"document.querySelector({name}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = await self.value(f"document.querySelector({name}).getBoundingClientRect().toJSON()")
        for number, (x, y) in enumerate([way[0], *way, way[-1]]):
            kind = "mousePressed" if number == 0 else "mouseReleased" if number == len(way) + 1 else "mouseMoved"
            await self.command(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box["x"] + x * box["width"],
                y=box["y"] + y * box["height"],
                button="left",
                buttons=0 if kind == "mouseReleased" else 1,
                clickCount=1,
            )
            await trio.sleep(pause_s)

    async def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        code, number = KEYS[key]
        text = {"text": " "} if key == " " else {}
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                await self.command(
                    "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **text
                )

    async def type(self, text: str) -> None:
        """Put text where the focus is."""
        await self.command("Input.insertText", text=text)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save a picture of what is seen, or of the whole page."""
        answer = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await trio.Path(path).write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def chromium(browser: str, profile: Path, *more: str) -> AsyncIterator[Chromium]:
    """Run a browser with a fresh profile for the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    arguments = (*QUIET, *more, "--remote-debugging-pipe", f"--user-data-dir={profile}")
    process = await trio.lowlevel.open_process(
        ["bash", "-c", script, "bash", browser, *arguments],
        env={"HOME": str(profile), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(to_read, from_write),
    )
    os.close(to_read)
    os.close(from_write)
    to, from_ = trio.lowlevel.FdStream(to_write), trio.lowlevel.FdStream(from_read)
    try:
        async with to, from_, trio.open_nursery() as nursery:
            driven = Chromium(to, from_)
            nursery.start_soon(driven.listen)
            yield driven
            nursery.cancel_scope.cancel(reason="the browser is not needed any more")
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(KILL_S):
            await process.wait()
