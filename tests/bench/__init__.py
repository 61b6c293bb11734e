"""Benchmarks of signald: figures to read, never limits that a test asserts.

Run them from the root of the repository::

    python -m tests.bench relay                 # round trips/s and server CPU, baselines beside every store
    python -m tests.bench idle                  # memory of an idle session
    python -m tests.bench accept                # new sessions/s and resumes/s
    python -m tests.bench drain                 # one deploy under 2,000 sessions
    python -m tests.bench guard --against HEAD  # the main figures of this tree beside those of a commit
    python -m tests.bench relay --pairs 50 --bytes 128 --window 1 16 --servers tcp signald-redis --json

How to read the figures:

- The server runs alone on one core; the load generator and, with Redis, redis-server share another (a third core is
  used for redis-server where there is one). Linux only: `sched_setaffinity`, `epoll` and process CPU clocks.
- Ratios within one run are worth more than absolute figures: everything is measured within minutes on the same machine,
  and each figure is the median of several slices.
- Every row says how busy the server's core, the generator and redis-server were, and from that what limited it. A row
  limited by the load core is a lower bound for the server, and `cpu ms/1k` (server CPU per 1,000 round trips) is then the figure
  to compare.
- The load generator (`sockets`, `parties`) is one process with non-blocking sockets and one epoll, no Trio: it masks with
  key 0, writes prepared frames, one write per read, and acks once per batch and session. It still judges: a gap, a duplicate or
  a foreign frame in the stream ends the run with an error instead of a figure.
- "128 B" is the application's data. signald carries it as a JSON string in a text frame with its type and seq (a session id
  too on worker connections); the baselines carry the bare bytes.
"""
