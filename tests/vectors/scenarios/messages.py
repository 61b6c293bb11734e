"""Messages in both directions on one connection."""

from tests.vectors.scenarios.words import (
    LIMITS,
    binary,
    call,
    error,
    got,
    message,
    talking,
    text,
    vector,
    wait,
)

READ = call(30, "read", count=100)

MESSAGES = [
    vector(
        "each message once",
        "A duplicate is acked again; asking for the next message acks the one before.",
        [
            talking(),
            message(30, 1, 1, {"a": 1}),
            message(31, 1, 1, {"a": 1}),
            call(40, "read", count=1),
            message(50, 1, 2, None),
            call(60, "read", count=1),
            message(70, 1, 2, None),
            call(80, "ack", seq=2),
            message(90, 1, 2, None),
        ],
    ),
    vector(
        "a hole",
        "A message is missing: the connection is cut.",
        [talking(), READ, message(40, 1, 1, 1), message(50, 1, 3, 3), wait(60)],
    ),
    vector(
        "everything that a message may have",
        "Kind, trace, a value for no history, bytes, a blob.",
        [
            talking(),
            READ,
            call(40, "send", data={"t": "ä"}, kind="chat", trace="00-aa-bb-01", history=False),
            call(41, "send", base64="AAE="),
            call(42, "send", data=None),
            call(43, "send", data="voice", blob="b_1"),
            message(50, 1, 1, 1.5, kind="k", trace="00-cc-dd-01"),
            binary(60, 1, b"\x00\xff", "message", seq=2),
            message(70, 1, 3, [], blob="b_2"),
        ],
    ),
    vector(
        "half of a surrogate pair",
        "It is sent as its escape, and read as the text that has it.",
        [
            talking(),
            READ,
            text(40, 1, '{"type":"message","seq":1,"data":"\\ud83d"}'),
        ],
    ),
    vector(
        "a value that cannot be held",
        "Its message comes, is acked, and hurts nothing else.",
        [talking(), READ, text(40, 1, '{"type":"message","seq":1,"data":1e999}'), message(50, 1, 2, "next")],
    ),
    vector(
        "a message without data",
        "It comes, and reading it is an error.",
        [talking(), READ, got(40, 1, "message", seq=1)],
    ),
    vector(
        "what signald would refuse",
        "It is an error at the caller, and nothing is sent.",
        [
            talking(limits={**LIMITS, "message_bytes": 100}),
            call(30, "send", data="x" * 200),
            call(40, "send", data="ok", kind="k" * 65),
            call(50, "send", data="ok", stream=""),
            call(60, "send", data="ok", end=True),
            call(70, "send", data="fits"),
            call(80, "realtime", data="x" * 200),
        ],
    ),
    vector(
        "an unknown type",
        "A newer node may say more: it is passed over.",
        [talking(), got(40, 1, "weather", sun=True), got(50, 1, "ping")],
    ),
    *[
        vector(
            f"a frame that is none: {name}",
            "The connection is cut, and another one is opened.",
            [talking(), step, wait(500)],
        )
        for name, step in {
            "no JSON": text(40, 1, "{"),
            "no object": text(40, 1, "[]"),
            "no type": text(40, 1, '{"seq":1}'),
            "a known type with a wrong field": got(40, 1, "ack", seq="one"),
            "a known type without a field": got(40, 1, "ack"),
            "too deep": text(40, 1, '{"type":"message","seq":1,"data":' + "[" * 2000 + "]" * 2000 + "}"),
            "bytes without a whole header": {"at": 40, "on": 1, "bytes": "ABB7fQ=="},
            "no bytes": {"at": 40, "on": 1, "bytes": ""},
        }.items()
    ],
    vector(
        "an ack of what was never sent",
        "The connection is cut.",
        [talking(), call(30, "send", data=1), got(40, 1, "ack", seq=2), wait(50)],
    ),
    vector(
        "an old ack",
        "It takes nothing back.",
        [
            talking(),
            call(30, "send", data=1),
            call(31, "send", data=2),
            got(40, 1, "ack", seq=2),
            got(50, 1, "ack", seq=1),
            call(60, "send", data=3),
        ],
    ),
    vector(
        "a gap at the node",
        "From `expected` on all is sent again, once for one gap.",
        [
            talking(),
            [call(30 + n, "send", data=n) for n in range(4)],
            error(50, 1, "gap", fatal=False, expected=2),
            error(60, 1, "gap", fatal=False, expected=2),
            got(70, 1, "ack", seq=4),
            call(80, "send", data="more"),
        ],
    ),
    *[
        vector(
            f"not now: {code}",
            "The messages go again after a pause, a few at first, and more with each ack.",
            [
                talking(),
                [call(30, "send", data=n) for n in range(20)],
                error(40, 1, code, fatal=False, expected=3, retry_after_ms=400),
                wait(2000),
                got(2010, 1, "ack", seq=18),
                wait(2100),
            ],
        )
        for code in ("rate", "backlog", "store_unavailable")
    ],
    vector(
        "not now, without a hint",
        "`bounds.pause_s` is waited for, and a quarter of it at random.",
        [
            talking(),
            call(30, "send", data=1),
            error(40, 1, "backlog", fatal=False, expected=1),
            wait(2000),
        ],
    ),
    vector(
        "the rate of the service",
        "Nine tenths of the burst leave at once, then 0.95 of the rate.",
        [
            talking(limits={**LIMITS, "messages_per_s": 10.0, "messages_burst": 4}),
            [call(30, "send", data=n) for n in range(7)],
            wait(1000),
        ],
    ),
    vector(
        "the backlog of the service",
        "`send` waits for room while so many are unacked.",
        [
            talking(limits={**LIMITS, "backlog_messages": 2}),
            [call(30 + n, "send", data=n) for n in range(4)],
            got(50, 1, "ack", seq=1),
            got(60, 1, "ack", seq=3),
        ],
    ),
    *[
        vector(
            f"one message for ever: {code}",
            "That one is dropped, and those behind it get its number and go again.",
            [
                talking(),
                call(30, "send", data="a"),
                call(31, "send", data="b", stream="t", fold="text"),
                call(32, "send", data="c"),
                error(40, 1, code, fatal=False, expected=2, stream="t"),
                got(50, 1, "ack", seq=2),
                call(60, "send", data="d"),
            ],
        )
        for code in ("stream_over", "stream_superseded", "bad_message")
    ],
    vector(
        "the application is behind",
        "While its inbox is full nothing is read, not even a ping.",
        [
            talking(),
            message(30, 1, 1, 1),
            message(31, 1, 2, 2),
            message(32, 1, 3, 3),
            got(33, 1, "ping"),
            wait(40_000),
            call(40_000, "read", count=1),
            call(40_010, "read", count=9),
        ],
        bounds={"inbox_messages_max": 2},
    ),
    vector(
        "receipts and realtime data",
        "They have no number, and are events.",
        [
            talking(),
            got(40, 1, "receipt", seq=3),
            got(50, 1, "realtime", data={"x": 1}),
            binary(60, 1, b"\x07", "realtime"),
            call(70, "realtime", data={"y": 2}),
            call(80, "realtime", base64="CA=="),
        ],
    ),
    vector(
        "realtime data without a connection",
        "It is dropped, and its caller is told.",
        [
            wait(0),
            call(5, "realtime", data=1),
            {"at": 10, "open": 1},
            call(15, "realtime", data=1),
        ],
    ),
    vector(
        "too deep for the service",
        "An error at the caller.",
        [
            talking(limits={**LIMITS, "json_depth": 4}),
            call(30, "send", data=[[[1]]]),
            call(40, "send", data=[[[[1]]]]),
        ],
    ),
]
