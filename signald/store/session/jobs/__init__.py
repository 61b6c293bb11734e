"""The jobs of a session: in its key group, changed by its atomic steps, and kept for a while beyond its end."""
