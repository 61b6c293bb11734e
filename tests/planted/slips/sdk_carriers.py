"""Slips in the connections of the SDK on Trio and on asyncio."""

from tests.planted.bug import Bug

_TRIO_CARRIER = "signald/sdk/trio_carrier.py"

SDK_CARRIERS = (
    Bug(
        "sdk-trio-own-close-code",
        _TRIO_CARRIER,
        "WebSocketCarrier._closed",
        "self._websocket._wsproto.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)",
        "False",
        "nobody-lost",
        "Bytes that are no frames end the session as if signald had closed it.",
        ("tests/sdk/test_hostile_bytes.py::test_frames_that_are_none_close_the_carrier[noise]",),
    ),
)
