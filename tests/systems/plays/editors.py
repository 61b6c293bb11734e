"""B5, C2: a page in a browser and a program on Node edit one Yjs document in a room, whatever the operator does.

At the end both have one document, and a third that comes last has it too. Each line that was written is there once, unless it was
erased. When the store has lost the room, the document is another one, and nothing of the old one is in it.
"""

import os
import re
import shutil

import trio

from signald.demo.cluster import free_port, let_go
from tests.systems.play import Play
from tests.systems.program import Line, Program
from tests.systems.service import ORIGIN, credential

MORE = 5
"""Updates of the other editor after each move that show that it goes on."""
DURING = 3
"""Changes of each editor in the middle of a move, so that some are made without a connection."""
BROWSER_S = 40.0
"""Far above what Chromium takes to start on a busy machine: three seconds on a quiet one."""
RETURN_S = 30.0
"""How soon an editor goes on after a move."""
REFUSED_BY_BROWSERS = frozenset({10080})
"""Ports between 10,000 and 32,768 from which a browser takes no page: https://fetch.spec.whatwg.org/#port-blocking."""


class Editors(Play):
    """Two editors over all moves, and one that comes last."""

    name = "editors"
    alone = True

    def __init__(self, emptied: int = 0) -> None:
        """`emptied` is how often the story loses what is stored."""
        super().__init__()
        self._emptied = emptied
        self._port = free_port()
        while self._port in REFUSED_BY_BROWSERS:
            self._port = free_port()
        origins = [ORIGIN, f"http://127.0.0.1:{self._port}"]
        self.settings = {"listen": {"allowed_origins": origins}}
        self.editors: list[Program] = []

    def _shown(self, name: str) -> str:
        return credential("client", name, rooms={"doc:*": ["join", "publish"]})

    async def _on_node(self, name: str, url: str) -> Program:
        return await self.cast.start("editor_node.mjs", url, name, credential=self._shown(name))

    async def start(self) -> None:
        """Start both, one at each node where there are two."""
        browser = find_browser()
        assert browser is not None, "tests/run installs Chromium; the variable CHROMIUM names another browser like it"
        port, shown = str(self._port), self._shown("p")
        page = await self.cast.start(
            "editor_browser.mjs", self.service.url, "p", port, credential=shown, CHROMIUM=browser
        )
        self.editors += [page, await self._on_node("n", self.service.workers_url)]
        for editor in self.editors:
            await editor.has_seen("joined", within_s=BROWSER_S)
            await editor.tell("write")

    async def during_move(self) -> None:
        """Let both write, also while there is no node."""
        await self._more("wrote", DURING)

    async def goes_on(self) -> None:
        """Wait until each has heard more of the other."""
        await self._more("heard", MORE)

    async def _more(self, what: str, times: int) -> None:
        async with trio.open_nursery() as nursery:
            for editor in self.editors:
                nursery.start_soon(editor.has_seen, what, len(editor.saw(what)) + times, RETURN_S)

    async def finish(self) -> None:
        """Stop writing, and let all show what they have; the page ends with its browser."""
        for editor in self.editors:
            await editor.tell("rest")
            await editor.tell("show 0")
        positions = [(await editor.has_seen("shown", within_s=RETURN_S))["position"] for editor in self.editors]
        self.editors.append(await self._on_node("l", self.service.url))
        for editor in self.editors:
            await editor.tell(f"show {max(positions)}")
        for editor, times in zip(self.editors, (2, 2, 1), strict=True):
            await editor.has_seen("shown", times, within_s=RETURN_S)
        for editor in self.editors:
            await editor.tell("end")
            await editor.end(within_s=RETURN_S)
        let_go(self._port)

    def judge(self) -> None:
        """All have one document, which is what was written and not erased."""
        shown = [editor.saw("shown")[-1] for editor in self.editors]
        for key in ("epoch", "position", "text", "map", "clients"):
            assert all(line[key] == shown[0][key] for line in shown), (key, shown)
        assert not any(line["waits"] for line in shown), "an update is missing before another one"
        lines = shown[0]["text"].split("\n")[:-1]
        assert all(re.fullmatch(r"[pn]\d+", line) for line in lines), lines
        assert len(lines) == len(set(lines)), f"doubled: {sorted(line for line in lines if lines.count(line) > 1)}"
        made = [line for editor in self.editors for line in of_the_last_epoch(editor)]
        wanted = {line["line"] for line in made if line["saw"] == "wrote"}
        wanted -= {line["line"] for line in made if line["saw"] == "erased"}
        assert set(lines) == wanted, {"lost": wanted - set(lines), "back": set(lines) - wanted}
        for editor in self.editors:
            self._judge_life(editor)

    def _judge_life(self, editor: Program) -> None:
        """With the document that it has now, an editor was refused nothing, and saw no member leave before the end."""
        assert not editor.saw("fault"), editor.account()
        assert [line["code"] for line in editor.saw("gone")] == [1000], editor.account()
        comes_last = editor is self.editors[-1]
        assert len(editor.saw("reset")) == (0 if comes_last else self._emptied), editor.account()
        assert len({line["epoch"] for line in editor.saw("joined")}) == len(editor.saw("reset")) + 1
        lines = of_the_last_epoch(editor)
        before_the_end = lines[: max(number for number, line in enumerate(lines) if line["saw"] == "shown")]
        odd = [line for line in before_the_end if line["saw"] in ("left", "put out", "error", "refused")]
        # The session is lost with the room, and is missed when it moves. What was under way for the old document is behind a gap.
        late = ("nothing_to_resume", "gap") if self._emptied else ()
        assert not [line for line in odd if line.get("code") not in late], odd


def of_the_last_epoch(editor: Program) -> list[Line]:
    """Return what an editor saw since it began with its last document."""
    resets = [number for number, line in enumerate(editor.lines) if line["saw"] == "reset"]
    return editor.lines[resets[-1] + 1 :] if resets else editor.lines


def find_browser() -> str | None:
    """Return the path of a Chromium, if there is any."""
    named = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, named)), None)
