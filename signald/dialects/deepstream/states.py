"""The states of an app at a node, and their log.

    CONNECTED ─▸ AUTHENTICATED ─▸ TERMINATING ─▸ DISCONNECTED
        │              └─────────────────────────────▴
        └────────────────────────────────────────────┘

An app is known by its instance from its opening message on: before it there is only a connection. One that is turned away goes from
CONNECTED to DISCONNECTED. Each change is logged (`app_state`) and counted.
"""

from enum import Enum

import structlog

from signald.service.context import Context

log = structlog.get_logger(__name__)


class AppState(Enum):
    """See the module. `ctl apps` and metrics show the values."""

    CONNECTED = "connected"
    """It has said which instance it is."""
    AUTHENTICATED = "authenticated"
    """It is let in."""
    TERMINATING = "terminating"
    """It was asked to clean up."""
    DISCONNECTED = "disconnected"


_ORDER = list(AppState)


class Progress:
    """The state of one app on one connection."""

    __slots__ = ("_about", "_context", "state")

    def __init__(self, context: Context, instance: str, connection: int) -> None:
        """The app has said which instance it is, on this connection."""
        self._context = context
        self._about = {"node": context.node, "instance": instance, "connection": connection}
        self.state = AppState.CONNECTED
        self._tell()

    def to(self, state: AppState, **about: object) -> None:
        """The app is in `state`; one that it has been in, or passed, changes nothing."""
        if _ORDER.index(state) > _ORDER.index(self.state):
            before, self.state = self.state, state
            self._tell(before=before.value, **about)

    def _tell(self, **about: object) -> None:
        self._context.counts.app_states[self.state.value] += 1
        log.info("app_state", state=self.state.value, **self._about, **about)
