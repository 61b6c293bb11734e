"""The end of a node: what the store answers then starts nothing any more."""

from signald.testing.cluster import Cluster, play


def test_an_answer_that_comes_while_the_node_stops_starts_no_task() -> None:
    """Callbacks of the committer outlive the nursery of the connections: a task that one asks for then is not started."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        node.shutdown.signal()
        await cluster.wait_exit("n1")
        assert node.hub.stopping

        async def never() -> None:
            raise AssertionError("a task was started behind the end")

        node.hub.spawn(never)

    play(scene)
