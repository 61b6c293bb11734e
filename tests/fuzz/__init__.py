"""Inputs that no party sends by mistake, and the one question asked after each: did any other party notice?

    mutate     damage: bits, splices, lengths, frames, the grammar of JSON
    corpus     inputs kept from before, one file each, and the few that are too large for a file
    inputs     how an input of each kind is drawn
    party      one connection that sends an input, and a conversation beside it that must go on undisturbed
    targets    what is fuzzed, and what counts as a failure there
    decoders   every function that turns bytes of others into something of ours, with the refusals it may give
    records    bits flipped in what a store keeps
    live       a process of its own that gets it all

`python -m tests.fuzz --minutes 10` runs them all; docs/testing.md says what to do with what it finds.
"""
