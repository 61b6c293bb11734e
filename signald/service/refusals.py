"""Who is turned away at the opening: with which word and close code, and what is counted and noted of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import UNSET, UnsetType

from signald.errors import StoreUnavailable
from signald.net.ending import ConnectionClosed
from signald.service.auth import Forbidden, Unauthenticated
from signald.service.context import Context
from signald.service.counts import RESUMED
from signald.service.events import ResumeRefused
from signald.service.key_sets import KeysAway
from signald.service.parts import Parts
from signald.wire.close_codes import CloseCode

REFUSALS: dict[str, tuple[CloseCode, str]] = {
    "unknown": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "unreadable": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "expired": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "ahead": (CloseCode.FORBIDDEN, "no such messages were given out; the session and this token are kept"),
    "principal": (CloseCode.FORBIDDEN, "this token belongs to another subject"),
    "revoked": (CloseCode.FORBIDDEN, "this token has been revoked"),
    "token_reuse": (CloseCode.FORBIDDEN, "this token was used before; all tokens of this party are revoked"),
}
"""Reason of a refused claim → how the connection ends."""

_ERRORS = {
    "ahead": "too_far_ahead",
    "principal": "forbidden",
    "revoked": "token_revoked",
    "token_reuse": "token_reuse",
}
"""Reason of a refused claim → what it is called on the wire, where that is not `nothing_to_resume`."""


class Turned(Exception):
    """The party is turned away: `error` and `message` are said to it, `code` closes the connection."""

    def __init__(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.message = message
        self.retry_after_ms = retry_after_ms


@contextmanager
def turning_away(context: Context, *, resuming: bool) -> Iterator[None]:
    """Within the block a party is let in, or is `Turned` away for whatever reason; each end of a resume is counted."""
    try:
        try:
            yield
        except Unauthenticated as error:
            raise Turned(CloseCode.UNAUTHENTICATED, "unauthenticated", str(error)) from None
        except KeysAway as error:
            raise Turned(CloseCode.REFUSED, "auth_unavailable", str(error), context.retry_after_ms()) from None
        except Forbidden as error:
            raise Turned(CloseCode.FORBIDDEN, "forbidden", str(error)) from None
        except StoreUnavailable:
            raise Turned(
                CloseCode.REFUSED,
                "store_unavailable",
                "the store does not answer; come again",
                context.retry_after_ms(),
            ) from None
    except Turned as turned:
        if resuming:
            context.counts.resumes[turned.error] += 1
        raise
    except ConnectionClosed:
        if resuming:
            context.counts.resumes["left"] += 1
        raise
    if resuming:
        context.counts.resumes[RESUMED] += 1


async def refused_by_store(parts: Parts, reason: str, owner: str) -> Turned:
    """How a claim of `owner` ends that the store has refused for `reason`."""
    context = parts.context
    if reason == "unknown" and await context.incarnation.may_come_back():
        # The store has just lost everything, and the node that still knows this party may not have said so yet.
        retry_after_ms = context.retry_after_ms()
        return Turned(CloseCode.REFUSED, "store_unavailable", "the store is being filled again", retry_after_ms)
    if reason == "late":
        return late(context)
    if reason == "ahead":
        parts.losses.refuse(owner, "client", "resume")
    return refused(context, reason, owner)


def refused(context: Context, reason: str, owner: str = "") -> Turned:
    """How a resume ends that is refused for `reason`, one of `REFUSALS`."""
    context.events.emit(ResumeRefused(owner, reason))
    code, text = REFUSALS[reason]
    return Turned(code, _ERRORS.get(reason, "nothing_to_resume"), text)


def late(context: Context) -> Turned:
    """A newer claim of the party holds. Hardly any party reads this: it asked again because it gave this claim up."""
    return Turned(CloseCode.REFUSED, "late", "a newer claim was granted meanwhile", context.retry_after_ms())
