"""Parties of either front through deploys and kills of real nodes: `python -m tests.sdk.deploys`."""
