"""`run` of Trio for a program on the SDK."""

from collections.abc import Awaitable, Callable

import trio

from signald.sdk.interrupted import quiet_interrupt


def run(main: Callable[[], Awaitable[object]]) -> None:
    """Run `main()` as `trio.run` does. Ctrl-C ends the program with status 130 and without a traceback.

    Raises:
        SystemExit: the program was interrupted.
        Exception: any that `main` raises.
    """
    with quiet_interrupt():
        trio.run(main)
