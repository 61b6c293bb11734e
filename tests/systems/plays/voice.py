"""A7: voice messages are recorded, stored, and played byte for byte, after deploys, reloads and kills; another user gets none of them."""

from tests.systems.program import Line, Program
from tests.systems.reloaded import Reloaded
from tests.systems.service import UNPLANNED, credential

OWN = '{"for": "voice"}'
"""What only the worker of this play can do."""
STOLEN = 3
"""Voices whose ids the other user knows."""
REFUSED = {"shows nothing": 401}
"""The status of each refusal that is not 404: what another user has is not there."""


class Voice(Reloaded):
    """One conversation of voices, page after page."""

    name = "voice"
    program = "voice.mjs"
    growing = "played"
    # The key of an upload that a killed node has begun is free after 20 s.
    within_s = 60.0
    speaker: Program
    thief: Program

    def __init__(self) -> None:
        super().__init__(WANT=OWN)

    async def start(self) -> None:
        """Start the worker, and the first page."""
        shown = credential("worker", "speaker")
        self.speaker = await self.cast.start(
            "voice_worker.py", self.service.workers_url, "speaker", "5", credential=shown, LABELS=OWN
        )
        await self.speaker.has_seen("opened", within_s=30)
        await super().start()

    async def finish(self) -> None:
        """Have another user try, and the last page play everything."""
        session = self.pages[0].saw("opened")[0]["session"]
        blobs = [line["blob"] for line in self._stored()[:STOLEN]]
        shown = credential("client", "mallory")
        self.thief = await self.cast.start("thief.mjs", self.service.url, session, *blobs, credential=shown)
        await self.thief.end(within_s=30)
        await self.pages[-1].tell()
        await self.pages[-1].end(within_s=60)

    def _stored(self) -> list[Line]:
        return [line for page in self.pages for line in page.saw("stored")] + self.speaker.saw("stored")

    def judge(self) -> None:
        """Each voice is one blob, however often it was uploaded, and was whole whenever it was played; no planned move cut a request."""
        for line in self._stored():
            assert line["status"] == 201, line
            assert line["own"], line
        for page in self.pages:
            assert all(line["whole"] and line["proper"] for line in page.saw("played")), page.account()
            assert not page.saw("hole") + page.saw("gone") + page.saw("error"), page.account()
            # A line of a page that is reloaded may be its last, and its own end cuts its requests.
            assert {line["during"] for line in page.saw("broken")} <= set(UNPLANNED), page.account()
        assert {line["during"] for line in self.speaker.saw("broken")} <= set(UNPLANNED), self.speaker.account()
        assert {line["status"] for line in self.speaker.saw("heard")} == {200}, self.speaker.account()
        self._judge_chat()
        self._judge_thief()

    def _judge_chat(self) -> None:
        """The chat has each voice and its answer, once, and both can still be played."""
        last = self.pages[-1]
        kept = last.saw("kept")
        numbers = list(range(1, last.saw("end")[0]["said"] + 1))
        of_pages = [line for page in self.pages for line in page.saw("stored")]
        for sender, lines in (("client", of_pages), ("worker", self.speaker.saw("stored"))):
            named = {line["n"]: line["blob"] for line in kept if line["from"] == sender}
            assert sorted(named) == numbers, last.account()
            assert {line["n"] for line in lines} >= set(numbers)
            assert all(named[line["n"]] == line["blob"] for line in lines if line["n"] in named), "a key made two blobs"
        assert len(kept) == 2 * len(numbers)
        assert all(line["status"] == 200 and line["whole"] and line["tagged"] for line in kept), last.account()

    def _judge_thief(self) -> None:
        tried = self.thief.saw("tried")
        assert len(tried) == 8 * STOLEN + 1
        for line in tried:
            wanted = REFUSED.get(line["step"], 404)
            assert line["status"] in (wanted, 403), self.thief.account()
            assert line["type"].startswith("application/problem+json"), self.thief.account()
