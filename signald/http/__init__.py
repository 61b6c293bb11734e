"""The HTTP half: plain HTTP on Hypercorn."""
