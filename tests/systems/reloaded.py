"""A page that is reloaded in the middle of each move and after it: a new process gets the newest recovery token and nothing else."""

from tests.systems.play import Play
from tests.systems.program import Program


class Reloaded(Play):
    """Pages in a row, each with the token of the one before."""

    program = ""
    growing = ""
    """The lines by which a page shows that it gets on."""
    more = 3
    """How many of them show that it goes on after a move."""
    within_s = 30.0
    """How soon it goes on."""

    def __init__(self, *, reloads: bool = True, **variables: str) -> None:
        """`variables` are given to each page; without `reloads` there is only one."""
        super().__init__()
        self.pages: list[Program] = []
        self._reloads = reloads
        self._variables = variables

    async def start(self) -> None:
        """Start the first page."""
        self.pages.append(await self.page(self.program, **self._variables))
        await self.pages[-1].has_seen("token", within_s=30)

    async def during_move(self) -> None:
        """Reload the page."""
        await self._reload()

    async def goes_on(self) -> None:
        """Wait for the page to get on, and reload it."""
        page = self.pages[-1]
        await page.has_seen("opened", within_s=self.within_s)
        await page.has_seen(self.growing, len(page.saw(self.growing)) + self.more, within_s=self.within_s)
        await self._reload()

    async def _reload(self) -> None:
        if not self._reloads:
            return
        await self.pages[-1].kill()
        # A page may get a token, and use it, up to its last moment; one that had no time to get any leaves that of its predecessor.
        token = [line["token"] for page in self.pages for line in page.saw("token")][-1]
        self.pages.append(await self.page(self.program, token, **self._variables))

    async def finish(self) -> None:
        """End the last page."""
        await self.pages[-1].tell()
        await self.pages[-1].end()
