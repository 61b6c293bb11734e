"""The section `[session]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class SessionConfig:
    """The state that outlives a connection, and for how long."""

    resume_ttl_s: float = key(
        300.0,
        "A session whose client stays away longer than this ends. It covers a page reload, a tunnel, a deploy.",
        unit="seconds",
        reload=True,
    )
    history_messages_max: int = key(
        100,
        "Messages of the chat history kept for a reload or a new worker.",
        unit="messages",
        at_least=0,
        reload=True,
    )
    history_bytes_max: int = key(262_144, "The same, counted in bytes.", unit="bytes", at_least=0, reload=True)
    trail_steps_max: int = key(
        100,
        "Steps of a session's way (started, paired, told to go, resumed ...) kept for ctl trace. 0: none.",
        unit="steps",
        at_least=0,
        at_most=10_000,
        reload=True,
    )
    trail_keep_s: float = key(
        86_400.0,
        "How long they are kept after the last of them, beyond the session's end, as far as limits.trails_bytes_max goes.",
        unit="seconds",
        reload=True,
    )
