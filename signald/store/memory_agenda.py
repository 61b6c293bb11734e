"""How the store in memory keeps the agenda and the queues of the registry: the part of `MemoryRows` for them (memory.py)."""

import heapq

from signald.store.registry.agenda.records import Item
from signald.store.registry.queues.records import EventQueue


class MemoryAgenda:
    """See the module. Few are due at a time, and a look at all of them is short: no order is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, dict[str, Item]] = {}
        """Kind → name → item."""
        self._room_owners: dict[str, str] = {}
        self._rooms_owned: dict[str, set[str]] = {}
        self._event_queues: dict[str, EventQueue] = {}

    def item(self, kind: str, name: str) -> Item | None:
        return self._items.get(kind, {}).get(name)

    def save_item(self, item: Item) -> None:
        self._items.setdefault(item.kind, {})[item.name] = item

    def drop_item(self, kind: str, name: str) -> None:
        self._items.get(kind, {}).pop(name, None)

    def room_owner(self, room: str) -> str:
        return self._room_owners.get(room, "")

    def save_room_owner(self, room: str, owner: str) -> None:
        before = self._room_owners.pop(room, "")
        if before:
            self._rooms_owned[before].discard(room)
            if not self._rooms_owned[before]:
                del self._rooms_owned[before]
        if owner:
            self._room_owners[room] = owner
            self._rooms_owned.setdefault(owner, set()).add(room)

    def rooms_owned(self, owner: str) -> int:
        return len(self._rooms_owned.get(owner, ()))

    def items(self, kind: str) -> int:
        return len(self._items.get(kind, ()))

    def items_at(self, kind: str, first_ms: int | None, last_ms: int | None, limit: int, *, taken: bool) -> list[Item]:
        found = (
            item
            for item in self._items.get(kind, {}).values()
            if bool(item.ticket) == taken
            and (first_ms is None or item.at_ms >= first_ms)
            and (last_ms is None or item.at_ms <= last_ms)
        )
        return heapq.nsmallest(limit, found, key=lambda item: (item.at_ms, item.name))

    def items_taken(self, kind: str, nonce: str) -> list[Item]:
        found = [item for item in self._items.get(kind, {}).values() if item.ticket and item.nonce == nonce]
        return sorted(found, key=lambda item: item.ticket)

    def items_after(self, kind: str, after: str, limit: int) -> list[Item]:
        found = (item for name, item in self._items.get(kind, {}).items() if name > after)
        return heapq.nsmallest(limit, found, key=lambda item: item.name)

    def agenda(self, kind: str, now_ms: int) -> tuple[int, int, int, int]:
        items = self._items.get(kind, {}).values()
        due = [item.at_ms for item in items if item.at_ms <= now_ms]
        failing = [item.since_ms for item in items if item.since_ms]
        return len(items), len(due), len(failing), min(due + failing, default=0)

    def event_queue(self, name: str) -> EventQueue | None:
        return self._event_queues.get(name)

    def save_event_queue(self, queue: EventQueue) -> None:
        self._event_queues[queue.name] = queue

    def drop_event_queue(self, name: str) -> None:
        self._event_queues.pop(name, None)

    def event_queues_over(self, until_ms: int, limit: int) -> list[str]:
        over = ((queue.until_ms, queue.name) for queue in self._event_queues.values() if queue.until_ms <= until_ms)
        return [name for _, name in heapq.nsmallest(limit, over)]
