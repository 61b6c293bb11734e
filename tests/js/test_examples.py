"""The examples in JavaScript on real nodes, of which one is deployed and one killed beneath them: pages in a browser, a program on Node."""

import http.server
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio

from tests.demo.web.chromium import Chromium, chromium
from tests.example_programs.stage import EXAMPLES
from tests.js.package import FOLDER, NODE, build
from tests.real.harness import PATIENCE, Address, kill, open_nodes, term, until
from tests.systems.plays.editors import find_browser

pytestmark = pytest.mark.real

WORDS = 100
"""Of an answer of `streaming_worker.py`."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a user serves: the pages, and beside them the package as it is built."""
    built = build()
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLES / "js", site, dirs_exist_ok=True)
    shutil.copytree(built, site / "signald")
    modules = site / "node_modules"
    modules.mkdir()
    (modules / "ws").symlink_to((FOLDER / "node_modules" / "ws").resolve())
    (modules / "signald").symlink_to(FOLDER)
    return site


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder, as `python -m http.server` does."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def browser_in(directory: Path) -> AsyncIterator[Chromium]:
    """A browser with a fresh profile."""
    found = find_browser()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Chromium; tests/run installs it")
        pytest.skip("there is no Chromium; tests/run installs it")
    async with chromium(found, directory / "profile") as browser:
        yield browser


async def test_pages_notice_no_deploy_and_no_kill(site: Path, tmp_path: Path) -> None:
    """A whole answer grows in the chat, and two canvases show the same dots, through a deploy and a kill; nothing is complained of."""
    here, there = Address(), Address()
    settings: dict[str, dict[str, object]] = {"listen": {"allowed_origins": ["*"]}}
    async with (
        open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", settings) as nodes,
        browser_in(tmp_path) as browser,
    ):
        first = await nodes.start("first", here)
        worker = [str(EXAMPLES / "streaming_worker.py"), "stories-1", here.url, there.url]
        await nodes.spawn(worker, tmp_path / "worker.out")
        with served(site) as url:
            where = urlencode([("signald", here.url), ("signald", there.url)])
            chat = await browser.tab(f"{url}/chat.html?{where}")
            one, two = [await browser.tab(f"{url}/canvas.html?{where}&name={name}") for name in ("ann", "bob")]
            for tab in (one, two):
                await tab.until("document.querySelector('#members')?.textContent === '2'", 60 * PATIENCE)
            await chat.until("client.state === 'open'")
            await chat.value("document.querySelector('input').value = 'kite'; document.forms[0].requestSubmit()")
            await chat.until("document.querySelector('.theirs')?.textContent.includes('kite3 ')", 60 * PATIENCE)
            await one.click("svg")
            second = await nodes.start("second", there)
            term(first)
            with trio.fail_after(60 * PATIENCE):
                assert await first.process.wait() == 0
            await two.drag("svg", [(0.2, 0.2)])
            await kill(second)
            await one.drag("svg", [(0.8, 0.8)])
            await nodes.start("third", here)
            await chat.until("document.querySelector('.theirs').dataset.outcome === 'complete'", 60 * PATIENCE)
            assert (await chat.text(".theirs")).split() == [f"kite{number}" for number in range(WORDS)]
            assert await chat.value("document.querySelector('.mine').dataset.stored") == "yes"
            for tab in (one, two):
                await tab.until("document.querySelectorAll('circle').length === 3", 60 * PATIENCE)
            assert await one.value("JSON.stringify([...room.records])") == await two.value(
                "JSON.stringify([...room.records])"
            )
            thrown = [said for said in browser.complaints if "exceptionDetails" in said or "Uncaught" in said]
            assert thrown == []


async def test_a_program_on_node_asks(site: Path, tmp_path: Path) -> None:
    """Each line has its answer, once and in order, although a node is deployed and one killed; the program ends well by itself."""
    here, there = Address(), Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        first = await nodes.start("first", here)
        await nodes.spawn([str(EXAMPLES / "echo_worker.py"), here.url, there.url], tmp_path / "worker.out")
        output = tmp_path / "ask.out"
        with output.open("wb") as file, (tmp_path / "ask.err").open("wb") as errors:
            asking: trio.Process = await trio.lowlevel.open_process(
                [NODE, str(site / "ask.mjs"), here.url, there.url], stdin=-1, stdout=file, stderr=errors
            )
        assert asking.stdin is not None
        try:
            for number in range(30):
                await asking.stdin.send_all(b"line %d\n" % number)
                if number == 10:
                    await until(lambda: "line 3" in output.read_text(), 60, "the first answers")
                    second = await nodes.start("second", there)
                    term(first)
                elif number == 20:
                    with trio.fail_after(60 * PATIENCE):
                        await first.process.wait()
                    await kill(second)
                    await nodes.start("third", here)
            await asking.stdin.aclose()
            with trio.fail_after(60 * PATIENCE):
                assert await asking.wait() == 0, (tmp_path / "ask.err").read_text()
        finally:
            asking.kill()
        assert output.read_text().splitlines() == [f"You said: line {number}" for number in range(30)]
