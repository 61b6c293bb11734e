"""The worker's side of a call: pictures that are computed here, sent by aiortc, agreed upon through signald.

aiortc is an extra (`pip install 'signald[video]'`). The page offers and this side answers, so there is no glare. It gathers its
addresses before it answers; the page's come one by one, as messages behind its offer.
"""

import asyncio
import fractions
import math
import time
from contextlib import suppress
from typing import Any, Final

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, VideoStreamTrack
from aiortc.sdp import candidate_from_sdp
from av import VideoFrame

from signald.sdk.asyncio import SessionGone, WorkerSession

WIDTH: Final = 320
HEIGHT: Final = 180
FRAMES_PER_S: Final = 25
CLOCK_RATE: Final = 90_000
"""Of RTP for video: RFC 3551, section 5."""
LOOPBACK: Final = "127.0.0.1"
WAVE: Final = 256
"""Pixels of a wave of the pattern; a power of two keeps its slices aligned."""
SEGMENTS: Final = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""The lit segments of each digit of a seven-segment clock."""


def gather_loopback_too() -> None:
    """Have aioice offer the loopback address beside those of the network cards, which it leaves out.

    The page is on this machine, and a machine without a network card has no other address.
    """
    found = aioice.ice.get_host_addresses
    if getattr(found, "with_loopback", False):
        return

    def with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return [LOOPBACK, *found(use_ipv4, use_ipv6)]

    with_loopback.with_loopback = True  # type: ignore[attr-defined]
    aioice.ice.get_host_addresses = with_loopback


class Picture(VideoStreamTrack):  # type: ignore[misc]
    """Slow waves of light with a clock that shows tenths of a second: a frame that is late or missing would be seen."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._count = 0
        wave = bytes(int(52 + 26 * (1 + math.sin(2 * math.pi * x / WAVE))) for x in range(WAVE))
        self._light = wave * (WIDTH // WAVE + 3)
        tint = bytes(int(128 + 22 * math.sin(2 * math.pi * x / WAVE)) for x in range(WAVE))
        self._tint = tint * (WIDTH // WAVE + 3)

    async def recv(self) -> VideoFrame:
        """Return the next frame, when its time has come."""
        if self.readyState != "live":
            raise MediaStreamError
        self._count += 1
        await asyncio.sleep(self._began + self._count / FRAMES_PER_S - time.monotonic())
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, data in zip(frame.planes, self._planes(), strict=True):
            plane.update(data)
        frame.pts = self._count * CLOCK_RATE // FRAMES_PER_S
        frame.time_base = fractions.Fraction(1, CLOCK_RATE)
        return frame

    def _planes(self) -> tuple[bytes, bytes, bytes]:
        step = self._count
        light = bytearray()
        for y in range(HEIGHT):
            begin = (2 * step + y + int(24 * math.sin((y + step) / 31))) % WAVE
            light += self._light[begin : begin + WIDTH]
        self._draw_clock(light, self._count / FRAMES_PER_S)
        half = WIDTH // 2
        blue, red = bytearray(), bytearray()
        for y in range(HEIGHT // 2):
            begin = (step + 2 * y) % WAVE
            blue += self._tint[begin : begin + half]
            begin = (begin + WAVE // 3) % WAVE
            red += self._tint[begin : begin + half]
        return bytes(light), bytes(blue), bytes(red)

    def _draw_clock(self, light: bytearray, seconds: float) -> None:
        minutes, tenths = int(seconds // 60) % 100, int(seconds * 10) % 600
        x = 58
        for character in f"{minutes:02}:{tenths // 10:02}.{tenths % 10}":
            if character == ":":
                fill(light, x + 4, 74, 8, 8)
                fill(light, x + 4, 100, 8, 8)
                x += 18
            elif character == ".":
                fill(light, x + 2, 118, 8, 8)
                x += 16
            else:
                for segment in SEGMENTS[int(character)]:
                    left, top, width, height = SEGMENT_BOXES[segment]
                    fill(light, x + left, top, width, height)
                x += 38


SEGMENT_BOXES: Final = {
    "a": (0, 54, 30, 7),
    "b": (23, 54, 7, 38),
    "c": (23, 88, 7, 38),
    "d": (0, 119, 30, 7),
    "e": (0, 88, 7, 38),
    "f": (0, 54, 7, 38),
    "g": (0, 86, 30, 7),
}
"""Where each segment of a digit is: left of its edge, top, width, height."""


def fill(light: bytearray, left: int, top: int, width: int, height: int) -> None:
    """Light a box of a plane of `WIDTH` pixels a row."""
    for y in range(top, top + height):
        begin = y * WIDTH + left
        light[begin : begin + width] = b"\xe6" * width


class Call:
    """The worker's side of one page's call: a later offer of a page that was loaded again takes the place of the earlier one."""

    def __init__(self, session: WorkerSession) -> None:
        gather_loopback_too()
        self._session = session
        self._peer: RTCPeerConnection | None = None

    async def hear(self, said: Any) -> None:
        """Take a description or a candidate of the page; what is neither is ignored."""
        if not isinstance(said, dict):
            return
        description, candidate = said.get("description"), said.get("candidate")
        with suppress(ValueError, KeyError, TypeError, IndexError, AssertionError):
            # aiortc raises these for what it cannot read; a page that says such things has no call.
            if isinstance(description, dict) and description.get("type") == "offer":
                await self._answer(str(description["sdp"]))
            elif isinstance(candidate, dict) and candidate.get("candidate") and self._peer is not None:
                await self._add(candidate)

    async def _answer(self, sdp: str) -> None:
        await self.close()
        # Without a server: the default is a public one, and nothing leaves this machine.
        peer = self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTrack(Picture())
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        local = peer.localDescription
        with suppress(SessionGone):
            await self._session.send(
                {"description": {"type": local.type, "sdp": local.sdp}}, kind="signal", history=False
            )

    async def _add(self, said: dict[str, Any]) -> None:
        assert self._peer is not None
        candidate = candidate_from_sdp(str(said["candidate"]).split(":", 1)[1])
        candidate.sdpMid = said.get("sdpMid")
        candidate.sdpMLineIndex = said.get("sdpMLineIndex")
        await self._peer.addIceCandidate(candidate)

    async def close(self) -> None:
        """End the call."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()
