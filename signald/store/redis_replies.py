"""Replies that the scripts of every aggregate give, read as results.

Damage is met where replies are read. A part that cannot be read, such as one message or one worker of many, is reported and left
out. Where the whole cannot be read, a reader raises as it comes (ValueError, TypeError, LookupError...), and `redis_codecs.read`
gives the answer that the operation declares for that.
"""

import msgspec

from signald.store.base import Behind, Done, Fenced, Op, Refused, Result
from signald.store.redis_connection import Reply

LABELS = msgspec.json.Decoder(dict[str, str])

DONE = Done()


def read_name(name: bytes) -> str:
    """Return the name of a node, worker or session. A damaged one is a name that is not in use."""
    return name.decode(errors="replace")


def read_names(reply: list[bytes]) -> tuple[str, ...]:
    """Return several names."""
    return tuple([read_name(name) for name in reply])


def read_done(_op: Op, _reply: Reply) -> Done:
    """Return `Done` whatever the reply: the operation is done once it is answered."""
    return DONE


def read_refusal(reply: Reply) -> Result:
    """Return the answer to an operation that has changed nothing. Raises ValueError for a kind that is unknown here."""
    match reply:
        case [b"refused", reason]:
            return Refused(reason.decode())
        case [b"fenced", epoch]:
            return Fenced(epoch)
        case [b"behind", epoch]:
            return Behind(epoch)
        case _:
            raise ValueError("a script answered with a kind that is not known here")
