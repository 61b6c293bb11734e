"""`run` of asyncio for a program on the SDK."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from signald.sdk.interrupted import quiet_interrupt


def run(main: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run `main()` as `asyncio.run` does. Ctrl-C ends the program with status 130 and without a traceback.

    Raises:
        SystemExit: the program was interrupted.
        Exception: any that `main` raises.
    """
    with quiet_interrupt():
        asyncio.run(main())
