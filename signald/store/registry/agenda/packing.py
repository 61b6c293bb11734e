"""The operations on the agenda as RESP commands, each with the reader of its reply."""

from signald.store.redis_codec import codec
from signald.store.redis_replies import read_done
from signald.store.registry.agenda.ops import ListAgenda, Own, ReadAgenda, Schedule, Scheduled, Settle, TakeDue
from signald.store.registry.agenda.records import AHEAD_MAX_MS, ITEMS_MAX, ROOMS
from signald.store.registry.agenda.replies import read_agenda, read_due, read_page
from signald.store.registry.packing import pack_registry
from signald.store.registry.replies import read_hold


def pack_schedule(op: Schedule) -> bytes:
    """Call `schedule` of `agenda.lua`."""
    bounds = AHEAD_MAX_MS[op.kind], ITEMS_MAX[op.kind]
    return pack_registry("schedule", op.kind, op.due_ms, op.now_ms, int(op.hurry), *bounds, *op.names)


def pack_own(op: Own) -> bytes:
    """Call `own` of `agenda.lua`."""
    bounds = op.owned_max, op.rooms_max, AHEAD_MAX_MS[ROOMS]
    return pack_registry("own", op.room, op.owner, *bounds, op.due_ms, op.now_ms)


def pack_take_due(op: TakeDue) -> bytes:
    """Call `take_due` of `agenda.lua`."""
    words = op.kind, op.nonce, op.now_ms, op.lease_ms, op.limit, AHEAD_MAX_MS[op.kind]
    return pack_registry("take_due", *words, node=op.node)


def pack_settle(op: Settle) -> bytes:
    """Call `settle` of `agenda.lua`."""
    words = op.kind, op.name, op.ticket, op.due_ms, op.failures, op.since_ms, op.now_ms, AHEAD_MAX_MS[op.kind]
    return pack_registry("settle", *words)


codec(Schedule, pack_schedule, lambda _op, reply: Scheduled(int(reply)))
codec(Own, pack_own, read_hold)
codec(TakeDue, pack_take_due, read_due)
codec(Settle, pack_settle, read_done)
codec(ReadAgenda, lambda op: pack_registry("read_agenda", op.kind, op.now_ms), read_agenda)
codec(ListAgenda, lambda op: pack_registry("list_agenda", op.kind, op.after, op.limit), read_page)
