"""Blobs: what was answered can be read, whole, until it is removed; and nothing else lies in the media in the end."""

from typing import TYPE_CHECKING

from signald.ids import shelf_of_blob
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.scene import Scene


class WholeBlob(Checker):
    """A blob that is known has all its bytes; an upload that has failed leaves nothing; one key makes one blob."""

    name = "whole-blob"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._kept: dict[str, bytes] = {}
        """Blob that an upload was answered with → its bytes."""
        self._of_key: dict[tuple[str, int], str] = {}
        """(session, number of a keyed upload) → its blob."""
        self._removing: set[str] = set()

    @property
    def promised(self) -> bool:
        """Tell whether the store keeps what it is given, and its clock goes on."""
        return not self.scene.plan.store_may_lose and not self.scene.plan.clock_steps

    def uploaded(self, session: str, number: int | None, blob: str, content: bytes) -> None:
        """An upload was answered."""
        before = self._of_key.setdefault((session, number), blob) if number is not None else blob
        if before != blob and self.promised:
            self.broken(f"{session}: upload {number} made {before} and {blob}")
        if number is None and blob in self._kept and self.promised:
            self.broken(f"{blob} was made by two uploads")
        self._kept[blob] = content

    def refused(self, session: str, number: int, because: str) -> None:
        """An upload was refused for good."""
        if because != "no_session" and self.promised:
            self.broken(f"{session}: upload {number} was refused: {because}")

    def removing(self, blob: str) -> None:
        """A program is about to remove a blob."""
        self._removing.add(blob)

    def kept(self) -> dict[str, bytes]:
        """Return the bytes of each blob that was answered, and that no program removes."""
        return {blob: content for blob, content in self._kept.items() if blob not in self._removing}

    def shown(self, blob: str, content: bytes) -> None:
        """A blob was read."""
        if content != self._kept[blob]:
            self.broken(f"{blob} has {len(self._kept[blob])} bytes, and is shown with {len(content)}")

    def unreadable(self, blob: str, node: str, because: str) -> None:
        """A blob that was answered is not found."""
        if self.promised and blob not in self._removing:
            self.broken(f"{blob} was kept, and {node} says {because}")

    def waiting(self) -> list[str]:
        """What in the media no record tells of, and each record without its bytes."""
        uploading = self.scene.uploading
        if uploading is None or not self.promised:
            return []
        rows, objects = self.scene.world.rows, uploading.kept.objects
        texts = []
        for blob, content in objects.items():
            item = rows.blob_item(shelf_of_blob(blob) or "", blob)
            if item is None or not item.blob.whole or item.doomed:
                texts.append(f"{blob} lies in the media")
            elif item.blob.bytes != len(content):
                self.broken(f"{blob} has {item.blob.bytes} bytes by its record, and {len(content)} in the media")
        for shelf, items in rows._shelves.items():
            for item in items.values():
                if (
                    not item.blob.whole
                    and not item.doomed
                    and item.blob.id in self._removing
                    and item.blob.id not in objects
                ):
                    # A batch that was stored late once more has begun the upload behind its removal: a record without bytes.
                    self.scene.reached("upload begun once more behind its removal")
                elif not item.blob.whole or item.doomed:
                    texts.append(f"{item.blob.id} on {shelf} is {'doomed' if item.doomed else 'uploading'}")
                elif item.blob.id not in objects:
                    self.broken(f"{item.blob.id} on {shelf} has no bytes")
        texts += [f"{blob} was kept, and is gone" for blob in self._kept if blob not in self._removing | set(objects)]
        return texts
