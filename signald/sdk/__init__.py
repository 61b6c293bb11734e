"""The other side: what clients and workers use to speak to signald.

    signald.sdk.trio     open_client, open_worker, run_worker: what an application imports
    signald.sdk.events   what a party is told: Paired, Replaced, HandedOver, Resumed, Gone, ...

One core decides and knows no I/O, so that every front (Trio today, others to come) decides the same:

    core          one side of one session: unacked messages out, exactly-once messages in
    party_core    one party's connections: opening, heartbeat, moving before the old one breaks, ends
    client_core, worker_core, decoding, backoff

The Trio front carries it: carrier (one WebSocket), trio_party (the nursery tree), trio_client, trio_worker.
"""
