"""Which key seals: the newest that every live node opens values by, once the store has noted it.

A key file reaches the nodes one after the other. A node that sealed under a key too early would write what its neighbours take for damage.
So each node says in its entry which keys it opens by, and looks at the entries with each renewal of its lease. The store notes a key
before a value is sealed under it. A node without a noted key is refused at its start (exit 78), because it would take for lost what it
cannot open.
"""

from collections.abc import Iterable

import structlog

from signald.errors import StoreMisused
from signald.service.context import Context
from signald.store.open import seals_of
from signald.store.registry.ops import NodeInfo, UseSealKey

log = structlog.get_logger(__name__)


class Sealing:
    """See the module. A store that keeps nothing beyond its process has no seals, and then nothing is done here."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seals = seals_of(context.committer.store)

    @property
    def known(self) -> str:
        """Ids of the keys that this node opens by, as its entry says them."""
        return "" if self._seals is None else " ".join(self._seals.ids)

    async def begin(self) -> None:
        """Refuse to start without a key under which the store holds values. Raises StoreMisused, StoreUnavailable."""
        seals = self._seals
        if seals is None:
            return
        used = (await self._context.committer.call(UseSealKey(""))).ids
        missed = [key_id for key_id in used if key_id not in seals.ids and key_id not in seals.retired]
        if missed:
            raise StoreMisused(
                f"the store holds values under keys that store.encryption_keys_file does not have (ids {', '.join(missed)}): put the "
                "lines of these keys back, the older ones above the newer ones; a key with the same name and another secret is another key"
            )
        seals.used = frozenset(used)

    async def agree(self, nodes: Iterable[NodeInfo]) -> None:
        """Seal under the newest key that all of the live `nodes` open by. Raises StoreUnavailable.

        Where there is none, the node goes on as before: what has been sealed once is not written plain again.
        """
        seals = self._seals
        if seals is None or not seals.ids:
            return
        entries = [set(info.seal_keys.split()) for info in nodes]
        common = [key_id for key_id in seals.ids if all(key_id in known for known in entries)]
        used = [key_id for key_id in seals.ids if key_id in seals.used]
        newest = (common or used or [""])[-1]
        if not newest:
            return
        # With each renewal, because a store that was emptied has lost its note as well.
        noted = await self._context.committer.call(UseSealKey(newest, tuple(sorted(seals.retired))))
        seals.used = frozenset(noted.ids)
        if newest != seals.sealing:
            seals.use(newest)
            log.info("seal_key_used", key=seals.name_of(newest), id=newest)
