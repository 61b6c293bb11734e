"""The rate limit of a party's frames: a token bucket that also tells a flood from a party that was not told to wait yet."""

from signald.bucket import TokenBucket


class RateLimit(TokenBucket):
    """See the module. A refusal costs the party nothing but time: it offers the message again."""

    __slots__ = ("refused",)

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        """`per_s` and `burst` are of frames; `now` is the time of Trio, in seconds."""
        super().__init__(per_s, burst, now)
        self.refused = 0
        """Frames refused since one was last let through."""

    def take(self) -> bool:
        """Let one frame through, or count it as refused."""
        if self.take_quietly():
            return True
        self.refused += 1
        return False

    def take_quietly(self) -> bool:
        """Let one frame through or not, and count no refusal: for frames whose sender hears of none, so no flood shows by them."""
        if not super().take():
            return False
        self.refused = 0
        return True

    @property
    def flooding(self) -> bool:
        """True when the party goes on sending a whole burst after it was told to wait."""
        return self.refused > self.burst

    @property
    def retry_after_ms(self) -> int:
        """When a frame will be let through, in milliseconds; at least 1."""
        return max(1, int(self.wait_s * 1000) + 1)
