"""Asks the other nodes for a record that is damaged: a node that holds the party can give it back."""

from typing import TYPE_CHECKING

import trio

from signald.store.base import WAKE_SESSION, Refused, Result, Wake
from signald.store.committer import ignore
from signald.store.registry.ops import Signal

if TYPE_CHECKING:
    from signald.service.hub import Hub

ASK_S = 1.0
"""How long nodes that may hold a party get to give back a record that is damaged. A party waits for it, once."""


def is_unreadable(result: Result) -> bool:
    """Tell whether a claim failed because the record is damaged."""
    return isinstance(result, Refused) and result.reason == "unreadable"


def look_at(hub: "Hub", wake: Wake) -> None:
    """Look at the session or the worker that `wake` names, if it is here."""
    name = wake[1:].decode(errors="replace")
    if wake[:1] == WAKE_SESSION:
        session = hub.sessions.get(name)
        if session is not None:
            hub.relay.look(session)
    else:
        link = hub.worker_links.get(name)
        if link is not None:
            hub.workers.check(link)


async def ask_holders(hub: "Hub", wakes: list[Wake]) -> None:
    """Let the nodes that hold what `wakes` name find the damage and give it back; wait for that a moment."""
    for wake in wakes:
        look_at(hub, wake)
        for node in hub.cluster.nodes:
            if node != hub.node:
                hub.committer.submit(Signal(node, wake), ignore)
    await trio.sleep(ASK_S)
