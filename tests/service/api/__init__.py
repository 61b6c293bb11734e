"""Tests of what the HTTP API asks of the service, over its routes and in memory."""
