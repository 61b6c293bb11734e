"""Pauses of this process."""
