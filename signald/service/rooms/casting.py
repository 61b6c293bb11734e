"""What a member says in passing: told to the other members now, kept nowhere, and lost where a wake-up is lost.

Members at other nodes get it inside a wake-up, as realtime messages are carried. It has no position, so it comes in no order with
publications. The members that are joining get none: what they are told first has not come yet.
"""

from signald.service.context import Context
from signald.service.rooms.hall import Hall
from signald.store.base import WAKE_REALTIME, Result, Wake
from signald.store.registry.ops import Signal

IN_ROOM = b"m"
"""What stands behind the kind of such a wake-up, where a realtime message has its party."""

SIGNALS_MAX = 1024
"""Wake-ups on their way to other nodes; beyond them it is told here only. As many as realtime messages have."""


class Casting:
    """See the module."""

    def __init__(self, context: Context, hall: Hall) -> None:
        self._context = context
        self._hall = hall
        self._signals = 0

    def cast(self, room: str, member: str, payload: bytes) -> None:
        """Tell all members of `room`, by the name that the store knows, but `member` itself."""
        self._tell(room, member, payload)
        context = self._context
        if context.cluster.alone:
            return
        wake = WAKE_REALTIME + IN_ROOM + room.encode() + b"\0" + member.encode() + b"\0" + payload
        for node in context.cluster.nodes:
            if node != context.node and self._signals < SIGNALS_MAX:
                self._signals += 1
                context.committer.submit(Signal(node, wake), self._signalled)

    def _signalled(self, _: Result) -> None:
        self._signals -= 1

    def from_afar(self, wake: Wake) -> None:
        """Tell the members here what one at another node has said."""
        room, _, rest = wake[2:].partition(b"\0")
        member, _, payload = rest.partition(b"\0")
        self._tell(room.decode(errors="replace"), member.decode(errors="replace"), payload)

    def _tell(self, room: str, member: str, payload: bytes) -> None:
        here = self._hall.rooms.get(room)
        if here is None:
            return
        for guest in here.live():
            if guest.name != member and guest.link.conn.room:
                guest.link.room_cast(guest.session.id, here.shown, payload)


def is_cast(wake: Wake) -> bool:
    """Tell whether a realtime wake-up is about a room."""
    return wake[1:2] == IN_ROOM
