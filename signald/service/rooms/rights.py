"""What a party may do in a room: see `docs/protocol.md` for the claim `rooms`.

    without auth                              everything
    an answer of the core server with `rooms` that, in the place of the claim
    the claim `rooms` of its credential       that
    neither                                   `rooms.default_rights`, in each room
    the room of a user                        its own sessions are members; only services publish there

A renewed credential renews them, and so does a reload: they are found anew for each thing that a party asks. A member that may not be in
its room any more is put out (`desk`).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import attrs
import msgspec

from signald.config import Config, has_key
from signald.core.callers import Caller
from signald.core.head import Party
from signald.core.room_names import is_of_user, room_of_user
from signald.core.rooms import NO_RIGHTS, RIGHTS, Right, read_patterns, rights_in
from signald.service.attached import LiveSession, PartyLink

Patterns = Mapping[str, Sequence[str]]
"""Pattern of the names of rooms → rights."""

ALL: Patterns = {"*": tuple(sorted(RIGHTS))}

ANSWERS_MAX = 256
"""Answers that are kept as they are read: they are asked for with each message. The largest take 100 KiB each."""

TOKEN_BYTES_MAX = 4096
"""Of the core server's answer about a worker, in an API token: the token is in the head of a request, which has up to 16 KiB. A worker with
a longer answer has no rights over HTTP, and those of the answer on its connection."""

MEMBER: frozenset[Right] = frozenset({"join"})
"""What a session may in the room of its user."""


@attrs.frozen
class Rights:
    """What one party of a session may do."""

    patterns: Patterns
    own: str = ""
    """The room of its user; empty: it has none."""

    def of(self, room: str) -> frozenset[Right]:
        """Return what the party may do in `room`, by the name that it says."""
        if is_of_user(room):
            return MEMBER if room == self.own else NO_RIGHTS
        if self.patterns is ALL:
            return RIGHTS  # without going through the patterns for each publication
        return rights_in(self.patterns, room)


def rights_of(config: Config, session: LiveSession, party: Party) -> Rights:
    """Return the rights of a party of `session` that is attached here, by what it has shown last."""
    side = session.client if party == "client" else session.worker
    credential = side.link.credential if side.link is not None else None
    claim = credential.rooms if credential is not None else None
    if party == "worker":
        return Rights(_patterns(config, side.link.rooms if side.link is not None else b"", claim))
    return Rights(_patterns(config, session.rooms, claim), room_of_user(session.principal))


def grounds_of(config: Config, session: LiveSession, party: Party) -> tuple[object, object, object]:
    """Return what `rights_of` goes by: as long as each is the same object, so are the rights."""
    link = session.side(party).link
    if link is None:
        return config, None, None
    return config, link.credential, session.rooms if party == "client" else link.rooms


def rights_of_caller(config: Config, caller: Caller, answered: bytes) -> Rights:
    """Return the rights of a caller of the HTTP API that is no service; `answered`: what the core server has said of its session.

    The API token of a worker says what the core server has said of it, also where there is no auth.
    """
    if caller.kind == "worker":
        return Rights(caller.rooms if caller.rooms is not None else _patterns(config, b"", None))
    return Rights(_patterns(config, answered, caller.rooms), room_of_user(caller.principal))


def token_rooms(link: PartyLink) -> Patterns | None:
    """Return what an API token for the party of `link` says of rooms; None: nothing, so the configuration counts."""
    if len(link.rooms) > TOKEN_BYTES_MAX:
        return {}
    if link.rooms:
        return _read(link.rooms)
    return link.credential.rooms if link.credential is not None else None


def _patterns(config: Config, answered: bytes, claim: Patterns | None) -> Patterns:
    if answered:
        return _read(answered)
    if not has_key(config.auth):
        return ALL
    return claim if claim is not None else {"*": config.rooms.default_rights}


@lru_cache(maxsize=ANSWERS_MAX)
def _read(answered: bytes) -> Patterns:
    """Read the patterns of an answer as the session keeps them; what cannot be read allows nothing."""
    try:
        return read_patterns(msgspec.json.decode(answered))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
