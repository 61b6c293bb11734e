"""What each code of an error, and each code of a close, does to a party."""

from typing import Any

from signald.wire.close_codes import CloseCode
from signald.wire.error_codes import ERROR_CODES, ErrorCode
from tests.vectors.scenarios.words import call, closed, error, opened, talking, vector, wait, working

_AUTH = {"auth_expiring": {"retry_after_ms": 5000}}
_FIELDS: dict[str, dict[str, Any]] = {
    "gap": {"expected": 1},
    "rate": {"expected": 1, "retry_after_ms": 500},
    "backlog": {"expected": 1, "retry_after_ms": 500},
    "log_lost": {"lost_from": 1, "lost_to": 1, "direction": "sent"},
    "busy": {"retry_after_ms": 700},
    "core_unavailable": {"retry_after_ms": 700},
    "stream_over": {"expected": 1, "stream": "t"},
    "stream_superseded": {"expected": 1, "stream": "t"},
    **_AUTH,
}


def _of(party: str, row: ErrorCode) -> dict[str, Any]:
    code, close = row.code, row.close
    fields = {**_FIELDS.get(code, {}), "fatal": close is not None}
    said = {"session": "s_1"} if party == "worker" else {}
    name = f"{party}: {code}"
    if close is None:
        fields |= said
        if code == "bad_message" and "`expected`" in row.meaning:
            fields |= {"expected": 1, "stream": "t"}
            name += " of a stream"
    begun = working() if party == "worker" else talking()
    steps = [begun, call(100, "send", data="x", **said), error(200, 1, code, **fields)]
    if close is not None:
        steps.append(closed(210, 1, int(close)))
        name += f", then close {int(close)}"
    return vector(name, f"{row.meaning[0].upper()}{row.meaning[1:]}.", [*steps, wait(18_000)], party=party)


def _closed(code: int | None) -> list[dict[str, Any]]:
    name = "none" if code is None else str(code)
    return [
        vector(
            f"close {name} while opening",
            "In the place of an answer.",
            [wait(0), opened(10, 1), closed(20, 1, code), wait(18_000)],
        ),
        vector(
            f"client: close {name}", "Of a connection that serves.", [talking(), closed(6000, 1, code), wait(18_000)]
        ),
        vector(
            f"worker: close {name}",
            "Of a connection that serves.",
            [working(), closed(6000, 1, code), wait(18_000)],
            party="worker",
        ),
    ]


CODES = [_of(party, row) for row in ERROR_CODES for party in ("client", "worker") if row.party in (None, party)] + [
    one for code in (None, *(int(each) for each in CloseCode), 4999) for one in _closed(code)
]

CODES += [
    vector(
        "an unknown error",
        "It is judged by `fatal` alone.",
        [
            talking(),
            error(100, 1, "new_trouble", fatal=False),
            error(200, 1, "new_trouble", fatal=True),
            closed(210, 1, 4999),
            wait(9000),
        ],
    )
]
