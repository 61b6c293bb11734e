"""Remote addresses: what is read as one, and what one subscriber is."""

import pytest

from signald.addresses import ADDRESS_LENGTH_MAX, parse_address, subscriber


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:443 ", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_is_read_in_each_of_its_forms(text: str, meant: str) -> None:
    """Proxies write ports, brackets and zones. A second reading gives the same, though it is only remembered."""
    for _ in range(2):
        assert str(parse_address(text)) == meant


@pytest.mark.parametrize("text", ["", "unknown", "192.0.2.1:port", "1" * 10_000, "fe80::1%" + "e" * ADDRESS_LENGTH_MAX])
def test_what_is_no_address_is_none(text: str) -> None:
    """A text that is longer than any address is not looked at, and so not remembered either."""
    assert parse_address(text) is None
    assert subscriber(text) == text


def test_a_subscriber_has_an_ipv4_address_or_an_ipv6_64() -> None:
    """Two addresses of one /64 are one subscriber; two IPv4 addresses never are."""
    assert subscriber("2001:db8::1") == subscriber("2001:db8::2") == "2001:db8::/64"
    assert subscriber("192.0.2.1") != subscriber("192.0.2.2")
