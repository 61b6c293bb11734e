"""The transcripts that all SDKs share are those of the Python cores."""

import json

import pytest

from signald.wire.close_codes import CloseCode
from signald.wire.error_codes import ERROR_CODES
from tests.vectors.replay import BYTES_MAX, FOLDER, Vector, differences, files, recorded, text_of
from tests.vectors.scenarios import TOPICS
from tests.vectors.values import Reasons

FILES = files()


@pytest.mark.parametrize("topic", FILES)
def test_the_cores_do_as_the_transcripts_say(topic: str) -> None:
    """Each vector is replayed: what comes of its inputs, and when, is what it says."""
    assert [line for vector in FILES[topic] for line in differences(vector)] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_the_transcripts_are_those_of_the_scenarios(topic: str) -> None:
    """`python -m tests.vectors record` would change nothing."""
    assert (FOLDER / f"{topic}.json").read_text() == text_of(topic, [recorded(vector) for vector in TOPICS[topic]])


def test_they_are_small() -> None:
    """Each clone and each SDK carries them."""
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) <= BYTES_MAX
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TOPICS)


def test_each_vector_has_a_name_of_its_own_and_its_steps_in_order() -> None:
    """A runner names it in its report, and lets the time pass forward only."""
    for vectors in FILES.values():
        assert len({vector["name"] for vector in vectors}) == len(vectors)
        for vector in vectors:
            times = [step["at"] for step in vector["steps"]]
            assert times == sorted(times), vector["name"]


def test_every_code_has_its_vectors() -> None:
    """What each error and each close does is in the transcripts, for both parties."""
    said = json.dumps(FILES["codes"])
    for row in ERROR_CODES:
        assert f'"code": "{row.code}"' in said
    for code in CloseCode:
        assert said.count(f'"closed": {int(code)},') >= 3


def test_a_difference_is_found() -> None:
    """A transcript that says something else is told with its step."""
    vector: Vector = json.loads(json.dumps(FILES["opening"][0]))
    vector["steps"][1]["out"][0]["frame"]["auth"] = "another"
    (line,) = differences(vector)
    assert line.startswith("a client begins, step 1:")


def test_words_of_the_sdk_are_no_part_of_a_vector() -> None:
    """A reason that no input gave is masked, however deep it stands; one that was given is not."""
    reasons = Reasons([{"at": 0, "frame": {"reason": "drain"}, "out": [{"reason": "own"}]}])
    assert reasons.masked({"frame": {"reason": "own"}, "list": [{"reason": "drain"}]}) == {
        "frame": {"reason": "*"},
        "list": [{"reason": "drain"}],
    }
