"""The requests of a party to the HTTP API: what an answer means, and when to ask again. No I/O.

asked ──2xx──▸ done
  ├── no answer, 408, 425, 429, 5xx, 409 of a key in use ──▸ a wait, then a retry at the node of the current connection
  ├── 401 while another API token is on its way ──▸ likewise
  └── anything else ──▸ ApiRefused
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from attrs import field, frozen

from signald.ids import Entropy
from signald.sdk.backoff import Backoff
from signald.sdk.credentials import Credentials
from signald.sdk.errors import ApiRefused, PartyError, SessionGone
from signald.sdk.link import Link
from signald.sdk.party_records import Over

RETRIES = Backoff(base_s=0.2, cap_s=5.0)
"""The waits between requests: short, because the next node of a deploy is there at once."""

TRIES_AFTER_END = 5
"""Requests after the end of the session: its node may be gone as well, and no connection finds another one."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class NoAnswer(PartyError):
    """There was no whole answer: refused, broken, or not in time. It may have been done all the same."""


@frozen
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """By names in small letters."""
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the JSON of the body as a dict; an empty one when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def succeeded(self) -> bool:
        """The answer is one of success."""
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float | None:
        """The seconds that the answer asks to wait, at most an hour; None when it names none."""
        said = self.headers.get("retry-after", "")
        return min(float(said), 3600.0) if said.isascii() and said.isdigit() and len(said) < 7 else None

    @property
    def is_passing(self) -> bool:
        """The same request later may have another answer."""
        kind = str(self.json().get("type", ""))
        if self.status == 409:
            return kind.endswith("key-in-use")
        # What is full stays full until the caller has made room.
        return self.status in _AGAIN and not kind.endswith("-full")


def refused(answer: Answer) -> ApiRefused:
    """Return the error that says what the problem document of `answer` says."""
    problem = answer.json()
    kind, title, detail = (str(problem.get(name, ""))[:500] for name in ("type", "title", "detail"))
    return ApiRefused(answer.status, kind or "about:blank", title, detail)


def not_signald(answer: Answer) -> ApiRefused:
    """Return the error for an answer of success that says nothing signald would say."""
    return ApiRefused(answer.status, "about:blank", "not an answer of signald", "")


def origin(url: str) -> str:
    """Return the URL of a WebSocket without its path."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))


class Asker(Protocol):
    """What a request needs of its party; `PartyCore` has it."""

    current: Link | None
    url: str
    """Where the last connection stood, or stands."""
    credentials: Credentials
    entropy: Entropy
    over: Over | None

    def failure(self) -> Exception | None:
        """Return the error of a party that is over."""


class Tries:
    """The tries of one request. Ask as `begin` says; unless the answer is one of success, wait `wait_s`, and begin again."""

    __slots__ = ("_asker", "_token", "count", "url")

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.count = 0
        """Of the tries that were of no use."""
        self._token = ""
        self.url = ""
        """The host that is asked, as the URL of a WebSocket."""

    def begin(self) -> dict[str, str]:
        """Return the headers that show who asks, and set `url`."""
        self.url = origin(self._asker.url)
        self._token = self._asker.credentials.api_token or ""
        return {"authorization": f"Bearer {self._token}"}

    def advanced(self) -> None:
        """Note that the last try was of use: the next wait is a short one again."""
        self.count = 0

    def wait_s(self, answer: Answer | None) -> float:
        """Return how long to wait before the next try. `answer` is not one of success; None: there was none.

        Raises:
            ApiRefused: asking again would not help.
            SessionGone: the session is over, and no node answers.
        """
        asker, hint_s = self._asker, None
        if answer is not None:
            # A token that has run out while there was no connection: the next connection brings another one.
            newest = asker.credentials.api_token or ""
            is_stale = answer.status == 401 and (newest != self._token or asker.current is None)
            if not is_stale and not answer.is_passing:
                raise refused(answer)
            hint_s = answer.retry_after_s
        if asker.over is not None and self.count >= TRIES_AFTER_END:
            raise asker.failure() or SessionGone(asker.over.code, asker.over.reason)
        wait_s = RETRIES.delay_s(self.count, asker.entropy)
        self.count += 1
        return wait_s if hint_s is None else RETRIES.hinted_s(hint_s, asker.entropy)
