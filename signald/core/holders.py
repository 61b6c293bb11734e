"""The names by which the store counts and lists the sessions of an address or a principal.

A name has one length, and tells nothing about the address or the principal: the registry holds no subject in the clear.
"""

import base64
from functools import lru_cache
from hashlib import blake2b


def address_holder(address: str) -> str:
    """Return how the store knows an address."""
    return _name(f"address {address}")


@lru_cache(65_536)  # each renewal of the sessions of a node asks for all of them again
def principal_holder(principal: str) -> str:
    """Return how the store knows a principal; empty for the anonymous one, whose sessions are counted for no principal."""
    return _name(f"principal {principal}") if principal else ""


def _name(text: str) -> str:
    return base64.urlsafe_b64encode(blake2b(text.encode(), digest_size=15).digest()).decode()
