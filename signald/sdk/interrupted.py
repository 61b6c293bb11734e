"""How a program on the SDK ends by Ctrl-C."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""What a shell reports for a program that SIGINT has ended: 128 + 2."""


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End the program with status 130 and without a traceback when Ctrl-C has ended the block.

    Task groups hand a KeyboardInterrupt on in a group, so `except KeyboardInterrupt` around them sees none of it. What else a task has
    raised meanwhile comes out as it is.

    Raises:
        SystemExit: the program was interrupted.
    """
    interrupted = False
    try:
        yield
    except* KeyboardInterrupt:
        interrupted = True
    if interrupted:
        sys.exit(INTERRUPTED)
