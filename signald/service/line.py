"""Places in the waiting line: taken with the tenant of the session, kept while its client is here, given back when it is gone.

A session whose client is away waits for no worker: it would take the place of a client that is there. So it leaves the line when its
client does, is not put back when its worker is lost, and its client's next claim puts it back where it stood (`order_ms` is the
time of its creation). The registry does not know where parties are, and the session does not know the line, so a step here
looks at the session before and after: a client that comes back between the two is put in line again.

A session that wants no worker (`Head.pair`) stands in no line. A node of release 0.1.0, which does not know of that, may put it in line;
then it is taken from the worker that gets it.
"""

from collections.abc import Mapping, Sequence

from signald.core.head import Head
from signald.core.wants import within_tenant
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.store.base import Fenced
from signald.store.registry.ops import Enqueue, Leave, Release
from signald.store.session.ops import Look, Looked, Unpair

LOT = 200
"""Sessions looked at in one call."""


def place(session: str, want: Mapping[str, str], principal: str, order_ms: int, alive_until_ms: int) -> Enqueue:
    """Put a session in line, with the tenant of its principal: only a worker of the same tenant may serve it."""
    return Enqueue(session, within_tenant(want, principal), order_ms, alive_until_ms)


def enqueue(session: LiveSession, alive_until_ms: int) -> Enqueue:
    """Put `session` in line at its place."""
    return place(session.id, session.want, session.principal, session.created_ms, alive_until_ms)


def wants_worker(context: Context, head: Head) -> bool:
    """Tell whether a session may stand in line: it wants a worker, and its client is attached to a node that lives.

    A mistake costs a wait of `QUEUE_AGAIN_S`.
    """
    return head.pair and (head.client_node == context.node or head.client_node in context.cluster.nodes)


async def leave_if_away(context: Context, sessions: Sequence[str]) -> None:
    """Take those of `sessions` out of the line whose client is away. An outage ends this: they keep their places."""
    try:
        for start in range(0, len(sessions), LOT):
            heads = await _heads(context, sessions[start : start + LOT])
            away = [head.session for head in heads if not head.worker and not wants_worker(context, head)]
            await context.committer.call_many([Leave(session) for session in away])
            await _put_back(context, away)
    except StoreUnavailable:
        return


async def give_back(context: Context, session: str, worker: str, epoch: int) -> None:
    """Take `session` from `worker`, which has not been asked for it: it waits, or leaves the line if its client is away.

    `epoch` is that of the claim made for the worker. An outage ends this: the node that finds the pair again repeats it.
    """
    try:
        unpaired = await context.committer.call(Unpair(session, context.node, worker, epoch))
        if isinstance(unpaired, Fenced):
            # A later claim has it for this worker, whose place in the registry is not this one's to give up: without it no node would look
            # at the session again.
            return
        await context.committer.call(Release(session, worker, requeue=False))
        await _put_back(context, [session])
    except StoreUnavailable:
        return
    context.inboxes.line()


async def _heads(context: Context, sessions: Sequence[str]) -> list[Head]:
    looked = await context.committer.call_many([Look(session, "client", 0, 0) for session in sessions])
    return [result.head for result in looked if isinstance(result, Looked)]


async def _put_back(context: Context, sessions: Sequence[str]) -> None:
    alive_until = context.now_ms() + context.life_ms
    heads = [head for head in await _heads(context, sessions) if not head.worker and wants_worker(context, head)]
    await context.committer.call_many(
        [place(head.session, head.want, head.principal, head.created_ms, alive_until) for head in heads]
    )
