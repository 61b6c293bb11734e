"""A cluster in memory under trio's mock clock, and parties to talk to it, for tests of nodes and of workers.

cluster        nodes of the real service on one store in memory; a test owns the clock
wire           the wire party: one connection that speaks signald.v1 frame by frame
websocket      a hand-written WebSocket client that can break the rules, and speaks signald.v1 where it keeps them
wire_parties   a client and a worker on top of `wire` that resume by token, and count what reached the application
sdk_parties    a client and a worker on the real SDK whose processes die and start again; `balancer` is their way to a cluster
network        connections that a test may stall, reset, slow down or cut off, made of `pipes`
messages       whole messages over such a connection, for the SDK on one side and a node on the other: no bytes, much faster
seeded         one seed for scheduler, ids, masks and faults, and a clock that jumps; `loop` makes such runs faster
trace          events and logs of a run, and their digest

Nothing here is a stable interface yet: names and arguments may change with every release.
"""
