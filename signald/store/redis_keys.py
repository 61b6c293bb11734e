"""How a store's keys and channels are named in Redis, and its Lua scripts, which know these names.

Several clusters may share one Redis by databases or by prefixes. A database parts keys but not channels, so the database is
a part of a channel's name as well. With the default prefix in database 0 all names are those of release 0.1.0.

The scripts stand in files for the default names. For others two constants in them are replaced when they are read.
"""

import hashlib
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from attrs import frozen

DEFAULT_PREFIX = "signald"

REGISTRY_TAG = "signald"
"""The hash tag of the registry's keys, whatever the prefix is."""

_CHANNEL = b"'signald:node:'"
_SESSION = b"string.sub(key, 10, -2)"
"""The session's id in the name of its head, `signald:{ID}`."""


class Script(NamedTuple):
    """One Lua script, and the name Redis gives it."""

    text: bytes
    sha: bytes


@frozen(eq=False)
class Keyspace:
    """The names of one store. Compared by identity: packed beginnings are remembered for each."""

    prefix: str = DEFAULT_PREFIX
    db: int = 0

    def key(self, tag: str) -> str:
        """The key of the hash tag `tag`; further keys of its slot begin with it."""
        return f"{self.prefix}:{{{tag}}}"

    @property
    def channels(self) -> str:
        """What the names of its channels begin with. A prefix has no `@`, so no two stores have one in common."""
        return f"{self.prefix}:node:" if self.db == 0 else f"{self.prefix}:node@{self.db}:"

    def channel(self, node: str) -> str:
        """The pub/sub channel on which `node` is woken."""
        return self.channels + node

    @cached_property
    def append(self) -> Script:
        """The hot path: append."""
        return self._script("append.lua")

    @cached_property
    def ack(self) -> Script:
        """The hot path: ack."""
        return self._script("ack.lua")

    @cached_property
    def look(self) -> Script:
        """The hot path: look."""
        return self._script("look.lua")

    @cached_property
    def session(self) -> Script:
        """All else on one session."""
        return self._script("session.lua")

    @cached_property
    def registry(self) -> Script:
        """The registry."""
        return self._script("registry.lua")

    @cached_property
    def trail(self) -> Script:
        """The trail of a session."""
        return self._script("trail.lua")

    @property
    def scripts(self) -> tuple[Script, ...]:
        """All of them, to be loaded."""
        return self.append, self.ack, self.look, self.session, self.registry, self.trail

    def _script(self, name: str) -> Script:
        text = Path(__file__).with_name(name).read_bytes()
        text = text.replace(_CHANNEL, b"'%b'" % self.channels.encode())
        text = text.replace(_SESSION, b"string.sub(key, %d, -2)" % (len(self.prefix) + 3))
        return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


DEFAULT = Keyspace()

PACKING: ContextVar[Keyspace] = ContextVar("PACKING", default=DEFAULT)
"""The store for which operations are being packed. An operation does not say whose it is, and packing one is a single step."""
