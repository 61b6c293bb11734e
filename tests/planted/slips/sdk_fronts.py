"""Slips in what carries the decisions of the SDK: the common front."""

from tests.planted.bug import Bug

_PARTY = "signald/sdk/front/party.py"

SDK_FRONTS = (
    Bug(
        "sdk-last-end-believed",
        _PARTY,
        "_Ending.end",
        "if not self.said:",
        "if True:",
        "single-owner",
        "The code of a close is overwritten by the break behind it.",
        ("tests/vectors/test_scripts.py::test_a_lying_node_hurts_no_party[trio-acks_twice-worker]",),
    ),
)
