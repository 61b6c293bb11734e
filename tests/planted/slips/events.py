"""Slips in what is told of a session: in its rules, in Python and in Lua, and in what a node gives back of it."""

from tests.planted.bug import Bug

_KEEPING = "signald/store/session/events/keeping.py"
_RULES = "signald/store/session/events/rules.py"
_QUEUE_LUA = "signald/store/session/events/queue.lua"
_OPERATIONS_LUA = "signald/store/session/events/operations.lua"
_SESSION_RULES = "signald/store/session/rules.py"

_CONTRACT = "tests/store/session/events/test_contract.py"
_MEMORY = (_CONTRACT, "-k", "memory")
_REDIS = (_CONTRACT, "tests/store/test_redis.py::TestKeys", "-k", "redis or TestKeys")


def _slip(name: str, file: str, function: str, old: str, new: str, story: str, noticed_by: tuple[str, ...]) -> Bug:
    return Bug(name, file, function, old, new, "twin" if file.endswith(".lua") else "event-told", story, noticed_by)


EVENTS = (
    _slip(
        "event-queue-one-too-long",
        _KEEPING,
        "add",
        "queue.waiting >= queue.events_max",
        "queue.waiting > queue.events_max",
        "A full queue takes one more event than it may.",
        _MEMORY,
    ),
    _slip(
        "dropped-events-said-again",
        _KEEPING,
        "add",
        "queue.dropped = 0",
        "pass",
        "Each event after a full queue says anew that others were dropped.",
        _MEMORY,
    ),
    _slip(
        "end-lost-in-a-full-queue",
        _KEEPING,
        "end_events",
        "always=True",
        "always=False",
        "The core never learns that a session has ended whose queue was full.",
        _MEMORY,
    ),
    _slip(
        "handover-told-as-resumed",
        _KEEPING,
        "tell_resumed",
        "if queue.away:",
        "if queue:",
        "Each deploy tells of every session that its client is back, though it never was away.",
        _MEMORY,
    ),
    _slip(
        "numbers-of-a-lost-queue-given-again",
        _KEEPING,
        "_opened",
        "max(queue.last, record.events)",
        "queue.last",
        "After a loss of the store an event has the id of one that was told, and its receiver takes it for a repetition.",
        _MEMORY,
    ),
    _slip(
        "event-queue-outlives-its-last-event",
        _RULES,
        "drop_events",
        "not queue.waiting and _is_gone(op.session, rows)",
        "False",
        "The empty queue of each session that has ended is kept for a day.",
        _MEMORY,
    ),
    _slip(
        "event-queue-of-a-living-session-goes",
        _RULES,
        "drop_events",
        "not queue.waiting and _is_gone(op.session, rows)",
        "not queue.waiting",
        "Once all is told it is forgotten that the client is away: its return is not told.",
        _MEMORY,
    ),
    _slip(
        "client-away-by-a-stale-detach-told",
        _SESSION_RULES,
        "detach",
        "if not op.node or not_holder(side, op.epoch, op.node):",
        "if not op.node:",
        "The late detach of an old connection is told as an absence.",
        _MEMORY,
    ),
    _slip(
        "claim-given-back-without-its-time",
        "signald/store/session/reseed.py",
        "_reseed_client",
        "asked_ms=op.asked_ms",
        "asked_ms=0",
        "After a loss of the store a claim that the network delivers late takes the session from the client's newer connection.",
        _MEMORY,
    ),
    _slip(
        "what-is-told-believed-of-a-head-with-a-loss",
        "signald/core/session.py",
        "Session.observe",
        "if head.events >= self.events:",
        "if head:",
        "After a loss of the store a session is told no more, and numbers are given again.",
        ("tests/core/test_failover.py",),
    ),
    _slip(
        "lua-event-nonce-not-compared",
        _OPERATIONS_LUA,
        "operation.tell_event",
        "known == nonce",
        "false",
        "An event whose answer was lost is told twice.",
        _REDIS,
    ),
    _slip(
        "lua-reassignment-told-as-a-pairing",
        _QUEUE_LUA,
        "tell_paired",
        "previous == '' or previous == worker",
        "true",
        "The core does not learn that another worker has the session.",
        _REDIS,
    ),
    _slip(
        "lua-event-queue-without-a-time-to-live",
        _QUEUE_LUA,
        "save_queue",
        "expire_with_head(queue_key)",
        "",
        "The queue of a cluster of which no node is left stays in Redis for ever.",
        _REDIS,
    ),
    _slip(
        "lua-end-of-jobs-with-their-session-not-told",
        "signald/store/session/jobs/jobs.lua",
        "end_job",
        "if here.told then",
        "if here.record then",
        "A job that is cancelled with its session seems to run on.",
        _REDIS,
    ),
    _slip(
        "lua-events-dropped-up-to-the-one-before",
        _OPERATIONS_LUA,
        "operation.drop_events",
        "n <= tonumber(upto)",
        "n < tonumber(upto)",
        "The last event that was told is told again, and again.",
        _REDIS,
    ),
    _slip(
        "lua-worker-claim-given-back-without-its-count",
        "signald/store/registry/workers.lua",
        "operation.reseed",
        "tonumber(asked_ms), tonumber(attempt)",
        "tonumber(asked_ms), 0",
        "After a loss of the store a claim that a worker gave up takes the place of its newer one.",
        ("tests/store/registry/test_contract.py", "-k", "redis"),
    ),
)
