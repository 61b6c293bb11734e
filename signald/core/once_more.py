"""One run at a time: however often a run is asked for while one is under way, one more follows it.

A run under way may have read what it acts on before the latest request, so the request is not answered by it; but all
requests of that time are answered by a single run after it. So work that many parts ask for stays bounded.
"""


class OnceMore:
    """See the module. The owner begins and ends the runs; this remembers whether one is under way, and asked for again."""

    __slots__ = ("again", "running")

    def __init__(self) -> None:
        self.running = False
        self.again = False
        """A run was asked for since this one began. A run that goes on in a loop clears it before each round."""

    def begin(self) -> bool:
        """Ask for a run. True: the caller begins it now; False: one is under way, and one more is to follow it."""
        if self.running:
            self.again = True
            return False
        self.running, self.again = True, False
        return True

    def end(self) -> bool:
        """The run is over. True: it was asked for once more, and the caller calls `begin` when that is still wanted."""
        self.running = False
        return self.again
