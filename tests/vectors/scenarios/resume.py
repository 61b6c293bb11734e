"""How a session goes on over another connection."""

from tests.vectors.scenarios.words import (
    binary,
    call,
    closed,
    error,
    failed,
    got,
    message,
    opened,
    restored,
    started,
    talking,
    vector,
    wait,
)

READ = call(30, "read", count=100)


def quick(connections: int) -> list[object]:
    """Connections that are answered, and break at once."""
    steps: list[object] = []
    for n in range(2, connections + 2):
        at = n * 40_000
        steps += [wait(at), opened(at + 10, n), restored(at + 20, n, 0), closed(at + 30, n, None)]
    return steps


RESUME = [
    vector(
        "both directions go on",
        "What was not stored is sent again, what was not acked comes again, and a duplicate is acked again.",
        [
            talking(),
            READ,
            call(40, "send", data="one"),
            call(41, "send", data="two", kind="k"),
            got(50, 1, "ack", seq=1),
            message(60, 1, 1, "eins"),
            message(61, 1, 2, "zwei"),
            closed(100, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 1, replaying=2),
            message(330, 2, 2, "zwei"),
            message(331, 2, 3, "drei"),
            got(340, 2, "ack", seq=2),
        ],
    ),
    vector(
        "stored, and the ack was lost",
        "What the answer says to be stored is not sent again.",
        [talking(), call(40, "send", data="one"), closed(50, 1, None), wait(300), opened(310, 2), restored(320, 2, 1)],
    ),
    vector(
        "the answer is lost",
        "The next opening shows the same token, and counts the attempts.",
        [
            talking(),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            closed(320, 2, None),
            wait(2000),
            opened(2010, 3),
            restored(2020, 3, 0),
            closed(9000, 3, None),
            wait(9500),
            opened(9510, 4),
            restored(9520, 4, 0, "s_1.third"),
        ],
    ),
    vector(
        "nothing to resume",
        "The session is over for the application.",
        [
            talking(),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            error(320, 2, "nothing_to_resume", fatal=True),
            closed(330, 2, 4404),
        ],
    ),
    vector(
        "another one holds the session",
        "Close 4409 ends the party.",
        [talking(), closed(50, 1, 4409), wait(10_000)],
    ),
    vector(
        "moved away unasked",
        "Close 4001 without a move ends it as well.",
        [talking(), closed(50, 1, 4001), wait(10_000)],
    ),
    vector(
        "the session ends",
        "`session_ended`, and close 1000 behind it.",
        [
            talking(),
            READ,
            message(40, 1, 1, "last"),
            got(50, 1, "session_ended", reason="bye"),
            call(60, "send", data="late"),
        ],
    ),
    vector(
        "an orderly close",
        "1000 without a word ends the session as `bye` does.",
        [talking(), closed(50, 1, 1000, "enough")],
    ),
    vector(
        "bye",
        "It is said when all that was sent is stored.",
        [
            talking(),
            call(30, "send", data="last"),
            call(40, "bye", reason="done"),
            got(50, 1, "ack", seq=1),
            got(60, 1, "session_ended", reason="bye"),
        ],
    ),
    vector(
        "bye through a break",
        "It is said again on the next connection.",
        [
            talking(),
            call(40, "bye", reason="done"),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0),
            got(330, 2, "session_ended", reason="bye"),
        ],
    ),
    vector(
        "the state of another process",
        "Its unacked messages are sent again under their numbers.",
        [
            wait(0),
            opened(10, 1),
            restored(20, 1, 3, replaying=1),
            call(30, "read", count=9),
            message(40, 1, 8, "next"),
            call(50, "send", data="new"),
            call(60, "state"),
        ],
        state={
            "session": "s_1",
            "recovery_token": "s_1.kept",
            "received": 7,
            "next_seq": 6,
            "unacked": [{"data": "four"}, {"data": "five", "kind": "k"}],
            "attempts": 3,
        },
    ),
    vector(
        "a state that is behind",
        "Its former holder has sent more: numbers go on behind what is stored.",
        [wait(0), opened(10, 1), restored(20, 1, 9), call(30, "send", data="new")],
        state={"session": "s_1", "recovery_token": "s_1.kept", "received": 7, "next_seq": 6},
    ),
    vector(
        "a token alone",
        "The first message tells where it begins, and no attempt is named.",
        [
            wait(0),
            opened(10, 1),
            restored(20, 1, 4, replaying=1),
            call(30, "read", count=9),
            message(40, 1, 12, "there"),
        ],
        recovery_token="s_1.kept",
    ),
    vector(
        "the chat history",
        "It is asked for with each resume.",
        [
            talking(),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            restored(
                320,
                2,
                0,
                chat_history=[{"from": "worker", "seq": 1, "data": "x", "stream": "t", "outcome": "complete"}],
            ),
        ],
        history=5,
    ),
    vector(
        "the store has lost messages",
        "It is told in both directions; the lost ones are acked as if they had come, and no number is used twice.",
        [
            talking(),
            READ,
            message(40, 1, 1, "one"),
            error(50, 1, "log_lost", fatal=False, lost_from=2, lost_to=4, direction="received"),
            message(60, 1, 5, "five"),
            error(70, 1, "log_lost", fatal=False, lost_from=1, lost_to=2, direction="sent"),
        ],
    ),
    vector(
        "a number out of step",
        "The service has more than was sent: the connection is cut, and the party tries again.",
        [
            talking(),
            call(30, "send", data="one"),
            closed(50, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 7),
            wait(1000),
        ],
    ),
    vector(
        "connections that are of use for a moment",
        "From the fourth in a row on they wait like failures, whatever ended them.",
        [talking(), closed(50, 1, None), quick(7), wait(400_000)],
        random=1.0,
    ),
    vector(
        "closes on the way",
        "After 1001 it comes back after five seconds, after 1013 after ten, after 1012 at once.",
        [
            talking(),
            closed(10_000, 1, 1001),
            wait(30_000),
            opened(30_010, 2),
            restored(30_020, 2, 0),
            closed(40_000, 2, 1013),
            wait(60_000),
            opened(60_010, 3),
            restored(60_020, 3, 0),
            closed(70_000, 3, 1012),
            wait(72_000),
        ],
        random=0.0,
    ),
    vector(
        "a wrong URL after the first session",
        "A proxy may answer so in a deploy: the party goes on.",
        [talking(), closed(50, 1, None), wait(300), failed(400, 2, reason="HTTP 404", wrong_url=True), wait(5000)],
    ),
    vector(
        "bytes through a break",
        "Binary messages as others.",
        [
            talking(),
            READ,
            call(40, "send", base64="AP8="),
            binary(50, 1, b"\x01\x02", "message", seq=1),
            closed(60, 1, None),
            wait(300),
            opened(310, 2),
            restored(320, 2, 0),
            binary(330, 2, b"\x01\x02", "message", seq=1),
            binary(340, 2, b"", "message", seq=2, kind="empty"),
        ],
    ),
    vector(
        "a session that never began",
        "Without an answer there is nothing to resume: `connect` is said again.",
        [wait(0), opened(10, 1), closed(20, 1, None), wait(1000), opened(1010, 2), started(1020, 2)],
    ),
]
