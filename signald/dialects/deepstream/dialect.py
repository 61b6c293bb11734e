"""`deepstream` as a dialect: its path, its opening, and the reason of a close that asks an app to come again."""

from collections.abc import Mapping

from signald.config import Config
from signald.core.head import Party
from signald.dialects.deepstream.opening import open_app
from signald.dialects.deepstream.paths import WEBSOCKET
from signald.net.connection import Connection
from signald.net.endpoints import Endpoint
from signald.service.dialect import Opened
from signald.service.parts import Parts
from signald.wire.close_codes import CloseCode


class Deepstream:
    """See the module."""

    name = "deepstream"

    @property
    def paths(self) -> Mapping[str, Party]:
        """An app is a worker."""
        return {WEBSOCKET: "worker"}

    def endpoint(self, _path: str, _config: Config) -> Endpoint:
        """See `Dialect`."""
        return Endpoint(("deepstream.v1", "signald.v1"))

    async def open(self, parts: Parts, conn: Connection) -> Opened | None:
        """See `Dialect`."""
        return await open_app(parts, conn)

    def arrival_code(self, _code: CloseCode) -> CloseCode:
        """See `Dialect`. An app that arrives during a drain is told 1013 until the process has ended, never 1001."""
        return CloseCode.REFUSED

    def retry_reason(self, _retry_after_ms: int) -> str:
        """The programs of that fleet read no times from a reason: they wait for 10 s."""
        return "not now"
