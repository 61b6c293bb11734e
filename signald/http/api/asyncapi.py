"""`/asyncapi.json`: AsyncAPI 3.0 of `signald.v1`, made from the message classes and from the tables of the wire.

The document describes signald: an operation with the action `receive` lists what a party sends. A text frame is one JSON object, the
payload of its message. A binary frame is a message of its own here: its JSON header stands in `headers`, its data in `payload`.
"""

import inspect
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from signald.http.api.schemas import Json, components
from signald.wire.catalogue import ANSWERS, BINARY, BINARY_ONLY, SENT_BY, SENT_TO, WITHOUT_DATA, tag
from signald.wire.close_codes import ADVICE, UNKNOWN, CloseCode
from signald.wire.error_codes import ERROR_CODES
from signald.wire.messages import SUBPROTOCOL, ErrorMessage

ASYNCAPI = "3.0.0"

_Party = Literal["client", "worker"]
_PARTIES: tuple[_Party, ...] = ("client", "worker")

_PROSE = f"""
The messages of `{SUBPROTOCOL}` between signald and the programs that speak to it.

**Text frame:** one JSON object with a string `type`. **Binary frame:** a big-endian unsigned 16-bit length, a JSON object of that
many bytes without `data`, then `data` as raw bytes.

Unknown fields and unknown types are ignored by the parties; signald answers an unknown type with `error` `unknown_type`. A close never ends
a session: `x-close-codes` has the advice of each code.
""".strip()

_CREDENTIAL = (
    "A credential, where the node asks for one, stands in the field `auth` of the opening message, in the header `Authorization`, or in an "
    "offered subprotocol `signald.bearer.<base64url of the token>`; never in the URL."
)


def asyncapi(version: str, paths: Mapping[_Party, str]) -> Json:
    """Return the document of release `version`; `paths` are the endpoints of the parties."""
    kinds = dict.fromkeys(kind for party in _PARTIES for kind in (*SENT_BY[party], *SENT_TO[party]))
    _, named = components(kinds)
    for kind in BINARY:
        schema = named[kind.__name__]
        named[f"{kind.__name__}Header"] = _header(schema)
        if kind not in WITHOUT_DATA:
            schema["required"] = [*schema["required"], "data"]
    messages = {kind.__name__: _message(kind) for kind in kinds if kind not in BINARY_ONLY}
    messages |= {f"{kind.__name__}Binary": _binary_message(kind) for kind in kinds if kind in BINARY}
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": SUBPROTOCOL, "version": version, "description": _PROSE},
        "defaultContentType": "application/json",
        "channels": {party: _channel(party, paths[party]) for party in _PARTIES},
        "operations": {
            f"{party}{verb}": operation
            for party in _PARTIES
            for verb, operation in (("Opens", _opens(party)), ("Sends", _sends(party)), ("IsSent", _is_sent(party)))
        },
        "components": {"schemas": named, "messages": messages},
        "x-close-codes": [
            {
                "code": int(code),
                "name": CloseCode(code).name.lower(),
                "meaning": advice.meaning,
                "reconnect": advice.may_reconnect,
                "resume": advice.may_resume,
            }
            for code, advice in ADVICE.items()
        ],
        "x-close-code-unknown": {
            "meaning": UNKNOWN.meaning,
            "reconnect": UNKNOWN.may_reconnect,
            "resume": UNKNOWN.may_resume,
        },
    }


def _header(schema: Json) -> Json:
    """Return the schema of the JSON header of a binary frame."""
    properties = {name: field for name, field in schema["properties"].items() if name != "data"}
    return {
        **schema,
        "title": f"{schema['title']}Header",
        "properties": properties,
        "not": {"required": ["data"]},
    }


def _prose(kind: type[Struct]) -> Json:
    summary, _, rest = (inspect.getdoc(kind) or "").partition("\n\n")
    told = {"summary": " ".join(summary.split())}
    return {**told, "description": rest} if rest else told


def _message(kind: type[Struct]) -> Json:
    described: Json = {
        "name": tag(kind),
        "title": tag(kind),
        **_prose(kind),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }
    if kind is ErrorMessage:
        described["x-error-codes"] = [
            {
                "code": row.code,
                "meaning": row.meaning,
                "close": None if row.close is None else int(row.close),
                "parties": list(_PARTIES) if row.party is None else [row.party],
            }
            for row in ERROR_CODES
        ]
    return described


def _binary_message(kind: type[Struct]) -> Json:
    return {
        "name": tag(kind),
        "title": f"{tag(kind)} (binary frame)",
        "summary": "The same as a binary frame: `headers` is the JSON in front, the payload is `data`.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": f"#/components/schemas/{kind.__name__}Header"},
        "payload": {"type": "string", "format": "binary"},
    }


def _names(kinds: tuple[type[Struct], ...]) -> list[str]:
    names = [kind.__name__ for kind in kinds if kind not in BINARY_ONLY]
    return [*names, *(f"{kind.__name__}Binary" for kind in kinds if kind in BINARY)]


def _channel(party: _Party, path: str) -> Json:
    names = dict.fromkeys([*_names(SENT_BY[party]), *_names(SENT_TO[party])])
    held = "one session" if party == "client" else "many sessions"
    return {
        "address": path,
        "title": f"The connection of a {party}",
        "description": f"A WebSocket with {held}. It offers the subprotocol `{SUBPROTOCOL}`. {_CREDENTIAL}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _refs(party: _Party, names: list[str]) -> list[Json]:
    return [{"$ref": f"#/channels/{party}/messages/{name}"} for name in names]


def _opens(party: _Party) -> Json:
    openings = tuple(kind for kind in SENT_BY[party] if kind in ANSWERS)
    answers = dict.fromkeys(answer for opening in openings for answer in ANSWERS[opening])
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{party}"},
        "summary": f"The first message of a {party}, and its answer.",
        "messages": _refs(party, _names(openings)),
        "reply": {
            "channel": {"$ref": f"#/channels/{party}"},
            "messages": _refs(party, _names((*answers, ErrorMessage))),
        },
    }


def _sends(party: _Party) -> Json:
    kinds = tuple(kind for kind in SENT_BY[party] if kind not in ANSWERS)
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{party}"},
        "summary": f"Every other message that a {party} may send, behind the answer.",
        "messages": _refs(party, _names(kinds)),
    }


def _is_sent(party: _Party) -> Json:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{party}"},
        "summary": f"Every message that a {party} is sent.",
        "messages": _refs(party, _names(SENT_TO[party])),
    }
