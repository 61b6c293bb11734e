"""Remote addresses: how they are read, which proxies may name them, and which of them are one subscriber."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ADDRESS_LENGTH_MAX = 128
"""Characters of an address with its port, brackets and zone: twice what the longest needs."""

REMEMBERED = 4096
"""Addresses whose reading is remembered: the set-up of one connection asks for its peer's a dozen times."""


def parse_address(text: str) -> Address | None:
    """Return the IP address in `text`, or None when there is none.

    Proxies write it in several forms: with a port (`192.0.2.1:443`), in brackets (`[2001:db8::1]:443`), with a zone
    (`fe80::1%eth0`). An IPv4 address that a dual-stack socket shows as `::ffff:192.0.2.1` is the IPv4 address.
    """
    text = text.strip()
    return _parse(text) if len(text) <= ADDRESS_LENGTH_MAX else None


@lru_cache(REMEMBERED)
def _parse(text: str) -> Address | None:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if port and not _is_port(port):
            return None
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
        if not _is_port(colon + port):
            return None
    else:
        host = text
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else address


def _is_port(text: str) -> bool:
    # At most five digits: longer ones are no port, and the check must cost the same for any text.
    digits = text[1:]
    return text[0] == ":" and len(digits) <= 5 and digits.isascii() and digits.isdigit()


def subscriber(remote: str) -> str:
    """Return the address range of one subscriber: an IPv4 address, or an IPv6 /64; `remote` itself when it is neither."""
    address = parse_address(remote)
    return remote if address is None else _range_of(address)


@lru_cache(REMEMBERED)
def _range_of(address: Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


class ProxyTrust:
    """Tells which peers are proxies: their X-Forwarded-For is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Trust `networks`, in CIDR notation; raises ValueError for any other text."""
        self._networks = tuple(ipaddress.ip_network(network, strict=False) for network in networks)

    def trusts(self, address: str) -> bool:
        """Tell whether `address` is that of a trusted proxy, behind which there are many parties."""
        return self._trusted(parse_address(address))

    def remote(self, peer: str, forwarded: str | None) -> str:
        """Return the address of the client behind `peer`, given the X-Forwarded-For it sent.

        Reads from the right, where the nearest proxy writes, up to the first address that no trusted proxy vouches for.
        """
        address = parse_address(peer)
        remote = peer if address is None else str(address)
        if forwarded is not None and self._networks:
            for hop in reversed(forwarded.split(",")):
                if not self._trusted(address):
                    break
                candidate = parse_address(hop)
                if candidate is None:
                    break
                address, remote = candidate, str(candidate)
        return remote

    def _trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)
