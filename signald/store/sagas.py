"""Steps over both aggregates. No operation spans them, so such a step is several operations, in an order that is safe to stop in."""

from signald.store.base import Op
from signald.store.registry.agenda.ops import Schedule
from signald.store.registry.ops import Forget
from signald.store.session.ops import EndSession


def end_session(
    session: str, node: str, now_ms: int = 0, keep_ms: int = 0, *, reason: str = "", told: bool = False
) -> tuple[Op, ...]:
    """End a session for `node` (`now_ms`, `keep_ms`, `reason`: see `EndSession`): remove its record, then what the registry has of it.

    The result of the first operation tells whether it has ended. If only that one happens, the life of the session in the index
    passes, and the node that sweeps overdue sessions finds no record and forgets it. `told`: its events are told.
    """
    return EndSession(session, node, now_ms, keep_ms, reason), *forget_session(session, now_ms, told=told)


def forget_session(session: str, now_ms: int, *, told: bool) -> tuple[Op, ...]:
    """Remove what the registry has of a session that is over.

    Where events are told, its queue becomes due before that: once the registry has forgotten it, no node would look for them.
    """
    forget = Forget(session)
    return (Schedule("e", (session,), now_ms, now_ms), forget) if told else (forget,)
