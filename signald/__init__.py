"""signald: a signaling daemon between clients and AI workers, made to be redeployed at any moment."""

__version__ = "0.2.0"
