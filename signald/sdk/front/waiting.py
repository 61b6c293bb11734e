"""Waiting for a change, in either event loop."""

import anyio


class Lot:
    """Tasks that wait for the next change of something: each looks at it again when it is woken."""

    def __init__(self) -> None:
        self._change: anyio.Event | None = None

    async def park(self) -> None:
        """Wait until the next `unpark_all`."""
        change = self._change
        if change is None:
            change = self._change = anyio.Event()
        await change.wait()

    def unpark_all(self) -> None:
        """Wake all that wait now."""
        change, self._change = self._change, None
        if change is not None:
            change.set()
