"""The blobs of a session as a party uploads and reads them: what is said, and what an answer means. No I/O.

upload   one POST, with the digest and the length of its bytes and one key: however often it is made, one blob is kept
reading  GET of a range; an answer that breaks off is followed by another GET, of the bytes that are missing
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from attrs import field, frozen
from msgspec import Struct

from signald.sdk.api_core import Answer, NoAnswer, not_signald
from signald.sdk.errors import ApiRefused, BlobFailed
from signald.wire.messages import BLOB_MAX, CONTENT_TYPE_MAX

OCTETS: Final = "application/octet-stream"

READ_BYTES_MAX: Final = 16 * 1024 * 1024
"""What `read` takes into memory unless it is told otherwise: above a node's own bound for a blob (`blobs.bytes_max`, 10 MiB)."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_ID = re.compile(rf"b_[A-Za-z0-9_-]{{1,{BLOB_MAX - 2}}}")
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}(?: ?; ?{_WORD}=(?:{_WORD}|\"[\x20\x21\x23-\x5b\x5d-\x7e]*\"))*")
"""RFC 9110, section 8.3.1, as signald takes it."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_BEHIND_THE_END = re.compile(r"bytes \*/([0-9]{1,18})")
_DIGEST = re.compile(r"(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):")


@frozen
class Blob:
    """A blob that signald keeps; made by `upload`."""

    id: str
    size: int
    """Of its bytes."""
    content_type: str
    sha256: str
    """In hexadecimal."""
    expires_at: str
    """When it is removed: an RFC 3339 text in UTC."""


class _Shown(Struct, frozen=True, rename={"size": "bytes"}):
    """A blob as HTTP shows it."""

    blob: str
    size: int
    content_type: str
    sha256: str
    expires_at: str = ""


def check_key(key: str) -> str:
    """Return a key of the application. Raises ValueError when signald would refuse it."""
    if not _KEY.fullmatch(key):
        raise ValueError("`key` has 1 to 255 visible characters")
    return key


def check_content_type(content_type: str) -> str:
    """Return the content type of an upload. Raises ValueError when signald would refuse it."""
    if len(content_type) > CONTENT_TYPE_MAX or not _MEDIA_TYPE.fullmatch(content_type):
        raise ValueError(f"`content_type` is no media type of up to {CONTENT_TYPE_MAX} characters")
    return content_type


def target_of(blob: str, session: str | None) -> str:
    """Return the target of a request for a blob, or for all of them (""). `session` is named by a worker.

    Raises:
        ApiRefused: a peer has named what is no id; it would lead elsewhere.
    """
    if blob and not _ID.fullmatch(blob):
        raise ApiRefused(404, "about:blank", "there is no such blob", "the id is none")
    path = f"/v1/blobs/{blob}" if blob else "/v1/blobs"
    return path if session is None else f"{path}?{urlencode({'session': session})}"


@frozen
class Sending:
    """What an upload says of its bytes, the same for each try."""

    length: int
    sha256: bytes = field(repr=False)
    content_type: str
    key: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        return {
            "content-type": self.content_type,
            "content-digest": f"sha-256=:{base64.b64encode(self.sha256).decode()}:",
            "idempotency-key": self.key,
        }

    def kept(self, answer: Answer) -> Blob:
        """Return the blob of an answer of success.

        Raises:
            ApiRefused: it tells of none that has these bytes.
        """
        try:
            shown = msgspec.json.decode(answer.body, type=_Shown)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise not_signald(answer) from None
        if not _ID.fullmatch(shown.blob) or (shown.size, shown.sha256) != (self.length, self.sha256.hex()):
            raise not_signald(answer)
        return Blob(shown.blob, shown.size, shown.content_type, shown.sha256, shown.expires_at)

    def refused(self, error: ApiRefused) -> Exception:
        """Return the error for the application when an upload was refused."""
        if error.status == 400 and error.type.endswith("wrong-digest"):
            return BlobFailed("changed", "the bytes were others when they were sent than when they were counted")
        return error


class Reading:
    """The bytes of a blob from `start` to `end` (not included; None: to its last byte), in order, over as many answers as it takes."""

    def __init__(self, start: int, end: int | None) -> None:
        """Raises ValueError when there can be no such bytes."""
        if start < 0 or (end is not None and end <= start):
            raise ValueError("a part of a blob begins at 0 or later, and ends behind its start")
        self.start = self.position = start
        self._wanted_end = end
        self._skip = 0
        self._hash = hashlib.sha256() if start == 0 and end is None else None
        self._digest = ""
        self.size: int | None = None
        """Of the whole blob; None until it is known."""
        self.content_type = OCTETS

    @property
    def end(self) -> int | None:
        """Where the bytes end; None while that is not known."""
        if self.size is None:
            return self._wanted_end
        return max(self.start, self.size if self._wanted_end is None else min(self._wanted_end, self.size))

    @property
    def over(self) -> bool:
        """All bytes are here."""
        return self.size is not None and self.position == self.end

    def headers(self) -> dict[str, str]:
        """Return the headers of the next request."""
        said = {"accept-encoding": "identity"}
        if self.position or self._wanted_end is not None:
            last = "" if self._wanted_end is None else self._wanted_end - 1
            said["range"] = f"bytes={self.position}-{last}"
        return said

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take the head of an answer; False when it brings no bytes and none of what was asked for.

        Raises:
            BlobFailed: it brings others.
        """
        if headers.get("content-encoding", "identity") != "identity":
            raise BlobFailed("changed", "the answer is encoded, which was not asked for")
        if status == 206 and (found := _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))):
            first, size = int(found[1]), int(found[3])
            if first != self.position:
                raise BlobFailed("changed", f"the answer begins at byte {first}, and not at {self.position}")
            self._skip = 0
        elif status == 200 and headers.get("content-length", "").isdigit():
            # What does not know of ranges sends all of it.
            size, self._skip = int(headers["content-length"]), self.position
        elif status == 416 and (behind := _BEHIND_THE_END.fullmatch(headers.get("content-range", ""))):
            size = int(behind[1])
            if size > self.position:
                return False
            self.start = self.position = min(self.position, size) if self.size is None else self.position
        else:
            return False
        self._is(size, headers)
        if status != 416:
            self.content_type = headers.get("content-type", OCTETS)
        return True

    def _is(self, size: int, headers: Mapping[str, str]) -> None:
        found = _DIGEST.search(headers.get("repr-digest", ""))
        digest = found[1] if found else self._digest
        if (self.size is not None and self.size != size) or (self._digest and self._digest != digest):
            raise BlobFailed("changed", "another answer brings other bytes")
        self.size, self._digest = size, digest

    def took(self, piece: bytes) -> bytes:
        """Take bytes of the answer; return those that are wanted.

        Raises:
            BlobFailed: with these the blob is whole, and its digest is another one.
        """
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:]
        if self.end is not None:
            piece = piece[: self.end - self.position]
        self.position += len(piece)
        if self._hash is not None:
            self._hash.update(piece)
            if self.over and self._digest and base64.b64encode(self._hash.digest()).decode() != self._digest:
                raise BlobFailed("changed", "the bytes have not the digest of the blob")
        return piece


def elsewhere(status: int, headers: Mapping[str, str], asked: str) -> tuple[str, str] | None:
    """Return (URL of a WebSocket's kind, target) to which an answer to a request at `asked` leads; None when it leads nowhere.

    The URL is a signed one, for bytes that the node does not carry itself (`blobs.redirect`). No credential may go along.

    Raises:
        NoAnswer: it leads out of HTTP, or out of TLS.
    """
    if status not in (302, 307):
        return None
    try:
        parts = urlsplit(headers.get("location", ""))
        scheme = {"https": "wss", "http": "ws"}.get(parts.scheme, "")
        is_odd = not scheme or not parts.hostname or "@" in parts.netloc or parts.port == 0
    except ValueError:
        is_odd, scheme = True, ""
    if is_odd or (scheme == "ws" and urlsplit(asked).scheme == "wss"):
        raise NoAnswer("the answer leads to no place for bytes")
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return f"{scheme}://{parts.netloc}", target
