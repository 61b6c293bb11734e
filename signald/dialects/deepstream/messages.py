"""The messages of the wire of a DeepStream fleet. An app has no ack, no token and no number; anything else that it says is its own.

    the app                                          signald
    app_ready {instance_id, reconnection?, …}   ─▸
                                               ◂─    app_accepted, if `config.ack` asks for it; or reconnection_ack
    any object with a type                     ◂─▸   any object with a type
                                               ◂─    terminate_app {request_id, reason}
    app_busy {request_id, until_ms, reason?}    ─▸
    app_terminated {request_id, status, message} ─▸

Decoding is lenient where a program of the fleet may differ: only `instance_id` is needed, and a field of another kind than
expected counts as absent.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.errors import BadMessage
from signald.wire.codec import too_deep
from signald.wire.fields import KIND_MAX, NAME_MAX, REASON_MAX, Outbound
from signald.wire.messages import LABELS_MAX, SECRET_MAX, TRACE_MAX, Labels

OWN = frozenset({"app_ready", "app_busy", "app_terminated", "ping", "pong"})
"""Types of an app that signald answers itself."""

RESERVED = OWN | {"app_accepted", "reconnection_ack", "terminate_app", "goaway", "error"}
"""Types that reach an app from signald alone. A client that says one of them would end an app, or lie to it about its node."""

EPOCH_MS = 10**11
"""From this number on `until_ms` is a time since 1970, which some programs say instead: as a duration it would be three years."""


class AppReady(Struct, frozen=True):
    """The opening message of an app."""

    instance_id: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
    reconnection: Any = False
    config: Any = None
    labels: Any = None
    auth: Any = None
    trace: Any = None

    @property
    def returns(self) -> bool:
        """The app says that it was here before."""
        return self.reconnection is True

    @property
    def wants_answer(self) -> bool:
        """It asks for `app_accepted`."""
        return isinstance(self.config, dict) and self.config.get("ack") is True

    @property
    def credential(self) -> str | None:
        """The credential in the message, if it shows one."""
        return self.auth if isinstance(self.auth, str) and 0 < len(self.auth) <= SECRET_MAX else None

    @property
    def trace_text(self) -> str | None:
        """The `traceparent`, if it has one."""
        return self.trace if isinstance(self.trace, str) and len(self.trace) <= TRACE_MAX else None

    def own_labels(self) -> dict[str, str]:
        """Return the labels that it offers, beside its own name."""
        try:
            offered: dict[str, str] = msgspec.convert(self.labels or {}, Labels)
        except msgspec.ValidationError:
            offered = {}
        kept = dict(list(offered.items())[: LABELS_MAX - 2])
        return {**kept, "profile": "deepstream", "instance": self.instance_id}


class AppTerminated(Struct, frozen=True):
    """The app has cleaned up, or says by another `status` than OK that it could not."""

    request_id: Any = ""
    status: Any = "OK"
    message: Any = ""


class AppBusy(Struct, frozen=True):
    """The app needs more time before it can clean up."""

    request_id: Any = ""
    until_ms: Any = 0
    reason: Any = ""

    def wait_s(self, now_ms: int) -> float:
        """Return how long it needs from now on, in seconds; 0 when it does not say."""
        until = self.until_ms
        if isinstance(until, bool) or not isinstance(until, int | float) or until != until:
            return 0.0
        return max(0.0, (until - now_ms if until >= EPOCH_MS else until) / 1000)


class TerminateApp(Outbound, tag="terminate_app", frozen=True):
    """Clean up and answer `app_terminated`."""

    request_id: str
    reason: str


class AppAccepted(Outbound, tag="app_accepted", frozen=True):
    """The answer to a first `app_ready` whose `config.ack` is true."""

    status: str
    instance_id: str


class ReconnectionAck(Outbound, tag="reconnection_ack", frozen=True):
    """The answer to an `app_ready` with `reconnection`."""

    status: str
    session_restored: bool
    server_status: str


class Error(Outbound, tag="error", frozen=True):
    """Something was wrong; `fatal`: the close follows."""

    code: str
    message: str
    fatal: bool = False
    retry_after_ms: int | UnsetType = UNSET


PONG = b'{"type":"pong"}'


class _Typed(Struct):
    type: Annotated[str, Meta(min_length=1, max_length=KIND_MAX)]


class _Stored(Struct):
    seq: int
    data: Raw = Raw(b"null")


_typed = msgspec.json.Decoder(_Typed)
_stored = msgspec.json.Decoder(_Stored)
_ready = msgspec.json.Decoder(AppReady)
_terminated = msgspec.json.Decoder(AppTerminated)
_busy = msgspec.json.Decoder(AppBusy)


def type_of(text: bool, payload: bytes, depth_max: int) -> str:
    """Return the type of a frame. Raises BadMessage for what is no object with a `type`, or is nested too deep."""
    if not text:
        raise BadMessage("a message is a text frame")
    if too_deep(payload, depth_max):
        raise BadMessage(f"nested deeper than {depth_max}")
    try:
        return _typed.decode(payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage("a message is a JSON object with a type") from None


def read_ready(payload: bytes) -> AppReady:
    """Return an `app_ready`. Raises BadMessage."""
    try:
        return _ready.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage(f"app_ready needs an instance_id of 1 to {NAME_MAX} characters") from None


def read_terminated(payload: bytes) -> AppTerminated:
    """Return an `app_terminated`; one that cannot be read says that all is well."""
    try:
        return _terminated.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AppTerminated()


def read_busy(payload: bytes) -> AppBusy:
    """Return an `app_busy`; one that cannot be read asks for no time."""
    try:
        return _busy.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AppBusy()


def shown(text: object) -> str:
    """Return a text of an app for the log, cut where it is too long."""
    return text[:REASON_MAX] if isinstance(text, str) else ""


def data_for_app(stored: bytes) -> tuple[int, bytes | None]:
    """Return the seq and the data of a stored text message; None for data that no app may be given.

    An app is given objects with a `type` that is not signald's own.
    """
    message = _stored.decode(stored)
    data = bytes(message.data)
    try:
        kind = _typed.decode(data).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return message.seq, None
    return message.seq, None if kind in RESERVED else data


def encode(message: Outbound) -> bytes:
    """Return a message as JSON."""
    return msgspec.json.encode(message)
