"""Claims as memory and SQLite keep them: of a party of a session, and of a worker."""

from msgspec import Struct

from signald.core.tokens import Slots, Verdict
from signald.store.base import CLOCK_SET_MS

CLAIMS_REMEMBERED = 8
"""How many claims of one party are remembered by nonce. A claim is retried within seconds, or never."""


class Claim(Struct, array_like=True, frozen=True, gc=False):
    """One claim by its nonce, with its answer for a retry."""

    nonce: str
    epoch: int
    previous_node: str = ""
    lost_up: tuple[int, int] | None = None
    lost_down: tuple[int, int] | None = None
    asked_ms: int = 0
    """When the party asked for it, by the store's clock."""
    attempt: int = 0
    """The party's own count of its claims; 0: unknown."""
    agreed: bool = False
    """The other party had claimed the same seqs beyond the store, independently."""


class Side(Struct, array_like=True):
    """Where one party is attached, and under which epoch."""

    epoch: int = 0
    node: str = ""
    claims: tuple[Claim, ...] = ()

    def claim(self, claim: Claim, node: str) -> None:
        """Attach the party at `node` by `claim`."""
        self.epoch = claim.epoch
        self.node = node
        self.claims = (*self.claims, claim)[-CLAIMS_REMEMBERED:]

    def give_back(self, claim: Claim) -> None:
        """Remember how the last claim was asked for, where a store has lost it. Its nonce is lost as well."""
        if claim.asked_ms and (not self.claims or self.claims[-1].epoch < claim.epoch):
            self.claims = (*self.claims, claim)[-CLAIMS_REMEMBERED:]

    def claimed(self, nonce: str) -> Claim | None:
        """Return the claim that was made with `nonce`."""
        return next((claim for claim in self.claims if claim.nonce == nonce), None)

    def is_late(self, asked_ms: int) -> bool:
        """Tell whether the last granted claim had been asked for after `asked_ms`."""
        return bool(self.claims) and 0 < self.claims[-1].asked_ms - asked_ms <= CLOCK_SET_MS

    def is_tied(self, attempt: int, asked_ms: int) -> bool:
        """Tell whether the last granted claim is a later attempt of the party, asked for at the same time."""
        return bool(self.claims) and 0 < attempt < self.claims[-1].attempt and asked_ms == self.claims[-1].asked_ms

    def is_outdone(self, attempt: int, asked_ms: int) -> bool:
        """Tell whether the last granted claim is a later attempt of the party, asked for within `CLOCK_SET_MS`."""
        if not self.claims:
            return False
        last = self.claims[-1]
        return 0 < attempt < last.attempt and abs(asked_ms - last.asked_ms) <= CLOCK_SET_MS


def refusal(verdict: Verdict, slots: Slots) -> str:
    # Slots that never held a token say nothing of a revocation: the record was given back by a node that did not know it.
    return "unknown" if verdict is Verdict.REVOKED and not slots.retired else verdict.value
