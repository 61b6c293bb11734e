"""How the store in memory keeps queues of events: the part of `MemoryRows` for them (memory.py)."""

import heapq
from itertools import islice

from msgspec.structs import replace

from signald.core.life import Event
from signald.store.session.events.records import Queue


class MemoryEvents:
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: dict[str, Queue] = {}
        self._events: dict[str, dict[int, Event]] = {}

    def queue(self, name: str) -> Queue | None:
        queue = self._queues.get(name)
        return None if queue is None else replace(queue)

    def save_queue(self, queue: Queue) -> None:
        self._queues[queue.name] = replace(queue)

    def drop_queue(self, name: str) -> None:
        self._queues.pop(name, None)
        self._events.pop(name, None)

    def queues_over(self, now_ms: int, limit: int) -> list[str]:
        over = ((queue.until_ms, queue.name) for queue in self._queues.values() if 0 < queue.until_ms <= now_ms)
        return [name for _, name in heapq.nsmallest(limit, over)]

    def put_event(self, name: str, event: Event) -> None:
        self._events.setdefault(name, {})[event.n] = event

    def events(self, name: str, limit: int) -> tuple[list[Event], int]:
        found = list(islice(self._events.get(name, {}).values(), limit))
        return found, found[-1].n if found else 0

    def drop_events(self, name: str, upto: int) -> int:
        events = self._events.get(name, {})
        for n in [n for n in events if n <= upto]:
            del events[n]
        return len(events)
