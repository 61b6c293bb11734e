"""Updates of Yjs: which bytes are one, and that merged ones stand for all of them."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from signald.core import updates
from signald.core.rooms import Publication
from signald.core.updates import MERGED_MAX, STEP_BYTES_MAX, fault_in, fault_of_update, merge, steps
from signald.wire.records import publication_body


def written(seed: int, count: int) -> list[bytes]:
    """Return updates of two authors. Now and then one applies what both have written."""
    rng = random.Random(seed)
    said: list[bytes] = []
    documents: list[Doc[Any]] = [Doc(), Doc()]
    watches = [document.observe(lambda event: said.append(event.update)) for document in documents]
    while len(said) < count:
        document = rng.choice(documents)
        text: Text = document.get("text", type=Text)
        shapes: Map[Any] = document.get("map", type=Map)
        match rng.randrange(8):
            case 0 if len(str(text)):
                del text[0:1]
            case 1:
                shapes[str(rng.randrange(4))] = rng.random()
            case 2:
                heard = list(said)
                for update in heard:
                    document.apply_update(update)
                said[:] = heard
            case _:
                text.insert(rng.randrange(len(str(text)) + 1), f"{rng.randrange(100)} ")
    del watches
    return said[:count]


def shown(some: Sequence[bytes]) -> tuple[str, object]:
    """Return what a reader of the updates has."""
    document: Doc[Any] = Doc()
    for update in some:
        document.apply_update(update)
    return str(document.get("text", type=Text)), document.get("map", type=Map).to_py()


@pytest.mark.parametrize("seed", range(5))
def test_merged_updates_stand_for_all(seed: int) -> None:
    """In whatever steps, and read again behind each."""
    said, rng = written(seed, 300), random.Random(seed)
    snapshot: list[bytes] = []
    left = list(said)
    while left:
        count = rng.randrange(1, 150)
        group, left = left[:count], left[count:]
        snapshot = [merge([*snapshot, *map(merge, steps(group))])]
    assert shown(snapshot) == shown(said)
    assert shown(said)[0]


def test_an_update_whose_predecessor_is_missing_stays() -> None:
    """A reader that gets the predecessor later has both: a document of pycrdt would have forgotten the second one."""
    first, second, third = written(1, 3)
    merged = merge([third, second])
    assert shown([merged, first]) == shown([first, second, third])


def test_steps_are_bounded_by_count_and_bytes() -> None:
    """One that is larger than a step has its own."""
    small, large = b"s" * 10, b"l" * (STEP_BYTES_MAX + 1)
    groups = list(steps([small] * (2 * MERGED_MAX + 1) + [large, small]))
    assert [len(group) for group in groups] == [MERGED_MAX, MERGED_MAX, 1, 1, 1]
    assert [one for group in groups for one in group] == [small] * (2 * MERGED_MAX + 1) + [large, small]
    half = b"h" * (STEP_BYTES_MAX // 2)
    assert [len(group) for group in steps([half] * 5)] == [2, 2, 1]
    assert list(steps([])) == []


def test_bytes_that_are_no_update_are_refused() -> None:
    """Neither they nor any change of an update raise anything else, and what is taken can be merged with the others."""
    rng = random.Random(7)
    said = written(7, 100)
    assert fault_in("yjs", None) == "bad_record"
    assert fault_in("yjs", b"") == "bad_record"
    assert fault_in("yjs", b"\xff" * 20) == "bad_record"
    assert fault_in("update", b"") is None
    assert fault_in(None, None) is None
    taken = []
    for _ in range(3000):
        update = bytearray(rng.choice(said))
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(update) + 1)
            update[place : place + rng.randrange(2)] = rng.randbytes(rng.randrange(3))
        if fault_in("yjs", bytes(update)) is None:
            taken.append(bytes(update))
    assert 0 < len(taken) < 3000
    for _ in range(100):
        merge(rng.sample(taken, 40) + rng.sample(said, 40))


def test_what_comes_over_http_is_judged_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its body; and without the extra nothing of Yjs is taken."""

    def posted(kind: str, data: bytes, binary: bytes | None) -> Publication:
        return Publication(0, publication_body(kind, data, binary), update=True)

    assert fault_of_update(posted("yjs", b"", written(1, 1)[0])) is None
    assert fault_of_update(posted("yjs", b"", b"x")) == "bad_record"
    assert fault_of_update(posted("yjs", b"1", None)) == "bad_record"
    assert fault_of_update(posted("update", b"", b"x")) is None
    monkeypatch.setattr(updates, "can_merge", lambda: False)
    assert fault_of_update(posted("yjs", b"", written(1, 1)[0])) == "unsupported"
    assert fault_in("update", b"x") is None
