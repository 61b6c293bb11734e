"""Texts of parties: each has a bound, and those that had none in release 0.1.0 are trimmed, not refused."""

import json
from typing import get_args

import pytest
from msgspec import inspect
from msgspec.structs import fields

from signald.wire import messages
from signald.wire.codec import decode_client, decode_worker
from signald.wire.fields import Inbound
from signald.wire.messages import AppReady, AppTerminated, Connect, PartyError, RestoreSession

LONG = "x" * 70_000


def read(decode: object, **message: object) -> object:
    """Decode one frame."""
    return decode(True, json.dumps(message).encode(), 32)[0]  # type: ignore[operator]


def test_a_long_trace_or_ticket_counts_as_none() -> None:
    """An opening message with a `trace` or a `ticket` beyond its bound opens, and has none."""
    started = read(decode_client, type="connect", trace=LONG)
    restored = read(decode_client, type="restore_session", recovery_token="s_1.x", trace=LONG, ticket=LONG)
    ready = read(decode_worker, type="app_ready", instance_id="a", trace=LONG, ticket=LONG)
    assert isinstance(started, Connect)
    assert isinstance(restored, RestoreSession)
    assert isinstance(ready, AppReady)
    assert {started.trace, restored.trace, restored.ticket, ready.trace, ready.ticket} == {None}


def test_texts_at_their_bounds_are_kept() -> None:
    """256 characters of a `trace` and of a `ticket`."""
    restored = read(decode_client, type="restore_session", recovery_token="s_1.x", trace="t" * 256, ticket="k" * 256)
    assert isinstance(restored, RestoreSession)
    assert (restored.trace, restored.ticket) == ("t" * 256, "k" * 256)


def test_longer_texts_are_cut() -> None:
    """What a party reports is cut, and costs it nothing."""
    done = read(decode_worker, type="app_terminated", request_id=LONG, status=LONG, message=LONG)
    assert isinstance(done, AppTerminated)
    assert (len(done.request_id), len(done.status), len(done.message)) == (128, 64, 512)
    error = read(decode_client, type="error", code=LONG, message=LONG)
    assert isinstance(error, PartyError)
    assert (len(error.code), len(error.message)) == (64, 512)


@pytest.mark.parametrize(
    "kind", get_args(messages.ClientMessage | messages.WorkerMessage), ids=lambda kind: kind.__name__
)
def test_every_text_has_a_bound(kind: type[Inbound]) -> None:
    """No field of what a party sends is a text without a bound."""
    for field in fields(kind):
        told = inspect.type_info(field.type)
        options = told.types if isinstance(told, inspect.UnionType) else (told,)
        if any(isinstance(one, inspect.StrType) and one.max_length is None for one in options):
            assert field.name in messages._BOUNDS
            assert issubclass(kind, messages._Trimmed)
