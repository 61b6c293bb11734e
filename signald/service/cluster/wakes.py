"""Wake-ups: what the backplane brings, and the look at what it names.

Most carry nothing but a name, and any of them may be lost: what is named is looked at in the store, and every subscription
begins with a look at everything.
"""

from typing import TYPE_CHECKING

import structlog
import trio

from signald.errors import StoreError
from signald.service.asking import look_at
from signald.service.cluster.lives import Lives
from signald.store.base import (
    WAKE_ALL,
    WAKE_NODES,
    WAKE_OVERDUE,
    WAKE_PROBE,
    WAKE_REALTIME,
    WAKE_SESSION,
    WAKE_WORKER,
    Wake,
)

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

BACKPLANE_RETRY_S = 1.0


class Wakes:
    """See the module."""

    def __init__(self, hub: "Hub", lives: Lives) -> None:
        self._hub = hub
        self._lives = lives

    async def run(self) -> None:
        """Take in what the backplane brings. Runs until cancelled."""
        said = ""
        while True:
            try:
                async for wakes in self._hub.store.wakes():
                    said = ""
                    for wake in wakes:
                        self.take(wake)
                    self._hub.outbox.flush()
            except StoreError as error:
                # The store refuses us (a password was changed): sessions here live on until an operator mends it.
                if str(error) != said:  # once a second would fill the log of a night
                    log.warning("backplane_away", why=str(error))
                said = str(error)
                self._hub.inboxes.store_refused()
            await trio.sleep(BACKPLANE_RETRY_S)

    def take(self, wake: Wake) -> None:
        """Look at what `wake` names."""
        hub = self._hub
        kind = wake[:1]
        if kind in (WAKE_SESSION, WAKE_WORKER):
            look_at(hub.attachments, wake)
        elif kind == WAKE_REALTIME:
            hub.relay.realtime_from_afar(hub.sessions, wake)
        elif kind == WAKE_OVERDUE:
            self._lives.overdue(wake[1:].decode(errors="replace"))
        elif kind == WAKE_NODES:
            hub.inboxes.nodes()
        elif kind == WAKE_PROBE:
            hub.probe.heard(wake)
        elif kind == WAKE_ALL:
            self._look_at_everything()

    def _look_at_everything(self) -> None:
        """Wake-ups may have been lost: read everything again."""
        hub = self._hub
        hub.inboxes.doubts.check()
        hub.inboxes.nodes()
        for session in list(hub.sessions.values()):
            hub.relay.look(session)
        for link in list(hub.worker_links.values()):
            link.check()
        hub.inboxes.line()
