"""Which releases may share a store: every release has a format number, and so has the store.

    reads     every format up to its own + 1: the reader of a format ships one release before its writer
    writes    its own, in which a field of the release before keeps its meaning, and a new field has a meaning for its absence

So the nodes of two consecutive releases run on one store, forth and back. A release two formats away is refused when it starts
(exit 78), in both directions: by the number that the store keeps, and by those of the live nodes. The policy is in docs/releasing.md.
"""

from collections.abc import Iterable

from signald.errors import StoreMisused
from signald.store.registry.ops import NodeInfo

FORMAT = 2
"""The format that this release writes."""

FORMAT_UNSAID = 1
"""The format of a store or node that names none: release 0.1.0 knew no numbers."""

READS = FORMAT + 1
"""The highest format that this release reads."""


def is_ahead(kept: int) -> bool:
    """Tell whether a store whose format number is `kept` was written by a release that this one cannot read."""
    return kept > READS


def check_formats(kept: int, nodes: Iterable[NodeInfo]) -> None:
    """Judge whether this release may start on a store with format `kept` and these live nodes.

    Raises:
        StoreMisused: the store holds what this release cannot read, or a live node could not read what it would write.
    """
    if is_ahead(kept):
        raise StoreMisused(
            f"the store has format {kept}, and this release reads formats up to {READS}: start a newer release, "
            "or give this one a store of its own"
        )
    for node in nodes:
        if node.format + 1 < FORMAT:
            raise StoreMisused(
                f"node {node.id} of release {node.release} reads formats up to {node.format + 1}, and this release writes {FORMAT}: "
                "deploy each release between the two first"
            )
        if is_ahead(node.format):
            raise StoreMisused(
                f"node {node.id} of release {node.release} writes format {node.format}, and this release reads formats up to {READS}: "
                "roll back one release at a time"
            )
