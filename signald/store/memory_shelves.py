"""How the store in memory keeps shelves: the part of `MemoryRows` for them (memory.py)."""

from collections.abc import Callable
from heapq import nsmallest

from signald.store.shelf.records import Item


class MemoryShelves:
    """See the module. A shelf has few blobs, and its lists are rebuilt each time."""

    def __init__(self) -> None:
        super().__init__()
        self._shelves: dict[str, dict[str, Item]] = {}

    def blob_item(self, shelf: str, blob: str) -> Item | None:
        return self._shelves.get(shelf, {}).get(blob)

    def save_blob_item(self, shelf: str, item: Item) -> None:
        self._shelves.setdefault(shelf, {})[item.blob.id] = item

    def drop_blob_item(self, shelf: str, blob: str) -> None:
        items = self._shelves[shelf]
        del items[blob]
        if not items:
            del self._shelves[shelf]

    def is_doomed(self, shelf: str, blob: str) -> bool:
        item = self.blob_item(shelf, blob)
        return item is not None and not item.due_ms

    def item_of_key(self, shelf: str, key: bytes) -> str:
        return next((blob for blob, item in self._shelves.get(shelf, {}).items() if item.key == key), "")

    def shelf_size(self, shelf: str) -> tuple[int, int]:
        items = self._shelves.get(shelf, {}).values()
        return len(items), sum(item.blob.bytes for item in items)

    def uploads_over(self, shelf: str, until_ms: int, from_ms: int, limit: int) -> list[str]:
        return self._first(shelf, limit, leased=True, among=lambda due_ms: due_ms <= until_ms or due_ms > from_ms)

    def blobs_over(self, shelf: str, until_ms: int, limit: int) -> list[str]:
        return self._first(shelf, limit, leased=False, among=lambda due_ms: 0 < due_ms <= until_ms)

    def blobs_doomed(self, shelf: str, limit: int) -> list[str]:
        return self._first(shelf, limit, leased=False, among=lambda due_ms: due_ms == 0)

    def shelf_due(self, shelf: str) -> tuple[int, int]:
        items = self._shelves.get(shelf, {}).values()
        leases = min([item.due_ms for item in items if item.lease_until_ms], default=0)
        return leases, min([item.due_ms for item in items if not item.lease_until_ms and item.due_ms], default=0)

    def _first(self, shelf: str, limit: int, *, leased: bool, among: Callable[[int], bool]) -> list[str]:
        found = (
            (item.due_ms, blob)
            for blob, item in self._shelves.get(shelf, {}).items()
            if bool(item.lease_until_ms) == leased and among(item.due_ms)
        )
        return [blob for _, blob in nsmallest(limit, found)]
