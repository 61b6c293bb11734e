"""The one table of the codes of an `error`: when signald sends each, to which party, and which close follows.

A party treats an unknown code by `fatal` and the close alone: a newer node may send more codes.
"""

from typing import Literal, NamedTuple

from signald.wire.close_codes import CloseCode

_Party = Literal["client", "worker"]


class ErrorCode(NamedTuple):
    """A code with what follows it. One code has two rows when it ends some connections and others not."""

    code: str
    close: CloseCode | None
    """The close that follows, behind a fatal error; None: the connection goes on."""
    meaning: str
    party: _Party | None = None
    """The only party that is sent this; None: both are."""


ERROR_CODES: tuple[ErrorCode, ...] = (
    ErrorCode("unknown_type", None, "no such message here; nothing happened"),
    ErrorCode("gap", None, "a message before this one is missing: send again from `expected`"),
    ErrorCode("rate", None, "over the message rate: send again from `expected` after `retry_after_ms`", "client"),
    ErrorCode("rate", CloseCode.RATE, "too many messages or frames after the party was told to wait"),
    ErrorCode("backlog", None, "too much waits for the peer: send again from `expected` after `retry_after_ms`"),
    ErrorCode("log_lost", None, "the store has lost the seqs `lost_from` to `lost_to`; they are not delivered"),
    ErrorCode("numbers_spent", None, "the seqs of this direction have run out; `session_ended` follows"),
    ErrorCode("too_far_ahead", None, "an ack of far more than there is in `session`; nothing happened", "worker"),
    ErrorCode("too_far_ahead", CloseCode.FORBIDDEN, "a claim of far more than there is; the session is kept", "client"),
    ErrorCode("undeliverable", None, "each worker that was given message `seq` failed", "client"),
    ErrorCode("unknown_session", None, "not a session of this worker here", "worker"),
    ErrorCode("no_peer", None, "the session has no worker and asked for none: nothing is stored", "client"),
    ErrorCode("not_accepted", None, "accept the session first", "worker"),
    ErrorCode("bad_message", CloseCode.BAD_MESSAGE, "a frame that signald.v1 does not allow"),
    ErrorCode("bad_message", None, "a wrong frame in `session`; `session_ended` follows", "worker"),
    ErrorCode("bad_message", None, "the fields of a stream contradict each other: send again from `expected`"),
    ErrorCode(
        "stream_over", None, "this `stream` has ended: number what was sent behind the piece anew from `expected`"
    ),
    ErrorCode("stream_superseded", None, "a higher attempt of this `stream` is stored; else as `stream_over`"),
    ErrorCode("out_of_place", CloseCode.BAD_MESSAGE, "an opening message in the middle, or another at the beginning"),
    ErrorCode("hello_timeout", CloseCode.TIMEOUT, "no opening message in time"),
    ErrorCode("unauthenticated", CloseCode.UNAUTHENTICATED, "no valid credential"),
    ErrorCode("auth_expiring", None, "the credential has run out: send `auth` with a new one within `retry_after_ms`"),
    ErrorCode("auth_expired", CloseCode.UNAUTHENTICATED, "no new credential came within the grace"),
    ErrorCode(
        "auth_revoked",
        CloseCode.UNAUTHENTICATED,
        "the tokens of this subject have been revoked; one that is issued later resumes",
    ),
    ErrorCode("auth_refused", None, "the credential of an `auth` is not valid, or of another subject"),
    ErrorCode("auth_unavailable", None, "the credential of an `auth` cannot be judged now"),
    ErrorCode(
        "auth_unavailable", CloseCode.REFUSED, "the credential cannot be judged now; come again after `retry_after_ms`"
    ),
    ErrorCode(
        "forbidden",
        CloseCode.FORBIDDEN,
        "a valid credential of another role or subject, or one that the core server refuses",
    ),
    ErrorCode(
        "core_unavailable", CloseCode.REFUSED, "the core server does not answer; come again after `retry_after_ms`"
    ),
    ErrorCode("nothing_to_resume", CloseCode.NOTHING_TO_RESUME, "no session or worker for this token"),
    ErrorCode("token_revoked", CloseCode.FORBIDDEN, "the tokens of this party have been revoked"),
    ErrorCode("token_reuse", CloseCode.FORBIDDEN, "a retired token was shown: all tokens of this party are revoked"),
    ErrorCode("given_up", CloseCode.NOTHING_TO_RESUME, "the worker was silent for too long: register again", "worker"),
    ErrorCode("busy", CloseCode.REFUSED, "no room for another party or session; come again after `retry_after_ms`"),
    ErrorCode("store_unavailable", CloseCode.REFUSED, "the store does not answer"),
    ErrorCode("late", CloseCode.REFUSED, "this party has resumed elsewhere since it asked here"),
    ErrorCode("too_big", CloseCode.TOO_BIG, "a frame longer than a message may be, of no session", "worker"),
    ErrorCode("too_big", None, "a frame longer than a message may be, in `session`; `session_ended` follows", "worker"),
    ErrorCode("closing", CloseCode.REFUSED, "the connection was closing already"),
)
