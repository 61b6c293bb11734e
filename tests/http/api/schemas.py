"""The official schemas of the two documents, and a validator of each."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator

FOLDER = Path(__file__).parent / "official"

ASYNCAPI = Draft7Validator(json.loads((FOLDER / "asyncapi-3.0.json").read_text()))
OPENAPI = Draft202012Validator(json.loads((FOLDER / "openapi-3.1.json").read_text()))


def references(document: Any) -> set[str]:
    """Every `$ref` in `document`."""
    if isinstance(document, list):
        return set().union(*map(references, document))
    if not isinstance(document, dict):
        return set()
    found = set().union(*map(references, document.values()))
    return found | ({document["$ref"]} if "$ref" in document else set())


def resolve(document: Any, reference: str) -> Any:
    """What a `$ref` into the same document points at; KeyError when nothing is there."""
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def closed(schema: Any) -> Any:
    """The schema without room for members that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner["additionalProperties"] = False
    return inner
