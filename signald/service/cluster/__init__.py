"""A node's place in the cluster, and what it does when wake-ups, records or whole stores are lost.

    lease ─▸ identity      the right to the node's id; the lease that keeps it; the nodes as last read (`service.nodes`)
      │ └──▸ lag           how late this node's loop runs, which the lease publishes
      └────▸ sight         whether the nodes are seen clearly enough to judge by
    sweeps ─▸ lost_workers, lives      once a second or so: what any node may find and end
    looks                  second looks at what other nodes may have changed
    wakes ─▸ lives         what the backplane brings, and the look at what it names; `probe` measures how late it is
    mender ─▸ sight        gives back what the store has lost, from the doubts in `service.inboxes`

`daemon` starts a task for each of them. They call the parties and the relay; none of those calls them.
"""
