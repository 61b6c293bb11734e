"""What `signald demo` can be told."""

from attrs import frozen


@frozen
class DemoOptions:
    """How large, how often, and how rude."""

    sessions: int = 100
    """Clients, each with one session."""
    workers: int = 10
    """Workers that share the sessions."""
    rate: float = 5.0
    """Messages per second of each client."""
    deploys: int = 3
    """How often the node is replaced."""
    store: str | None = None
    """URL of the store; None: an SQLite file of the demo's own."""
    kill: int = 0
    """How many of the deploys are SIGKILL instead of SIGTERM."""
    cross: bool = False
    """Clients and workers enter by different nodes."""
    json: bool = False
    """One JSON object on stdout instead of words."""
