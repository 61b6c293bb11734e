"""A8: the chat history survives a deploy and a reload of the page.

A page chats. It is reloaded in the middle of each move and after it: a new process gets the newest recovery token and nothing else.
"""

from tests.systems.play import Play
from tests.systems.program import Line, Program

MORE = 3
"""Answers after each move that show that the chat goes on."""

Transcript = dict[tuple[str, int], object]


class Chat(Play):
    """Pages in a row, each with the token of the one before."""

    name = "chat"

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[Program] = []

    async def start(self) -> None:
        """Start the first page."""
        self.pages.append(await self.page("chat.mjs"))

    async def during_move(self) -> None:
        """Reload the page."""
        await self._reload()

    async def goes_on(self) -> None:
        """Wait for answers, and reload the page."""
        page = self.pages[-1]
        await page.has_seen("opened", within_s=30)
        await page.has_seen("answered", len(page.saw("answered")) + MORE, within_s=30)
        await self._reload()

    async def _reload(self) -> None:
        page = self.pages[-1]
        token = (await page.has_seen("token", within_s=30))["token"]
        await page.kill()
        self.pages.append(await self.page("chat.mjs", token))

    async def finish(self) -> None:
        """End the last page."""
        await self.pages[-1].tell()
        await self.pages[-1].end()

    def judge(self) -> None:
        """Each page found all that was said before, and the last one has the whole chat: each line once and in order."""
        known: Transcript = {}
        for page in self.pages:
            transcript = transcript_of(page)
            # A page that was reloaded while it opened had no time to show all; what it did show was the same.
            assert all(known.get(key, data) == data for key, data in transcript.items()), page.account()
            known |= transcript
            assert not page.saw("hole") + page.saw("gone") + page.saw("error"), page.account()
        last = self.pages[-1]
        assert transcript_of(last) == known, last.account()
        lines = range(1, last.saw("end")[0]["said"] + 1)
        assert [number for sender, number in sorted(known) if sender == "client"] == list(lines)
        answers = [known["worker", seq] for sender, seq in sorted(known) if sender == "worker"]
        assert answers == [{"to": line} for line in lines]
        session = last.saw("opened")[0]["session"]
        heard = [line["data"] for line in self.worker.saw("heard") if line["session"] == session]
        assert heard == [known["client", line] for line in lines]


def transcript_of(page: Program) -> Transcript:
    """Return what stands on a page: what it found, what it was answered, and its own lines as far as they were acked."""
    acked = max((line["seq"] for line in page.saw("acked")), default=0)
    own = [{**line, "from": "client"} for line in page.saw("said") if line["seq"] <= acked]
    shown: list[Line] = [*page.saw("found"), *page.saw("answered"), *own]
    transcript = {(line["from"], line["seq"]): line["data"] for line in shown}
    assert len(transcript) == len(shown), f"a line stands twice: {page.account()}"
    for sender in ("client", "worker"):
        seqs = [line["seq"] for line in shown if line["from"] == sender]
        assert seqs == sorted(seqs), f"the order is not that of the chat: {page.account()}"
    return transcript
