"""How far the sessions had come that this node has let go of.

A store that fails over loses its last seconds. What parties that are still here know is given back; a party that has just
gone knew things too, such as a worker that was refused a moment ago: which numbers its words had. Somebody to whom the store
gives the session next, at this node, is not to give them again.
"""

from signald.service.relay import LiveSession

LEFT_MAX = 10_000
"""Sessions that are remembered, the latest ones: some minutes at a node that is busy, and a few MiB. A store that loses its
tail loses seconds."""


class Left:
    """Positions by session, the longest gone first."""

    def __init__(self) -> None:
        self._positions: dict[str, tuple[int, int]] = {}

    def note(self, session: LiveSession) -> None:
        """The last party of `session` has gone from here."""
        self._positions.pop(session.id, None)
        self._positions[session.id] = session.up.last, session.down.last
        if len(self._positions) > LEFT_MAX:
            del self._positions[next(iter(self._positions))]

    def note_again(self, session: LiveSession) -> None:
        """What a party of `session` had said before it went has been stored."""
        if session.id in self._positions:
            self._positions[session.id] = session.up.last, session.down.last

    def recall(self, session: str) -> tuple[int, int]:
        """Forget how far `session` had come, and return it (up, down); nothing is 0."""
        return self._positions.pop(session, (0, 0))
