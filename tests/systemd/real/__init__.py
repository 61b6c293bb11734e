"""The units under a systemd that manages them, in a container."""
