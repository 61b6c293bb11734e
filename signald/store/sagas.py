"""Steps over both aggregates. No operation spans them, so such a step is several operations, in an order that is safe to stop in."""

from signald.store.registry.ops import Forget
from signald.store.session.ops import EndSession


def end_session(session: str, node: str, now_ms: int = 0, keep_ms: int = 0) -> tuple[EndSession, Forget]:
    """End a session for `node` (`now_ms`, `keep_ms`: see `EndSession`): remove its record, then what the registry has of it.

    If only the first operation happens, the life of the session in the index passes, and the node that sweeps overdue
    sessions finds no record and forgets it.
    """
    return EndSession(session, node, now_ms, keep_ms), Forget(session)
