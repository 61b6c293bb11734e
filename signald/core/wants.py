"""Wants: the labels that a session needs of its worker, as a path through a tree. The tenant is the first step of it.

Theory of operation. The labels of a want, in a fixed order, are the steps of a path; its last node names the *line* in which all
sessions with this want stand, first come, first served. A worker's *offer* is its own labels in the same order. An offer
suits a want if the want's node can be reached over steps of the offer alone. So a search from the root visits no want that
the worker could not serve, however many wait. A client that invents labels adds nodes that no search reaches.

The labels are in the order of their digests, and a node is the digest of the path to it. So every store can compute both;
the Lua script does. Digests only sort: `core.pairing` judges by the labels themselves whether a worker suits a session.

The tenant of a token separates parties. A node adds it to a want and to an offer as the label `TENANT`; it always is the first step,
and a search with a tenant begins behind it. A party cannot say this label: its name is longer than a label's may be.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

TENANT = "signald:tenant, as the token of the party says; no label of a party has a name as long as this"
"""The label that holds the tenant. Earlier releases keep it with the place and serve it with no worker of theirs."""

SEPARATOR = "\x1f"
"""Between tenant and subject in the name of a principal."""

ROOT = "0"
"""The node of the empty want."""

DIGEST = 20
"""Hex digits of a digest: two of a million wants share one with a chance of 1 in 10**12, and then only share a line."""

Labels = Mapping[str, str]


def tenant_of(principal: str) -> str | None:
    """Return the tenant in the name of a principal; None if its token has none. The empty tenant is a tenant."""
    tenant, separator, _ = principal.rpartition(SEPARATOR)
    return tenant if separator else None


def subject_of(principal: str) -> str:
    """Return the subject in the name of a principal: what the token calls `sub`."""
    return principal.rpartition(SEPARATOR)[2]


def within_tenant(labels: Labels, principal: str) -> dict[str, str]:
    """Return `labels` with the tenant of `principal`, as they are matched; without it, if there is none."""
    plain = {name: value for name, value in labels.items() if name != TENANT}
    tenant = tenant_of(principal)
    return plain if tenant is None else {**plain, TENANT: tenant}


@lru_cache(65_536)
def _digest(name: str, value: str) -> str:
    return _sha(f"{name}\0{value}")


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:DIGEST]


@lru_cache(65_536)
def _below(node: str, step: str) -> str:
    return _sha(node + step)


def _steps(labels: Labels) -> list[str]:
    return sorted([_digest(name, value) for name, value in labels.items() if name != TENANT])


def path(want: Labels) -> tuple[str, ...]:
    """Return the nodes on the way to `want`; the last one names its line."""
    found: list[str] = []
    node = ""
    first = [_digest(TENANT, want[TENANT])] if TENANT in want else []
    for step in first + _steps(want):
        node = _below(node, step)
        found.append(node)
    return tuple(found) or (ROOT,)


def offer(labels: Labels) -> tuple[str, ...]:
    """Return where the search for what `labels` suit begins ("": at the root), and its steps."""
    begin = _below("", _digest(TENANT, labels[TENANT])) if TENANT in labels else ""
    return (begin, *_steps(labels))


def suited(offered: tuple[str, ...], is_wanted: Callable[[str], bool], edges_max: int) -> Iterator[str]:
    """Yield the nodes that `offered` suits and that are on the way to a want, near ones first.

    Asks `is_wanted` at most `edges_max` times and once for each step: with more, the search ends early.
    """
    begin, *steps = offered
    queue = [(begin, 0)]
    for at, (node, first) in enumerate(queue):  # grows while it is read
        yield node or ROOT
        if at and edges_max <= 0:
            continue
        for place in range(first, len(steps)):
            edges_max -= 1
            child = _below(node, steps[place])
            if is_wanted(child):
                queue.append((child, place + 1))
