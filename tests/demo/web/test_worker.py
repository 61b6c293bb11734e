"""The scripted worker: its answers, and what it counts of a page's beats."""

import pytest

from signald.demo.web.story import ALL, ANSWERS, DEFAULT, TOPICS, answer
from signald.demo.web.worker import AHEAD_MAX, Beats


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("What is a deploy?", "deploy"),
        ("What if a node is killed?", "kill"),
        ("Tell me a story", "story"),
        ("and when you ROLL BACK?", "rollback"),
        ("May I reload?", "reload"),
        ("who draws on the canvas", "canvas"),
        ("is the video WebRTC", "video"),
    ],
)
def test_a_question_finds_its_answer(question: str, topic: str) -> None:
    """The suggestions of the page, and others."""
    assert "".join(answer(question)) == ANSWERS[topic]


def test_any_question_has_an_answer_of_words() -> None:
    """A question that fits nothing is told what to ask; pieces joined are the text."""
    assert "".join(answer("")) == "".join(answer("xyzzy")) == DEFAULT
    assert {topic for topic, _ in TOPICS} == {ALL, *ANSWERS}
    assert all(text in "".join(answer("Tell me everything")) for text in ANSWERS.values())
    assert all(1 < len(answer(question)) < 250 for question in ("", "story", "kill"))


def beat(beats: Beats, number: object, page: object = "a") -> dict[str, object]:
    """Let a beat arrive, and return its answer."""
    heard = beats.hear({"page": page, "n": number})
    assert heard is not None
    return heard


def test_beats_are_numbered_and_counted() -> None:
    """A hole is lost until it arrives late; a repeat is a double."""
    beats = Beats()
    assert beat(beats, 1) == {"page": "a", "to": 1, "n": 1, "lost": 0, "doubled": 0, "late": 0}
    assert beat(beats, 2)["lost"] == 0
    assert beat(beats, 4)["lost"] == 1
    assert beat(beats, 3) == {"page": "a", "to": 3, "n": 4, "lost": 0, "doubled": 0, "late": 1}
    assert beat(beats, 3)["doubled"] == 1


def test_a_page_that_is_loaded_again_counts_anew() -> None:
    """What its predecessor had under way is not missing from its numbers."""
    beats = Beats()
    beat(beats, 1)
    beat(beats, 3)
    assert beat(beats, 1, "b") == {"page": "b", "to": 1, "n": 1, "lost": 0, "doubled": 0, "late": 0}


@pytest.mark.parametrize(
    "said", [{}, {"page": "a"}, {"page": 1, "n": 1}, {"page": "a", "n": 0}, {"page": "a", "n": True}]
)
def test_what_is_no_beat_has_no_answer(said: dict[str, object]) -> None:
    """A page may say anything."""
    assert Beats().hear(said) is None


def test_a_far_number_costs_no_memory() -> None:
    """Each number between two beats is remembered as missing, so a page cannot name one that is a billion ahead."""
    beats = Beats()
    beat(beats, 1)
    assert beats.hear({"page": "a", "n": AHEAD_MAX + 2}) is None
    assert beat(beats, AHEAD_MAX + 1)["lost"] == AHEAD_MAX - 1
