"""A toy noun with every kind of parameter, body and answer, described as the nouns of the HTTP API are."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.http.api.bodies import read_body
from signald.http.api.describe import Answer, Header, Operation, described, json_answer
from signald.http.api.reading import Headers, JsonBody, Path, Query, RawBody, media_type

BYTES_MAX, DEPTH_MAX = 1000, 8


class ToyPath(Struct, frozen=True):
    """The id of a toy."""

    toy: Annotated[str, Meta(pattern="^t_[a-z]{3}$")]


class ToyQuery(Struct, frozen=True):
    """A page of toys."""

    limit: Annotated[int, Meta(ge=1, le=20, description="Toys of a page.")] = 5
    colour: Literal["red", "blue"] | UnsetType = UNSET


class ToyHeaders(Struct, frozen=True, rename="kebab"):
    """The key of a creation."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=8)]


class ToyPart(Struct, frozen=True):
    """A part of a toy."""

    weight: Annotated[int, Meta(ge=0)] = 0


class NewToy(Struct, frozen=True):
    """A toy to be made."""

    kind: Annotated[str, Meta(max_length=8)]
    data: Raw = Raw()
    parts: list[ToyPart] = []


class Toy(Struct, frozen=True):
    """A toy."""

    toy: str
    told: str = ""


PATH, QUERY, HEADERS, NEW, BYTES = (
    Path(ToyPath),
    Query(ToyQuery),
    Headers(ToyHeaders),
    JsonBody(NewToy),
    RawBody("Bytes."),
)
TOY = Answer(200, "The toy.", Toy)
MADE = Answer(202, "The toy is being made.", Toy, headers={"Location": Header("Where it is.")})

READ = Operation(
    name="readToy", method="GET", path="/toys/{toy}", tag="toys", summary="Show a toy", answers=(TOY,),
    callers=frozenset({"client", "service", "person"}), scope="jobs", parameters=(PATH, QUERY), problems=frozenset({404}),
)  # fmt: skip
MAKE = Operation(
    name="makeToy", method="POST", path="/toys", tag="toys", summary="Make a toy", answers=(MADE,),
    callers=frozenset({"client"}), parameters=(HEADERS,), bodies=(NEW, BYTES), problems=frozenset({422}),
)  # fmt: skip
BREAK = Operation(
    name="breakToy", method="DELETE", path="/toys/{toy}", tag="toys", summary="Break a toy",
    answers=(Answer(204, "It is broken."),), parameters=(PATH,), problems=frozenset({404}),
)  # fmt: skip


async def read(request: Request) -> Response:
    """Tell what was asked."""
    asked = QUERY.read(request)
    return json_answer(TOY, Toy(PATH.read(request).toy, f"{asked.limit} {asked.colour or 'any'}"))


async def make(request: Request) -> Response:
    """Tell what was given."""
    key = HEADERS.read(request).idempotency_key
    if media_type(request) == "application/json":
        told = (await NEW.read(request, DEPTH_MAX)).kind
    else:
        told = f"{len(await read_body(request))} bytes"
    return json_answer(MADE, Toy(key, told), {"location": "/toys/t_abc"})


async def broken(request: Request) -> Response:
    """Break it."""
    PATH.read(request)
    return Response(status_code=204)


def routes() -> list[BaseRoute]:
    """The routes of the toy."""
    return described((READ, read), (MAKE, make), (BREAK, broken), body_bytes_max={MAKE.path: lambda: BYTES_MAX})
