"""A worker as a command: `python -m signald.worker dev|start|simulate module:handler`.

__main__     the arguments, and what each command does
simulated    a node in memory: sessions that ask the handler, without signald
"""
