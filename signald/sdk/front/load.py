"""How loaded a worker is: said to signald now and then, and above a bound the worker takes no more sessions."""

import logging
from collections.abc import Callable
from math import inf

import anyio

from signald.sdk.front.worker import Worker

# Plain logging: a library does not choose where its application's log goes.
log = logging.getLogger("signald.sdk")

LOAD_S = 2.5
"""How often the load is asked for: a session is given within a second, and a model takes some seconds to show a new one in its load."""

CHANGE = 0.05
"""A smaller change is not said: it decides nothing, and each costs a step in the store."""

Load = Callable[[], float]
"""Returns the load, from 0 on; 1 is full. It is called in the event loop and must not block."""


async def keep_saying(worker: Worker, load: Load, load_max: float) -> None:
    """Say the load until cancelled. From `load_max` on the worker has no room, until the load is a tenth below it."""
    room, said, full = worker.capacity, -inf, False
    while True:
        try:
            now = float(load())
            if not 0 <= now < inf:
                raise ValueError(f"a load is a number from 0 on, not {now}")  # noqa: TRY301
        except Exception:
            log.exception("the load cannot be read")
        else:
            was, full = full, now >= (load_max * 0.9 if full else load_max)
            if full is not was or abs(now - said) >= CHANGE:
                # The sessions that it has stay: a lower capacity only keeps others away.
                worker.set_state(capacity=min(room, len(worker.sessions)) if full else room, load=now)
                said = now
        await anyio.sleep(LOAD_S)
