"""The end of a batch: what it produced is written, and acks wait a little for something to ride with."""

import trio

from signald.service.outgoing import PendingWrites
from signald.service.relay import Relay

ACK_DELAY_S = 0.02
"""How long an ack waits for something to ride with: about a round trip between near hosts, so that the answer to
a message mostly takes its ack along. No party waits for an ack; it only frees what its receiver keeps."""


class Batches:
    """See the module."""

    def __init__(self, writes: PendingWrites, relay: Relay) -> None:
        self._writes = writes
        self._relay = relay
        self._acks = trio.Event()

    def done(self) -> None:
        """End a batch."""
        self._writes.flush()
        if self._writes.has_acks or self._relay.has_acks:
            self._acks.set()

    async def run_acks(self) -> None:
        """Write and store the acks that found nothing to ride with. Runs until cancelled."""
        while True:
            await self._acks.wait()
            await trio.sleep(ACK_DELAY_S)
            self._acks = trio.Event()
            self._writes.flush_acks()
            self._relay.store_acks()
