"""Which Redis server serves which key, found out from the URL, Sentinel or the Cluster, and the connections to them.

What has to be found out or opened blocks, and is asked for in the store's threads only (`link`, `links`); `ready` and
`ready_at` answer in the event loop, out of what is known.
"""

from contextlib import suppress

from redis.crc import key_slot

from signald.errors import StoreError, StoreUnavailable
from signald.store.redis_connection import RedisLink
from signald.store.redis_members import Members
from signald.store.redis_url import Address


class Router:
    """Which server serves which key, and the connections to them."""

    def __init__(self, members: Members, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._members = members
        self._version = members.version
        self.clustered = members.target.kind == "cluster"
        self._timeouts = (connect_timeout_s, command_timeout_s)
        self._links: dict[Address, RedisLink] = {}
        self._slots: list[Address] = []
        """Cluster: the primary of each slot. Else: one entry, the primary. Empty: to be found out."""
        self._asked = 0
        self._cut = False

    def link(self, tag: str) -> RedisLink:
        """Return the open connection to the primary that serves keys with the hash tag `tag`.

        Raises:
            StoreUnavailable: no such server can be found or reached.
            StoreMisused: it refuses the credentials or the certificate.
        """
        self._heed_renewal()
        return self._open(self._place(tag, self._known()))

    def links(self) -> list[RedisLink]:
        """Return the open connections to all primaries. Raises as `link`."""
        self._heed_renewal()
        return [self._open(address) for address in dict.fromkeys(self._known())]

    def ready(self, tag: str) -> RedisLink | None:
        """As `link`, but None when something would have to be found out, opened or prepared first."""
        address = self.address(tag)
        return None if address is None else self.ready_at(address)

    def ready_at(self, address: Address) -> RedisLink | None:
        """As `ready`, for a primary that is known by its address."""
        link = self._links.get(address)
        if link is None or not link.prepared or self._cut or self._version != self._members.version:
            return None
        # Readable with nothing asked: the server has closed an idle connection, or was restarted.
        return None if link.readable(0) else link

    def address(self, tag: str) -> Address | None:
        """Return the primary that serves keys with the hash tag `tag`; None when that would have to be found out."""
        return self._place(tag, self._slots) if self._slots else None

    def forget(self) -> None:
        """Something failed: drop every connection and find the servers anew next time, asking another one first."""
        self._slots = []
        self._asked += 1
        for link in self._links.values():
            link.close()
        self._links.clear()

    def cut(self) -> None:
        """From any thread: end what is going on, and let nothing begin."""
        self._cut = True
        self.cut_links()

    def cut_links(self) -> None:
        """From any thread: end the connections there are; others may follow."""
        for link in tuple(self._links.values()):
            link.cut()

    def refresh(self) -> None:
        """Ask for the servers, to know where to ask once those known now have gone. Whatever fails is tried again next time."""
        with suppress(StoreError):
            self._heed_renewal()
            self._find()
        self.forget()

    def _heed_renewal(self) -> None:
        """Drop connections that were made with an older URL: a new one is to show at once whether it is right."""
        if self._version != self._members.version:
            self._version = self._members.version
            self.forget()

    def _place(self, tag: str, slots: list[Address]) -> Address:
        return slots[0] if len(slots) == 1 else slots[key_slot(tag.encode())]

    def _known(self) -> list[Address]:
        if not self._slots:
            self._slots = self._find()
        return self._slots

    def _open(self, address: Address) -> RedisLink:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = self._new(address)
        link.open()
        if self._cut:
            # `cut` came while we were connecting and found nothing to cut.
            raise StoreUnavailable("the store is closed")
        return link

    def _new(self, address: Address) -> RedisLink:
        if self._cut:
            raise StoreUnavailable("the store is closed")
        return RedisLink(self._members.target, address, *self._timeouts)

    def _find(self) -> list[Address]:
        target = self._members.target
        if target.kind == "single":
            return list(target.addresses)
        reasons = []
        for address in self._members.to_ask(self._asked):
            link = self._links[address] = self._new(address)
            try:
                link.open()
                return self._by_sentinel(link, target.service) if target.kind == "sentinel" else self._by_cluster(link)
            except StoreUnavailable as error:
                reasons.append(str(error))
            finally:
                link.close()
                self._links.pop(address, None)
        raise StoreUnavailable("; ".join(reasons))

    def _by_sentinel(self, link: RedisLink, service: str) -> list[Address]:
        reply = link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        if reply is None:
            raise StoreUnavailable(f"the sentinel at {link.address} knows no {service}")
        # A user that may not ask for the others only learns of none.
        with suppress(StoreError):
            others = [
                dict(zip(one[::2], one[1::2], strict=False)) for one in link.ask("SENTINEL", "SENTINELS", service)
            ]
            self._members.learn(
                [link.address, *(Address(one[b"ip"].decode(), int(one[b"port"])) for one in others if one.get(b"ip"))]
            )
        return [Address(reply[0].decode(), int(reply[1]))]

    def _by_cluster(self, link: RedisLink) -> list[Address]:
        nowhere = Address("", 0)
        slots = [nowhere] * 16384
        met: list[Address] = []
        for first, last, *servers in link.ask("CLUSTER", "SLOTS"):
            # A server that does not know its own name has that by which it was asked.
            addresses = [Address((name or b"").decode() or link.address.host, port) for name, port, *_ in servers]
            slots[first : last + 1] = [addresses[0]] * (last - first + 1)
            met += addresses
        self._members.learn(met)
        if nowhere in slots:
            raise StoreUnavailable(f"the cluster at {link.address} does not serve all slots")
        return slots
