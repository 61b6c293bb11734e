"""The section `[limits]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class LimitsConfig:
    """The bounds of one connection, and of all together. Every queue of signald is bounded by one of these."""

    message_bytes_max: int = key(
        65_536,
        "Largest message; a larger one closes the connection with 1009. Media belongs on its own channel.",
        unit="bytes",
        at_least=1024,
        at_most=16_777_216,
        reload=True,
    )
    fragments_max: int = key(
        128,
        "Most WebSocket fragments of one message; endless tiny ones are a way to burn CPU.",
        unit="fragments",
        reload=True,
    )
    compression: Literal["off", "messages", "context"] = key(
        "off",
        "Whether messages may be deflated (permessage-deflate) for peers that offer it. messages: each for itself, what a room is told "
        "once for all. context: with reference to earlier messages, for 304 KiB of memory for each connection; lower "
        "admission.connections_max. Off because lengths can tell of secrets (docs/security.md), and for the CPU. A reload applies "
        "to new connections.",
        reload=True,
    )
    compression_bytes_min: int = key(
        1024,
        "Messages below it are sent as they are: they fit one packet, and deflating would cost more than the relay.",
        unit="bytes",
        at_most=16_777_216,
        reload=True,
    )
    json_depth_max: int = key(32, "Deepest nesting of a JSON message.", unit="levels", at_most=512, reload=True)
    send_queue_bytes_max: int = key(
        1_048_576,
        "Bytes waiting to be written to one connection. When full the sender is held back; at twice this the "
        "connection is closed with 4508 (slow consumer).",
        unit="bytes",
        reload=True,
    )
    send_queue_messages_max: int = key(1000, "The same, counted in messages.", unit="messages", reload=True)
    send_queues_bytes_max: int = key(
        100_663_296,
        "The bytes of all send queues of this node to which a write waits. Beyond it the largest queues are closed with 4508: a "
        "hundred peers that take nothing, or four thousand that are 24 KiB late.",
        unit="bytes",
        at_least=8_388_608,
        reload=True,
    )
    logs_bytes_max: int = key(
        201_326_592,
        "Bytes of messages that this node holds in memory for all sessions: not stored yet, or not acked. Beyond it senders whose "
        "session holds more than 16 KiB are pushed back (backlog). Four thousand sessions have 48 KiB each.",
        unit="bytes",
        at_least=8_388_608,
        reload=True,
    )
    requests_per_s: float = key(
        20.0,
        "HTTP requests per second of one principal (without a credential: of one address) in the long run: as many as messages. "
        "Beyond it 429. 0: no limit.",
        unit="requests/s",
        at_least=0,
        reload=True,
    )
    requests_burst: int = key(
        100, "HTTP requests of one principal at once before the rate applies.", unit="requests", reload=True
    )
    request_bodies_bytes_max: int = key(
        33_554_432,
        "Bytes of all HTTP bodies that this node holds in memory: five hundred of message_bytes_max. Beyond it 503. Bodies that "
        "are passed on in pieces do not count.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    messages_per_s: float = key(
        20.0,
        "Messages per second a client may send in the long run; a person and an app stay far below.",
        unit="messages/s",
        reload=True,
    )
    messages_burst: int = key(
        100, "Messages a client may send at once before the rate applies.", unit="messages", reload=True
    )
    backlog_messages_max: int = key(
        1000,
        "Messages stored for a receiver that has not acked them. When full the sender is pushed back, "
        "nothing is dropped.",
        unit="messages",
        reload=True,
    )
    backlog_bytes_max: int = key(1_048_576, "The same, counted in bytes.", unit="bytes", reload=True)
    sessions_max: int = key(
        50_000,
        "Sessions alive in the store, of all nodes; a further new one is refused with busy, a resume never. A session takes 3 KiB "
        "in Redis, and what it holds. One address or principal may have admission.address_share of them.",
        unit="sessions",
        reload=True,
    )
    address_bytes_max: int = key(
        33_554_432,
        "Bytes that the clients of one address (an IPv6 /64) make the store keep through this node: meta, messages not acked, "
        "history. Beyond it a session with more than 16 KiB not acked is pushed back (backlog), so that those whose worker acks go on.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    trails_bytes_max: int = key(
        268_435_456,
        "Bytes in the store that the trails of all sessions take, which outlive them (session.trail_keep_s). Beyond it the "
        "trails whose last step is the oldest are removed. A session that comes, is paired and goes takes about 1 KiB: 250,000 "
        "of them.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    sessions_per_worker_max: int = key(
        1000,
        "Most sessions of one worker, whatever capacity it announces.",
        unit="sessions",
        reload=True,
    )
    claim_ahead_max: int = key(
        2_000_000,
        "How far beyond the stored numbers of its session a party is believed (`received`, `acked`, acks). Honest parties "
        "know more than a store that was restored from a snapshot: a day at 20 messages/s is 1,728,000. A claim beyond it is "
        "refused, and the session kept.",
        unit="messages",
        at_least=0,
        at_most=1_000_000_000_000,
        reload=True,
    )
