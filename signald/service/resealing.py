"""Seals anew what the store holds under older keys, or plain, when an operator asks: `signald ctl reseal`.

    begin() ─▸ pass ▸ pass ▸ ... ▸ a clean pass, begun when no node seals under an older key any more ─▸ done

One node does it, beside its other work: it rests as long as each page has taken. A node that ends leaves the rest to the next request,
which finds less to do. Blobs keep the key under which they were stored.
"""

from collections.abc import Iterable
from contextlib import aclosing
from typing import Any, cast

import structlog
import trio

from signald.errors import OperationRefused, StoreMisused, StoreUnavailable
from signald.service.context import Context
from signald.store.resealing import Page, Resealable, resealable

log = structlog.get_logger(__name__)

Json = dict[str, Any]

AGAIN_S = 1.0
"""Between two attempts while the store does not answer."""

PASSES_MAX = 20
"""Passes of one request. The second or third is clean; one that never is would mean that a node seals under another key."""


class Resealing:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked = trio.Event()
        self._state = "none"
        self._passes = 0
        self._total = Page()
        self._retirable: tuple[str, ...] = ()
        self._why = ""

    def begin(self) -> Json:
        """Begin. Raises OperationRefused: it is under way, or no key seals."""
        if self._state == "running":
            raise OperationRefused(
                "state", "resealing", "this node is resealing already: `ctl reseal --show` tells how far"
            )
        store = resealable(self._context.store)
        if store is None or not store.seals.sealing:
            raise OperationRefused(
                "state",
                "no-seal-key",
                "no key seals: name a file of keys in store.encryption_keys_file of each node, and wait for seal_key_used in its log",
            )
        self._state, self._passes, self._total, self._retirable, self._why = "running", 0, Page(), (), ""
        self._asked.set()
        return self.status()

    def status(self) -> Json:
        """Return how far it is."""
        store, total = resealable(self._context.store), self._total
        key_id = "" if store is None else store.seals.sealing
        return {
            "node": self._context.node,
            "state": self._state,
            "key": {"id": key_id, "name": "" if store is None or not key_id else store.seals.name_of(key_id)},
            "passes": self._passes,
            "exchanged": total.exchanged,
            "missed": total.missed,
            "unreadable": total.unreadable,
            "retirable": self._named(store, self._retirable),
            "blobs_keep_s": None if self._context.media is None else self._context.config.blobs.keep_s,
            "why": self._why,
        }

    @staticmethod
    def _named(store: Resealable | None, ids: Iterable[str]) -> list[Json]:
        return [{"id": one, "name": "" if store is None else store.seals.name_of(one)} for one in ids]

    async def run(self) -> None:
        """Do what is asked until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            store = cast("Resealable", resealable(self._context.store))
            try:
                await self._until_clean(store)
            except StoreMisused as error:
                self._fail(str(error))

    async def _until_clean(self, store: Resealable) -> None:
        # The others follow with the renewal of their leases, so all of them seal under this key when one lease has gone by.
        agreed_at = trio.current_time() + self._context.config.node.lease_ttl_s
        while self._passes < PASSES_MAX:
            begun_at, key_id = trio.current_time(), store.seals.sealing
            found = await self._pass(store)
            if found is None:
                await trio.sleep(AGAIN_S)
            elif not found.clean or key_id != store.seals.sealing:
                continue
            elif begun_at >= agreed_at:
                self._done(store, found)
                return
            else:
                await trio.sleep(max(0.0, agreed_at - trio.current_time()))
        self._fail(
            f"{PASSES_MAX} passes, and values under other keys in each of them: does each node seal under the same key?"
        )

    async def _pass(self, store: Resealable) -> Page | None:
        """Go through the store once; None: it has not answered, and the pass is void."""
        self._passes += 1
        found = Page()
        try:
            async with aclosing(store.reseal()) as pages:
                page_at = trio.current_time()
                async for page in pages:
                    found.add(page)
                    self._total.exchanged += page.exchanged
                    self._total.missed += page.missed
                    await trio.sleep(trio.current_time() - page_at)
                    page_at = trio.current_time()
        except StoreUnavailable as error:
            self._passes -= 1
            self._why = str(error)
            return None
        self._total.unreadable, self._why = found.unreadable, ""
        return found

    def _done(self, store: Resealable, found: Page) -> None:
        self._retirable = tuple(sorted(store.seals.used - {store.seals.sealing}))
        self._state = "done"
        log.info(
            "reseal_done",
            key=store.seals.name_of(store.seals.sealing),
            id=store.seals.sealing,
            values=found.read,
            exchanged=self._total.exchanged,
            unreadable=found.unreadable,
            retirable=list(self._retirable),
        )

    def _fail(self, why: str) -> None:
        self._state, self._why = "failed", why
        log.error("reseal_failed", why=why)
