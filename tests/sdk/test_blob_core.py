"""What the SDK's core says of blobs and takes from answers, without any network."""

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.ids import SeededEntropy
from signald.sdk.api_core import Answer, NoAnswer, refused
from signald.sdk.blob_core import Reading, Sending, elsewhere
from signald.sdk.core import SessionCore
from signald.sdk.errors import ApiRefused, BlobFailed
from signald.sdk.stream_fields import PLAIN
from signald.sdk.writing import Batch
from signald.wire.messages import BLOB_MAX, Message

SIZES = st.integers(0, 300)


def digest(data: bytes) -> str:
    """Return a `Repr-Digest`."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def served(data: bytes, asked: dict[str, str], *, ranges: bool) -> tuple[int, dict[str, str], bytes]:
    """Answer as a node does, or as a proxy that knows of no ranges."""
    first, _, last = asked.get("range", "").removeprefix("bytes=").partition("-")
    said = {"content-type": "audio/ogg", "repr-digest": digest(data)}
    if not first or not ranges:
        return 200, {**said, "content-length": str(len(data))}, data
    start, end = int(first), int(last or len(data)) + 1
    if start >= len(data):
        return 416, {"content-range": f"bytes */{len(data)}"}, b"{}"
    part = data[start:end]
    return 206, {**said, "content-range": f"bytes {start}-{start + len(part) - 1}/{len(data)}"}, part


@given(
    st.binary(max_size=300),
    SIZES,
    st.none() | SIZES,
    st.lists(st.tuples(SIZES, st.integers(1, 64), st.booleans())),
    st.booleans(),
)
def test_any_breaks_give_the_bytes_of_the_part(
    data: bytes, start: int, length: int | None, breaks: list[tuple[int, int, bool]], last_ranges: bool
) -> None:
    """Each answer may break off anywhere, come in any pieces, and be one that ignores the range: the bytes are those of the part."""
    end = None if length is None else start + length + 1
    reading = Reading(start, end)
    got = b""
    for most, size, ranges in [*breaks, (1000, 50, last_ranges)]:
        if reading.over:
            break
        status, headers, body = served(data, reading.headers(), ranges=ranges)
        assert reading.begin(status, headers)
        body = b"" if status == 416 else body[:most]
        for at in range(0, len(body), size):
            got += reading.took(body[at : at + size])
    assert reading.over
    assert got == data[start:end]
    assert reading.size == len(data)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 99))
def test_one_wrong_bit_is_noticed_in_a_whole_blob(data: bytes, place: int) -> None:
    """The digest of the head is that of all bytes."""
    wrong = bytearray(data)
    wrong[place % len(data)] ^= 1
    reading = Reading(0, None)
    assert reading.begin(200, {"content-length": str(len(data)), "repr-digest": digest(data)})
    with pytest.raises(BlobFailed):
        reading.took(bytes(wrong))


ODD: list[tuple[int, dict[str, str]]] = [
    (206, {"content-range": "bytes 0-99/100"}),
    (206, {"content-range": "bytes 10-99/101"}),
    (206, {"content-range": "bytes 10-99/100", "repr-digest": digest(b"other")}),
    (200, {"content-length": "99"}),
    (206, {"content-range": "bytes 10-99/100", "content-encoding": "gzip"}),
]


@pytest.mark.parametrize(("status", "headers"), ODD, ids=str)
def test_an_answer_with_other_bytes_is_an_error(status: int, headers: dict[str, str]) -> None:
    """Bytes of two blobs, or of two places, are never joined."""
    reading = Reading(0, None)
    assert reading.begin(200, {"content-length": "100", "repr-digest": digest(b"this one")})
    reading.took(bytes(10))
    assert reading.headers()["range"] == "bytes=10-"
    with pytest.raises(BlobFailed):
        reading.begin(status, headers)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}), (206, {"content-range": "bytes 0-9"}), (200, {}), (204, {}), (304, {}), (416, {}), (503, {}),
        (416, {"content-range": "bytes */20"}), (206, {"content-range": f"bytes 5-9/{'9' * 30}"}), (200, {"content-length": "x"}),
    ],
)  # fmt: skip
def test_what_brings_no_bytes_changes_nothing(status: int, headers: dict[str, str]) -> None:
    """Neither the size nor the place."""
    reading = Reading(5, None)
    assert not reading.begin(status, headers)
    assert (reading.size, reading.position, reading.over) == (None, 5, False)


def test_an_upload_takes_no_other_blob_for_its_own() -> None:
    """The answer must tell of the bytes that were sent."""
    said = Sending(3, hashlib.sha256(b"abc").digest(), "audio/ogg", "k")
    assert said.headers() == {"content-type": "audio/ogg", "content-digest": digest(b"abc"), "idempotency-key": "k"}
    good = {
        "blob": "b_" + "x" * 44, "bytes": 3, "content_type": "audio/ogg", "sha256": hashlib.sha256(b"abc").hexdigest(),
        "expires_at": "2026-12-30T00:00:00Z",
    }  # fmt: skip
    blob = said.kept(Answer(201, {}, msgspec.json.encode(good)))
    assert (blob.id, blob.size, blob.content_type, blob.expires_at) == (
        good["blob"], 3, "audio/ogg", "2026-12-30T00:00:00Z",
    )  # fmt: skip
    for wrong in (
        {"bytes": 4},
        {"sha256": "0" * 64},
        {"blob": "x"},
        {"blob": "b_/../x"},
        {"bytes": "3"},
        {"blob": None},
    ):
        with pytest.raises(ApiRefused, match="not an answer of signald"):
            said.kept(Answer(201, {}, msgspec.json.encode({**good, **wrong})))
    for body in (b"", b"[]", b"\xff", b"[" * 5000):
        with pytest.raises(ApiRefused, match="not an answer of signald"):
            said.kept(Answer(200, {}, body))


def test_where_an_answer_leads() -> None:
    """To HTTP, and from TLS to TLS only."""
    assert elsewhere(200, {"location": "https://x/"}, "ws://n") is None
    assert elsewhere(307, {"location": "https://x:1/a?b=c"}, "wss://n") == ("wss://x:1", "/a?b=c")
    assert elsewhere(302, {"location": "http://x"}, "ws://n") == ("ws://x", "/")
    for asked, odd in (
        ("wss://n", "http://x/"),
        ("ws://n", "ftp://x/"),
        ("ws://n", ""),
        ("ws://n", "//x/"),
        ("ws://n", "http://u@x/"),
    ):
        with pytest.raises(NoAnswer):
            elsewhere(307, {"location": odd}, asked)


def test_which_answers_pass() -> None:
    """What is busy passes; what is full, and what was used for another request, stays as it is."""

    def problem(status: int, kind: str) -> Answer:
        return Answer(status, {}, msgspec.json.encode({"type": f"x#{kind}"}))

    passing = [(409, "key-in-use"), (429, "rate"), (429, "busy"), (503, "x"), (502, ""), (408, "too-slow"), (500, "")]
    staying = [
        (409, "unfinished"),
        (429, "blobs-full"),
        (429, "jobs-full"),
        (413, ""),
        (422, "key-reused"),
        (404, ""),
        (501, "no-blobs"),
    ]
    assert all(problem(*one).is_passing for one in passing)
    assert not any(problem(*one).is_passing for one in staying)
    assert refused(problem(413, "too-large")).type == "x#too-large"


def test_a_message_names_a_blob() -> None:
    """In both directions; an id that a node would not carry is refused where it is said."""
    core = SessionCore(None, SeededEntropy(0))
    core.send({"a": 1}, of=_of("b_1"))
    core.send(b"bytes", of=_of("b_2"))
    batch = Batch()
    core.write(0.0, batch)
    assert [frame[1].count(b'"blob":"b_') for frame in batch.frames] == [1, 1]
    for odd in ("", "x" * (BLOB_MAX + 1), "\ud83d", 5):
        with pytest.raises(ValueError, match="blob"):
            core.send(1, of=_of(odd))
    assert core.next_seq == 3
    core.blob_of = _Found  # type: ignore[assignment]
    core.receive(Message(1, msgspec.Raw(b"1"), blob="b_3"), None)
    core.receive(Message(2, msgspec.Raw(b"1")), None)
    first, second = core.take(), core.take()
    assert first is not None
    assert second is not None
    assert (str(first.blob), second.blob) == ("b_3", None)


class _Found(str):
    """Stands for what a driver reads a blob with."""

    __slots__ = ()


def _of(blob: Any) -> Any:
    return PLAIN._replace(blob=blob)
