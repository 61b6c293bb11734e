"""A8 and B2: an answer that grows is read whole by pages that are reloaded in the middle of it, each piece once."""

from tests.systems.reloaded import Reloaded


class Stream(Reloaded):
    """One answer, page after page."""

    name = "stream"
    program = "stream.mjs"
    growing = "piece"
    more = 10

    def judge(self) -> None:
        """At any time the text was a beginning of the answer, without a gap or a piece twice; at the end it was all of it."""
        pages = self.pages
        session = pages[-1].saw("opened")[0]["session"]
        said = next(line for line in self.worker.saw("ended") if line["session"] == session)
        answer = "".join(f"{n} " for n in range(1, said["pieces"] + 1))
        assert said["attempt"] == 1
        for number, page in enumerate(pages):
            text = ""
            for line in page.lines:
                if line["saw"] == "found":
                    assert line["text"].startswith(text), page.account()
                    text = line["text"]
                    assert line["open"] is (text != answer), page.account()
                elif line["saw"] == "piece":
                    text += line["data"]
                assert answer.startswith(text), page.account()
            # A page that was reloaded while it opened had no time to show anything.
            assert number == 0 or page.saw("found") or not page.saw("piece"), page.account()
            assert not page.saw("hole") + page.saw("gone") + page.saw("error"), page.account()
        assert pages[-1].saw("end")[0]["text"] == answer
        assert pages[-1].saw("end")[0]["outcome"] in (None, "complete")
