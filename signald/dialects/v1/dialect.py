"""`signald.v1` as a dialect: its paths, its opening, and the reason of a close that asks a party to come again."""

from collections.abc import Mapping

from signald.core.head import Party
from signald.dialects.v1.link import retry_reason
from signald.dialects.v1.opening import open_link
from signald.dialects.v1.paths import PARTY_AT
from signald.net.connection import Connection
from signald.service.dialect import Opened
from signald.service.parts import Parts


class SignaldV1:
    """See the module."""

    @property
    def paths(self) -> Mapping[str, Party]:
        """See `Dialect`."""
        return PARTY_AT

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """See `Dialect`."""
        return await open_link(parts, conn)

    def retry_reason(self, retry_after_ms: int) -> str:
        """See `Dialect`."""
        return retry_reason(retry_after_ms)
