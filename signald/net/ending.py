"""How a connection ended, and the exception that says so."""

from typing import Literal

import attrs

from signald.errors import SignaldError

NO_CODE, LOST = 1005, 1006
"""The two codes that only stand for something (RFC 6455 7.4.1): a Close without a code, an end without a Close."""


@attrs.frozen
class CloseInfo:
    """How a connection ended, and the side that began it; `abort`: no Close began it."""

    code: int
    reason: str
    initiator: Literal["local", "remote", "abort"]


class ConnectionClosed(SignaldError):
    """There is nothing more to receive."""

    def __init__(self, info: CloseInfo) -> None:
        """Carry how the connection ended."""
        super().__init__(f"{info.code} {info.reason} ({info.initiator})")
        self.info = info
        self.code = info.code
        self.reason = info.reason
