"""The errors of signald, named by their cause.

    SignaldError
    ├── PeerError            the other side sent what signald.v1 does not allow; answered, never a crash
    │   ├── BadMessage       → `error` and close 4400
    │   └── UnknownType      → `error` `unknown_type`, and nothing else happens
    ├── OperationRefused     an operator or a program asks for an operation that the node cannot do now
    ├── StoreError           the store; no answer was given that depends on it
    │   ├── StoreUnavailable the outcome is failed or unknown: ask again later
    │   └── StoreMisused     the store refuses to serve signald at all (eviction policy, schema, credentials)
    └── MediaError           the media of blobs
        ├── MediaMissing     there is no object of this key
        └── MediaAway        failed, or the outcome is unknown: ask again later
            └── MediaFull    no room for further bytes

`ResourceRefused` is an OSError: the system refuses an address or a path that the configuration names.
`ConfigError` lives with the configuration and `ProtocolError` with the frames: both are local to their layer.
"""

from typing import Literal


class SignaldError(Exception):
    """Base of every error that signald raises on purpose."""


class ResourceRefused(OSError):
    """The system refuses a resource that a key of the configuration names: an address, a path. The text names a remedy."""

    def __init__(self, key: str, what: str, error: OSError, advice: str) -> None:
        """`what` failed for `key`; `advice` is the remedy for an operator."""
        number = error.errno or 0
        reason = error.strerror or str(error)
        super().__init__(number, f"{key}: {what}: {reason}; {advice}")

    def __str__(self) -> str:
        return str(self.strerror)


class PeerError(SignaldError):
    """The peer sent a frame that signald.v1 does not allow."""


class BadMessage(PeerError):
    """A frame that is not a valid message; the text is safe to show to its sender."""


class UnknownType(PeerError):
    """A well-formed message whose `type` is not known here."""


RefusedBecause = Literal["invalid", "state", "unknown", "forbidden", "share", "large", "full", "reused"]
"""Why an operation is refused: its arguments, the state of the node or session, a name that the cluster does not know, the credential of
its caller, the share of its caller, a bound for one thing, a bound for all, or an idempotency key that was used for something else."""


class OperationRefused(SignaldError):
    """A request of an operator or a program that the node refuses; the text is a sentence for a reader, without a secret."""

    def __init__(self, because: RefusedBecause, kind: str, detail: str, **members: object) -> None:
        """`kind` is a stable word that programs may compare; `members` are further fields of the answer."""
        super().__init__(detail)
        self.because = because
        self.kind = kind
        self.members = members


class StoreError(SignaldError):
    """The store failed; no answer may be given that depends on it."""


class StoreUnavailable(StoreError):
    """The outcome is failed or unknown: every operation is safe to send again."""


class StoreMisused(StoreError):
    """The store can never serve signald with its present set-up; the text names the change."""


class MediaError(SignaldError):
    """The media failed. The text is one line for the log: it may name an endpoint and a key of media, never a credential."""


class MediaMissing(MediaError):
    """There is no object of this key, or it ends before the range that was asked for."""


class MediaAway(MediaError):
    """The outcome is failed or unknown. Every operation of media is safe to repeat."""


class MediaFull(MediaAway):
    """The media have no room for further bytes until others are removed."""
