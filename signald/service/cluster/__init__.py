"""A node's place in the cluster, and what it does when wake-ups, records or whole stores are lost.

lease ─▸ identity   the right to the node's id; the lease that keeps it; the nodes as last read ─▸ view
wakes               what the backplane brings, and who looks at what it names; `probe` measures how late it is
mender              gives back what the store has lost; `asking` lets other nodes do so; `departed` remembers positions
"""
