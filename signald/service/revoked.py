"""The principals whose tokens are void, as this node knows them. Passive: `cluster.revocations.RevocationKeeper` fills it."""

from signald.store.registry.ops import Revocation


class Revocations:
    """See the module. Bounded by what the store keeps, `cluster.revocations.REVOKED_MAX`."""

    def __init__(self) -> None:
        self._known: dict[str, Revocation] = {}

    def __len__(self) -> int:
        return len(self._known)

    def refuses(self, principal: str, issued_at: float | None) -> bool:
        """Tell whether a token of `principal` (`Principal.name`) is void that was issued at `issued_at`, in seconds since 1970.

        None: the token does not say when it was issued.
        """
        revocation = self._known.get(principal)
        return revocation is not None and (issued_at is None or issued_at * 1000 < revocation.at_ms)

    def adopt(self, revocation: Revocation) -> bool:
        """Take in what the store says; True when it voids tokens that were good before."""
        known = self._known.get(revocation.principal)
        self._known[revocation.principal] = revocation
        if known is not None and known.at_ms > revocation.at_ms:
            self._known[revocation.principal] = known  # the store has lost the later one, and is given it back
            return False
        return known is None or known.at_ms < revocation.at_ms

    def expire(self, now_ms: int) -> None:
        """Forget those whose tokens have all run out."""
        for principal in [one.principal for one in self._known.values() if one.until_ms <= now_ms]:
            del self._known[principal]

    def all(self) -> tuple[Revocation, ...]:
        """Return all that are known."""
        return tuple(self._known.values())
