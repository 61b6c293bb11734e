"""A session that its worker hands over: what is kept of it until signald is known to have read that. No I/O."""

from attrs import frozen

from signald.sdk.seats import Seat
from signald.sdk.values import write
from signald.wire.messages import STATE_BYTES_MAX


@frozen
class Handed:
    """A session that was given back with its state. It is listed and given back again when the connection ends before the worker does."""

    seat: Seat
    reason: str
    state: bytes | None
    """JSON; None: nothing is left for the next worker."""


def written_state(state: object, depth_max: int) -> bytes | None:
    """Return what is left for the next worker as JSON; None leaves nothing.

    Raises:
        ValueError: longer or deeper than signald takes, or not JSON.
    """
    if state is None:
        return None
    said = write(state, depth_max)
    if len(said) > STATE_BYTES_MAX:
        raise ValueError(f"the state of a session may have at most {STATE_BYTES_MAX} bytes, not {len(said)}")
    return said
