"""A cluster in memory under Trio's mock clock, for tests of programs that use signald, and for the tests of signald itself.

    @signald_test
    async def test_my_handler_survives_a_deploy(cluster: SignaldCluster) -> None:
        async with cluster.worker(my_handler), cluster.client() as client:
            await client.send("before")
            await cluster.deploy()
            assert (await anext(client)).data == "BEFORE"

The names of this module, and those of `signald.testing.asyncio`, are stable: docs/testing-your-app.md describes them. `app` has their
code. All other modules serve the tests of nodes; their names and arguments may change with every release:

cluster        nodes of the real service on one store in memory; a test owns the clock
wire           the wire party: one connection that speaks signald.v1 frame by frame
websocket      a hand-written WebSocket client that can break the rules, and speaks signald.v1 where it keeps them
wire_parties   a client and a worker on top of `wire` that resume by token, and count what reached the application
sdk_parties    a client and a worker on the real SDK whose processes die and start again; `balancer` is their way to a cluster
network        connections that a test may stall, reset, slow down or cut off, made of `pipes`
messages       whole messages over such a connection, for the SDK on one side and a node on the other: no bytes, much faster
seeded         one seed for scheduler, ids, masks and faults, and a clock that jumps; `loop` makes such runs faster
trace          events and logs of a run, and their digest
"""

from signald.testing.app.cluster import Party, SignaldCluster
from signald.testing.app.parties import WorkerProcess
from signald.testing.app.running import RunTooLong, open_cluster, run, signald_test
from signald.testing.app.steps import Deploying, Step, StepKind

__all__ = [
    "Deploying",
    "Party",
    "RunTooLong",
    "SignaldCluster",
    "Step",
    "StepKind",
    "WorkerProcess",
    "open_cluster",
    "run",
    "signald_test",
]
