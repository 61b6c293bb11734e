"""The wire of a collaborative canvas as a dialect: one path with the id of the canvas, and an opening without a message."""

from collections.abc import Mapping
from functools import partial

from msgspec import json

from signald.config import Config
from signald.core.head import Party
from signald.dialects.canvas import views
from signald.dialects.canvas.closing import close_code
from signald.dialects.canvas.link import NAME, CanvasLink
from signald.net.connection import Connection
from signald.net.ending import ConnectionClosed
from signald.net.endpoints import Endpoint, read_segment
from signald.service.client_opening import NewClient, start_session
from signald.service.dialect import Opened
from signald.service.parts import Parts
from signald.service.refusals import Turned
from signald.wire.close_codes import CloseCode

PATH = "/ws/{session_id}"


class Canvas:
    """See the module."""

    name = NAME
    """See `Dialect`."""

    @property
    def paths(self) -> Mapping[str, Party]:
        """See `Dialect`."""
        return {PATH: "client"}

    def endpoint(self, _path: str, _config: Config) -> Endpoint:
        """A browser that shows its credential as a subprotocol offers this one beside it; others offer none."""
        return Endpoint((NAME,))

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """Let a socket in with a session of its own, which wants no worker. It has nothing to say for that, and is told nothing."""
        canvas = read_segment(conn.path.rpartition("/")[2])
        assert canvas is not None, "the path fits the pattern"
        try:
            make = partial(CanvasLink, canvas=canvas)
            # For the core server, which is asked before the socket is let in, and for an operator who looks at the session.
            asked = NewClient({}, json.encode({NAME: canvas}), pair=False)
            link = await start_session(parts, conn, None, asked, make)
        except Turned as turned:
            retry = turned.retry_after_ms if isinstance(turned.retry_after_ms, int) else 0
            conn.send_text(views.error(turned.error, turned.message, retry_after_ms=retry))
            conn.close(close_code(turned.code), self.retry_reason(retry) if retry else turned.error)
            await conn.wait_finished()
            return None
        except ConnectionClosed:
            return None
        assert isinstance(link, CanvasLink)
        link.begin()
        return link, []

    def arrival_code(self, code: CloseCode) -> CloseCode:
        """See `Dialect`."""
        return close_code(code)

    def retry_reason(self, retry_after_ms: int) -> str:
        """See `Dialect`."""
        return f"come again in {-(-retry_after_ms // 1000)} s"
