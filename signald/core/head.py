"""The head of a session: the store's record of it, without messages and token hashes."""

from typing import Literal

from msgspec import Struct

from signald.core.failures import NO_FAILURES, Failures

Party = Literal["client", "worker"]
PARTIES: frozenset[Party] = frozenset({"client", "worker"})


def other(party: Party) -> Party:
    """The peer of `party`."""
    return "worker" if party == "client" else "client"


class Head(Struct, frozen=True, gc=False):
    """The stored record of a session.

    `up` is client → worker, `down` worker → client; `last` is the highest stored seq, `acked` the highest seq that the
    receiver has acked. A node of `""` means detached. `worker` is the id of the paired worker (`""`: none).
    `worker_state` tells how far the pairing is: `""`, `assigned` (claimed, not yet accepted) or `paired`. `workers` counts
    the workers that the session has had. `said_before` is `down_last` at the last assignment: a newly assigned worker numbers its
    messages from the next seq.

    `up_claimed` and `down_claimed` are the seqs (first, last) without a message, because one party claimed to know of
    them; 0, 0: none. The claim is the only evidence, so such a hole does not show a loss of the store.
    """

    session: str
    created_ms: int
    principal: str
    want: dict[str, str]
    meta: bytes
    receipts: bool
    client_epoch: int
    client_node: str
    worker: str
    worker_state: str
    worker_epoch: int
    worker_node: str
    workers: int
    up_last: int
    up_acked: int
    down_last: int
    down_acked: int
    said_before: int = 0
    up_claimed: tuple[int, int] = (0, 0)
    down_claimed: tuple[int, int] = (0, 0)
    failed: Failures = NO_FAILURES
    """The failed hand-outs as they were noted; `failures` are those that still count."""
    pair: bool = True
    """The session wants a worker; a session without stands in no line."""
    jobs: int = 0
    """Grows with each change of a job that a party may see; 0: the session never had a job."""
    streams: int = 0
    """Grows with every change of a stream that no message tells: a request to end it, or an end that signald makes. 0: the
    session has had no stream."""
    events: int = 0
    """The number of the last event that the session's queue was given (`core.life`); 0: none. A node that sees it grow knows that an
    event waits."""
    events_max: int = 0
    """How many events of the session may wait to be told; 0: it is not told."""
    settings: bytes = b""
    """What the core server says for this session, as JSON; empty for nothing."""
    rooms: bytes = b""
    """The rooms that its client may enter, by pattern, with its rights there, as JSON; empty: the core server has named none."""
    asked_until_ms: int = 0
    """Until when the answer of the core server counts; behind it a resume has it asked again. 0: it was never asked."""

    @property
    def failures(self) -> Failures:
        """The failed hand-outs at the first message that no worker has acked."""
        return self.failed.current(self.up_acked)
