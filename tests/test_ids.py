"""The ids of blobs and shelves: one leads to the other, and none tells its owner."""

import re

from signald.ids import SeededEntropy, new_blob_id, shelf_of_blob, shelf_of_owner


def test_a_blob_leads_to_its_shelf() -> None:
    """The id of a blob names its shelf, and is of characters that keys of media, paths and headers may have."""
    entropy = SeededEntropy(1)
    shelf = shelf_of_owner("ann", "s_1")
    blobs = {new_blob_id(shelf, entropy) for _ in range(100)}
    assert len(blobs) == 100
    assert {shelf_of_blob(blob) for blob in blobs} == {shelf}
    assert all(re.fullmatch(r"b_[A-Za-z0-9_-]{44}", blob) for blob in blobs)
    assert re.fullmatch(r"p_[A-Za-z0-9_-]{22}", shelf)


def test_an_owner_has_one_shelf() -> None:
    """All sessions of a principal have its shelf; an anonymous session has its own, and no principal can be named into it."""
    assert shelf_of_owner("ann", "s_1") == shelf_of_owner("ann", "s_2")
    owners = [("ann", "s_1"), ("bob", "s_1"), ("", "s_1"), ("", "s_2"), ("s_1", "s_3"), ("session s_1", "s_3")]
    assert len({shelf_of_owner(*owner) for owner in owners}) == len(owners)


def test_what_is_no_blob() -> None:
    """Any other text names no shelf."""
    blob = new_blob_id(shelf_of_owner("ann", ""), SeededEntropy(1))
    for name in ("", "b_", blob[:-1], blob + "a", blob + "\n", "j" + blob[1:], blob[:-1] + "/", blob[:-1] + "."):
        assert shelf_of_blob(name) is None, name
