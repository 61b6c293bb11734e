"""How hard Hypothesis searches: `pytest --hypothesis-profile long` for a night, nothing for every day."""

import os

from hypothesis import HealthCheck, settings

from signald.demo import cluster

settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Files of tests run side by side: a node that is killed and started again must find its port free.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    first = 10_000 + 5_500 * (int(worker.removeprefix("gw")) % 4)
    cluster.PORTS[:] = [range(first, first + 5_500)]
