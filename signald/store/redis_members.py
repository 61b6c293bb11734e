"""Which servers a store is known to have: those its URL names, and those that were met since.

A server moves, a pod gets another address, Sentinels are replaced one after another: in the end none of the addresses of the URL
may be left. So each answer about the servers is remembered, beside what the URL says. Names are never resolved here: a
connection does that each time it is opened.

An object of this is shared by the threads of one store. Whatever changes is replaced whole, so each may read at any time.
"""

from collections.abc import Iterable
from itertools import chain, zip_longest

from signald.errors import StoreMisused
from signald.store.redis_url import Address, Target

LEARNT_MAX = 64
"""Addresses remembered beside those of the URL: a large cluster with its replicas, before and after it has moved. The oldest
answer is forgotten first."""

ASKED_MAX = 12
"""Servers asked one after another where the primaries are. Each may take `store.connect_timeout_s` not to answer; the next
search begins at others."""


class Members:
    """See the module."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.version = 0
        """Raised by each `renew`: connections made before it are to be dropped."""
        self.learnt: tuple[Address, ...] = ()
        """The latest answer first."""

    def renew(self, target: Target) -> None:
        """Log in and look for servers as `target` says from now on. Raises StoreMisused when it is another store."""
        now = self.target
        if target == now:
            return  # a reload of something else: no connection is to be lost over it
        if (target.kind, target.service, target.db) != (now.kind, now.service, now.db):
            raise StoreMisused("another kind of store, service or database needs a restart")
        self.target = target
        self.version += 1

    def learn(self, addresses: Iterable[Address]) -> None:
        """Remember the servers that an answer has named, beside those known before."""
        self.learnt = tuple(dict.fromkeys([*addresses, *self.learnt]))[:LEARNT_MAX]

    def to_ask(self, turn: int) -> list[Address]:
        """Return the servers to ask for the primaries, in this order; another `turn` begins with others.

        By turns one that was met and one of the URL, so that neither the dead of the one kind nor of the other are all asked
        first.
        """
        met = [address for address in self.learnt if address not in self.target.addresses]
        pairs = zip_longest(_rotated(met, turn), _rotated(list(self.target.addresses), turn))
        return [address for address in chain.from_iterable(pairs) if address is not None][:ASKED_MAX]


def _rotated(addresses: list[Address], turn: int) -> list[Address]:
    first = turn % len(addresses) if addresses else 0
    return addresses[first:] + addresses[:first]
