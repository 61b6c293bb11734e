"""The store's incarnation as this node knows it: a name that a store loses with all its data.

By it "the store does not know this session" is told apart: either the session has ended, or the store came back empty.
"""

from collections.abc import Callable

import trio

from signald.ids import Entropy, new_nonce
from signald.service.inboxes import Doubts
from signald.store.committer import Committer
from signald.store.registry.ops import Incarnation


class StoreIncarnation:
    """See the module. The mender keeps it."""

    def __init__(self, committer: Committer, entropy: Entropy, doubts: Doubts, lease_s: Callable[[], float]) -> None:
        """`lease_s` is how long a lease is now: within it every live node has given back what it knows."""
        self._committer = committer
        self._entropy = entropy
        self._doubts = doubts
        self._lease_s = lease_s
        self._emptied_at = float("-inf")
        self.name = ""
        """The incarnation that all of this node's records are in; empty before the node has asked."""

    async def ask(self) -> str:
        """Return the name that the store has now. Raises StoreUnavailable."""
        named = await self._committer.call(Incarnation(new_nonce(self._entropy)))
        return named.name

    def emptied(self) -> None:
        """The store was found empty."""
        self._emptied_at = trio.current_time()

    async def may_come_back(self) -> bool:
        """Tell whether another node may be about to give back what the store does not know.

        Raises StoreUnavailable.
        """
        if trio.current_time() - self._emptied_at < self._lease_s():
            return True
        if await self.ask() == self.name:
            return False
        self._doubts.check()
        return True
