"""Is the peer of a connection still there, and does it keep to the rules of time? Judged about once a second.

Times count only while the reader reads: when it holds back, for instance while the store is away, the silence is not the
peer's fault. Nor is a pause of this process: its length is taken out of each time.
"""

from enum import Enum

from signald.net.settings import NetSettings
from signald.pauses import Pauses


class Verdict(Enum):
    """What a tick finds."""

    FINE = "fine"
    QUIET = "quiet"
    """Nothing was heard for `ping_interval_s`: the peer is to be pinged."""
    SILENT = "silent"
    """A Ping has had no answer for `pong_timeout_s`."""
    STUCK = "stuck"
    """The socket has taken nothing for `write_s` while a write waited."""
    FLOODS = "floods"
    """The peer has sent more than `control_frames_per_s_max`."""


class Liveness:
    """See the module. All times are Trio's, in seconds."""

    __slots__ = (
        "_controls",
        "_paused_s",
        "_pauses",
        "_pinged_at",
        "_quiet_since",
        "_settings",
        "_ticked_at",
        "blocked_since",
    )

    def __init__(self, settings: NetSettings, pauses: Pauses, now: float) -> None:
        self._settings = settings
        self._pauses = pauses
        self._paused_s = pauses.total_s
        self._quiet_since = now
        self._pinged_at: float | None = None
        self._ticked_at = now
        self._controls = 0
        self.blocked_since = now
        """When the socket last took something; the writer task keeps it."""

    def judge(self, now: float, heard_at: float, controls: int, *, reading: bool, writing: bool) -> Verdict:
        """Return what is due for a peer last heard at `heard_at`, which has sent `controls` control frames in all.

        `reading`: the reader waits for the peer; `writing`: a write waits for the socket. QUIET counts as a Ping sent.
        """
        settings = self._settings
        paused = self._pauses.total_s - self._paused_s
        if paused:
            self._forgive(paused, heard_at)
        # Frames that came during a pause may be read after the tick that follows it.
        elapsed, self._ticked_at = max(1.0, now - self._ticked_at) + self._pauses.owed_s(now), now
        new, self._controls = controls - self._controls, controls
        if new > settings.control_frames_per_s_max * elapsed:
            return Verdict.FLOODS
        if writing and now - self.blocked_since > settings.write_s:
            return Verdict.STUCK
        if not reading:
            self._quiet_since = now
        elif self._pinged_at is not None and heard_at < self._pinged_at:
            return Verdict.SILENT if now - self._pinged_at > settings.pong_timeout_s else Verdict.FINE
        elif now - max(heard_at, self._quiet_since) >= settings.ping_interval_s:
            self._pinged_at = now
            return Verdict.QUIET
        self._pinged_at = None
        return Verdict.FINE

    def _forgive(self, paused_s: float, heard_at: float) -> None:
        """Take a pause of this process out of what the peer is judged by."""
        self._paused_s = self._pauses.total_s
        self.blocked_since += paused_s
        if self._pinged_at is not None and heard_at < self._pinged_at:
            self._pinged_at += paused_s
