"""What the HTTP API asks of a node: each module implements the protocol of its namesake in `signald.http.api`."""
