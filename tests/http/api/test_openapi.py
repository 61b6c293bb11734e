"""`/openapi.json`: valid OpenAPI 3.1, and the same as what decodes and routes."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from signald.http.api.describe import Answer, Operation, described, json_answer, operations
from signald.http.api.openapi import COMMON, Published, openapi
from signald.http.api.schemas import components
from signald.wire.catalogue import SENT_BY, SENT_TO
from tests.http.api import toy
from tests.http.api.asking import ask
from tests.http.api.schemas import OPENAPI, references, resolve

PUBLISHED = Published(
    "1.2.3", key_life_s=3600, requests_per_s=20, requests_burst=100, api_token_ttl_s=900, cookie="sid"
)


def document(published: Published = PUBLISHED) -> dict[str, Any]:
    """The document of the toy, as it is sent."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi(operations(toy.routes()), published)))
    return made


def test_the_document_is_openapi() -> None:
    """The official schema takes the document, and every reference in it leads somewhere."""
    made = document()
    OPENAPI.validate(made)
    for reference in references(made):
        assert resolve(made, reference) is not None
    made["paths"]["/toys"]["post"]["tag"] = "toys"
    assert list(OPENAPI.iter_errors(made))


def test_parameters_are_those_of_the_structs() -> None:
    """Name, place, bounds, default and prose of each parameter come from its field."""
    read = document()["paths"]["/toys/{toy}"]["get"]["parameters"]
    assert read == [
        {"name": "toy", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^t_[a-z]{3}$"}},
        {
            "name": "limit", "in": "query", "required": False, "description": "Toys of a page.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
        },
        {"name": "colour", "in": "query", "required": False, "schema": {"enum": ["blue", "red"]}},
    ]  # fmt: skip
    (key,) = document()["paths"]["/toys"]["post"]["parameters"]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", True)


def test_bodies_and_answers_are_those_of_the_operation() -> None:
    """Each body stands under its media type; each answer and each possible problem has its status; headers are told."""
    made = document()
    post = made["paths"]["/toys"]["post"]
    assert post["requestBody"]["required"]
    assert post["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/NewToy"}},
        "application/octet-stream": {},
    }
    assert set(made["components"]["schemas"]["NewToy"]["properties"]) == {"kind", "data", "parts"}
    assert post["responses"].keys() == {"202"} | {str(status) for status in {400, 401, 403, 413, 415, 422} | COMMON}
    assert post["responses"]["202"]["headers"]["Location"]["required"]
    assert "content" not in made["paths"]["/toys/{toy}"]["delete"]["responses"]["204"]
    for status in (429, 503):
        assert made["components"]["responses"][f"Problem{status}"]["headers"]["Retry-After"]["required"]


def test_an_answer_may_have_the_status_of_a_problem() -> None:
    """Then both stand under it, each with its media type, and the words are those of the answer."""
    away = Operation(
        name="away", method="GET", path="/away", tag="toys", summary="Ask", answers=(Answer(503, "Not now.", toy.Toy),)
    )
    made = openapi([away], PUBLISHED)
    OPENAPI.validate(msgspec.json.decode(msgspec.json.encode(made)))
    told = made["paths"]["/away"]["get"]["responses"]["503"]
    assert told["description"] == "Not now."
    assert {media: one["schema"]["$ref"].rpartition("/")[2] for media, one in told["content"].items()} == {
        "application/json": "Toy",
        "application/problem+json": "Problem",
    }


def test_security_is_that_of_the_callers() -> None:
    """Each kind of caller has its scheme, a service its scope, a person its cookie if there is one; a public operation has none."""
    made = document()
    assert made["paths"]["/toys/{toy}"]["get"]["security"] == [
        {"apiToken": []},
        {"serviceToken": ["jobs"]},
        {"personToken": []},
        {"personCookie": []},
    ]
    assert made["paths"]["/toys/{toy}"]["delete"]["security"] == []
    without = document(msgspec.structs.replace(PUBLISHED, cookie=""))
    OPENAPI.validate(without)
    assert {"personCookie": []} not in without["paths"]["/toys/{toy}"]["get"]["security"]
    assert "personCookie" not in without["components"]["securitySchemes"]


def test_settings_are_published() -> None:
    """The life of an idempotency key, the rate and the life of a token are in the document, and follow the settings."""
    made = document()
    assert made["x-idempotency-key-life-ms"] == 3_600_000
    assert "3600 seconds" in made["info"]["description"]
    assert "20 times a second" in made["info"]["description"]
    assert "900 seconds" in made["components"]["securitySchemes"]["apiToken"]["description"]
    other = document(msgspec.structs.replace(PUBLISHED, key_life_s=60))
    assert other["x-idempotency-key-life-ms"] == 60_000


def test_the_routes_are_those_of_the_operations() -> None:
    """One route for each path, with all its methods."""
    routes = toy.routes()
    assert [(route.path, route.methods) for route in routes if isinstance(route, Route)] == [
        ("/toys/{toy}", {"GET", "HEAD", "DELETE"}),
        ("/toys", {"POST"}),
    ]
    assert operations(routes) == [toy.READ, toy.BREAK, toy.MAKE]


async def test_a_method_that_is_not_there_gets_405_with_all_that_are() -> None:
    """`Allow` names every method of the path, and HEAD is answered like GET."""
    told = await ask(toy.routes(), "PUT", "/toys/t_abc")
    assert told.status == 405
    assert set(told.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
    assert (await ask(toy.routes(), "HEAD", "/toys/t_abc")).status == 200
    assert (await ask(toy.routes(), "DELETE", "/toys/t_abc")).status == 204


def test_what_is_not_described_cannot_be_registered_or_answered() -> None:
    """Two handlers of one operation, and an answer of another struct, are mistakes of the code."""
    with pytest.raises(AssertionError, match="stands twice"):
        described((toy.READ, toy.read), (toy.READ, toy.read))
    with pytest.raises(AssertionError, match="not described"):
        json_answer(toy.TOY, toy.ToyPart())


def structs() -> Iterator[type[msgspec.Struct]]:
    """Every message of the wire."""
    for kinds in (*SENT_BY.values(), *SENT_TO.values()):
        yield from kinds


def test_a_schema_takes_what_the_struct_has() -> None:
    """Each field of each message is in its schema under its name on the wire, and is required if the struct requires it."""
    _, named = components(dict.fromkeys(structs()))
    for kind in structs():
        fields = msgspec.structs.fields(kind)
        schema = named[kind.__name__]
        assert set(schema["properties"]) == {field.encode_name for field in fields} | {"type"}
        assert set(schema["required"]) == {field.encode_name for field in fields if field.required} | {"type"}
