"""The agenda: what is to be done at a time, by any node, and by one node at a time."""
