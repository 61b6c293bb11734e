"""What is read from a request: the right values come as they are described, and each wrong one is named in the problem."""

from typing import Any

import pytest

from signald.http.api.reading import MESSAGE_CHARS_MAX, bad_fields
from tests.http.api.asking import Told, ask
from tests.http.api.toy import BYTES_MAX, DEPTH_MAX, routes

KEY = ("Idempotency-Key", "k1")
JSON = ("Content-Type", "application/json")


async def make(body: bytes, *headers: tuple[str, str]) -> Told:
    """Make a toy."""
    return await ask(routes(), "POST", "/toys", headers, [body])


def fields(told: Told) -> list[str]:
    """The fields that a problem names."""
    return [error["field"] for error in told.json()["errors"]]


async def test_a_query_is_read_by_its_struct() -> None:
    """Texts become numbers and choices, what is left out has its default, and unknown parameters are ignored."""
    told = await ask(routes(), "GET", "/toys/t_abc?limit=7&colour=red&new=1")
    assert (told.status, told.json()) == (200, {"toy": "t_abc", "told": "7 red"})
    assert (await ask(routes(), "GET", "/toys/t_abc")).json()["told"] == "5 any"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=21", "limit"), ("limit=x", "limit"), ("limit=", "limit"), ("limit=1&limit=1", "limit"),
        ("colour=green", "colour"), ("colour=", "colour"), ("limit=" + "9" * 5000, "limit"),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(query: str, field: str) -> None:
    """A wrong parameter, or one that stands twice, gets 400 with its name."""
    told = await ask(routes(), "GET", f"/toys/t_abc?{query}")
    assert (told.status, fields(told)) == (400, [field])
    assert told.json()["type"] == "urn:signald:problem:bad-field"
    assert field in told.json()["detail"]
    assert len(told.body) < 1000


async def test_an_id_that_cannot_be_one_is_not_found() -> None:
    """A path that no id can have is 404, not 400: nothing is there."""
    assert (await ask(routes(), "GET", "/toys/T_ABC")).status == 404
    assert (await ask(routes(), "GET", "/toys/t_abc%0a")).status == 404


@pytest.mark.parametrize("headers", [[], [("Idempotency-Key", "")], [("Idempotency-Key", "123456789")], [KEY, KEY]])
async def test_a_wrong_header_field_is_named(headers: list[tuple[str, str]]) -> None:
    """A header field that is missing, out of bounds or twice there gets 400 with its name."""
    told = await make(b'{"kind":"a"}', JSON, *headers)
    assert (told.status, fields(told)) == (400, ["idempotency-key"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "kind"), (b'{"kind":1}', "kind"), (b'{"kind":"123456789"}', "kind"), (b"[]", ""), (b"", ""), (b"\xff", ""),
        (b'{"kind":"a","parts":[{"weight":-1}]}', "parts[0].weight"), (b'{"kind":"a"}{}', ""), (b'{"kind":"\\ud83d"}', ""),
        (b'{"kind":"a","data":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", ""),
    ],
)  # fmt: skip
async def test_a_wrong_member_is_named(body: bytes, field: str) -> None:
    """A member that is missing, of another type or out of bounds is named by its place; a body that is no JSON has the field ""."""
    told = await make(body, JSON, KEY)
    assert (told.status, fields(told)) == (400, [field])


async def test_bodies_are_told_apart_by_their_media_type() -> None:
    """JSON is decoded, parameters of the media type do not matter, and other bytes are taken as they are."""
    body = b'{"kind":"car","data":{"any":[1]},"new":true}'
    assert (await make(body, KEY, ("Content-Type", "Application/JSON; charset=utf-8"))).json()["told"] == "car"
    assert (await make(b"\x00\xff", KEY, ("Content-Type", "audio/ogg"))).json()["told"] == "2 bytes"


@pytest.mark.parametrize("media", ["application/json", "audio/ogg"])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_beyond_its_bound_is_refused(media: str, announced: bool) -> None:
    """413 before the body is read when its length is announced, and as soon as it is too long otherwise."""
    pieces = [b"x" * BYTES_MAX, b"x", b"never read"]
    length = [("Content-Length", str(BYTES_MAX + 1))] if announced else []
    told = await ask(routes(), "POST", "/toys", [KEY, ("Content-Type", media), *length], pieces)
    assert told.status == 413


async def test_no_value_of_a_header_comes_back() -> None:
    """A problem names the header field and its bounds, never what it held."""
    told = await make(b"{}", JSON, ("Idempotency-Key", "secret-secret"))
    assert b"secret" not in told.body


def test_texts_are_bounded_in_problems() -> None:
    """The sentence about a field is cut, because a choice that does not exist is repeated in it."""
    problem: Any = bad_fields(("f", "x" * 10_000))
    assert len(problem.members["errors"][0]["message"]) == MESSAGE_CHARS_MAX
