"""The other side: what clients and workers use to speak to signald.

    signald.sdk.trio     open_client, open_worker, run_worker: what an application imports
    signald.sdk.events   the events of a party: Paired, Replaced, HandedOver, Resumed, Gone, ...

The cores decide and know no I/O, so that every driver (Trio today, others to come) decides the same:

    core          a side of a session: unacked messages out, exactly-once messages in
    party_core    the connections of a party, and the contract of a driver
    client_core, worker_core (seats, notices), link, decoding, backoff, dialing (how a connection fails)
    streams_core, jobs_core (at a worker), client_jobs
    api_core      requests over HTTP: which answers pass; blob_core

The Trio driver carries them: carrier (a WebSocket), requests and trio_api (HTTP), trio_party (the nursery tree), trio_client, trio_worker,
trio_jobs and trio_client_jobs for the two ends of a job, and trio_blobs (what trio_sources reads) for both ends of a blob.
trio_run ends a program by Ctrl-C.
"""
