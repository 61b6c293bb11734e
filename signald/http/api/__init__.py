"""The HTTP API of the public port: each noun decodes requests, asks a protocol, and encodes its answers."""
