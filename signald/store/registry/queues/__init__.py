"""The event queues of workers and of the cluster, in the registry, whose steps fill them."""
