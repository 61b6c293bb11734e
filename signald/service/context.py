"""What all parts of a node share: its name, configuration, clock, committer, chance, counts, inboxes and events.

Everything here is passive: it is made first, needs no other part of the service, and decides nothing. A part that takes
the context instead of the hub can be built, read and tested without the others.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from signald.blobs.media import Media
from signald.config import Config
from signald.core.head import Party
from signald.ids import Entropy
from signald.pauses import Pauses
from signald.service.counts import Counters, Counts
from signald.service.events import Events
from signald.service.inboxes import Inboxes
from signald.service.incarnation import StoreIncarnation
from signald.service.nodes import Cluster
from signald.service.outgoing import PendingWrites
from signald.service.revoked import Revocations
from signald.service.telemetry import Spans
from signald.service.untold import Untold
from signald.store.base import Op, Store
from signald.store.committer import Committer, ignore
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

Spawn = Callable[..., None]
"""Starts a task in a nursery, as `trio.Nursery.start_soon`."""


class Context:
    """See the module. One for each node."""

    def __init__(
        self,
        config: Config,
        store: Store,
        committer: Committer,
        entropy: Entropy,
        spawn: Spawn,
        spans: Spans | None = None,
        media: Media | None = None,
    ) -> None:
        """`spawn` starts a task in the nursery of the connections; `spans`, if any, are told what takes time.

        `media` keep the bytes of blobs; without any the node keeps none.
        """
        self.config = config
        """The configuration in force. A reload replaces it, so parts read it when they need it and keep no copy."""
        self.config_changed = trio.Event()
        """Set, and replaced, by a reload: for tasks that sleep by the configuration."""
        self.node = config.node.id
        self.store = store
        self.now_ms = store.now_ms
        """Return the time of the store in milliseconds since 1970, by which all nodes reckon."""
        self.committer = committer
        self.entropy = entropy
        self._spawn = spawn
        self.stopping = False
        """True once the nursery of the connections is being cancelled: what a task would do now is another node's to do."""
        self.spans = spans
        self.media = media
        self.counters = Counters()
        self.counts = Counts(reload_at_s=store.now_ms() / 1000)
        self.cluster = Cluster(self.node, store.now_ms)
        self.inboxes = Inboxes()
        self.incarnation = StoreIncarnation(
            committer, entropy, self.inboxes.doubts, lambda: self.config.node.lease_ttl_s
        )
        self.revocations = Revocations()
        """The principals whose tokens are void."""
        self.writes = PendingWrites()
        self.events = Events()
        """What happens to sessions and workers here; see there for its subscribers."""
        self.untold = Untold(lambda: self.events_max > 0)
        """The sessions whose queues may hold an event."""
        self.draining = False
        """True from the first move of a drain on, until the drain is called off."""
        self.refusing: dict[Party, CloseCode] = {}
        """While draining: party → what its new connections are closed with."""
        self.pauses = Pauses()
        """Of this process; parties are not charged for them."""

    def renew(self, config: Config) -> None:
        """Go on by another configuration."""
        self.config = config
        self.config_changed.set()
        self.config_changed = trio.Event()

    def submit(self, op: Op) -> None:
        """Hand `op` to the committer; its result is of no interest."""
        self.committer.submit(op, ignore)

    def spawn(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task among the connections. What it raises ends that task, and no connection.

        Once the node stops no task is started: the last answers of the store come when the nursery of the connections is closed.
        """
        if not self.stopping:
            self._spawn(_guarded, task, args)

    @property
    def events_max(self) -> int:
        """How many events of one queue may wait; 0 while no core server is told."""
        core = self.config.core
        return core.events_queue_max if core.events_url else 0

    @property
    def ttl_ms(self) -> int:
        """How long a session outlives its client's connection, in milliseconds."""
        return round(self.config.session.resume_ttl_s * 1000)

    @property
    def life_ms(self) -> int:
        """How long a session lives in the index of the living unless it is renewed, in milliseconds.

        It is renewed every third of `ttl_ms`: a session whose node dies with it has `ttl_ms` left at least.
        """
        return self.ttl_ms + self.ttl_ms // 3

    def retry_after_ms(self) -> int:
        """When a refused party should come again: spread, so that refused parties do not come as one."""
        return round(self.config.admission.retry_after_ms * self.entropy.uniform(1.0, 2.0))


async def _guarded(task: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
    try:
        await task(*args)
    except Exception:
        log.exception("task_failed", task=getattr(task, "__qualname__", repr(task)))
