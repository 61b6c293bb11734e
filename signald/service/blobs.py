"""What a node does for blobs: uploads, downloads, and the removal of what is over. See `uploads`, `shelves` and `api.blobs`."""

from collections import Counter
from typing import Literal, get_args

from signald.http.api.blob_views import BlobRefusal
from signald.service.context import Context
from signald.service.shares import Shares
from signald.service.shelves import Shelves
from signald.service.uploads import Uploads

UploadOutcome = Literal["kept", "replayed", "refused", "cut"]
"""`replayed`: its key was known, and its bytes were the same. `cut`: its sender has gone, or the body was too long."""

UPLOAD_OUTCOMES: tuple[UploadOutcome, ...] = get_args(UploadOutcome)

REFUSALS: tuple[str, ...] = (*get_args(BlobRefusal), "store")
"""`store`: it gave no answer, or the upload has lost its lease."""


class BlobDesk:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.shelves = Shelves(context)
        self.uploads = Uploads(context, self.shelves)
        self.uploading = Shares()
        self.downloading = Shares()
        self.uploads_ended: Counter[UploadOutcome] = Counter(dict.fromkeys(UPLOAD_OUTCOMES, 0))
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        """Uploads that were refused, by why."""
        self.bytes_read = 0
        self.missing = 0
        """Reads of a blob that is kept and whose bytes are not there."""
