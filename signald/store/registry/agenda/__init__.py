"""The agenda: what is to be done at a time, by whichever node, and by one at a time."""
