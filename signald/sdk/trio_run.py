"""How a program on the SDK ends by Ctrl-C."""

import sys
from collections.abc import Awaitable, Callable

import trio

INTERRUPTED = 130
"""What a shell reports for a program that SIGINT has ended: 128 + 2."""


def run(main: Callable[[], Awaitable[object]]) -> None:
    """Run `main()` as `trio.run` does. Ctrl-C ends the program with status 130 and without a traceback.

    Every nursery hands a KeyboardInterrupt on in a group, so `except KeyboardInterrupt` around `trio.run` sees none of it. What else
    a task has raised meanwhile comes out as it is.

    Raises:
        SystemExit: the program was interrupted.
        Exception: any that `main` raises.
    """
    interrupted = False
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        interrupted = True
    if interrupted:
        sys.exit(INTERRUPTED)
