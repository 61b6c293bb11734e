"""How SQLite keeps shelves: the table, and the part of `SqliteRows` for them (sqlite_rows.py)."""

from msgspec import msgpack

from signald.store.damage import REPORTS, Unreadable
from signald.store.shelf.records import Item
from signald.store.sqlite_values import Rows, pack, unpack

TABLE = """
CREATE TABLE IF NOT EXISTS blob (shelf TEXT, blob TEXT, leased INTEGER NOT NULL, due_ms INTEGER NOT NULL, bytes INTEGER NOT NULL,
    blob_key BLOB NOT NULL, record BLOB NOT NULL, PRIMARY KEY (shelf, blob)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_by_due ON blob (shelf, leased, due_ms, blob, bytes);
CREATE INDEX IF NOT EXISTS blob_of_key ON blob (shelf, blob_key) WHERE blob_key <> x''
"""
"""Made like those of `LATER_TABLES`. The columns that a shelf is searched by stand beside the record, so that a blob whose record is
damaged counts for its owner and is swept at its time."""

_item = msgpack.Decoder(Item).decode


class SqliteShelves(Rows):
    """See the module. A damaged record is reported, and counts as absent."""

    def blob_item(self, shelf: str, blob: str) -> Item | None:
        packed = self._one("SELECT record FROM blob WHERE shelf = ? AND blob = ?", shelf, blob)
        try:
            return None if packed is None else unpack(_item, packed, "blob", blob)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def save_blob_item(self, shelf: str, item: Item) -> None:
        if item.key:
            # A damaged blob may have it: its record is not read, and does not say so.
            free = "UPDATE blob SET blob_key = x'' WHERE shelf = ? AND blob_key = ? AND blob_key <> x'' AND blob <> ?"
            self._sql.execute(free, (shelf, item.key, item.blob.id))
        row = (shelf, item.blob.id, item.lease_until_ms > 0, item.due_ms, item.blob.bytes, item.key, pack(item))
        self._sql.execute("REPLACE INTO blob VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def drop_blob_item(self, shelf: str, blob: str) -> None:
        self._sql.execute("DELETE FROM blob WHERE shelf = ? AND blob = ?", (shelf, blob))

    def is_doomed(self, shelf: str, blob: str) -> bool:
        sql = "SELECT 1 FROM blob WHERE shelf = ? AND blob = ? AND leased = 0 AND due_ms = 0"
        return self._one(sql, shelf, blob) is not None

    def item_of_key(self, shelf: str, key: bytes) -> str:
        return self._one("SELECT blob FROM blob WHERE shelf = ? AND blob_key = ? AND blob_key <> x''", shelf, key) or ""

    def shelf_size(self, shelf: str) -> tuple[int, int]:
        sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM blob WHERE shelf = ?"
        count, size = self._sql.execute(sql, (shelf,)).fetchone()
        return count, size

    def uploads_over(self, shelf: str, until_ms: int, from_ms: int, limit: int) -> list[str]:
        return self._blobs("leased = 1 AND (due_ms <= ? OR due_ms > ?)", shelf, until_ms, from_ms, limit)

    def blobs_over(self, shelf: str, until_ms: int, limit: int) -> list[str]:
        return self._blobs("leased = 0 AND due_ms > 0 AND due_ms <= ?", shelf, until_ms, limit)

    def blobs_doomed(self, shelf: str, limit: int) -> list[str]:
        return self._blobs("leased = 0 AND due_ms = 0", shelf, limit)

    def shelf_due(self, shelf: str) -> tuple[int, int]:
        sql = "SELECT coalesce(min(due_ms), 0) FROM blob WHERE shelf = ? AND leased = ? AND due_ms > 0"
        return self._one(sql, shelf, 1), self._one(sql, shelf, 0)

    def _blobs(self, which: str, *values: object) -> list[str]:
        sql = f"SELECT blob FROM blob WHERE shelf = ? AND {which} ORDER BY due_ms, blob LIMIT ?"  # noqa: S608
        return [blob for (blob,) in self._sql.execute(sql, values)]
