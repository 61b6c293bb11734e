"""The parts of a request that an operation takes: each part decodes itself, and is written into `/openapi.json` from the same struct.

A part is made of a msgspec struct, field by field: `Path` from the path, `Query` from the query, `Headers` from header fields, `JsonBody`
from the body. `RawBody` is the bytes of a body. A handler reads its request by these parts alone, so that the document cannot differ from
the code.

    class ListJobs(Struct, frozen=True):
        state: JobState | UnsetType = UNSET
        limit: Annotated[int, Meta(ge=1, le=200, description="Jobs of a page.")] = 50

    LIST = Query(ListJobs)
    asked = LIST.read(request)      # ListJobs, or HttpProblem 400 that names the field

Unknown parameters, header fields and members are ignored, as on the wire: a newer program may say more than this node knows. A field
that may be left out has a default, `UNSET` if there is none; None would be a value that a program can send.
"""

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request

from signald.http.api.bodies import read_body
from signald.http.problem_details import HttpProblem
from signald.wire.codec import too_deep

T = TypeVar("T", bound=Struct)
B = TypeVar("B")

JSON = "application/json"

# msgspec names the place of a wrong value behind the sentence, and a missing field inside of it.
_PLACE = re.compile(r"^(?P<message>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")

MESSAGE_CHARS_MAX = 300
"""Characters of the sentence about one field: msgspec repeats a wrong choice, which may be as long as the request."""


def bad_fields(*fields: tuple[str, str], status: int = 400) -> HttpProblem:
    """Return the problem of wrong fields, each as (field, sentence)."""
    errors = [{"field": field, "message": message[:MESSAGE_CHARS_MAX]} for field, message in fields]
    named = ", ".join(field for field, _ in fields if field)
    detail = f"not as described: {named}" if named else errors[0]["message"]
    return HttpProblem(status, "bad-field" if named else "bad-json", detail, errors=errors)


def _problem(error: msgspec.ValidationError, status: int = 400, *, of_text: bool = False) -> HttpProblem:
    place = _PLACE.match(str(error))
    assert place is not None
    message, field = place["message"], place["place"] or ""
    if of_text:
        message = message.replace(", got `str`", "")  # every parameter is a text before it is read
    if missing := _MISSING.match(message):
        field = f"{field}.{missing['field']}" if field else missing["field"]
        message = "required"
    return bad_fields((field, message), status=status)


class _Parameters(Generic[T]):
    """Base of parts that come as texts."""

    place: str

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def _read(self, texts: Mapping[str, str], status: int = 400) -> T:
        try:
            return msgspec.convert(texts, self.kind, strict=False)
        except msgspec.ValidationError as error:
            raise _problem(error, status, of_text=True) from None


class Path(_Parameters[T]):
    """The parameters of the path."""

    place = "path"

    def read(self, request: Request) -> T:
        """Return the parameters; raises HttpProblem 404, because an id that cannot be one names nothing."""
        try:
            return self._read(request.path_params)
        except HttpProblem:
            raise HttpProblem(404, "not-found", "there is nothing of this name") from None


class Query(_Parameters[T]):
    """The parameters of the query."""

    place = "query"

    def read(self, request: Request) -> T:
        """Return the parameters; raises HttpProblem 400, also for a parameter that stands twice."""
        given = request.query_params.multi_items()
        texts = dict(given)
        if len(texts) < len(given):
            known = {field.encode_name for field in msgspec.structs.fields(self.kind)}
            names = [name for name, _ in given if name in known]
            for name in names:
                if names.count(name) > 1:
                    raise bad_fields((name, "given more than once"))
        return self._read(texts)


class Headers(_Parameters[T]):
    """Header fields. The struct renames its fields to the names of the header, in small letters: `rename="kebab"`."""

    place = "header"

    def read(self, request: Request) -> T:
        """Return the header fields; raises HttpProblem 400, also for a field that stands twice."""
        texts: dict[str, str] = {}
        for field in msgspec.structs.fields(self.kind):
            values = request.headers.getlist(field.encode_name)
            if len(values) > 1:
                raise bad_fields((field.encode_name, "given more than once"))
            if values:
                texts[field.encode_name] = values[0]
        return self._read(texts)


def media_type(request: Request) -> str:
    """Return the media type of the body without parameters, in small letters; "" when none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def must_be_json(request: Request) -> None:
    """Raise HttpProblem 415 when the body is said to be something else than JSON."""
    if media_type(request) not in (JSON, ""):
        raise HttpProblem(415, "media-type", f"this takes {JSON}")


class JsonBody(Generic[B]):
    """A body of JSON: a struct, or a map whose keys a program chooses."""

    def __init__(self, kind: type[B], *, may_be_missing: bool = False) -> None:
        self.kind = kind
        self.may_be_missing = may_be_missing
        """An empty body is an empty object."""

    def decode(self, body: bytes, depth_max: int) -> B:
        """Return the value of `body`; raises HttpProblem 400, also for JSON that is nested deeper than `depth_max`."""
        if not body and self.may_be_missing:
            body = b"{}"
        if too_deep(body, depth_max):
            raise bad_fields(("", f"nested deeper than {depth_max}"))
        try:
            return msgspec.json.decode(body, type=self.kind)
        except msgspec.ValidationError as error:
            raise _problem(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_fields(("", "the body is not valid JSON")) from None

    async def read(self, request: Request, depth_max: int) -> B:
        """Read and decode the body; raises HttpProblem as `read_body` and `decode`, and 415 for another media type."""
        must_be_json(request)
        return self.decode(await read_body(request), depth_max)


class RawBody:
    """A body of bytes. A handler may take other media types than the one that the document names."""

    def __init__(self, about: str, media: str = "application/octet-stream") -> None:
        self.about = about
        self.media = media


Parameters = Path[Any] | Query[Any] | Headers[Any]
Body = JsonBody[Any] | RawBody
