"""Questions to the core server, its answers, and how long they are remembered."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from signald.core import authorising
from signald.core.authorising import FOREVER, TTL_MAX_MS, Answers, BadAnswer, Grant, Question, claims_json, read_answer
from signald.wire.messages import SETTINGS_BYTES_MAX

QUESTION = Question("client", "ann", Raw(b"{}"), "203.0.113.7", {"lang": "en"}, Raw(b'{"name":1}'))
FLAT = [Grant(True, settings=b"1", ttl_ms=1000 * (n + 1)) for n in range(5)]


def answer(text: str) -> Grant:
    """The answer in `text`."""
    return read_answer(text.encode(), QUESTION, 32)


def test_what_an_answer_holds() -> None:
    """Each field, what is left out, and what signald does not know."""
    assert answer('{"allow":true,"later":[]}') == Grant(True)
    assert answer('{"allow":false,"reason":"no","settings":null,"want":null,"rooms":null,"ttl_ms":null}') == Grant(
        False, "no"
    )
    full = answer(
        '{"allow":true,"settings": {"a" : 1e2} ,"want":{"a":"b"},"labels":{"c":"d"},"rooms":{"r":["join"]},"ttl_ms":5}'
    )
    assert full == Grant(True, "", b'{"a" : 1e2}', {"a": "b"}, {"c": "d"}, b'{"r":["join"]}', 5)
    assert (full.until_ms(7), answer('{"allow":true}').until_ms(7)) == (12, FOREVER)
    assert answer('{"allow":true,"ttl_ms":9007199254740993}').ttl_ms == TTL_MAX_MS
    assert len(answer(json.dumps({"allow": False, "reason": "x" * 5000})).reason) == 512


def test_the_bounds_of_settings() -> None:
    """As long and as deep as a party can be told; one more is refused."""
    most = "x" * (SETTINGS_BYTES_MAX - 2)
    assert len(answer(f'{{"allow":true,"settings":"{most}"}}').settings) == SETTINGS_BYTES_MAX
    with pytest.raises(BadAnswer):
        answer(f'{{"allow":true,"settings":"{most}x"}}')
    deepest = "[" * 30 + "]" * 30
    assert answer(f'{{"allow":true,"settings":{deepest}}}').settings == deepest.encode()
    with pytest.raises(BadAnswer):
        answer(f'{{"allow":true,"settings":[{deepest}]}}')


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"allow":1}', '{"allow":true', '{"allow":true,"settings":1e999}', '{"allow":true,"settings":"\\udc00"}',
     '{"allow":true,"settings":"hunter2","want":{"a":"b","c":3}}', '{"allow":true,"rooms":["a"]}', '{"allow":true,"ttl_ms":-1}',
     '{"allow":true,"reason":7}', '{"allow":true,"labels":{"a":null}}', "\ud800"],
)  # fmt: skip
def test_what_is_no_answer(text: str) -> None:
    """It is refused in words that hold nothing of it."""
    with pytest.raises(BadAnswer) as refused:
        read_answer(text.encode("utf-8", "surrogatepass"), QUESTION, 32)
    assert "hunter2" not in str(refused.value)


def test_labels_are_counted_with_those_of_the_party() -> None:
    """Merged, they are no more than a party may name."""
    many = {f"l{n}": "" for n in range(32)}
    with pytest.raises(BadAnswer):
        answer(json.dumps({"allow": True, "want": many}))
    assert answer(json.dumps({"allow": True, "want": {**dict(list(many.items())[:31]), "lang": "de"}})).want["lang"]
    offering = structs.replace(QUESTION, labels={"gpu": "yes"})
    with pytest.raises(BadAnswer):
        read_answer(json.dumps({"allow": True, "labels": many}).encode(), offering, 32)


@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: f'{{"allow":true,"settings":{text}}}'.encode()))
def test_no_body_does_more_than_being_refused(body: bytes) -> None:
    """Whatever comes is an answer or a BadAnswer."""
    try:
        found = read_answer(body, QUESTION, 32)
    except BadAnswer:
        return
    assert isinstance(found.allow, bool)
    json.loads(found.settings or b"null")


def test_a_question_is_its_own_key() -> None:
    """All that the answer may depend on is in it; the name of the session is not."""
    others: list[dict[str, Any]] = [
        {"role": "worker"}, {"subject": "bob"}, {"claims": Raw(b'{"a":1}')}, {"remote": ""}, {"want": {}}, {"meta": Raw(b"1")},
        {"labels": {"a": "b"}},
    ]  # fmt: skip
    keys = {QUESTION.key(), *[structs.replace(QUESTION, **other).key() for other in others]}
    assert len(keys) == 1 + len(others)
    assert structs.replace(QUESTION, session="s_1").key() == QUESTION.key()
    assert json.loads(structs.replace(QUESTION, session="s_1").body())["session"] == "s_1"


def test_claims_that_json_cannot_say() -> None:
    """They are left out, and the others are said."""
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    claims = {"sub": "ann", "nan": math.nan, "half": "\ud83d", "deep": nested, 'a"b': [1, 10**30]}
    assert json.loads(bytes(claims_json(claims))) == {"sub": "ann", "half": "\ud83d", 'a"b': [1, 10**30]}


def test_an_answer_is_remembered_for_its_time() -> None:
    """Not longer, and not at all without `ttl_ms`; the latest counts."""
    answers = Answers(10)
    for key, grant in ((b"a", FLAT[0]), (b"b", Grant(True)), (b"c", structs.replace(FLAT[0], ttl_ms=0))):
        answers.keep(key, grant, 5.0)
    assert [answers.find(key, 5.9) for key in (b"a", b"b", b"c")] == [FLAT[0], None, None]
    assert answers.find(b"a", 6.0) is None
    assert (len(answers), answers.bytes) == (0, 0)
    answers.keep(b"a", FLAT[0], 5.0)
    answers.keep(b"a", Grant(True), 5.0)
    assert answers.find(b"a", 5.0) is None


def test_the_bounds_of_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer not used for longest goes, by number and by bytes."""
    answers = Answers(3)
    for number, key in enumerate((b"a", b"b", b"c")):
        answers.keep(key, FLAT[number], 0.0)
    answers.find(b"a", 0.0)
    answers.keep(b"d", FLAT[3], 0.0)
    assert [answers.find(key, 0.0) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    monkeypatch.setattr(authorising, "CACHE_BYTES_MAX", 2 * FLAT[0].size + 1)
    answers.keep(b"e", FLAT[4], 0.0)
    assert (len(answers), answers.bytes) == (2, 2 * FLAT[0].size)
    none = Answers(0)
    none.keep(b"a", FLAT[0], 0.0)
    assert len(none) == 0
