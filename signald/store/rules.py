"""What every operation of the contract does, said once for the stores that think in Python: memory and SQLite.

A rule is a synchronous function of an operation and of `Rows`, the few ways in which a store keeps things. It checks
first and changes afterwards, so a refused operation has changed nothing. Whom to wake it tells `Wakes`, which the store
delivers together with the change. There is no clock and no randomness here: time comes with the operation.
"""

from collections.abc import Callable
from typing import Any

from signald.store import base, registry_rules, session_rules
from signald.store.base import Op, Result
from signald.store.records import Rows, Wakes

Rule = Callable[[Any, Rows, Wakes], Result]

RULES: dict[type[Op], Rule] = {
    base.CreateSession: session_rules.create_session,
    base.ClaimClient: session_rules.claim_client,
    base.ClaimWorkerSide: session_rules.claim_worker_side,
    base.AcceptSession: session_rules.accept_session,
    base.Unpair: session_rules.unpair,
    base.UnpairFailed: session_rules.unpair_failed,
    base.RetrySession: session_rules.retry_session,
    base.Append: session_rules.append,
    base.Ack: session_rules.acknowledge,
    base.Look: session_rules.look,
    base.ReadHistory: session_rules.read_history,
    base.Detach: session_rules.detach,
    base.ConfirmToken: session_rules.confirm_token,
    base.EndSession: session_rules.end_session,
    base.ExpireSession: session_rules.expire_session,
    base.Reseed: session_rules.reseed,
    base.Mark: session_rules.mark,
    base.ReadTrail: session_rules.read_trail,
    base.PutNode: registry_rules.put_node,
    base.DropNode: registry_rules.drop_node,
    base.ListNodes: registry_rules.list_nodes,
    base.Incarnation: registry_rules.incarnation,
    base.RegisterWorker: registry_rules.register_worker,
    base.ClaimWorker: registry_rules.claim_worker,
    base.UpdateWorker: registry_rules.update_worker,
    base.ConfirmWorkerToken: registry_rules.confirm_worker_token,
    base.DetachWorker: registry_rules.detach_worker,
    base.RemoveWorker: registry_rules.remove_worker,
    base.ReseedWorker: registry_rules.reseed_worker,
    base.ListWorkers: registry_rules.list_workers,
    base.WorkerSessions: registry_rules.worker_sessions,
    base.Enqueue: registry_rules.enqueue,
    base.ListWaiting: registry_rules.list_waiting,
    base.ListSuited: registry_rules.list_suited,
    base.MendLine: registry_rules.mend_line,
    base.Leave: registry_rules.leave,
    base.Reserve: registry_rules.reserve,
    base.Release: registry_rules.release,
    base.Forget: registry_rules.forget,
    base.Hold: registry_rules.hold,
    base.CountTrails: registry_rules.count_trails,
    base.KeepAlive: registry_rules.keep_alive,
    base.ListOverdue: registry_rules.list_overdue,
    base.TakePace: registry_rules.take_pace,
    base.PutReceipt: registry_rules.put_receipt,
    base.GetReceipt: registry_rules.get_receipt,
    base.ListReceipts: registry_rules.list_receipts,
    base.ClusterSecret: registry_rules.cluster_secret,
    base.RaiseFormat: registry_rules.raise_format,
    base.Signal: registry_rules.signal,
}


def apply(op: Op, rows: Rows, wakes: Wakes) -> Result:
    """Carry out one operation."""
    return RULES[type(op)](op, rows, wakes)
