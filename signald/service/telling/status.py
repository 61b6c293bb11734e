"""What an operator sees of the telling: how much waits in the cluster and for how long, and how this node fares with the receiver."""

from typing import Any

import trio

from signald.service.context import Context
from signald.service.telling.teller import Teller
from signald.store.registry.agenda.ops import AgendaItem, ListAgenda

Json = dict[str, Any]

LISTED_MAX = 1000
"""Queues that are looked through for one answer: the sums tell of the others."""


def state(context: Context, teller: Teller) -> str:
    """Return how this node fares, in a word."""
    if not context.config.core.events_url:
        return "off"
    if teller.receiver.gone:
        return "gone"
    return "away" if teller.receiver.reachability.away else "ok"


async def events_json(context: Context, teller: Teller, limit: int) -> Json:
    """Return the sums, and up to `limit` queues that fail or wait the longest. Raises StoreUnavailable."""
    sums = await teller.read_sums()
    page = await context.committer.call(ListAgenda("e", "", LISTED_MAX))
    now_ms = context.now_ms()
    shown = sorted(page.items, key=lambda item: (not item.failures, item.since_ms or item.due_ms, item.name))[:limit]
    receiver, reachability = teller.receiver, teller.receiver.reachability
    return {
        "node": context.node,
        "state": state(context, teller),
        "next_probe_s": round(max(0.0, reachability.probe_at - trio.current_time()), 1) if reachability.away else None,
        "in_flight": teller.in_flight,
        "delivered": receiver.delivered,
        "failed": {reason: count for reason, count in receiver.failed.items() if count},
        "dropped": {name: teller.tally.dropped[name] for name in ("full", "expired")},
        "waiting": {
            "queues": sums.count,
            "due": sums.due,
            "failing": sums.failing,
            "oldest_s": age_s(sums.oldest_ms, now_ms),
        },
        "queues": [_item_json(item, now_ms) for item in shown],
    }


def age_s(since_ms: int, now_ms: int) -> float:
    """Return for how long something has waited; 0 for nothing."""
    return round(max(0, now_ms - since_ms) / 1000, 1) if since_ms else 0.0


def _item_json(item: AgendaItem, now_ms: int) -> Json:
    return {
        "queue": item.name,
        "failures": item.failures,
        "failing_s": age_s(item.since_ms, now_ms),
        "due_in_s": round(max(0, item.due_ms - now_ms) / 1000, 1),
        "in_flight": item.taken,
    }
