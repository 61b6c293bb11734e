"""Dialects: the wires that other programs speak, each of which opens and serves the connections at its paths.

    the daemon's list ▸ Dialects ▸ the hub: the dialect of the connection's path ▸ open ▸ a link, which is served until its end

The service knows no wire. A dialect reads an opening in its own words and answers it with a link of its own class
(`attached.PartyLink`, `worker_like.WorkerLike`). The link turns frames into calls of the relay, the assignments and the
endings (`Parts`), and turns what these say to a party back into frames.

The store keeps each message as a body of `signald.v1` (`wire.records`): that is the canonical form, and `signald.v1` puts it on the
wire without decoding it. A link of another dialect transcodes each body in `send_body`: a slower path, paid by that dialect alone.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from signald.config import Config
from signald.core.head import Party
from signald.net.connection import Connection
from signald.net.endpoints import Endpoint, Endpoints
from signald.net.frames import Message as Frame
from signald.service.attached import PartyLink
from signald.service.parts import Parts
from signald.wire.close_codes import CloseCode

Opened = tuple[PartyLink, list[Frame]]
"""The link of a party that was let in, and the frames that came behind its opening in the same read."""


class Dialect(Protocol):
    """See the module. One object for each wire; it holds no state of a connection."""

    name: str
    """What it is called in metrics, in receipts and in the log: one of a few names, and never a text of a party."""

    @property
    def paths(self) -> Mapping[str, Party]:
        """The paths at which it is spoken, and the party that connects at each.

        A path is fixed, or ends in a segment of the peer's, as `/ws/{session_id}` (`net.endpoints`).
        """

    def endpoint(self, path: str, config: Config) -> Endpoint:
        """Return the subprotocols that are spoken at `path`, one of `paths`, and the bound of its messages."""

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """Read the opening of a party and answer it; None when the party was turned away or went."""

    def arrival_code(self, code: CloseCode) -> CloseCode:
        """Return the code that a connection is closed with before it is let in, where `signald.v1` says `code`: this node goes."""

    def retry_reason(self, retry_after_ms: int) -> str:
        """Return the reason of a close that tells a party to come again after `retry_after_ms`."""


class Dialects:
    """The dialects that a node speaks. A connection is known here by the route of its path: one of those that the dialects name."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        """No two of them may be spoken at the same path."""
        self._at: dict[str, Dialect] = {}
        self._parties: dict[str, Party] = {}
        for dialect in dialects:
            for path, party in dialect.paths.items():
                if path in self._at:
                    raise ValueError(f"two dialects at {path}")
                self._at[path] = dialect
                self._parties[path] = party

    @property
    def spoken(self) -> list[tuple[Party, str]]:
        """Each party with each name of a dialect in which it may speak here, in the order of the dialects."""
        return list(dict.fromkeys([(self._parties[route], dialect.name) for route, dialect in self._at.items()]))

    @property
    def names(self) -> list[str]:
        """The names of the dialects, each once."""
        return list(dict.fromkeys([dialect.name for dialect in self._at.values()]))

    def at(self, route: str) -> Dialect:
        """Return the dialect that is spoken at `route`, which the listener has found to be one of theirs."""
        return self._at[route]

    def party_at(self, route: str) -> Party:
        """Return the party that connects at `route`."""
        return self._parties[route]

    def endpoints(self, config: Config) -> Endpoints:
        """Return where the listener lets WebSockets in."""
        return Endpoints({route: dialect.endpoint(route, config) for route, dialect in self._at.items()})
