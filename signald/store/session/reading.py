"""What the operations read that change nothing of a session (see rules)."""

from signald.core.chat_history import unfold
from signald.core.log import Entry
from signald.store import base
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session import ops
from signald.store.session.records import Past, Record, Way


@rule(ops.Look)
def look(op: ops.Look, rows: Rows, _wakes: Wakes) -> ops.Looked | base.Behind | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    way: Way = "down" if op.party == "client" else "up"
    log = record.log(way)
    after = max(op.after, log.acked)
    entries: list[Entry] = []
    if op.limit > 0 and after < log.last:
        entries = rows.read_entries(record.session, way, after, op.limit)
        for place, entry in enumerate(entries):
            if entry.seq != entries[0].seq + place:
                del entries[place:]
                break
    return ops.Looked(record.head(), tuple(entries))


@rule(ops.ReadSession)
def read_session(op: ops.ReadSession, rows: Rows, _wakes: Wakes) -> ops.SessionRead | base.Refused | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if not op.access.allows(record.principal, record.worker):
        return base.Refused("access")
    connected_ms = 0
    if record.client.epoch:  # a record that a node gave back knows of no claim
        connected_ms = record.client.claims[-1].asked_ms if record.client.claims else record.created_ms
    return ops.SessionRead(record.head(), connected_ms, record.client_away_ms)


@rule(ops.ReadHistory)
def read_history(op: ops.ReadHistory, rows: Rows, _wakes: Wakes) -> ops.History | base.Refused | ops.NoSession:
    shown: Record | Past | None = rows.session(op.session)
    if shown is None:
        shown = rows.past(op.session)
        if shown is None or shown.until_ms <= op.now_ms:
            return ops.NoSession()
    if not op.access.allows(shown.principal, shown.worker):
        return base.Refused("access")
    return ops.History(*unfold(rows.history(op.session), op.limit, op.before)) if op.limit > 0 else ops.History(())


@rule(ops.ReadTrail)
def read_trail(op: ops.ReadTrail, rows: Rows, _wakes: Wakes) -> ops.Trail:
    return ops.Trail(tuple(rows.steps(op.session)))
