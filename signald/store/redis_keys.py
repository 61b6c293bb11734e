"""How a store's keys and channels are named in Redis, and its Lua scripts, which know these names.

Several clusters may share one Redis by databases or by prefixes. A database parts keys but not channels, so the database is
a part of a channel's name as well. With the default prefix in database 0 all names are those of release 0.1.0.
"""

import hashlib
from contextvars import ContextVar
from typing import NamedTuple

from attrs import Factory, field, frozen

from signald.store.lua import Lua
from signald.store.seals import PLAIN, Seals

DEFAULT_PREFIX = "signald"

REGISTRY_TAG = "signald"
"""The hash tag of the registry's keys, whatever the prefix is."""


ROOM_TAG = "room:"
"""What the hash tag of a room begins with: rooms are named by their users, and no session or shelf has a colon in its id."""


class Script(NamedTuple):
    """One Lua script, and the name Redis gives it."""

    text: bytes
    sha: bytes


@frozen(eq=False)
class Keyspace:
    """The names of one store, and how its values are sealed. Compared by identity: packed beginnings are remembered for each."""

    prefix: str = DEFAULT_PREFIX
    db: int = 0
    seals: Seals = field(default=PLAIN, repr=False)
    _scripts: dict[Lua, Script] = field(default=Factory(dict), init=False)

    def key(self, tag: str) -> str:
        """The key of the hash tag `tag`; further keys of its slot begin with it."""
        return f"{self.prefix}:{{{tag}}}"

    def session_keys(self, session: str) -> tuple[str, ...]:
        """The keys that the scripts for one session are called with: head, both logs, chat history, jobs, pieces of their results,
        streams, event queue."""
        key = self.key(session)
        return (
            key, key + ":up", key + ":down", key + ":history", key + ":jobs", key + ":pieces", key + ":streams", key + ":events"
        )  # fmt: skip

    def shelf_keys(self, shelf: str) -> tuple[str, ...]:
        """The keys that the scripts for one shelf are called with: its blobs, those with a lease and those without one by time."""
        key = self.key(shelf)
        return key, key + ":leases", key + ":times"

    def room_keys(self, room: str) -> tuple[str, ...]:
        """The keys that the scripts for one room are called with: all it has; its records by change, removals, members, updates."""
        key = self.key(ROOM_TAG + room)
        return key, key + ":changes", key + ":removed", key + ":members", key + ":updates"

    @property
    def channels(self) -> str:
        """What the names of its channels begin with. A prefix has no `@`, so no two stores have one in common."""
        return f"{self.prefix}:node:" if self.db == 0 else f"{self.prefix}:node@{self.db}:"

    def channel(self, node: str) -> str:
        """The pub/sub channel on which `node` is woken."""
        return self.channels + node

    def script(self, lua: Lua) -> Script:
        """Return a script with the names of this store in it: `CHANNEL`, and where in a head's key `ID_FROM` the id stands."""
        found = self._scripts.get(lua)
        if found is None:
            text = lua.text({"CHANNEL": self.channels, "ID_FROM": len(self.prefix) + 3})
            sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
            found = self._scripts[lua] = Script(text, sha)
        return found


DEFAULT = Keyspace()

PACKING: ContextVar[Keyspace] = ContextVar("PACKING", default=DEFAULT)
"""The store for which operations are being packed. An operation does not say whose it is, and packing one is a single step."""
