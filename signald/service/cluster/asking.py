"""Asks the other nodes for a record that is damaged: a node that holds the party can give it back."""

from typing import TYPE_CHECKING

import trio

from signald.store.base import Refused, Result, Signal, Wake
from signald.store.committer import ignore

if TYPE_CHECKING:
    from signald.service.hub import Hub

ASK_S = 1.0
"""How long those who may hold a party get to give back a record that is damaged. A party waits for it, once."""


def is_unreadable(result: Result) -> bool:
    """Tell whether a claim failed because the record is damaged."""
    return isinstance(result, Refused) and result.reason == "unreadable"


async def ask_holders(hub: "Hub", wakes: list[Wake]) -> None:
    """Let whoever holds what `wakes` name look at it, and so find the damage and give it back; wait for that a moment."""
    for wake in wakes:
        hub.wakes.take(wake)
        for node in hub.cluster.nodes:
            if node != hub.node:
                hub.committer.submit(Signal(node, wake), ignore)
    await trio.sleep(ASK_S)
