"""The spans of messages that carry a sampled trace: from the read that brought the message to the answer of the store."""

from signald.core.head import Party
from signald.core.session import Side
from signald.service.attached import LiveSession, PartyLink
from signald.service.telemetry import Spans
from signald.store.base import Result
from signald.store.session.ops import Appended
from signald.wire import traces
from signald.wire.messages import Message


def follow(side: Side[PartyLink], message: Message) -> None:
    """Remember a message of this side that carries a sampled trace, until it is stored."""
    parsed = traces.parse(message.trace)
    link = side.link
    if parsed is not None and parsed.sampled and link is not None and message.trace is not None:
        side.traced.append((message.seq, link.conn.last_received_at, message.trace))


def tell(spans: Spans, session: LiveSession, party: Party, result: Result, answered_at: float) -> None:
    """Tell `spans` of the messages that `result`, which the store gave at `answered_at`, says are stored."""
    side = session.side(party)
    if type(result) is not Appended:
        # What is not stored is offered again, with its trace, or tried again: then it is not followed any more.
        side.traced.clear()
        return
    stored = [one for one in side.traced if one[0] <= result.last]
    side.traced = side.traced[len(stored) :]
    for seq, came_at, trace in stored:
        about: dict[str, str | int] = {"signald.session": session.id, "signald.party": party, "signald.seq": seq}
        spans.tell("signald.message", came_at, answered_at, trace, about)
