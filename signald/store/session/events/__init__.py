"""The event queue of a session: in its key group, filled by its atomic steps, and kept beyond its end until it is told."""
