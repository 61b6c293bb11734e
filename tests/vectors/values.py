"""How the values of Python are written in a transcript."""

import base64
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

from signald.sdk.errors import Unreadable
from signald.sdk.events import BlobBytes
from signald.sdk.values import read, readable

ANY = "*"
"""A text that the SDK words itself: each SDK has its own."""

_UNTOLD = frozenset({"size"})
"""Fields that an application is not shown."""


@attrs.frozen
class Named:
    """A blob that a message names, where nothing reads it."""

    id: str

    async def read(self, *, bytes_max: int = 0, timeout_s: float = 0) -> bytes:
        """Stand in for a download."""
        raise NotImplementedError

    def open(
        self, start: int = 0, end: int | None = None, *, timeout_s: float = 0
    ) -> AbstractAsyncContextManager[BlobBytes]:
        """Stand in for a download."""
        raise NotImplementedError


def entry(value: Any) -> Any:
    """Return a value as JSON: an event by its name, bytes as base64, what Python cannot hold as a mark."""
    try:
        value = readable(value)
    except Unreadable:
        return {"unreadable": True}
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Named):
        return {"blob": value.id}
    if attrs.has(type(value)):
        return event(value)
    if isinstance(value, Mapping):
        return {str(name): entry(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [entry(one) for one in value]
    return value


def event(value: Any) -> dict[str, Any]:
    """Return an event by its name and its fields; those that are None or false are left out."""
    fields = {each.name.lstrip("_"): getattr(value, each.name) for each in attrs.fields(type(value))}
    told = {
        name: entry(one) for name, one in fields.items() if one is not None and one is not False and name not in _UNTOLD
    }
    return {"event": type(value).__name__, **told}


def data_of(call: Mapping[str, Any]) -> Any:
    """Return the data that a call names, as `data` or as `base64`."""
    return base64.b64decode(call["base64"]) if "base64" in call else call.get("data")


def frame_of(step: Mapping[str, Any]) -> str | bytes:
    """Return what comes over the wire by a step."""
    if "frame" in step:
        return json.dumps(step["frame"])
    if "text" in step:
        return str(step["text"])
    if "bytes" in step:
        return base64.b64decode(step["bytes"])
    head = json.dumps(step["binary"]["header"]).encode()
    return len(head).to_bytes(2, "big") + head + base64.b64decode(step["binary"]["base64"])


def written(text: bool, payload: bytes) -> dict[str, Any]:
    """Return a frame of the SDK."""
    if text:
        return {"frame": json.loads(payload)}
    end = 2 + int.from_bytes(payload[:2], "big")
    return {"binary": {"header": json.loads(payload[2:end]), "base64": base64.b64encode(payload[end:]).decode()}}


def decoded(raw: bytes) -> Any:
    """Return a value of a record or of a presence."""
    return entry(read(raw))


class Reasons:
    """The texts that a vector gives; another one is a word of the SDK's own."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self._given = {""}
        for step in steps:
            self._find({name: value for name, value in step.items() if name != "out"})

    def _find(self, value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                if name in ("reason", "message") and isinstance(one, str):
                    self._given.add(one)
                self._find(one)
        elif isinstance(value, list):
            for one in value:
                self._find(one)

    def masked(self, value: Any) -> Any:
        """Return an entry with the words of the SDK's own as ANY."""
        if isinstance(value, dict):
            return {
                name: (
                    ANY if name == "reason" and isinstance(one, str) and one not in self._given else self.masked(one)
                )
                for name, one in value.items()
            }
        return [self.masked(one) for one in value] if isinstance(value, list) else value
