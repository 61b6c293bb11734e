"""What the events of workers say."""

from signald.store.registry.ops import ClaimNamed, RegisterWorker, RemoveWorker


def registered(op: RegisterWorker | ClaimNamed) -> dict[str, str | int]:
    """Return the fields of `worker.registered`."""
    return {"worker": op.worker, "instance": op.instance, "capacity": op.capacity, "node": op.node}


def lost(op: RemoveWorker) -> dict[str, str | int]:
    """Return the fields of `worker.lost`."""
    return {"worker": op.worker, "reason": op.reason}
