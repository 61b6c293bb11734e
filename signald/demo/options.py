"""What `signald demo` can be told."""

from typing import Final

from attrs import frozen

PAGE_PORT: Final = 8787
"""The page's port when none is named: the same in each run, so that an open page and a bookmark still work."""
EVERY_S: Final = 15.0
"""Between two moves: long enough to draw and to read an answer, short enough that a visitor sees all three kinds in a minute."""


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
    web: bool = False
    """A page in a browser in place of clients; it goes on until it is interrupted."""
    port: int = PAGE_PORT
    """Where the page is, on loopback; 0: any port."""
    every: float = EVERY_S
    """Seconds between two moves of the nodes below the page."""
