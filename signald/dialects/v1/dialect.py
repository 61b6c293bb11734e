"""`signald.v1` as a dialect: its paths, its opening, and the reason of a close that asks a party to come again."""

from collections.abc import Mapping

from signald.config import Config
from signald.core.head import Party
from signald.dialects.v1.link import retry_reason
from signald.dialects.v1.opening import open_link
from signald.dialects.v1.paths import PARTY_AT, PATHS
from signald.net.connection import Connection
from signald.net.endpoints import Endpoint
from signald.service.dialect import Opened
from signald.service.parts import Parts
from signald.wire.close_codes import CloseCode
from signald.wire.messages import SUBPROTOCOL

SESSION_POSITION_BYTES = 128
"""What one session adds to an `app_ready`: its id, two seqs, and the JSON around them."""


class SignaldV1:
    """See the module."""

    name = SUBPROTOCOL
    """See `Dialect`."""

    @property
    def paths(self) -> Mapping[str, Party]:
        """See `Dialect`."""
        return PARTY_AT

    def endpoint(self, path: str, config: Config) -> Endpoint:
        """See `Dialect`."""
        if path == PATHS["client"]:
            return Endpoint((SUBPROTOCOL,))
        limits = config.limits
        # A worker that resumes names each of its sessions in one message. The link holds all other messages to the general limit.
        longest = limits.message_bytes_max + SESSION_POSITION_BYTES * limits.sessions_per_worker_max
        return Endpoint((SUBPROTOCOL,), longest)

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """See `Dialect`."""
        return await open_link(parts, conn)

    def arrival_code(self, code: CloseCode) -> CloseCode:
        """See `Dialect`."""
        return code

    def retry_reason(self, retry_after_ms: int) -> str:
        """See `Dialect`."""
        return retry_reason(retry_after_ms)
