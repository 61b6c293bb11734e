"""A8: the chat history survives a deploy and a reload of the page."""

from tests.systems.program import Line, Program
from tests.systems.reloaded import Reloaded

Transcript = dict[tuple[str, int], object]


class Chat(Reloaded):
    """A chat, page after page."""

    name = "chat"
    program = "chat.mjs"
    growing = "answered"

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
