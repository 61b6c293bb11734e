"""Wake-ups: what the backplane brings, and the look at what it names.

Most carry nothing but a name, and any of them may be lost: what is named is looked at in the store, and every subscription
begins with a look at everything.
"""

import structlog
import trio

from signald.errors import StoreError
from signald.service.asking import look_at
from signald.service.attachments import Attachments
from signald.service.cluster.lives import Lives
from signald.service.cluster.probe import Probe
from signald.service.context import Context
from signald.service.rooms.hall import Hall
from signald.service.terminating import Terminations
from signald.store.base import (
    WAKE_ALL,
    WAKE_NODES,
    WAKE_OVERDUE,
    WAKE_PROBE,
    WAKE_REALTIME,
    WAKE_REVOKED,
    WAKE_ROOM,
    WAKE_SESSION,
    WAKE_TERMINATE,
    WAKE_WORKER,
    Wake,
)

log = structlog.get_logger(__name__)

BACKPLANE_RETRY_S = 1.0


class Wakes:
    """See the module."""

    def __init__(
        self,
        context: Context,
        attachments: Attachments,
        lives: Lives,
        probe: Probe,
        hall: Hall,
        terminations: Terminations,
    ) -> None:
        self._context = context
        self._attachments = attachments
        self._probe = probe
        self._hall = hall
        self._lives = lives
        self._terminations = terminations

    async def run(self) -> None:
        """Take in what the backplane brings. Runs until cancelled."""
        said = ""
        while True:
            try:
                async for wakes in self._context.store.wakes():
                    said = ""
                    for wake in wakes:
                        self.take(wake)
                    self._context.writes.flush()
            except StoreError as error:
                # The store refuses us (a password was changed): sessions here live on until an operator mends it.
                if str(error) != said:  # once a second would fill the log of a night
                    log.warning("backplane_away", why=str(error))
                said = str(error)
                self._context.inboxes.store_refused()
            await trio.sleep(BACKPLANE_RETRY_S)

    def take(self, wake: Wake) -> None:
        """Look at what `wake` names."""
        context, attachments, probe = self._context, self._attachments, self._probe
        kind = wake[:1]
        if kind in (WAKE_SESSION, WAKE_WORKER):
            look_at(attachments, wake)
        elif kind == WAKE_ROOM:
            self._hall.look(wake[1:].decode(errors="replace"))
        elif kind == WAKE_REALTIME:
            attachments.realtime.from_afar(attachments.sessions, wake)
        elif kind == WAKE_OVERDUE:
            self._lives.overdue(wake[1:].decode(errors="replace"))
        elif kind == WAKE_NODES:
            context.inboxes.nodes()
        elif kind == WAKE_REVOKED:
            context.inboxes.revoked()
        elif kind == WAKE_TERMINATE:
            self._terminations.order(wake[1:].decode(errors="replace"))
        elif kind == WAKE_PROBE:
            probe.heard(wake)
        elif kind == WAKE_ALL:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        """Wake-ups may have been lost: read everything again."""
        context, attachments = self._context, self._attachments
        context.inboxes.doubts.check()
        context.inboxes.revoked_anew()
        context.inboxes.revoked()
        context.inboxes.nodes()
        for session in list(attachments.sessions.values()):
            attachments.relay.look(session)
        for link in list(attachments.workers.values()):
            link.check()
        self._hall.look_at_everything()
        context.inboxes.line()
