"""h11's parser, without the readings of a request on which two parsers may disagree.

A proxy and a node that disagree on where a request ends read one body as the next request (request smuggling). h11 accepts a
bare LF at the end of a line, folded headers, and a length beside `Transfer-Encoding`; a proxy may read each otherwise. All are
refused here, before or as soon as h11 has parsed them, and the connection ends behind the answer.

Bounds of a head are those of a handshake, in `signald.heads`.
"""

import re
from typing import Any

import h11

from signald.heads import END_OF_HEAD, size_problem

_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_FOLD = re.compile(rb"\n[ \t]")

_OVER = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
"""States of a peer that may say nothing more."""


class StrictConnection(h11.Connection):
    """The server's half of an HTTP/1.1 connection; see the module."""

    def __init__(self, *, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_incomplete_event_size)
        self.method = b""
        """That of the request that was parsed last."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Never, for Hypercorn: the application decides (`awaits_go_ahead`)."""
        return False

    @property
    def awaits_go_ahead(self) -> bool:
        """The peer sends its body only after a 100 Continue, which was not said yet."""
        return bool(super().they_are_waiting_for_100_continue)

    def receive_data(self, data: bytes) -> None:
        """Take `data`; discard what comes behind the last request of the connection, so that it neither gathers nor spoils the answer."""
        if not data or self.their_state not in _OVER:
            super().receive_data(data)

    def next_event(self) -> Any:
        """Return the next event; raises h11.RemoteProtocolError for what is refused."""
        if self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.NEED_DATA
        if self.their_state is h11.IDLE:
            _judge_head(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.method = event.method
            _judge_request(event)
        return event


def _judge_head(data: bytes) -> None:
    """Refuse a head that has begun with `data`, complete or not."""
    end = END_OF_HEAD.search(data)
    head = data[: end.end()] if end is not None else data
    if (found := size_problem(head)) is not None:
        raise h11.RemoteProtocolError(found[1], error_status_hint=found[0])
    # The last CR of an incomplete head may be followed by its LF.
    if _BARE.search(head if end is not None else head.removesuffix(b"\r")) or _FOLD.search(head):
        raise h11.RemoteProtocolError("lines end with CR LF, and no line is folded")


def _judge_request(request: h11.Request) -> None:
    if request.http_version not in (b"1.1", b"1.0"):
        raise h11.RemoteProtocolError("HTTP/1.1 and 1.0 are spoken", error_status_hint=505)
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        raise h11.RemoteProtocolError("a length beside Transfer-Encoding, or that header in HTTP/1.0")
