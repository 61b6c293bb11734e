"""Every rule of every aggregate, and how one is applied."""

from signald.store.base import Op, Result
from signald.store.registry import credentials as credentials_rules
from signald.store.registry import rules as registry_rules
from signald.store.registry.agenda import rules as agenda_rules
from signald.store.registry.queues import rules as queues_rules
from signald.store.room import reading as room_reading_rules
from signald.store.room import rules as room_rules
from signald.store.rows import Rows, Wakes
from signald.store.rule import RULES
from signald.store.session import reading as reading_rules
from signald.store.session import reseed as reseed_rules
from signald.store.session import rules as session_rules
from signald.store.session.events import rules as events_rules
from signald.store.session.jobs import rules as jobs_rules
from signald.store.session.streams import rules as streams_rules
from signald.store.shelf import rules as shelf_rules

__all__ = ["AGGREGATES", "RULES", "apply"]

AGGREGATES = (
    session_rules, reading_rules, reseed_rules, jobs_rules, streams_rules, events_rules,
    registry_rules, credentials_rules, agenda_rules, queues_rules,
    shelf_rules, room_rules, room_reading_rules,
)  # fmt: skip
"""Where the rules are. Importing an aggregate's rules enters them in `RULES`, so whatever can `apply` a rule knows them all."""


def apply(op: Op, rows: Rows, wakes: Wakes) -> Result:
    """Carry out one operation."""
    result: Result = RULES[type(op)](op, rows, wakes)  # or a `Head`, which is no `Result`
    return result
