"""Texts that grow."""

from tests.vectors.scenarios.words import (
    Step,
    call,
    closed,
    error,
    got,
    message,
    opened,
    restored,
    talking,
    vector,
    wait,
    working,
)

READ = call(30, "read", count=100)


def piece(at: int, seq: int, data: str | None, on: int = 1, **fields: object) -> Step:
    """A piece of the stream `t`."""
    return message(at, on, seq, data, **{"stream": "t", "attempt": 1, "fold": "text", **fields})


STREAMS = [
    vector(
        "a text grows",
        "At any time it is what the worker has said so far; acks of pieces gather for a quarter of a second.",
        [
            talking(),
            READ,
            piece(100, 1, "As ", kind="tokens"),
            piece(140, 2, "you "),
            piece(180, 3, "say."),
            wait(500),
            piece(520, 4, "", end=True, outcome="complete"),
        ],
    ),
    vector(
        "eight pieces",
        "Their ack waits no longer.",
        [talking(), READ, [piece(100 + n, n + 1, "x") for n in range(9)], wait(1000)],
    ),
    vector(
        "an ack rides along",
        "It leaves with what else is written.",
        [talking(), READ, piece(100, 1, "x"), call(110, "send", data="y"), wait(1000)],
    ),
    vector(
        "another worker begins it anew",
        "A higher attempt starts from nothing, and pieces of the lower one are not shown any more.",
        [
            talking(),
            READ,
            piece(100, 1, "half an "),
            got(200, 1, "peer", state="replaced", id="w_2"),
            piece(300, 2, "A whole ", attempt=2),
            piece(310, 3, "late", attempt=1),
            piece(320, 4, "answer.", attempt=2, end=True),
        ],
    ),
    vector(
        "over a break",
        "The text goes on where it was.",
        [
            talking(),
            READ,
            piece(100, 1, "a"),
            closed(110, 1, None),
            wait(400),
            opened(410, 2),
            restored(420, 2, 0, replaying=1),
            piece(430, 1, "a", on=2),
            piece(431, 2, "b", on=2, end=True, outcome="complete"),
        ],
    ),
    vector(
        "how it ends",
        "By the worker with an outcome, by signald, or with the session.",
        [
            talking(),
            READ,
            piece(100, 1, "a", end=True, outcome="failed", error={"code": "x", "message": "y"}),
            piece(110, 2, "b", stream="u"),
            got(120, 1, "stream_state", stream="u", attempt=1, outcome="interrupted"),
            piece(130, 3, "c", stream="v"),
            got(140, 1, "session_ended", reason="bye"),
        ],
    ),
    vector(
        "the history is ahead",
        "What a resume shows is not shown a second time.",
        [
            talking(),
            READ,
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            restored(
                320,
                2,
                0,
                replaying=2,
                chat_history=[{"from": "worker", "seq": 2, "stream": "t", "attempt": 1, "data": "ab"}],
            ),
            piece(330, 1, "a", on=2),
            piece(331, 2, "b", on=2),
            piece(332, 3, "c", on=2),
        ],
        history=3,
    ),
    vector(
        "a client asks for the end",
        "It is said at once, and may be said again.",
        [
            talking(),
            call(40, "cancel", stream="t", reason="stop"),
            call(50, "cancel", stream="t", reason="stop"),
            call(60, "cancel", stream="", reason=""),
        ],
    ),
    vector(
        "the worker is asked for the end",
        "An event of the session.",
        [working(), got(50, 1, "stream_cancel", session="s_1", stream="t", reason="stop")],
        party="worker",
    ),
    vector(
        "a stream that takes no more",
        "The piece is dropped, what is behind it is numbered again, and the application is told.",
        [
            working(),
            call(40, "send", session="s_1", data="a", stream="t", fold="text"),
            call(41, "send", session="s_1", data="plain"),
            error(50, 1, "stream_superseded", session="s_1", fatal=False, expected=1, stream="t"),
            got(60, 1, "ack", session="s_1", seq=1),
        ],
        party="worker",
    ),
    vector(
        "fields that contradict each other",
        "Errors at the caller.",
        [
            working(),
            call(40, "send", session="s_1", data=1, stream="t", fold="text"),
            call(41, "send", session="s_1", data="a", attempt=2),
            call(42, "send", session="s_1", data="a", stream="t", outcome="complete"),
            call(43, "send", session="s_1", data="a", stream="t", end=True, outcome="odd"),
        ],
        party="worker",
    ),
    vector(
        "pieces are rolled up",
        "The first leaves at once, and then what has gathered in the window; the end takes the rest along.",
        [
            {"at": 0, "write": "a"},
            {"at": 10, "write": "b"},
            {"at": 20, "write": "c"},
            {"at": 100, "write": "d"},
            {"at": 110, "write": ""},
            {"at": 200, "write": "e"},
            {"at": 210, "write": "f"},
            {"at": 220, "end": True},
        ],
        party="roll_up",
        roll_up_ms=40,
    ),
    vector(
        "many at once are not rolled up",
        "4,096 characters leave without a wait.",
        [
            {"at": 0, "write": "a"},
            {"at": 1, "write": "b", "times": 4095},
            {"at": 2, "write": "c"},
            {"at": 3, "write": "d"},
        ],
        party="roll_up",
        roll_up_ms=40,
    ),
]
