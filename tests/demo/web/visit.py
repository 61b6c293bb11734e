"""A visit to the demo's page in a real browser: `python -m tests.demo.web.visit [PICTURES]`.

Two tabs and a phone talk, draw and watch while nodes are deployed, rolled back and killed, and one tab is reloaded. What the visit found is
printed as one line of JSON. With a folder, pictures of the page are put there to be looked at.
"""

import json
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from signald.demo.web.story import answer
from tests.demo.web.chromium import Chromium, Tab, chromium
from tests.systems.plays.editors import find_browser

ROOT = Path(__file__).resolve().parents[3]
AXE = ROOT / "tests/systems/node_modules/axe-core/axe.min.js"
START_S = 40.0
END_S = 30.0
DESK = (1280, 1000)
PHONE = (390, 844)
LONG = "Tell me everything"
CHIP_OF_LONG = 3
"""The chip with that question."""
AFTERWARDS_S = 1.0
"""Behind the last move: a few more words."""
ANSWERED = (
    "[...document.querySelectorAll('.theirs')].length >= {} && document.querySelectorAll('.theirs.open').length === 0"
)
DONE = "document.querySelectorAll('#moves li.{}:not(.under-way)').length >= {}"
FILMED = "Number(document.getElementById('frames').textContent.replace(',', '')) > 30"
FILM = "[...document.querySelectorAll('#film-figures dd')].map((figure) => figure.textContent)"
SAID = """[...document.querySelectorAll('.theirs .text')].map((each) => {
    const copy = each.cloneNode(true)
    copy.querySelectorAll('.cut').forEach((cut) => cut.remove())
    return copy.textContent
})"""
"""The texts of all answers, without the marks of moves."""
JUDGED = """axe.run().then(({violations}) => violations.map(
    (each) => each.id + ': ' + each.nodes.map((node) => node.html).join(' | ')
))"""
FIGURES = "Object.fromEntries(['lost', 'doubled', 'late', 'count', 'longest'].map((id) => [id, document.getElementById(id).textContent]))"


@define(eq=False)
class Visit:
    """One visit: where the page is, the browser, and what was found."""

    page: str
    browser: Chromium
    pictures: Path | None
    found: dict[str, Any] = field(factory=dict)

    async def picture(self, tab: Tab, name: str, *, whole: bool = False) -> None:
        """Take a picture, if pictures are wanted."""
        if self.pictures is not None:
            await tab.picture(self.pictures / f"{name}.png", whole=whole)

    async def run(self) -> None:
        """Go through the page."""
        tab = await self.browser.tab(self.page, width=DESK[0], height=DESK[1])
        await tab.until("document.getElementById('connection').dataset.state === 'open'")
        await tab.until("Number(document.getElementById('count').textContent) > 10")
        other = await self.browser.tab(self.page, width=PHONE[0], height=PHONE[1], phone=True)
        await other.until("document.getElementById('here').textContent.includes('One other')")
        await self._stop_the_rota(tab)
        await self._draw(tab, other)
        await self._video(tab)
        await self._talk(tab, other)
        self.found["film"] = await tab.value(FILM)
        await self._reload(tab)
        await self._axe(tab, other)
        self.found["figures"] = [await each.value(FIGURES) for each in (tab, other)]
        self.found["strokes"] = [
            await each.value("document.getElementById('paper').ariaLabel") for each in (tab, other)
        ]
        self.found["complaints"] = self.browser.complaints

    async def _stop_the_rota(self, tab: Tab) -> None:
        await tab.until(
            "document.getElementById('by-itself').textContent === 'Pause' && document.getElementById('next').textContent"
        )
        await tab.click("#by-itself")
        await tab.until("document.getElementById('by-itself').textContent === 'Go on'")

    async def _draw(self, tab: Tab, other: Tab) -> None:
        """Draw in one tab with the mouse, and in the other by keyboard."""
        await tab.drag("#strokes", [(0.1 + n / 40, 0.5 + 0.3 * ((n % 8) - 4) / 8) for n in range(24)], 0.01)
        await other.value("document.getElementById('paper').focus()")
        await other.press(" ")
        await other.press("ArrowRight", 12)
        await other.press("ArrowDown", 8)
        await other.press(" ")
        for each in (tab, other):
            await each.until("document.getElementById('paper').ariaLabel === 'Shared canvas, 2 strokes'")

    async def _video(self, tab: Tab) -> None:
        """Start the video where it is installed; else the page says how to get it."""
        self.found["video"] = find_spec("aiortc") is not None
        if not self.found["video"]:
            assert "signald[video]" in await tab.text("#how")
            return
        await tab.click("#play")
        await tab.until(FILMED)
        await self.picture(tab, "desk-video")

    async def _talk(self, tab: Tab, other: Tab) -> None:
        """Deploy, roll back and kill while one long answer is being said; then stop it."""
        await tab.value("document.getElementById('question').focus()")
        await tab.type(LONG)
        await tab.click("#ask button")
        for kind in ("deploy", "rollback", "kill"):
            # On a slow machine an answer may be over before the next node is there.
            if await tab.value(ANSWERED.format(1)):
                await tab.value(f"document.querySelectorAll('.chip')[{CHIP_OF_LONG}].click()")
            await tab.until("document.querySelector('.theirs.open .text')?.textContent.length > 60")
            await tab.click(f".move.{kind}")
            await tab.until(f"document.querySelector('#moves li.{kind} .cost').textContent === 'moves'")
            await self.picture(tab, f"desk-{kind}")
            await tab.until(DONE.format(kind, 1))
        await other.until(DONE.format("kill", 1))
        await trio.sleep(AFTERWARDS_S)
        await self.picture(tab, "desk-light")
        await self.picture(other, "phone-light")
        self.found["cuts"] = await tab.value("[...document.querySelectorAll('.cut')].map((cut) => cut.textContent)")
        await tab.value("document.querySelector('.theirs.open button')?.click()")
        await tab.until(ANSWERED.format(1))
        said = await tab.value(SAID)
        self.found["story"] = all(len(each) > 60 and "".join(answer(LONG)).startswith(each) for each in said)
        self.found["moves"] = await tab.value(
            "[...document.querySelectorAll('#moves li')].map((move) => move.textContent)"
        )

    async def _reload(self, tab: Tab) -> None:
        """Load the page again while an answer is being said: it is found, and grows to its end."""
        await tab.value("document.querySelectorAll('.chip')[1].click()")
        await tab.until("document.querySelector('.theirs.open .text')?.textContent.length > 60")
        await tab.command("Page.reload")
        await tab.until("document.querySelector('.theirs.open .text')?.textContent.length > 60")
        await self.picture(tab, "desk-reload")
        if self.found["video"]:
            await tab.until(FILMED)
        await tab.until(ANSWERED.format(2), 60.0)
        said = await tab.value(SAID)
        self.found["reload"] = len(said) > 1 and said[-1] == "".join(answer("What if a node is killed?"))

    async def _axe(self, tab: Tab, other: Tab) -> None:
        """Ask axe-core about both tabs, light and dark."""
        source = AXE.read_text()
        self.found["axe"] = []
        for each, size, phone, name in ((tab, DESK, False, "desk"), (other, PHONE, True, "phone")):
            await each.value(source + ";0")
            for dark in (False, True):
                await each.look(*size, phone=phone, dark=dark)
                await trio.sleep(0.5)
                await self.picture(each, f"{name}-{'dark' if dark else 'light'}-whole", whole=True)
                violations = await each.value(JUDGED)
                self.found["axe"] += [f"{name}, {'dark' if dark else 'light'}: {each}" for each in violations]


@asynccontextmanager
async def open_demo() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Run the demo as a visitor does, and give the page's URL; behind the block what the demo said at its end stands in the second."""
    end: dict[str, Any] = {}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "signald.cli", "demo", "--web", "--port", "0", "--every", "600"], stdout=-1, cwd=ROOT
    )
    assert process.stdout is not None
    said = b""
    with trio.fail_after(START_S):
        while b"\n" not in said[said.find(b"http://") :] or b"http://" not in said:
            data = await process.stdout.receive_some()
            assert data, f"the demo has ended: {said.decode()}"
            said += data
    url = re.search(rb"http://\S+", said)
    assert url is not None
    try:
        yield url.group().decode(), end
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(END_S):
            process.send_signal(signal.SIGINT)
            while data := await process.stdout.receive_some():
                said += data
            end["exit"] = await process.wait()
            end["said"] = said.decode()


async def visit(pictures: Path | None) -> dict[str, Any]:
    """Run the demo and a browser, go through the page, and return what was found."""
    browser = find_browser()
    assert browser is not None, "there is no Chromium; tests/run installs it"
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    try:
        async with open_demo() as (page, end), chromium(browser, profile) as driven:
            one = Visit(page, driven, pictures)
            await one.run()
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    return one.found | end


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(trio.run(visit, folder)))
