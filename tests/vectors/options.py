"""The options of a vector, as the cores take them."""

from collections.abc import Callable
from typing import Any

from signald.ids import Entropy
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS
from signald.sdk.client_core import ClientCore, ClientState
from signald.sdk.core import SessionCore
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.worker_core import WorkerCore
from tests.vectors.clock import Constant

URL = "ws://a.test"


def _auth(said: Any) -> str | Callable[[], str] | None:
    """Return a credential, or a function that gives one of `each` after another; the last one again and again."""
    if not isinstance(said, dict):
        return None if said is None else str(said)
    left = list(said["each"])
    return lambda: str(left.pop(0) if len(left) > 1 else left[0])


def _common(options: dict[str, Any], entropy: Entropy) -> dict[str, Any]:
    return {
        "urls": options.get("urls", [URL]),
        "entropy": entropy,
        "backoff": Backoff(**options["backoff"]) if "backoff" in options else DEFAULT_BACKOFF,
        "timing": Timing(**options["timing"]) if "timing" in options else DEFAULT_TIMING,
        "bounds": DEFAULT_BOUNDS._replace(**options.get("bounds", {})),
        "auth": _auth(options.get("auth")),
        "api": options.get("api", False),
    }


def _state(said: dict[str, Any]) -> ClientState:
    """Return the state of a client that was there before, with the messages that were not confirmed."""
    unacked = said.get("unacked", [])
    core = SessionCore(None, Constant(0), next_seq=said["next_seq"] - len(unacked))
    for message in unacked:
        core.send(message["data"], kind=message.get("kind"))
    return ClientState(
        said["session"],
        said["recovery_token"],
        said["received"],
        said["next_seq"],
        tuple(core.unacked_bodies()),
        attempts=said.get("attempts", 0),
    )


def client_of(options: dict[str, Any], entropy: Entropy) -> ClientCore:
    """Return the core of a client."""
    names = ("jobs", "want", "meta", "receipts", "pair", "history", "recovery_token")
    state: dict[str, Any] = {"state": _state(options["state"])} if "state" in options else {}
    return ClientCore(**_common(options, entropy), **{n: options[n] for n in names if n in options}, **state)


def worker_of(options: dict[str, Any], entropy: Entropy) -> WorkerCore:
    """Return the core of a worker."""
    names = ("capacity", "labels", "config", "jobs")
    return WorkerCore(
        **_common(options, entropy),
        instance_id=options.get("instance_id", "i"),
        **{n: options[n] for n in names if n in options},
    )
