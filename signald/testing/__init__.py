"""A cluster in memory under trio's mock clock, and parties to talk to it, for tests of nodes and of workers.

cluster        nodes of the real service on one store in memory; a test owns the clock
wire           the wire party: one connection that speaks signald.v1 frame by frame
wire_parties   a client and a worker on top of it that resume by token, and count what reached the application

Nothing here is a stable interface yet: names and arguments may change with every release.
"""
