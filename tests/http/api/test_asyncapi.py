"""`/asyncapi.json`: valid AsyncAPI 3.0, with every message and field, and true for the frames of real exchanges."""

import re
from functools import cache
from typing import Any, cast

import msgspec
import pytest
from jsonschema import Draft202012Validator

from signald.dialects.v1.paths import PATHS
from signald.http.api.asyncapi import asyncapi
from signald.wire.catalogue import BINARY, BINARY_ONLY, SENT_BY, SENT_TO
from signald.wire.close_codes import ADVICE, CloseCode
from tests.http.api.recording import recorded
from tests.http.api.schemas import ASYNCAPI, closed, references, resolve
from tests.test_docs import PROTOCOL, TYPES, error_codes, rows

PARTIES = ("client", "worker")


@cache
def document() -> dict[str, Any]:
    """The document as it is sent."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asyncapi("1.2.3", PATHS)))
    return made


def listed(operation: str) -> list[dict[str, Any]]:
    """The messages of an operation."""
    found = document()["operations"][operation]
    return [resolve(document(), resolve(document(), one["$ref"])["$ref"]) for one in found["messages"]]


def test_the_document_is_asyncapi() -> None:
    """The official schema takes the document, and every reference in it leads somewhere."""
    ASYNCAPI.validate(document())
    for reference in references(document()):
        assert resolve(document(), reference) is not None
    wrong = {**document(), "channels": {"client": {"path": "/v1/client"}}}
    assert list(ASYNCAPI.iter_errors(wrong))


def test_the_endpoints_are_those_of_the_dialect() -> None:
    """Each party has a channel at its path."""
    assert {name: channel["address"] for name, channel in document()["channels"].items()} == dict(PATHS)


@pytest.mark.parametrize("party", PARTIES)
def test_every_message_stands_where_it_is_sent(party: str) -> None:
    """Each class is a message of the operation of its way, and no other message is; binary frames are messages of their own."""
    for kinds, operations in (
        (SENT_BY[cast("Any", party)], (f"{party}Opens", f"{party}Sends")),
        (SENT_TO[cast("Any", party)], (f"{party}IsSent",)),
    ):
        names = {kind.__name__ for kind in kinds if kind not in BINARY_ONLY}
        names |= {f"{kind.__name__}Binary" for kind in kinds if kind in BINARY}
        told = [
            one["$ref"].rpartition("/")[2] for name in operations for one in document()["operations"][name]["messages"]
        ]
        assert set(told) == names
        assert len(told) == len(names)
    actions = {name: one["action"] for name, one in document()["operations"].items()}
    assert actions[f"{party}Sends"] == actions[f"{party}Opens"] == "receive"
    assert actions[f"{party}IsSent"] == "send"


@pytest.mark.parametrize(("tag", "kind"), TYPES, ids=[kind.__name__ for _, kind in TYPES])
def test_every_message_and_field_is_there(tag: str, kind: type[msgspec.Struct]) -> None:
    """Each message class has a message with its type, its prose and each of its fields."""
    is_text = kind not in BINARY_ONLY
    message = document()["components"]["messages"][kind.__name__ if is_text else f"{kind.__name__}Binary"]
    assert message["name"] == tag
    assert message["summary"]
    schema = resolve(document(), message["payload" if is_text else "headers"]["$ref"])
    assert set(schema["properties"]) == {"type", *kind.__struct_fields__}
    assert schema["properties"]["type"] == {"enum": [tag]}


def test_every_field_of_the_page_is_there() -> None:
    """Each field in a table of docs/protocol.md is a field of one of the messages under whose heading the table stands."""
    fields: dict[str, set[str]] = {}
    for tag, kind in TYPES:
        fields.setdefault(tag, set()).update(kind.__struct_fields__)
    found = 0
    for section in re.split(r"^#+ ", PROTOCOL, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        tags = set(re.findall(r"`(\w+)`", heading)) & fields.keys()
        if tags and "| field | type |" in text:
            known = set().union(*(fields[tag] for tag in tags))
            schemas = [
                set(document()["components"]["schemas"][kind.__name__]["properties"])
                for tag, kind in TYPES
                if tag in tags
            ]
            for table in text.split("| field | type |")[1:]:
                for row in rows("| field | type |" + table, "| field | type |"):
                    for name in re.findall(r"`(\w+)\??`", row[0]):
                        found += 1
                        assert name in known, f"{heading}: {name}"
                        assert any(name in schema for schema in schemas), f"{heading}: {name}"
    assert found > 50


def test_codes_are_those_of_the_code() -> None:
    """Each close code has its advice and each error code its close."""
    closes = {row["code"]: row for row in document()["x-close-codes"]}
    assert closes.keys() == {int(code) for code in ADVICE}
    assert closes[4404] == {
        "code": 4404, "name": "nothing_to_resume", "meaning": ADVICE[CloseCode.NOTHING_TO_RESUME].meaning,
        "reconnect": True, "resume": False,
    }  # fmt: skip
    errors = document()["components"]["messages"]["ErrorMessage"]["x-error-codes"]
    assert {row["code"] for row in errors} == error_codes()
    assert {row["close"] for row in errors} - {None} <= closes.keys()


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that takes no field which the document does not name."""
    return Draft202012Validator({**closed(schema), "components": closed(document()["components"])})


def test_frames_of_real_exchanges_are_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame that nodes and parties exchange is a message of its operation, by its type and every field; every message was there."""
    frames = recorded(monkeypatch)
    seen: set[tuple[str, str, str]] = set()
    for party, way, is_text, frame in frames:
        operations = (f"{party}Opens", f"{party}Sends") if way == "sent by" else (f"{party}IsSent",)
        messages = [one for name in operations for one in listed(name) if one["name"] == frame["type"]]
        schemas = [
            one["payload"] if is_text else one["headers"] for one in messages if ("headers" in one) is not is_text
        ]
        assert len(schemas) == 1, f"{party} {way}: {frame}"
        validator(schemas[0]).validate(frame)
        seen |= {(party, way, frame["type"])}
    every = {
        (party, way, one["name"])
        for party in PARTIES
        for way, operations in (("sent by", (f"{party}Opens", f"{party}Sends")), ("sent to", (f"{party}IsSent",)))
        for name in operations
        for one in listed(name)
    }
    assert every - seen == set()


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("Message", {"type": "message", "seq": 1}),
        ("Message", {"type": "message", "seq": 0, "data": 1}),
        ("Message", {"type": "message", "seq": "1", "data": 1}),
        ("MessageHeader", {"type": "message", "seq": 1, "data": 1}),
        ("RealtimeHeader", {"type": "realtime", "seq": 1}),
        ("SessionStarted", {"type": "session_started"}),
    ],
)
def test_a_wrong_frame_is_not_as_described(name: str, frame: dict[str, Any]) -> None:
    """A field that is missing, unknown, out of bounds or of another type, and `data` in the header of a binary frame, are found."""
    assert not validator({"$ref": f"#/components/schemas/{name}"}).is_valid(frame)
