"""The positions of sessions that have departed: how far each had come when this node detached its last party.

A store that fails over loses its last seconds. What attached parties know is given back to it. A party that has just left
knew things too: a worker that was refused a moment ago knew which seqs its messages had. The next worker of the session at
this node must not use them again.
"""

from signald.service.attached import LiveSession

DEPARTED_MAX = 10_000
"""Sessions that are remembered, the latest first to stay: some minutes at a busy node, and a few MiB. A store that loses its
tail loses seconds."""


class Departed:
    """Positions by session, in the order in which the sessions departed."""

    def __init__(self) -> None:
        self._positions: dict[str, tuple[int, int]] = {}

    def note(self, session: LiveSession) -> None:
        """The last party of `session` has gone from here."""
        self._positions.pop(session.id, None)
        self._positions[session.id] = session.up.last, session.down.last
        if len(self._positions) > DEPARTED_MAX:
            del self._positions[next(iter(self._positions))]

    def note_again(self, session: LiveSession) -> None:
        """What a party of `session` had said before it went has been stored."""
        if session.id in self._positions:
            self._positions[session.id] = session.up.last, session.down.last

    def recall(self, session: str) -> tuple[int, int]:
        """Forget how far `session` had come, and return it (up, down); nothing is 0."""
        return self._positions.pop(session, (0, 0))
