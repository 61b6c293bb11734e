"""Requests over HTTP: when they are made again, uploads, and downloads in parts."""

import base64
import hashlib
import json
from typing import Any

from tests.vectors.scenarios.words import Step, vector, wait

DATA = b"0123456789"
DIGEST = hashlib.sha256(DATA)
UPLOAD = {"length": len(DATA), "sha256": DIGEST.hexdigest(), "content_type": "audio/ogg", "key": "k1"}
KEPT = json.dumps(
    {
        "blob": "b_1",
        "bytes": len(DATA),
        "content_type": "audio/ogg",
        "sha256": DIGEST.hexdigest(),
        "expires_at": "2026-12-02T00:00:00Z",
    }
)
REPR = f"sha-256=:{base64.b64encode(DIGEST.digest()).decode()}:"


def answer(at: int, status: int | None, body: Any = "", **headers: str) -> Step:
    """An answer; None: there was none."""
    said = body if isinstance(body, str) else json.dumps(body)
    whole = {
        "status": status,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "body": said,
    }
    return {"at": at, "answer": None if status is None else whole}


def problem(kind: str) -> dict[str, str]:
    """A problem document."""
    return {"type": f"urn:signald:problem:{kind}", "title": "t", "detail": "d"}


def request(name: str, about: str, *steps: Step, **options: Any) -> dict[str, Any]:
    """A request of a party that has an API token."""
    return vector(name, about, [wait(0), *steps], party="request", api_token="at_1", **options)


def reading(name: str, about: str, *steps: Step, **options: Any) -> dict[str, Any]:
    """A download."""
    return vector(name, about, list(steps), party="reading", **{"blob": "b_1", **options})


def head(at: int, status: int, **headers: str) -> Step:
    """The head of an answer."""
    return {
        "at": at,
        "head": {"status": status, "headers": {name.replace("_", "-"): value for name, value in headers.items()}},
    }


def piece(at: int, data: bytes) -> Step:
    """Bytes of the answer."""
    return {"at": at, "piece": base64.b64encode(data).decode()}


ASK = {"at": 0, "ask": True}

REQUESTS = [
    request("done at once", "An answer of success.", answer(10, 202)),
    *[
        request(
            f"again after {status}",
            "With a wait that grows, at the node of the current connection.",
            answer(10, status),
            {"at": 20, "url": "ws://b.test/v1/client"},
            wait(1000),
            answer(1010, status),
            wait(3000),
            answer(3010, 200),
        )
        for status in (None, 408, 425, 429, 500, 502, 503, 504)
    ],
    request(
        "Retry-After",
        "It goes before the schedule, up to an hour.",
        answer(10, 503, retry_after="7"),
        wait(10_000),
        answer(10_010, 429, retry_after="999999"),
        wait(5_000_000),
    ),
    request(
        "a key that is in use",
        "The same request is under way: it is asked again.",
        answer(10, 409, problem("key-in-use")),
        wait(1000),
    ),
    request("a key that was used for something else", "It is refused.", answer(10, 409, problem("key-reused"))),
    *[
        request(f"refused with {status}", "Asking again would not help.", answer(10, status, problem("x")))
        for status in (400, 403, 404, 410, 413, 422)
    ],
    request(
        "as much as there may be",
        "What is full stays full until the caller has made room.",
        answer(10, 429, problem("blobs-full")),
    ),
    request(
        "a token that has just been replaced",
        "The newest is shown.",
        {"at": 5, "api_token": "at_2"},
        answer(10, 401),
        wait(1000),
    ),
    request("a token that is not valid", "It is refused.", answer(10, 401)),
    request(
        "a token that ran out without a connection",
        "The next connection brings another one.",
        {"at": 5, "connected": False},
        answer(10, 401),
        {"at": 20, "connected": True, "api_token": "at_2"},
        wait(1000),
    ),
    request(
        "the party is over",
        "A few tries more, then the error of the party.",
        {"at": 5, "over": 4410, "reason": "ended"},
        *[answer(10 + 10_000 * n, None) for n in range(6)],
    ),
    request(
        "an upload",
        "It says its digest, its type and its key; the answer tells of the blob.",
        answer(10, None),
        wait(1000),
        answer(1010, 201, KEPT),
        upload=UPLOAD,
    ),
    request(
        "an upload of other bytes",
        "The digest was wrong: the file was changed meanwhile.",
        answer(10, 400, problem("wrong-digest")),
        upload=UPLOAD,
    ),
    request(
        "an answer that tells of another blob",
        "It is not one of signald.",
        answer(10, 201, KEPT.replace('"bytes": 10', '"bytes": 11')),
        upload=UPLOAD,
    ),
    reading(
        "a whole blob",
        "One answer.",
        ASK,
        head(10, 200, content_length="10", content_type="audio/ogg", repr_digest=REPR),
        piece(20, DATA),
    ),
    reading(
        "a break",
        "The next request asks for the bytes that are missing.",
        ASK,
        head(10, 200, content_length="10", repr_digest=REPR),
        piece(20, DATA[:4]),
        {"at": 30, "ask": True},
        head(40, 206, content_range="bytes 4-9/10", repr_digest=REPR),
        piece(50, DATA[4:]),
    ),
    reading(
        "a break, and no ranges",
        "What was there is passed over.",
        ASK,
        head(10, 200, content_length="10"),
        piece(20, DATA[:4]),
        {"at": 30, "ask": True},
        head(40, 200, content_length="10"),
        piece(50, DATA[:6]),
        piece(51, DATA[6:]),
    ),
    reading(
        "a part",
        "A range from `start` to `end`, not included.",
        ASK,
        head(10, 206, content_range="bytes 2-4/10"),
        piece(20, DATA[2:5]),
        start=2,
        end=5,
    ),
    reading("a part behind the end", "It is empty.", ASK, head(10, 416, content_range="bytes */10"), start=20, end=30),
    reading(
        "other bytes",
        "The digest says so.",
        ASK,
        head(10, 200, content_length="10", repr_digest=REPR),
        piece(20, b"9876543210"),
    ),
    reading(
        "another length",
        "A later answer is of another blob.",
        ASK,
        head(10, 200, content_length="10"),
        piece(20, DATA[:4]),
        {"at": 30, "ask": True},
        head(40, 206, content_range="bytes 4-11/12"),
    ),
    reading("encoded", "It was not asked for.", ASK, head(10, 200, content_length="10", content_encoding="gzip")),
    reading("a blob of a worker", "The request names the session.", ASK, session="s_1"),
    reading("an id that is none", "It leads nowhere.", ASK, blob="../sessions"),
]
