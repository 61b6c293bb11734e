"""Blobs over HTTP: voice messages and other media, uploaded, read in whole or in part, and removed. See `docs/http.md`.

    POST   /v1/blobs          the bytes of the body are kept
    GET    /v1/blobs/{blob}   its bytes, or a part of them (HEAD: what is said of them)
    DELETE /v1/blobs/{blob}   remove it

Bytes pass through in pieces, in both directions: neither side waits in memory for the other.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Annotated, Protocol

import trio
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from signald.core.callers import Access, Caller, CallerKind
from signald.http.api import refusals
from signald.http.api.app import address_of
from signald.http.api.auth import caller_of, session_of
from signald.http.api.blob_views import (
    BlobOwner,
    BlobRefusal,
    BlobRefused,
    FoundBlob,
    Payer,
    ShownBlob,
    Upload,
    Uploaded,
)
from signald.http.api.bodies import declared_length, pieces_of
from signald.http.api.describe import PARTIES, Answer, Header, Operation, described, json_answer
from signald.http.api.digest_fields import digest_field, sha256_of
from signald.http.api.ranges import Conditions, Outcome, Span, judge
from signald.http.api.reading import Headers, Path, Query, RawBody, bad_fields
from signald.http.api.turns import Turns
from signald.http.problem_details import HttpProblem
from signald.ids import SessionId
from signald.wire.messages import CONTENT_TYPE_MAX

OCTETS = "application/octet-stream"

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(
    rf"{_WORD}/{_WORD}(?:[ \t]*;[ \t]*(?:{_WORD}=(?:{_WORD}|\"[\x20\x21\x23-\x5b\x5d-\x7e]*\"))?)*[ \t]*"
)
"""RFC 9110, section 8.3.1, without escapes in quotes."""

TAKEN_S, TAKEN_BYTES_PER_S = 60.0, 4096
"""How long a reader may take for an answer: a minute, and a second for each 4 KiB, which is 32 kbit/s: as fast as a voice is heard. A
reader that is slower keeps its place from others."""

Session = Annotated[
    str, Meta(max_length=64, description="The session: a worker names one that it has, a person or a service any of its own.")
]  # fmt: skip


class OneBlob(Struct, frozen=True):
    """The id of a blob."""

    blob: Annotated[str, Meta(pattern="^b_[A-Za-z0-9_-]{44}$")]


class OfSession(Struct, frozen=True):
    """The session that a request names."""

    session: Session | UnsetType = UNSET


class UploadHeaders(Struct, frozen=True, rename="kebab"):
    """Header fields of an upload."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255, pattern="^[\\x21-\\x7e]+$")] | UnsetType = UNSET
    content_digest: (
        Annotated[
            str, Meta(description="RFC 9530: with `sha-256=:<base64>:` the body is refused unless it has this digest.")
        ]
        | UnsetType
    ) = UNSET


class Blobs(Protocol):
    """The operations of the service. They raise BlobRefused and StoreUnavailable."""

    @property
    def bytes_max(self) -> int:
        """The bytes that a blob may have."""

    def must_keep(self) -> None:
        """Raise BlobRefused when this node keeps no blobs."""

    async def owner(self, session: SessionId, access: Access) -> BlobOwner:
        """Return what a blob of this session belongs to."""

    async def upload(self, asked: Upload, body: AsyncGenerator[bytes]) -> Uploaded:
        """Keep the bytes of `body`, or find those that came with the same key. What `body` raises leaves nothing behind."""

    async def find(self, blob: str, session: SessionId | None, access: Access) -> FoundBlob:
        """Return a blob that `access` may read; `session` is that of a party."""

    def read(self, blob: FoundBlob, start: int, end: int, payer: Payer) -> AsyncGenerator[bytes]:
        """Go through some of its bytes, in pieces."""

    async def signed_url(self, blob: FoundBlob) -> str | None:
        """Return a URL from which the bytes can be read for a moment without a credential; None: they are read here."""

    async def remove(self, blob: str, session: SessionId | None, access: Access) -> None:
        """Remove a blob."""


_PROBLEMS: dict[BlobRefusal, tuple[int, str, str]] = {
    "none": (501, "no-blobs", "this node keeps no blobs: blobs.url is not set"),
    "no_session": (404, "unknown-session", "there is no such session: it has ended, or never was"),
    "no_blob": (404, "unknown-blob", "there is no such blob: it is kept no longer, or never was"),
    "wrong_digest": (400, "wrong-digest", "the body has not the digest that Content-Digest names"),
    "key_taken": (422, "key-reused", "this Idempotency-Key was used for another request"),
    "key_in_use": (409, "key-in-use", "the first request with this Idempotency-Key is under way"),
    "shelf_full": (429, "blobs-full", "the principal keeps as many bytes or blobs as it may"),
    "share": (429, "busy", "the caller has as many uploads or downloads under way as it may"),
    "busy": (503, "busy", "there are too many uploads or downloads under way"),
    "slow": (408, "too-slow", "the body comes too slowly"),
    "away": (503, "media-unavailable", "what keeps the bytes does not answer"),
}


@contextmanager
def as_problems() -> Iterator[None]:
    """Within the block, a refusal and a store that does not answer become an HttpProblem."""
    try:
        with refusals.as_problems():
            yield
    except BlobRefused as refused:
        problem = HttpProblem(*_PROBLEMS[refused.because])
        if problem.status in (409, 429, 503):
            problem.with_headers(retry_after=str(refused.retry_s))
        raise problem from None


# --- operations ---------------------------------------------------------------------------------------------------

ONE, SESSION = Path(OneBlob), Query(OfSession)
UPLOAD_HEADERS, CONDITIONS = Headers(UploadHeaders), Headers(Conditions)

_ETAG = Header("The digest of the bytes.")
_OF_BYTES = {
    "ETag": _ETAG,
    "Accept-Ranges": Header("`bytes`."),
    "Repr-Digest": Header("RFC 9530: the SHA-256 of all bytes, also beside a part of them."),
    "Content-Disposition": Header("Always `attachment`."),
}

KEPT = Answer(
    201, "The bytes are kept.", ShownBlob,
    headers={
        "Location": Header("Where they are read."),
        "Idempotency-Replayed": Header("`true`: an earlier request with the same key has brought them.", always=False),
    },
)  # fmt: skip
BYTES = Answer(200, "All bytes, with the content type that they came with.", bytes, "*/*", _OF_BYTES)
PART = Answer(
    206, "The part that `Range` names.", bytes, "*/*",
    {**_OF_BYTES, "Content-Range": Header("Which part, and of how many bytes.")},
)  # fmt: skip
UNCHANGED = Answer(304, "The reader has the bytes.", headers={"ETag": _ETAG})
ELSEWHERE = Answer(
    307, "With `blobs.redirect`: the bytes are read from a URL that is good for a minute.",
    headers={"Location": Header("The URL, which is a secret.")},
)  # fmt: skip
REMOVED = Answer(204, "It is removed.")

OF_ITS_USER: frozenset[CallerKind] = frozenset({"client", "person", "service"})

UPLOAD = Operation(
    name="uploadBlob", method="POST", path="/v1/blobs", tag="blobs", summary="Keep the bytes of a voice message or another medium",
    about="The blob belongs to the session and its principal. A key is good for as long as its blob is kept.",
    callers=PARTIES, scope="blobs", parameters=(SESSION, UPLOAD_HEADERS),
    bodies=(RawBody("The bytes, in any content type. The one that is sent comes with them when they are read."),),
    answers=(KEPT,), problems=frozenset({404, 408, 409, 422, 501}),
)  # fmt: skip
READ = Operation(
    name="readBlob", method="GET", path="/v1/blobs/{blob}", tag="blobs", summary="Read a blob",
    callers=PARTIES, scope="blobs", parameters=(ONE, SESSION, CONDITIONS), answers=(BYTES, PART, UNCHANGED, ELSEWHERE),
    problems=frozenset({404, 412, 416, 501}),
)  # fmt: skip
REMOVE = Operation(
    name="removeBlob", method="DELETE", path="/v1/blobs/{blob}", tag="blobs", summary="Remove a blob",
    callers=OF_ITS_USER, scope="blobs", parameters=(ONE, SESSION), answers=(REMOVED,), problems=frozenset({404, 501}),
)  # fmt: skip


def routes(blobs: Blobs) -> list[BaseRoute]:
    """Return the routes of blobs."""

    async def upload(request: Request) -> Response:
        caller = await caller_of(request)
        with as_problems():
            session, access = session_of(caller, _named(request))
            blobs.must_keep()
            owner = await blobs.owner(session, access)
            asked = _upload(request, caller, owner)
            async with aclosing(pieces_of(request)) as body:
                kept = await blobs.upload(asked, body)
        headers = {"location": f"/v1/blobs/{kept.shown.blob}"}
        if kept.replayed:
            headers["idempotency-replayed"] = "true"
        return json_answer(KEPT, kept.shown, headers)

    async def read(request: Request) -> Response:
        caller = await caller_of(request)
        return await blob_answer(request, blobs, *_asked(request, caller), caller)

    async def remove(request: Request) -> Response:
        caller = await caller_of(request)
        asked = _asked(request, caller)
        with as_problems():
            blobs.must_keep()
            await blobs.remove(*asked)
        return Response(status_code=204)

    bounds: dict[str, Callable[[], int]] = {"/v1/blobs": lambda: blobs.bytes_max}
    return described((UPLOAD, upload), (READ, read), (REMOVE, remove), body_bytes_max=bounds)


def _named(request: Request) -> str | None:
    session = SESSION.read(request).session
    return None if session is UNSET else session


def _asked(request: Request, caller: Caller) -> tuple[str, SessionId | None, Access]:
    """Return the blob of a request, and what its caller may do there. Raises HttpProblem.

    A party asks as its session. A person and a service ask for themselves, and need to name none.
    """
    blob, named = ONE.read(request).blob, _named(request)
    session, access = None, Access(tenant=caller.tenant)
    if caller.kind in ("client", "worker") or caller.is_anonymous:
        session, access = session_of(caller, named)
    elif caller.kind == "person":
        access = Access(owner=caller.principal)
    return blob, session, access


def _upload(request: Request, caller: Caller, owner: BlobOwner) -> Upload:
    """Read what a request says of the bytes that it brings. Raises HttpProblem."""
    headers = UPLOAD_HEADERS.read(request)
    content_type = request.headers.get("content-type", "").strip(" \t") or OCTETS
    if len(content_type) > CONTENT_TYPE_MAX or _MEDIA_TYPE.fullmatch(content_type) is None:
        raise bad_fields(("content-type", f"is no media type of up to {CONTENT_TYPE_MAX} characters"))
    if request.headers.get("content-encoding", "identity").strip(" \t").lower() != "identity":
        # What was kept so could be read by those alone that guess how it was packed.
        raise HttpProblem(415, "media-type", "a body is taken without Content-Encoding").with_headers(
            accept_encoding="identity"
        )
    try:
        sha256 = sha256_of([] if headers.content_digest is UNSET else [headers.content_digest])
    except ValueError as error:
        raise bad_fields(("content-digest", str(error))) from None
    key = headers.idempotency_key
    return Upload(
        owner,
        _payer(request, caller),
        b"" if key is UNSET else _key(owner.session, key),
        content_type,
        sha256,
        declared_length(request.scope) if "content-length" in request.headers else None,
    )


def _payer(request: Request, caller: Caller) -> Payer:
    # A backend and a person may have the same name, and are two.
    kind = "service" if caller.kind == "service" else "principal"
    return Payer(f"{kind} {caller.payer}", address_of(request.scope))


def _key(session: str, key: str) -> bytes:
    """Return the digest of a key, which belongs to a session, a method and a path."""
    return hashlib.sha256(f"POST /v1/blobs {session} {key}".encode()).digest()


def disposition_of(blob: str) -> str:
    """Return `Content-Disposition`: bytes of a party are saved, and never shown as a page of this host. The id needs no escape."""
    return f'attachment; filename="{blob}"'


async def blob_answer(
    request: Request, blobs: Blobs, blob: str, session: SessionId | None, access: Access, caller: Caller
) -> Response:
    """Answer with the bytes of a blob, as the request wants them and its caller may have them. Raises HttpProblem."""
    with as_problems():
        blobs.must_keep()
        found = await blobs.find(blob, session, access)
        return await _answer(request, blobs, found, CONDITIONS.read(request), _payer(request, caller))


async def _answer(request: Request, blobs: Blobs, found: FoundBlob, asked: Conditions, payer: Payer) -> Response:
    """Answer with bytes, or with where they are. Raises HttpProblem, BlobRefused."""
    if request.method == "HEAD":
        # A range is defined for GET alone (RFC 9110, section 14.2).
        asked = Conditions(if_match=asked.if_match, if_none_match=asked.if_none_match)
    outcome = judge(asked, found.etag, found.size)
    headers = {"etag": found.etag, "cache-control": "private, no-cache"}
    if outcome is Outcome.FAILED:
        raise HttpProblem(412, "changed", "the bytes are not those that If-Match names")
    if outcome is Outcome.UNCHANGED:
        return Response(status_code=304, headers=headers)
    disposition = disposition_of(found.blob)
    if request.method != "HEAD" and (url := await blobs.signed_url(found)) is not None:
        return Response(status_code=307, headers={"location": url, "referrer-policy": "no-referrer"})
    if outcome is Outcome.UNSATISFIABLE:
        problem = HttpProblem(416, "range", f"the blob has {found.size} bytes")
        raise problem.with_headers(content_range=f"bytes */{found.size}")
    headers |= {
        "content-type": found.content_type,
        "content-disposition": disposition,
        "accept-ranges": "bytes",
        "repr-digest": digest_field(found.sha256),
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }
    span = outcome if isinstance(outcome, Span) else Span(0, found.size)
    if isinstance(outcome, Span):
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{found.size}"
    headers["content-length"] = str(len(span))
    if request.method == "HEAD" or not len(span):
        return Response(status_code=200, headers=headers)
    pieces = blobs.read(found, span.start, span.end, payer)
    try:
        first = await anext(pieces)  # a refusal is an answer of its own as long as no byte is out
    except BaseException:
        await pieces.aclose()
        raise
    return Pieces(206 if isinstance(outcome, Span) else 200, headers, first, pieces, len(span), request.app.state.turns)


class Pieces(StreamingResponse):
    """An answer of bytes that come in pieces. Whatever goes wrong once it has begun cuts it: a part never passes for the whole."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        first: bytes,
        pieces: AsyncGenerator[bytes],
        size: int,
        turns: Turns,
    ) -> None:
        self._all, self._pieces = _behind(first, pieces, turns), pieces
        super().__init__(self._all, status, headers)
        self._patience_s = TAKEN_S + size / TAKEN_BYTES_PER_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces), aclosing(self._all):
            with trio.move_on_after(self._patience_s):
                await super().__call__(scope, receive, send)


async def _behind(first: bytes, pieces: AsyncGenerator[bytes], turns: Turns) -> AsyncGenerator[bytes]:
    yield first
    del first  # a reader that is slow holds the next piece, and not this one as well
    with as_problems():
        while True:
            # Before the piece is read: what waits for its turn holds nothing meanwhile.
            await turns.wait()
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            yield piece
            del piece
