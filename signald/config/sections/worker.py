"""The section `[worker]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class WorkerConfig:
    """The sessions of a worker that is away: how long they wait for it, and what follows."""

    resume_timeout_s: float = key(
        10.0,
        "How long a worker may be away and still find its sessions; longer delays the rescue of those whose "
        "worker is dead.",
        unit="seconds",
        reload=True,
    )
    on_loss: Literal["reassign", "hold", "end"] = key(
        "reassign",
        "After that time: give the session to another worker with its chat history, hold it for the same "
        "worker until it expires, or end it.",
        reload=True,
    )
    failures_max: int = key(
        5,
        "Hand-outs of a session that may fail at the same message (the worker was lost, or gave the session back) before "
        "the session is set aside. Fewer would set sessions aside when several workers fail by chance; each more may cost "
        "another worker.",
        unit="hand-outs",
        reload=True,
    )
    adopt_streams_s: float = key(
        10.0,
        "How long a worker that gets a session with open streams may take to speak in them, before signald ends them as "
        "interrupted. Long enough to load a conversation and begin an answer; until then its client sees it as going on.",
        unit="seconds",
        reload=True,
    )
