"""The health of one process, as probes, metrics and the admin API read it: from before there is a node until the end."""

from collections import Counter

from signald.config import Config
from signald.http.health import HealthStatus
from signald.service.meters import Observed
from signald.service.operations import NodeOperations


class Health:
    """Answers before the node exists as well: a probe of a process that starts must not fail."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._observed: Observed | None = None
        self._operations: NodeOperations | None = None
        self.answers: Counter[int] = Counter()
        """HTTP answers by status code; the HTTP applications count them."""

    def begin(self, observed: Observed, operations: NodeOperations) -> None:
        """The node listens and is ready."""
        self._observed = observed
        self._operations = operations

    def operations(self) -> NodeOperations | None:
        """The operations of the admin API; None while there is no node."""
        return self._operations

    def observed(self) -> Observed | None:
        """The parts that metrics are read from; None while there is no node."""
        return self._observed

    def admin_token(self) -> str:
        """The token that opens the admin API over TCP now: a reload may change it."""
        config = self._observed.hub.config if self._observed is not None else self._config
        return config.admin.token

    def read(self) -> HealthStatus:
        """The status now."""
        name, release = self._config.node.id, self._config.node.release
        node = self._observed
        if node is None:
            return HealthStatus(node=name, release=release, listening=False, store=False)
        status = node.shutdown.status
        draining = status.refuses_clients
        return HealthStatus(
            node=name,
            release=release,
            listening=True,
            store=node.hub.committer.down_since is None,
            draining=draining and not status.by_signal,
            shutting_down=draining and status.by_signal,
        )
