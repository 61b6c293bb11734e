"""What memory and SQLite keep of the jobs of a session, beside each job itself (`core.jobs.Job`)."""

from msgspec import Struct


class Jobs(Struct, array_like=True):
    """The jobs of a session together. It is there from the first job on, and outlives the session."""

    session: str
    principal: str
    """That of the session: what access to its jobs is judged by after its end."""
    last: int = 0
    """The number of the last job."""
    open: tuple[int, ...] = ()
    """The unfinished jobs, in the order of their creation."""
    open_bytes: int = 0
    """Of their inputs."""
    first_place: int = 1
    """The place of the first ended job that is kept. Some behind it may not be kept any more."""
    next_place: int = 1
    kept_bytes: int = 0
    """Of the pieces of the ended jobs."""
    over: int = 0
    """1 when the session has ended."""
    until_ms: int = 0
    """When the session has ended: until when its jobs are kept."""
    keep_ms: int = 0
    """As the last job said."""
    seen_ms: int = 0
    """The latest time of an operation on its jobs."""
