"""What the log tells of a drain while it runs."""

import structlog
import trio

from signald.testing.cluster import Cluster, play
from tests.service.deploys import traffic


def test_a_drain_says_its_plan_and_then_each_second_how_far_it_is() -> None:
    """The plan stands in the log once; after it, once a second until all have moved, what is left of it."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", pace={"sessions_per_s": 4.0})
        async with traffic(cluster, workers=4, clients=20) as load:
            await cluster.start("n2", pace={"sessions_per_s": 4.0})
            load.clients_at = load.workers_at = "n2"
            began = trio.current_time()
            with structlog.testing.capture_logs() as entries:
                old.shutdown.signal()
                await cluster.wait_exit("n1")
            took = trio.current_time() - began
            (plan,) = [entry["plan"] for entry in entries if entry["event"] == "drain_plan"]
            assert plan == "20 clients, 4 workers to move, 90 s left, 4/s"
            progress = [entry for entry in entries if entry["event"] == "drain_progress"]
            assert took > 5
            assert abs(len(progress) - took) < 3
            left = [entry["clients_left"] for entry in progress]
            assert left == sorted(left, reverse=True)
            assert left[0] == 20
            assert "draining (clients): " in progress[-1]["line"]

    play(scene)
