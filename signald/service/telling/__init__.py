"""Telling the core server what happens: life events, from their queues in the store to `core.events_url`.

what happens    fills a queue, in the same atomic step                    store
untold          names the queues that may hold something                  Untold, in the context
scheduling      enters them in the agenda of the cluster                  Scheduling
teller          leases what is due, a bounded number of queues at once    Teller
turn            one queue at one node: read, send in order, drop          Turn
receiver        one attempt, its signature, and whether the server is there    Receiver
"""
