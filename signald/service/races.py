"""Waiting for the first of several events."""

import trio


async def either(*events: trio.Event) -> None:
    """Wait until one of `events` is set."""

    async def wait(event: trio.Event, over: trio.CancelScope) -> None:
        await event.wait()
        over.cancel(reason="one of the events is set")

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event, nursery.cancel_scope)
