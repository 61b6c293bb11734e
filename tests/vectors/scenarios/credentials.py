"""Credentials that run out, and the tokens of the HTTP API."""

from tests.vectors.scenarios.words import (
    call,
    closed,
    error,
    got,
    opened,
    registered,
    restored,
    talking,
    vector,
    wait,
)

CREDENTIALS = [
    vector(
        "a fresh one for each opening",
        "A function of the application gives it.",
        [talking(), closed(50, 1, None), wait(300), opened(310, 2), restored(320, 2, 0)],
        auth={"each": ["one", "two"]},
    ),
    vector(
        "it runs out, with a function",
        "A fresh one is sent at once; further words within a second do nothing.",
        [
            talking(),
            error(1000, 1, "auth_expiring", fatal=False, retry_after_ms=5000),
            error(1500, 1, "auth_expiring", fatal=False, retry_after_ms=4500),
            error(2500, 1, "auth_expiring", fatal=False, retry_after_ms=3500),
        ],
        auth={"each": ["one", "two", "three"]},
    ),
    vector(
        "it runs out, without one",
        "The application is told, and gives another one, which later openings show as well.",
        [
            talking(),
            error(1000, 1, "auth_expiring", fatal=False, retry_after_ms=5000),
            call(1100, "renew_auth", auth="new"),
            closed(9000, 1, None),
            wait(9500),
            opened(9510, 2),
            restored(9520, 2, 0),
        ],
        auth="old",
    ),
    vector(
        "a new one that is refused",
        "The application is told, also where a function gave it.",
        [talking(), error(1000, 1, "auth_refused", fatal=False)],
        auth={"each": ["one", "two"]},
    ),
    vector("no valid text", "It is an error at the caller.", [talking(), call(50, "renew_auth", auth="")], auth="old"),
    vector(
        "it has run out",
        "Close 4401 ends a party that is served.",
        [talking(), error(1000, 1, "auth_expired", fatal=True), closed(1010, 1, 4401), wait(9000)],
        auth={"each": ["one", "two"]},
    ),
    vector(
        "tokens of the HTTP API",
        "Asked for in each opening message; the newest counts.",
        [
            talking(api_token="at_1"),
            got(1000, 1, "api_token", api_token="at_2", api_token_ttl_ms=1),
            closed(9000, 1, None),
            wait(9500),
            opened(9510, 2),
            restored(9520, 2, 0, api_token="at_3"),
        ],
        api=True,
    ),
    vector(
        "a worker renews its own",
        "As a client.",
        [wait(0), opened(10, 1), registered(20, 1), error(1000, 1, "auth_expiring", fatal=False, retry_after_ms=5000)],
        party="worker",
        auth={"each": ["one", "two"]},
    ),
]
