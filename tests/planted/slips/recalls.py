"""Slips in the recall of tokens: a node that has heard of it takes them nevertheless. Seeds must notice those that name no test."""

from tests.planted.bug import Bug

_CALLERS = "signald/service/api/callers.py"
_KNOWN = "signald/service/revoked.py"
_KEEPER = "signald/service/cluster/revocations.py"

RECALLS = (
    Bug(
        "recall-of-the-session-instead-of-its-subject",
        _CALLERS,
        "HttpCallers._of_party",
        "self._parts.context.revocations.refuses(said.principal, said.auth_time)",
        "self._parts.context.revocations.refuses(said.owner, said.auth_time)",
        "no-token-after-recall",
        "An API token of a subject that is revoked is good until it runs out.",
    ),
    Bug(
        "recall-forgotten-at-once",
        _KNOWN,
        "Revocations.expire",
        "one.until_ms <= now_ms",
        "one.at_ms <= now_ms",
        "no-token-after-recall",
        "A revocation is forgotten when it has ended the connections.",
    ),
    Bug(
        "recall-ends-no-connection",
        _KEEPER,
        "RevocationKeeper._read",
        "if revoked.adopt(revocation):",
        "if not revoked.adopt(revocation):",
        "no-token-after-recall",
        "A connection that was opened with a revoked token goes on, and is given API tokens.",
    ),
    Bug(
        "recall-unknown-to-a-node-that-starts",
        _KEEPER,
        "RevocationKeeper.begin",
        "await self._read(again=True)",
        "self._read_to = 0",
        "no-token-after-recall",
        "A node lets parties in for a second before it reads what is revoked.",
    ),
    Bug(
        "recall-said-to-be-done-before-it-is",
        _KEEPER,
        "RevocationKeeper.revoke",
        "await self._read(again=False)",
        "self._context.inboxes.revoked()",
        "no-token-after-recall",
        "The node that an operator asks says that it is done, and hears of it like the others.",
    ),
    Bug(
        "recall-by-the-time-of-the-token",
        _CALLERS,
        "HttpCallers._of_party",
        "self._parts.context.revocations.refuses(said.principal, said.auth_time)",
        "self._parts.context.revocations.refuses(said.principal, said.iat)",
        "no-token-after-recall",
        "An API token that was made by a node which had not heard of the revocation outlives it.",
    ),
)
