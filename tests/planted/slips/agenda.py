"""Slips in the agenda of the registry, and in the event queues of workers and of the cluster: in their rules, in Python and in Lua."""

from tests.planted.bug import Bug

_RULES = "signald/store/registry/agenda/rules.py"
_LUA = "signald/store/registry/agenda/agenda.lua"
_QUEUES = "signald/store/registry/queues/rules.py"
_QUEUES_LUA = "signald/store/registry/queues/queues.lua"
_SQLITE = "signald/store/sqlite_agenda.py"

_OF_AGENDA = "tests/store/registry/test_agenda.py"
_OF_QUEUES = "tests/store/registry/test_queues.py"


def _by(file: str, world: str) -> tuple[str, ...]:
    return (file, "-k", world)


AGENDA = (
    Bug(
        "agenda-item-asked-again-is-lost",
        _RULES,
        "settle",
        "if not op.due_ms and (not item.again_ms):",
        "if not op.due_ms:",
        "liveness",
        "What comes into a queue while a node delivers it is not delivered until something else comes.",
        _by(_OF_AGENDA, "memory"),
    ),
    Bug(
        "agenda-old-ticket-settles",
        _RULES,
        "settle",
        "item.ticket != op.ticket or (not op.ticket)",
        "(not op.ticket)",
        "single-owner",
        "A node whose lease is over removes what another node has now.",
        _by(_OF_AGENDA, "memory"),
    ),
    Bug(
        "agenda-repetition-takes-more",
        _RULES,
        "take_due",
        "if not taken and op.limit > 0:",
        "if op.limit > 0:",
        "liveness",
        "A taking whose answer was lost takes further items, more than the node asked for.",
        _by(_OF_AGENDA, "memory"),
    ),
    Bug(
        "agenda-frozen-by-the-clock",
        _RULES,
        "_due",
        "[*sorted(past, key=_by_time), *sorted(ahead, key=_by_time)][:op.limit]",
        "sorted(past, key=_by_time)[:op.limit]",
        "liveness",
        "What was due before the clock was set back waits for as long as it was set.",
        _by(_OF_AGENDA, "memory"),
    ),
    Bug(
        "agenda-pause-cut-short",
        _RULES,
        "_ask",
        "(hurry or not item.failures)",
        "True",
        "paced",
        "Each new event sends the next request to a receiver that fails.",
        _by(_OF_AGENDA, "memory"),
    ),
    Bug(
        "agenda-lost-by-sqlite-with-its-record",
        _SQLITE,
        "SqliteAgenda._read",
        "item = Item(kind, name, 0)",
        "continue",
        "nobody-lost",
        "An item that is damaged stays in the file, and no node ever takes it.",
        _by("tests/store/test_damage.py", "agenda and sqlite"),
    ),
    Bug(
        "queue-begins-again-while-its-worker-lives",
        _QUEUES,
        "drop_queue",
        "if not kept and (not _stays(op.name, rows)):",
        "if not kept:",
        "exactly-once",
        "The loss of a worker has the number of its registration, and its receiver takes it for a repetition.",
        _by(_OF_QUEUES, "memory"),
    ),
    Bug(
        "queue-of-a-lost-worker-stays",
        _QUEUES,
        "leave",
        "if queue is not None and (not queue.events):",
        "if queue is None:",
        "bounded-memory",
        "The empty queues of workers that are gone gather in the store.",
        _by(_OF_QUEUES, "memory"),
    ),
    Bug(
        "stop-told-again",
        _QUEUES,
        "tell_cluster",
        "op.events_max > 0 and once not in told",
        "op.events_max > 0",
        "exactly-once",
        "A planned stop that is tried again is told again.",
        _by(_OF_QUEUES, "memory"),
    ),
    Bug(
        "lua-agenda-lease-of-the-dead-stays",
        _LUA,
        "due_places",
        "first_places(kind, kind .. 'l', nil, now, limit, past)",
        "",
        "twin",
        "What a dead node had is taken by no other.",
        _by(_OF_AGENDA, "redis"),
    ),
    Bug(
        "lua-agenda-item-not-noted-as-asked",
        _LUA,
        "ask_for",
        "elseif kept[TICKET] > 0 then",
        "elseif kept[TICKET] < 0 then",
        "twin",
        "What is asked for while a node has an item is forgotten, and the item may be taken by two.",
        _by(_OF_AGENDA, "redis"),
    ),
    Bug(
        "lua-agenda-place-of-before-stays",
        _LUA,
        "put_agenda_item",
        "redis.call('ZREM', ORDER, place)",
        "",
        "twin",
        "An item leaves a place behind wherever it was, and the sums count it.",
        _by(_OF_AGENDA, "redis"),
    ),
    Bug(
        "lua-queue-that-is-full-gives-a-number",
        _QUEUES_LUA,
        "tell_queue",
        "queue[DROPPED] = queue[DROPPED] + 1",
        "queue[LAST] = queue[LAST] + 1",
        "twin",
        "The numbers of what is told have a gap, and nothing says how many events were dropped.",
        _by(_OF_QUEUES, "redis"),
    ),
    Bug(
        "lua-last-event-of-a-worker-dropped",
        _QUEUES_LUA,
        "tell_queue",
        "#queue[EVENTS] >= most and not is_last",
        "#queue[EVENTS] >= most",
        "twin",
        "That a worker is lost is not told when its queue is full.",
        _by(_OF_QUEUES, "redis"),
    ),
)
