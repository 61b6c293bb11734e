"""B1 and B2: jobs are accepted over HTTP, once for each key; their results come in order over the WebSocket, and by their ids."""

from datetime import datetime, timedelta
from hashlib import sha256

from tests.systems.play import Play
from tests.systems.program import Line, Program

MORE = 4
"""Ends of jobs after each move that show that they go on."""
PIECES = 3
CLOCKS = timedelta(seconds=1)
"""A job may be created, handed out and ended by different nodes, each with a clock of its own."""


class Jobs(Play):
    """One page over all moves."""

    name = "jobs"
    shown: Program

    def __init__(self, within_s: float = 60.0, **variables: str) -> None:
        """`variables` are given to the page; it has `within_s` seconds for what is left at the end."""
        super().__init__()
        self._within_s = within_s
        self._variables = variables

    async def start(self) -> None:
        """Start the page."""
        self.shown = await self.page("jobs.mjs", **self._variables)

    async def goes_on(self) -> None:
        """Wait for more jobs and results."""
        for kind, more in (("accepted", MORE), ("piece", MORE * (PIECES + 1))):
            await self.shown.has_seen(kind, len(self.shown.saw(kind)) + more, within_s=30)

    async def finish(self) -> None:
        """Have the page fetch everything."""
        await self.shown.tell()
        await self.shown.end(within_s=self._within_s)

    def judge(self) -> None:
        """Each request made one job, each job had one end, and each piece came once, in order."""
        page = self.shown
        accepted = page.saw("accepted")
        ids = [line["job"] for line in accepted]
        assert len(set(ids)) == len(ids) == page.saw("end")[0]["jobs"], page.account()
        for line in accepted:
            assert line["location"] == f"/v1/jobs/{line['job']}", line
            assert line["own"], line
            assert line["status"] == 202, line
            assert line["later"] == "1", line
        assert all(line["same"] and line["replayed"] == "true" for line in page.saw("repeated")), page.account()
        assert [line["status"] for line in page.saw("misused")] == [422] * (len(ids) // 5)
        assert [line["job"] for line in page.saw("fetched")] == ids, page.account()
        for line in page.saw("fetched"):
            self._judge_job(line)
        assert sorted(line["job"] for line in page.saw("over")) == sorted(ids), page.account()
        self._judge_work(ids)
        assert page.saw("listed")[0]["jobs"] == ids[:-6:-1]
        assert page.saw("listed")[0]["next"] is (len(ids) > 5)
        assert [line["status"] for line in page.saw("unknown") + page.saw("without key")] == [404, 400]
        assert all(line["document"] for line in page.saw("misused") + page.saw("unknown") + page.saw("without key"))
        assert not page.saw("hole") + page.saw("gone") + page.saw("error"), page.account()
        # A planned stop cuts no request.
        assert not [line for line in page.saw("broken") if line["during"] in ("deploy", "rollback")], page.account()

    def _judge_job(self, fetched: Line) -> None:
        """What was pushed is what is fetched, and both are what the worker said."""
        texts = ["1 ", "2 ", "3 ", ""]
        blocks = [sha256(piece_of_bytes(n)).hexdigest() for n in range(1, PIECES + 2)]
        is_bytes = fetched["n"] % 3 == 0
        self._judge_pushed(fetched, blocks if is_bytes else texts)
        assert (fetched["state"], fetched["status"]) == ("succeeded", 200), fetched
        created, started, ended = map(datetime.fromisoformat, fetched["times"])
        assert created - CLOCKS <= started <= ended + CLOCKS, fetched
        if is_bytes:
            assert fetched["content_type"] == "audio/test", fetched
            assert fetched["body"] == blocks[-1], fetched
            assert fetched["result_url"], fetched
        else:
            assert fetched["result"] == "1 2 3 ", fetched

    def _judge_pushed(self, fetched: Line, wanted: list[str]) -> None:
        """Each piece came once, in order, and the last one says that it is."""
        pushed = [line for line in self.shown.saw("piece") if line["job"] == fetched["job"]]
        assert [line["data"] for line in pushed] == wanted, fetched
        assert [line["end"] for line in pushed] == [False] * PIECES + [True], fetched

    def _judge_work(self, ids: list[str]) -> None:
        """The worker was given each job, in order of creation, and did it once: it was never lost."""
        given = [line["job"] for line in self.worker.saw("job") if line["job"] in ids]
        assert given == ids


def piece_of_bytes(n: int) -> bytes:
    """Return what the worker says as binary piece `n`."""
    return n.to_bytes(4) + bytes((n + at) % 256 for at in range(1020))
