"""The dialect `signald.v1` of clients and workers, as `docs/protocol.md` describes it."""
