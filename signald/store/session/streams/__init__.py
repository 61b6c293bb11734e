"""The streams of a session: part of its aggregate, in one atomic step with its messages."""
