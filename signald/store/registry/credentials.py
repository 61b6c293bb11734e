"""What the operations on credentials do: which subjects are revoked, and the key set of the issuer (see rules)."""

from signald.store import base
from signald.store.base import WAKE_REVOKED
from signald.store.registry import ops
from signald.store.registry.records import REVOKED_DROPPED
from signald.store.registry.rules import wake_nodes
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule


@rule(ops.Revoke)
def revoke(op: ops.Revoke, rows: Rows, wakes: Wakes) -> ops.Revoked | base.Refused:
    for over in rows.revocations_over(op.now_ms, REVOKED_DROPPED):
        rows.drop_revocation(over)
    kept = rows.revocation(op.principal)
    if kept is None:
        if rows.revocations() >= op.revoked_max:
            return base.Refused("full")
        at_ms, until_ms = op.at_ms, op.until_ms
    elif kept.at_ms >= op.at_ms and kept.until_ms >= op.until_ms:
        return ops.Revoked(kept.number)
    else:
        at_ms, until_ms = max(kept.at_ms, op.at_ms), max(kept.until_ms, op.until_ms)
    # Above all before it, also above those that a store has forgotten since: a node would not look for a lower one.
    number = max(rows.last_revocation() + 1, op.now_ms)
    rows.save_revocation(ops.Revocation(op.principal, number, at_ms, until_ms))
    wake_nodes(op.node, rows, wakes, WAKE_REVOKED)
    return ops.Revoked(number)


@rule(ops.ListRevoked)
def list_revoked(op: ops.ListRevoked, rows: Rows, _wakes: Wakes) -> ops.RevokedPage:
    found = rows.revocations_after(op.after, op.limit)
    upto = found[-1].number if found else op.after
    return ops.RevokedPage(tuple(one for one in found if one.until_ms > op.now_ms), upto, rows.last_revocation())


@rule(ops.KeepKeySet)
def keep_key_set(op: ops.KeepKeySet, rows: Rows, _wakes: Wakes) -> base.Done:
    if _key_set(op.source, rows).fetched_ms < op.fetched_ms:
        rows.save_fact("key_set", b"%b %d %b" % (op.source.encode(), op.fetched_ms, op.body))
    return base.Done()


@rule(ops.GetKeySet)
def get_key_set(op: ops.GetKeySet, rows: Rows, _wakes: Wakes) -> ops.KeptKeySet:
    return _key_set(op.source, rows)


def _key_set(source: str, rows: Rows) -> ops.KeptKeySet:
    of, _, rest = (rows.fact("key_set") or b"").partition(b" ")
    fetched_ms, _, body = rest.partition(b" ")
    if of != source.encode() or not fetched_ms.isdigit():  # another's, or damaged
        return ops.KeptKeySet(b"")
    return ops.KeptKeySet(body, int(fetched_ms))
