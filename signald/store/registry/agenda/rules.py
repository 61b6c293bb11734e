"""What the operations on the agenda do (see rules)."""

from contextlib import suppress

from signald.store import base
from signald.store.base import CLOCK_SET_MS
from signald.store.registry.agenda import ops
from signald.store.registry.agenda.ops import AgendaItem, DueItem
from signald.store.registry.agenda.records import (
    AHEAD_MAX_MS,
    ITEMS_MAX,
    LEASE_MAX_MS,
    ROOMS,
    Item,
    Kind,
)
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule


@rule(ops.Schedule)
def schedule(op: ops.Schedule, rows: Rows, _wakes: Wakes) -> ops.Scheduled:
    due_ms, room = min(op.due_ms, op.now_ms + AHEAD_MAX_MS[op.kind]), None
    refused = 0
    for name in op.names:
        item = rows.item(op.kind, name)
        if item is None and ITEMS_MAX[op.kind]:
            room = ITEMS_MAX[op.kind] - rows.items(op.kind) if room is None else room
            room -= 1
            if room < 0:
                refused += 1
                continue
        _ask(op.kind, name, item, due_ms, rows, hurry=op.hurry)
    return ops.Scheduled(refused)


def enter(kind: Kind, name: str, now_ms: int, rows: Rows) -> None:
    """Let an item be due now: a part of another operation of the registry."""
    _ask(kind, name, rows.item(kind, name), now_ms, rows)


def _ask(kind: Kind, name: str, item: Item | None, due_ms: int, rows: Rows, *, hurry: bool = False) -> None:
    if item is None:
        rows.save_item(Item(kind, name, due_ms))
    elif item.ticket:
        again_ms = max(1, min(due_ms, item.again_ms or due_ms))
        rows.save_item(Item(kind, name, item.at_ms, item.ticket, item.failures, item.since_ms, again_ms, item.nonce))
    elif due_ms < item.at_ms and (hurry or not item.failures):
        rows.save_item(Item(kind, name, due_ms, 0, item.failures, item.since_ms))


@rule(ops.Own)
def own(op: ops.Own, rows: Rows, _wakes: Wakes) -> base.Done | base.Refused:
    item, owner = rows.item(ROOMS, op.room), rows.room_owner(op.room)
    if item is None and rows.items(ROOMS) >= op.rooms_max:
        return base.Refused("rooms")
    if op.owner and op.owner != owner and rows.rooms_owned(op.owner) >= op.owned_max:
        return base.Refused("owner")
    if op.owner != owner:
        rows.save_room_owner(op.room, op.owner)
    due_ms = min(op.due_ms, op.now_ms + AHEAD_MAX_MS[ROOMS])
    # What a node has taken, or takes in between, is the old item: it would end that of the new room.
    rows.save_item(Item(ROOMS, op.room, due_ms))
    return base.Done()


@rule(ops.TakeDue)
def take_due(op: ops.TakeDue, rows: Rows, _wakes: Wakes) -> ops.Due:
    taken = rows.items_taken(op.kind, op.nonce)
    if not taken and op.limit > 0:
        ticket = max(_last_ticket(rows) + 1, op.now_ms)  # above all before it, also those that a store has forgotten
        lease_until_ms = op.now_ms + min(op.lease_ms, LEASE_MAX_MS)
        for item in _due(op, rows):
            taken.append(
                Item(op.kind, item.name, lease_until_ms, ticket + len(taken), item.failures, item.since_ms, 0, op.nonce)
            )
            rows.save_item(taken[-1])
        if taken:
            rows.save_fact("agenda_ticket", b"%d" % taken[-1].ticket)
    first = [item.at_ms for is_taken in (False, True) for item in rows.items_at(op.kind, None, None, 1, taken=is_taken)]
    found = tuple([DueItem(item.name, item.ticket, item.failures, item.since_ms) for item in taken])
    return ops.Due(found, min(first, default=0))


def _last_ticket(rows: Rows) -> int:
    with suppress(ValueError):  # a damaged one counts as none
        return int(rows.fact("agenda_ticket") or b"0")
    return 0


def _due(op: ops.TakeDue, rows: Rows) -> list[Item]:
    """Return the items that may be taken: those of the past by time, then those that lie too far ahead."""
    past: list[Item] = []
    ahead: list[Item] = []
    for is_taken in (False, True):
        ahead_ms = op.now_ms + CLOCK_SET_MS + (LEASE_MAX_MS if is_taken else AHEAD_MAX_MS[op.kind])
        past += rows.items_at(op.kind, None, op.now_ms, op.limit, taken=is_taken)
        ahead += rows.items_at(op.kind, ahead_ms + 1, None, op.limit, taken=is_taken)
    return [*sorted(past, key=_by_time), *sorted(ahead, key=_by_time)][: op.limit]


def _by_time(item: Item) -> tuple[int, str]:
    return item.at_ms, item.name


@rule(ops.Settle)
def settle(op: ops.Settle, rows: Rows, _wakes: Wakes) -> base.Done:
    item = rows.item(op.kind, op.name)
    if item is None or item.ticket != op.ticket or not op.ticket:
        return base.Done()
    if not op.due_ms and not item.again_ms:
        rows.drop_item(op.kind, op.name)
        if op.kind == ROOMS:
            rows.save_room_owner(op.name, "")
        return base.Done()
    failures = op.failures if op.due_ms else 0
    due_ms = min(op.due_ms or item.again_ms, op.now_ms + AHEAD_MAX_MS[op.kind])
    if item.again_ms and not failures:
        due_ms = min(due_ms, item.again_ms)
    since_ms = (op.since_ms or op.now_ms) if failures else 0
    rows.save_item(Item(op.kind, op.name, due_ms, 0, failures, since_ms))
    return base.Done()


@rule(ops.ReadAgenda)
def read_agenda(op: ops.ReadAgenda, rows: Rows, _wakes: Wakes) -> ops.AgendaRead:
    count, due, failing, oldest_ms = rows.agenda(op.kind, op.now_ms)
    return ops.AgendaRead(count, due, failing, oldest_ms)


@rule(ops.ListAgenda)
def list_agenda(op: ops.ListAgenda, rows: Rows, _wakes: Wakes) -> ops.AgendaPage:
    found = rows.items_after(op.kind, op.after, op.limit) if op.limit > 0 else []
    return ops.AgendaPage(
        tuple([AgendaItem(one.name, one.at_ms, one.failures, one.since_ms, bool(one.ticket)) for one in found])
    )
