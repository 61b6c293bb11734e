"""The dialect of a DeepStream fleet, as its programs meet it."""
