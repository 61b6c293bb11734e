"""Second looks at what other nodes may have changed: a wake-up may have been lost."""

import trio

from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.context import Context

LOOK_EVERY_S = 1.0
LOOK_LOT, LOOK_LOT_S = 10, 0.05
"""Sessions looked at in one go, and how long after each lot: two hundred a second, a per cent of what a store can do.
That is the price of not trusting the backplane, paid in amounts no message waits for."""

WORKERS_EVERY_S = 5.0
"""The same for workers: how long a session may wait for its worker to be asked when the wake-up that said so was lost."""


class SecondLooks:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments) -> None:
        self._context = context
        self._attachments = attachments

    async def run(self) -> None:
        """Look again at what other nodes may have changed, should a wake-up have been lost. Until cancelled.

        That is the sessions whose peer is at another node, and, less often, the workers here: they may have new sessions.
        """
        context, attachments = self._context, self._attachments
        workers_at = trio.current_time() + WORKERS_EVERY_S
        while True:
            await trio.sleep(LOOK_EVERY_S)
            if trio.current_time() >= workers_at:
                if not context.cluster.alone:
                    await self._look_at_workers()
                workers_at = trio.current_time() + WORKERS_EVERY_S
            apart = [name for name, session in attachments.sessions.items() if _is_apart(session)]
            for start in range(0, len(apart), LOOK_LOT):
                for name in apart[start : start + LOOK_LOT]:
                    if name in attachments.sessions:
                        attachments.relay.look(attachments.sessions[name])
                await trio.sleep(LOOK_LOT_S)

    async def _look_at_workers(self) -> None:
        attachments = self._attachments
        names = list(attachments.workers)
        for start in range(0, len(names), LOOK_LOT):
            for name in names[start : start + LOOK_LOT]:
                if name in attachments.workers:
                    attachments.workers[name].check()
            await trio.sleep(LOOK_LOT_S)


def _is_apart(session: LiveSession) -> bool:
    """Tell whether one party is here and the other at another node."""
    client, worker = session.client, session.worker
    return (client.link is None) != (worker.link is None) and bool(client.node and worker.node)
