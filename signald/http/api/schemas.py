"""JSON schemas of msgspec structs, as `/openapi.json` and `/asyncapi.json` hold them."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import FieldInfo

Json = dict[str, Any]

REF = "#/components/schemas/{name}"
"""Where both documents keep the schemas of structs."""


def components(kinds: Iterable[Any]) -> tuple[dict[Any, Json], dict[str, Json]]:
    """Return the schema of each type in `kinds`, and the schemas of all structs in them by name.

    Two structs of one name make msgspec name them by their modules; a test keeps names unique.
    """
    asked = list(kinds)
    known = [_describable(kind) for kind in asked]
    schemas, named = msgspec.json.schema_components(known, ref_template=REF)
    return dict(zip(asked, schemas, strict=True)), named


def parameters(kind: type[Struct]) -> tuple[Json, frozenset[str]]:
    """Return the schema of each field of `kind` by its name on the wire, and the names of those that must be there."""
    _, named = components([kind])
    schema = named[kind.__name__]
    return schema["properties"], frozenset(schema["required"])


def _describable(kind: Any) -> Any:
    """Return `kind`, or a struct like it whose raw fields have defaults that msgspec can write."""
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return kind
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(field.default, Raw) for field in fields):
        return kind
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__,
        [_field(field) for field in fields],
        namespace={"__doc__": kind.__doc__},
        tag_field=config.tag_field,
        tag=config.tag,
        kw_only=True,
        rename={field.name: field.encode_name for field in fields},
    )


def _field(field: FieldInfo) -> tuple[str, Any, Any]:
    if isinstance(field.default, Raw):
        return field.name, Raw | UnsetType, UNSET
    if field.required:
        return field.name, field.type, msgspec.field()
    if field.default_factory is not msgspec.NODEFAULT:
        return field.name, field.type, msgspec.field(default_factory=field.default_factory)
    return field.name, field.type, field.default
