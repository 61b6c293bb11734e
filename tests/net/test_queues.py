"""All send queues of a node have one budget: the slowest peers give way, the others do not notice."""

import pytest
import trio
import trio.testing

from signald.net import queues as queues_module
from signald.net.connection import Connection
from tests.net.clients import served, simulated
from tests.net.settings import settings_of


@simulated
async def test_the_largest_queue_gives_way_when_all_are_full() -> None:
    """Beyond the budget the peer with the most waiting is closed with 4508; one with less waiting goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues_module, "RECOUNT_BYTES", 1000)
        connections: list[Connection] = []

        async def hold(connection: Connection) -> None:
            connections.append(connection)
            while True:
                await connection.receive()

        settings = settings_of(send_queues_bytes_max=300_000, write_s=1000.0)
        async with served(hold, settings) as net:
            deaf = [net.dial(trio.testing.lockstep_stream_pair) for _ in range(3)]
            for client in deaf:
                await client.open()
            for index, connection in enumerate(connections):
                for _ in range(5 + 30 * index):
                    connection.send_text(b"x" * 4000)
                connection.flush()
                await trio.testing.wait_all_tasks_blocked()
                connection.send_text(b"more")
            assert [connection.closing for connection in connections] == [False, False, True]
            assert net.server.queues.shed == 1
            assert net.server.queues.bytes <= 300_000
            for client in deaf:
                await trio.aclose_forcefully(client.stream)
