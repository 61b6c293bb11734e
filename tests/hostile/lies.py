"""What liars say: JSON that is odd, frames that are wrong, numbers that no node gave out, bytes that are nothing."""

import json
from random import Random
from typing import Any

SEQ_MAX = 2**53 - 1

LITERALS = (
    "1e999", "-1e999", "9" * 5000, "1" * 400, "NaN", "Infinity", r'"\ud83d"', r'"\udc00 cut"', r'{"\ud83d":["\udc00"]}', r'"\u0000"',
    "[" * 31 + "]" * 31, "[" * 33 + "]" * 33, "[" * 3000 + "]" * 3000, "[" * 3000, '"' + "x" * 65_000 + '"', '"' + "x" * 66_000 + '"',
    '{"a":1,"a":2}', "null", "true", "0", "-0", "01", "1.5", '"\t"', '"', "{", "}", "", "[1,]", '"\x7f"', '"<0>\\ud83d<1>"',
    "18446744073709551616",
    r'["\ud83d",1e999]', '"plain"', '{"session":"s_1"}',
)  # fmt: skip
TEXTS = (
    "",
    "x",
    "x" * 64,
    "x" * 65,
    "x" * 129,
    "x" * 257,
    "x" * 513,
    "x" * 9000,
    "\u0000",
    "é" * 64,
    "\U0001f600" * 200,
)
BLOBS = (
    '"b_xk3PqTzv0d8mY5nRw1LcAbQe7uFh2sJ9gVtKo4iDyXpB"', '"b_"', '""', f'"{"b" * 64}"', f'"{"b" * 65}"', '"../../etc/passwd"', '"%2e%2e"',
    '"b_?x=1#y"', r'"b_\u0000"', r'"b_\r\nx: y"', r'"\ud83d"', '"//h/x"', "null", "[]", '{"id":"b_x"}', "1e999",
)  # fmt: skip
"""What a message names as its blob: an id, what would lead elsewhere as a part of a path, and what is no text."""
NUMBERS = (0, 1, -1, 2, 7, SEQ_MAX, SEQ_MAX + 1, -SEQ_MAX, 10**20, 10**400)

Frame = str | bytes


def literal(rng: Random) -> str:
    """A JSON value, or what looks like one."""
    return rng.choice(LITERALS) if rng.random() < 0.8 else json.dumps(rng.choice((*TEXTS, *NUMBERS)))


def fields(rng: Random, names: tuple[str, ...], known: dict[str, Any]) -> str:
    """Some of these fields, in any order: what is known and right, or a literal."""
    chosen = [name for name in names if rng.random() < 0.6]
    rng.shuffle(chosen)
    members = []
    for name in chosen:
        right = name in known and rng.random() < 0.85
        members.append(f'"{name}":{json.dumps(known[name]) if right else literal(rng)}')
    return ",".join(members)


def object_of(rng: Random, kind: str, names: tuple[str, ...], known: dict[str, Any], must: tuple[str, ...] = ()) -> str:
    """A message of this type with some of these fields; those it must have come first, mostly right."""
    front = "".join(f'"{name}":{json.dumps(known[name])},' for name in must if rng.random() < 0.9)
    rest = fields(rng, names, known)
    return f'{{"type":"{kind}",{front}{rest}}}'.replace(",}", "}")


def binary(rng: Random, header: str) -> bytes:
    """A binary frame with this header; its length may be wrong."""
    head = header.encode("utf-8", "surrogatepass")[:65535]
    length = len(head) if rng.random() < 0.8 else rng.choice((0, 1, 65535))
    return length.to_bytes(2, "big") + head + rng.randbytes(rng.choice((0, 1, 100)))


def damaged(rng: Random, text: str) -> str:
    """The text with a piece of it missing or said twice."""
    at, size = rng.randrange(len(text) + 1), rng.choice((1, 3, 20))
    return text[:at] + text[at + size :] if rng.random() < 0.5 else text[: at + size] + text[at:]


def framed(rng: Random, text: str) -> Frame:
    """One frame of it: as text, damaged, or as a binary one."""
    drawn = rng.random()
    if drawn < 0.75:
        return text
    return damaged(rng, text) if drawn < 0.88 else binary(rng, text)


# A `bye` is no lie: it ends the session of its sender.
OF_A_CLIENT = {
    "message": ("data", "kind", "trace", "history", "session", "blob"),
    "realtime": ("data", "trace"),
    "ack": ("seq", "session"),
    "receipt": ("seq",),
    "ping": (),
    "pong": ("seq",),
    "auth": ("auth",),
    "error": ("code", "message", "session"),
    "connect": ("want", "meta"),
    "odd": ("data", "session"),
}
OF_A_WORKER = {
    **OF_A_CLIENT,
    "session_accept": ("epoch",),
    "app_state": ("capacity", "load", "leaving"),
    "app_terminated": ("request_id", "status", "message"),
}


def of_a_party(rng: Random, worker: bool, known: dict[str, Any]) -> Frame:
    """A frame of a client or a worker; `known` has the right values of `seq` and `session`."""
    kinds = OF_A_WORKER if worker else OF_A_CLIENT
    # Messages most of all: they are what travels.
    kind = "message" if rng.random() < 0.5 else rng.choice(list(kinds))
    if kind in ("message", "realtime") and rng.random() < 0.6:
        # All is right but for what is carried: it comes through to the other party.
        numbered = {
            name: known[name] for name in ("session", "seq") if name in known and (name != "seq" or kind == "message")
        }
        blob = f',"blob":{rng.choice(BLOBS)}' if kind == "message" and rng.random() < 0.3 else ""
        return f'{{"type":"{kind}",{json.dumps(numbered)[1:-1]}{"," if numbered else ""}"data":{literal(rng)}{blob}}}'
    must = ("session", "seq") if worker else ("seq",)
    return framed(rng, object_of(rng, kind, kinds[kind], known, tuple(one for one in must if one in known)))


def connect(rng: Random) -> str:
    """An opening message of a client that wants no worker in particular; it may be refused."""
    return f'{{"type":"connect","meta":{literal(rng)}}}' if rng.random() < 0.7 else '{"type":"connect"}'


OF_A_NODE = {
    "message": ("data", "kind", "trace", "history", "seq", "blob"),
    "realtime": ("data", "trace"),
    "ack": ("seq",),
    "receipt": ("seq",),
    "ping": (),
    "error": ("code", "fatal", "expected", "retry_after_ms", "lost_from", "lost_to", "direction"),
    "goaway": ("target", "ticket"),
    "peer": ("id",),
    "session_assigned": ("chat_history", "epoch", "client"),
    "terminate_app": ("deadline_ms",),
    "session_ended": ("session",),
    "session_started": ("settings",),
    "app_accepted": (),
    "api_token": ("api_token", "api_token_ttl_ms"),
    "odd": ("data",),
}
CODES = (
    "rate",
    "gap",
    "backlog",
    "log_lost",
    "not_accepted",
    "unknown_session",
    "bad_message",
    "late",
    "auth_expiring",
    "auth_refused",
    "odd",
)


def of_a_node(rng: Random, session: str, seq: int) -> Frame:
    """A frame of a node about this session; the numbers in it are right, or any."""
    near = (seq, seq, seq, *NUMBERS)
    known: dict[str, Any] = {
        "session": session if rng.random() < 0.8 else rng.choice(("s_x", "", "s_y" * 100)),
        "seq": rng.choice(near), "code": rng.choice(CODES), "message": "", "expected": rng.choice(near),
        "retry_after_ms": rng.choice(NUMBERS),
        "lost_from": rng.choice(near), "lost_to": rng.choice(near), "direction": rng.choice(("sent", "received")), "reason": "x",
        "not_before_ms": rng.choice(NUMBERS), "deadline_ms": rng.choice(NUMBERS),
        "target": rng.choice(("h:1", "ws://h:99999", "ws://[", "ws://h/ \n")),
        "state": rng.choice(("waiting", "paired", "away", "replaced", "gone", "odd")), "next_seq": rng.choice((1, *NUMBERS)),
        "client": rng.choice(({}, {"settings": {"a": [1]}}, {"settings": None})), "settings": {"a": 1},
        "chat_history": [], "request_id": "r", "fatal": rng.random() < 0.1, "id": "w_1", "epoch": 1,
        "api_token": "a.b.c", "api_token_ttl_ms": rng.choice(NUMBERS),
    }  # fmt: skip
    kind = rng.choice(list(OF_A_NODE)) if rng.random() < 0.7 else "message"
    must = {
        "message": ("session", "seq"), "ack": ("session", "seq"), "realtime": ("session",), "receipt": ("session", "seq"),
        "error": ("code", "message", "session"), "goaway": ("reason", "not_before_ms", "deadline_ms"), "peer": ("state",),
        "session_assigned": ("session", "next_seq", "client"), "terminate_app": ("request_id", "reason", "deadline_ms"),
        "session_ended": ("reason",), "api_token": ("api_token", "api_token_ttl_ms"),
    }  # fmt: skip
    return framed(rng, object_of(rng, kind, OF_A_NODE[kind], known, must.get(kind, ())))
