"""The cluster as this node knows it: the live nodes, those that can take parties over, and the secret they share.

The lease reads both from the store (`service.cluster.lease`).
"""

from collections.abc import Callable

from signald.core import tickets
from signald.store.registry.ops import NodeInfo


class Cluster:
    """See the module."""

    def __init__(self, node: str, now_ms: Callable[[], int]) -> None:
        """`node` is this one."""
        self._node = node
        self._now_ms = now_ms
        self.nodes: dict[str, NodeInfo] = {}
        """The live nodes as last read, this one included."""
        self.secret = b""

    @property
    def alone(self) -> bool:
        """True while no other node is live, as far as known: only this node can have changed anything."""
        return all(name == self._node for name in self.nodes)

    def successors(self) -> list[NodeInfo]:
        """Ready nodes other than this one."""
        return [info for name, info in self.nodes.items() if name != self._node and info.state == "ready"]

    def prospects(self) -> list[NodeInfo]:
        """Other nodes that are ready or may soon be: those that start."""
        return [info for name, info in self.nodes.items() if name != self._node and info.state != "draining"]

    def is_successor(self, node: str) -> bool:
        """Tell whether `node` is another one, live and ready."""
        info = self.nodes.get(node)
        return node != self._node and info is not None and info.state == "ready"

    def ticket(self, owner: str, seconds: float) -> str | None:
        """A ticket for `owner` past a successor's limiter."""
        if not self.secret:
            return None
        return tickets.make(self.secret, owner, self._now_ms() + round(seconds * 1000))

    def has_ticket(self, owner: str, ticket: str | None) -> bool:
        """Tell whether `ticket` lets `owner` past the limiter."""
        return ticket is not None and tickets.valid(self.secret, owner, ticket, self._now_ms())
