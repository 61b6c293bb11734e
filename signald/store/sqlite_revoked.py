"""How SQLite keeps revoked subjects: the part of `SqliteRows` for them (sqlite_rows.py)."""

from msgspec import structs

from signald.store.registry.ops import Revocation
from signald.store.sqlite_values import Rows


class SqliteRevoked(Rows):
    """See the module."""

    def revocation(self, principal: str) -> Revocation | None:
        return next(iter(self._revoked("WHERE principal = ?", principal)), None)

    def save_revocation(self, revocation: Revocation) -> None:
        self._sql.execute("REPLACE INTO revoked VALUES (?, ?, ?, ?)", structs.astuple(revocation))

    def drop_revocation(self, principal: str) -> None:
        self._sql.execute("DELETE FROM revoked WHERE principal = ?", (principal,))

    def revocations(self) -> int:
        return int(self._one("SELECT count(*) FROM revoked"))

    def last_revocation(self) -> int:
        return int(self._one("SELECT coalesce(max(number), 0) FROM revoked"))

    def revocations_after(self, number: int, limit: int) -> list[Revocation]:
        return self._revoked("WHERE number > ? ORDER BY number LIMIT ?", number, limit)

    def revocations_over(self, now_ms: int, limit: int) -> list[str]:
        return [
            one.principal
            for one in self._revoked("WHERE until_ms <= ? ORDER BY until_ms, principal LIMIT ?", now_ms, limit)
        ]

    def _revoked(self, which: str, *values: object) -> list[Revocation]:
        rows = self._sql.execute(f"SELECT principal, number, at_ms, until_ms FROM revoked {which}", values)  # noqa: S608
        return [Revocation(*row) for row in rows]
