"""The other side: what clients and workers use to speak to signald.

    signald.sdk.trio, signald.sdk.asyncio
                         open_client, open_worker, run_worker: what an application imports, with the same names in both
    signald.sdk.events   the events of a party: Paired, Replaced, HandedOver, Resumed, Gone, ...

The cores decide and know no I/O, so that each driver decides the same:

    core          a side of a session: unacked messages out, exactly-once messages in
    party_core    the connections of a party, and the contract of a driver
    client_core, worker_core (seats, notices), link, decoding, backoff, dialing (how a connection fails)
    streams_core, jobs_core (at a worker), client_jobs
    api_core      requests over HTTP: which answers pass; blob_core

The front (`front/`, on anyio) drives them in either event loop:

    party         the nursery tree; client, worker and conversation stand on it
    jobs, client_jobs (the two ends of a job), streams, rooms, blobs (what sources reads)
    api           the HTTP API (over requests)
    names         what it exports

An event loop adds a WebSocket (trio_carrier, asyncio_carrier) and the end of a program by Ctrl-C (trio_run, asyncio_run).
"""
