"""Telling the core server: delivery over a cluster in memory, under the mock clock."""
