"""Asks the other nodes for a record that is damaged: a node that holds the party can give it back."""

import trio

from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.store.base import WAKE_SESSION, Refused, Result, Wake
from signald.store.registry.ops import Signal

ASK_S = 1.0
"""How long nodes that may hold a party get to give back a record that is damaged. A party waits for it, once."""


def is_unreadable(result: Result) -> bool:
    """Tell whether a claim failed because the record is damaged."""
    return isinstance(result, Refused) and result.reason == "unreadable"


def look_at(attachments: Attachments, wake: Wake) -> None:
    """Look at the session or the worker that `wake` names, if it is here."""
    name = wake[1:].decode(errors="replace")
    if wake[:1] == WAKE_SESSION:
        session = attachments.sessions.get(name)
        if session is not None:
            attachments.relay.look(session)
    else:
        link = attachments.workers.get(name)
        if link is not None:
            link.check()


async def ask_holders(context: Context, attachments: Attachments, wakes: list[Wake]) -> None:
    """Let the nodes that hold what `wakes` name find the damage and give it back; wait for that a moment."""
    for wake in wakes:
        look_at(attachments, wake)
        for node in context.cluster.nodes:
            if node != context.node:
                context.submit(Signal(node, wake))
    await trio.sleep(ASK_S)
