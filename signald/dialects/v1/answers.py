"""What the answers to all openings say alike: how often to ping, and what the party may send."""

from typing import TypedDict

from msgspec import UNSET, Raw, UnsetType

from signald.core.chat_history import HistoryEntry
from signald.service.attached import ApiToken
from signald.service.context import Context
from signald.service.worker_like import Assignment
from signald.wire.messages import Limits, OpenStream, WorkerLimits


class ApiFields(TypedDict):
    """The fields of an answer that give the party its API token."""

    api_token: str | UnsetType
    api_token_ttl_ms: int | UnsetType


def api_fields(token: ApiToken | None) -> ApiFields:
    """Return the fields of an answer for `token`; none when the party has asked for none."""
    if token is None:
        return {"api_token": UNSET, "api_token_ttl_ms": UNSET}
    return {"api_token": token.text, "api_token_ttl_ms": token.ttl_ms}


def heartbeat_ms(context: Context) -> int:
    """How often a party is told to ping."""
    return round(context.config.timeouts.ping_interval_s * 1000)


def client_limits(context: Context) -> Limits:
    """What a client is told that it may send."""
    limits = context.config.limits
    return Limits(
        limits.message_bytes_max,
        limits.messages_per_s,
        limits.messages_burst,
        limits.backlog_messages_max,
        limits.json_depth_max,
    )


def worker_limits(context: Context) -> WorkerLimits:
    """What a worker is told that it may send."""
    return WorkerLimits(context.config.limits.message_bytes_max, context.config.limits.json_depth_max)


def open_streams(assignment: Assignment) -> list[OpenStream]:
    """What a worker is told of the streams that it finds open in a session."""
    texts: dict[str, HistoryEntry] = {
        entry.stream: entry for entry in assignment.history if entry.stream and entry.party == "worker"
    }
    found = []
    for view in assignment.streams:
        text = texts.get(view.stream)
        found.append(
            OpenStream(
                view.stream,
                view.attempt,
                view.kind,
                UNSET if text is None else Raw(b'"' + text.data + b'"'),
                text is not None and text.truncated,
                view.cancel,
                view.reason,
            )
        )
    return found
