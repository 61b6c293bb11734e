"""Parties that lie: a hostile client, a hostile worker, a hostile node. Nothing ends but the liar's own connection or session.

lies        what they say, drawn from a seed
through     a liar at a real node in memory, honest parties of the SDK beside it
node        a node that lies to a worker and a client of the SDK
__main__    seed after seed, for as long as it is given: a part of tests/campaign
"""
