"""The public cluster of `signald.testing`: what an author of clients and workers tests against.

cluster        `SignaldCluster`: deploys, kills, losses, faults, and the parties of a test; on Trio and asyncio alike
fleet          the nodes below it, and what is done to them; it lives in one Trio run
steps          a deploy step by step: each move is held in the network until the test goes on
faults         the network between parties and nodes, and its faults by party
frames         what a node writes to a party, frame by frame
parties        the process of a worker
account        the transcript of a run
running        one run: its seed, its clock, the end of its time, and `signald_test`
threaded       the same fleet in a thread of its own, behind ports of the loopback interface, for programs on asyncio
"""
