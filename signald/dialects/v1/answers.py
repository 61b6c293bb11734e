"""What the answers to all openings say alike: how often to ping, and what the party may send."""

from signald.service.context import Context
from signald.wire.messages import Limits, WorkerLimits


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
