"""The drain: from SIGTERM, or an operator's call, to the last goodbye.

    daemon, operations ─▸ shutdown   the phases: begin, hurry, abort; what each phase waits for and what ends it
                             │
                             ▼
                          moving     WORKERS and CLIENTS: carries out `core.handover.DrainPlan` at the cluster's pace
                             │       (`successors`: the wait for a node that takes over)
                             │
                             ▼
                   ledger, receipts  the receipt: what happened to each session, and when; its way to the store

The order of the phases is the table in `core.drain`; the order of the parties is decided by `core.handover`. Both are pure.
"""
