"""The section `[deepstream]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class DeepstreamConfig:
    """The apps of a DeepStream fleet, where `profiles.deepstream` lets them in."""

    on_drain: Literal["terminate", "reconnect"] = key(
        "terminate",
        "What a planned stop means for an app. terminate: clean up and end, by terminate_app. reconnect: come back to the next node, "
        "by close 1001 once that is ready.",
        reload=True,
    )
    terminate_timeout_s: float = key(
        10.0,
        "How long an app may take to answer terminate_app before it is closed with 1001: what the guide of that fleet grants. An app that "
        "says app_busy has longer, as far as the deadline of the drain allows.",
        unit="seconds",
        at_least=0.1,
        at_most=600,
        reload=True,
    )
    resume_timeout_s: float = key(
        120.0,
        "How long an app that is away is still found by its instance_id, with its session. Twice the longest wait of a device (60 s).",
        unit="seconds",
        at_least=1,
        at_most=86_400,
        reload=True,
    )
    pairs: bool = key(
        True,
        "Pair an app with a client, as a worker of capacity 1. Off where clients without a want share the cluster with apps: an app "
        "that is not meant for them may be found for them.",
        reload=True,
    )
    messages_per_s: float = key(
        100.0,
        "Messages of one app. Three cameras at 30 frames a second, each frame told.",
        unit="messages/s",
        reload=True,
    )
    messages_burst: int = key(
        1000,
        "Messages that an app may send at once: ten seconds of its rate.",
        unit="messages",
        at_least=1,
        reload=True,
    )
    event_bytes_max: int = key(
        8192,
        "The longest message of an app that has no client, and so is told to the core server as app.message. A hundred detections.",
        unit="bytes",
        at_least=64,
        at_most=65_536,
        reload=True,
    )
    events_queue_max: int = key(
        100,
        "Such messages of one app that wait for the core server; beyond it new ones are dropped and counted. The store rewrites the queue "
        "with each, 800 KB at most.",
        unit="events",
        at_least=1,
        at_most=1000,
        reload=True,
    )
