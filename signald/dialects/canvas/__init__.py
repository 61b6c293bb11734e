"""The wire of a collaborative canvas, as rooms."""
