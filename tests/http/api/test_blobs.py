"""Blobs over HTTP, by the bytes on the connection, with a service of the test's own."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from signald.core.callers import Access, Caller
from signald.errors import StoreUnavailable
from signald.http.api import blobs as blobs_module
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
from signald.http.api.blobs import OCTETS, routes
from signald.http.api.bodies import PIECE_BYTES
from signald.http.api.digest_fields import digest_field
from signald.ids import SessionId
from tests.http.publicly import Answer, HttpPeer, Public, public

CLIENT = Caller("client", "ann", "ann", session="s_" + "a" * 24)
WORKER = Caller("worker", "bot", "bot", worker="w_1")
PERSON = Caller("person", "ann", "ann")
BACKEND = Caller("service", "backend", "backend", tenant="acme")

BLOB = "b_" + "x" * 44
DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).digest()
ETAG = f'"{SHA.hex()}"'


class Shelf:
    """A service that keeps one blob."""

    def __init__(self) -> None:
        self.bytes_max = 1_000_000
        self.refuses: BlobRefusal | None = None
        self.away = False
        self.url: str | None = None
        self.uploads: list[Upload] = []
        self.sizes: list[int] = []
        self.finds: list[tuple[str, str | None, Access]] = []
        self.removed: list[str] = []
        self.reading = 0
        self.breaks_at: int | None = None
        self.go = trio.Event()
        self.go.set()
        self.raised: list[str] = []

    def must_keep(self) -> None:
        if self.refuses == "none":
            raise BlobRefused("none")

    def _judge(self, *late: BlobRefusal) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
        if self.refuses is not None and (self.refuses in late or not late):
            raise BlobRefused(self.refuses, 7)

    async def owner(self, session: SessionId, access: Access) -> BlobOwner:
        if self.refuses == "no_session":
            raise BlobRefused("no_session")
        return BlobOwner(session, "ann")

    async def upload(self, asked: Upload, body: AsyncGenerator[bytes]) -> Uploaded:
        self.uploads.append(asked)
        self._judge()
        digest, size = hashlib.sha256(), 0
        try:
            async for piece in body:
                await self.go.wait()
                digest.update(piece)
                size += len(piece)
                self.sizes.append(len(piece))
        except BaseException as error:
            self.raised.append(type(error).__name__)
            raise
        shown = ShownBlob(BLOB, size, asked.content_type, digest.hexdigest(), "2026-11-30T00:00:00.000Z")
        return Uploaded(shown, asked.key != b"")

    async def find(self, blob: str, session: SessionId | None, access: Access) -> FoundBlob:
        self.finds.append((blob, session, access))
        self._judge("no_blob", "no_session")
        return FoundBlob(blob, len(DATA), "audio/ogg", SHA)

    async def read(self, blob: FoundBlob, start: int, end: int, payer: Payer) -> AsyncGenerator[bytes]:
        self._judge("busy", "share", "away")
        self.reading += 1
        try:
            while start < end:
                if self.breaks_at is not None and start >= self.breaks_at:
                    raise BlobRefused("away")
                yield DATA[start : min(end, start + 1000)]
                start += 1000
                await self.go.wait()
        finally:
            self.reading -= 1

    async def signed_url(self, blob: FoundBlob) -> str | None:
        return self.url

    async def remove(self, blob: str, session: SessionId | None, access: Access) -> None:
        self._judge()
        self.removed.append(blob)


class Scene:
    """A listener with the routes of a shelf, and a program that asks them."""

    def __init__(self, shelf: Shelf, served: Public) -> None:
        self.shelf = shelf
        self.served = served
        self.caller = CLIENT

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Ask on a connection of its own."""
        lines = [f"{method} {target} HTTP/1.1", "host: a"]
        lines += [f"content-length: {len(body)}"] if body or method == "POST" else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        peer = self.served.dial()
        answer = await peer.ask("\r\n".join([*lines, "", ""]).encode() + body, head=method == "HEAD")
        await peer.stream.aclose()
        return answer

    async def get(self, **headers: str) -> Answer:
        """Ask for the blob."""
        return await self.ask("GET", f"/v1/blobs/{BLOB}", b"", **headers)


@asynccontextmanager
async def scene_of(monkeypatch: pytest.MonkeyPatch, **more: Any) -> AsyncIterator[Scene]:
    """Serve a shelf."""
    shelf = Shelf()
    async with public(routes(shelf), **more) as served:
        scene = Scene(shelf, served)

        async def caller_of(_request: object) -> Caller:
            return scene.caller

        monkeypatch.setattr(blobs_module, "caller_of", caller_of)
        yield scene
        assert shelf.reading == 0


async def test_an_upload(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body passes through in pieces, with what the request says of it; the answer says what is kept, and where."""
    data = DATA * 20
    async with scene_of(monkeypatch) as scene:
        digest = digest_field(hashlib.sha256(data).digest())
        told = await scene.ask("POST", "/v1/blobs", data, content_type="audio/ogg; codecs=opus", content_digest=digest)
        assert (told.status, told.headers["location"]) == (201, f"/v1/blobs/{BLOB}")
        assert "idempotency-replayed" not in told.headers
        assert told.json() == {
            "blob": BLOB, "bytes": len(data), "content_type": "audio/ogg; codecs=opus",
            "sha256": hashlib.sha256(data).hexdigest(), "expires_at": "2026-11-30T00:00:00.000Z",
        }  # fmt: skip
        (asked,) = scene.shelf.uploads
        assert (asked.owner, asked.key) == (BlobOwner(SessionId(CLIENT.session), "ann"), b"")
        assert asked.payer == Payer("principal ann", "192.0.2.1")
        assert (asked.length, asked.sha256) == (len(data), hashlib.sha256(data).digest())
        assert max(scene.shelf.sizes) == PIECE_BYTES
        assert (await scene.ask("POST", "/v1/blobs", b"x", idempotency_key="k")).headers[
            "idempotency-replayed"
        ] == "true"
        assert (await scene.ask("POST", "/v1/blobs")).json()["bytes"] == 0
        assert scene.shelf.uploads[-1].content_type == OCTETS


async def test_a_key_belongs_to_its_session(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key of another session is another one."""
    async with scene_of(monkeypatch) as scene:
        scene.caller = PERSON
        for session in ("a", "b", "a"):
            await scene.ask("POST", f"/v1/blobs?session=s_{session * 24}", b"x", idempotency_key="k")
        one, other, again = (asked.key for asked in scene.shelf.uploads)
        assert one == again != other


async def test_a_body_in_chunks(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a length the bound is found on the way: 413, and the service sees the upload fail."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.bytes_max = 1500
        chunk = b"3e8\r\n" + DATA[:1000] + b"\r\n"
        head = b"POST /v1/blobs HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        told = await scene.served.dial().ask(head + chunk + b"0\r\n\r\n")
        assert (told.status, told.json()["bytes"], scene.shelf.uploads[-1].length) == (201, 1000, None)
        told = await scene.served.dial().ask(head + chunk + chunk + b"0\r\n\r\n")
        assert (told.status, told.json()["type"]) == (413, "urn:signald:problem:too-large")
        assert scene.shelf.raised == ["HttpProblem"]
        assert (await scene.ask("POST", "/v1/blobs", DATA)).status == 413
        assert len(scene.shelf.uploads) == 2


async def test_a_slow_service_holds_up_the_sender(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a piece is worked on, the socket is not read, however much its peer sends; one piece counts in the budget of all bodies."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.go = trio.Event()
        near, far = trio.testing.memory_stream_pair()
        read = 0

        async def counted(max_bytes: int | None = None) -> bytes:
            nonlocal read
            data = bytes(await receive_some(max_bytes))
            read += len(data)
            return data

        receive_some = near.receive_some
        near.receive_some = counted  # type: ignore[method-assign]
        scene.served.nursery.start_soon(scene.served.server.serve_stream, near, "192.0.2.1")
        peer = HttpPeer(far)
        data = bytes(900_000)
        await peer.send(b"POST /v1/blobs HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
        await trio.sleep(100)
        assert PIECE_BYTES <= read <= 2 * PIECE_BYTES + 4 * 16_384
        assert scene.served.api.counts.bodies_held == PIECE_BYTES
        scene.shelf.go.set()
        assert (await peer.answer()).json()["bytes"] == len(data)
        await far.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.served.api.counts.bodies_held == 0


async def test_a_cut_upload(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that goes, or is silent, before its body is whole: the service is told, and the body never passes for whole."""
    async with scene_of(monkeypatch) as scene:
        for silent in (False, True):
            peer = scene.served.dial()
            await peer.send(b"POST /v1/blobs HTTP/1.1\r\nhost: a\r\ncontent-length: 10000\r\n\r\n" + DATA[:5000])
            await trio.testing.wait_all_tasks_blocked()
            if not silent:
                await peer.stream.aclose()
            await trio.sleep(30)
        assert len(scene.shelf.raised) == 2
        assert set(scene.shelf.raised) <= {"ClientDisconnect", "Cancelled"}


@pytest.mark.parametrize(
    ("headers", "status", "field"),
    [
        ({"content_digest": digest_field(SHA)}, 201, ""),
        ({"content_digest": "sha-256=abc"}, 400, "content-digest"),
        ({"content_type": "audio"}, 400, "content-type"),
        ({"content_type": "audio/" + "x" * 200}, 400, "content-type"),
        ({"content_type": "text/html; charset=utf-8; a=\"b c\""}, 201, ""),
        ({"content_type": "text/html\xe9"}, 400, "content-type"),
        ({"content_encoding": "gzip"}, 415, ""),
        ({"content_encoding": "identity"}, 201, ""),
        ({"idempotency_key": "k" * 256}, 400, "idempotency-key"),
        ({"idempotency_key": "a b"}, 400, "idempotency-key"),
    ],
)  # fmt: skip
async def test_what_an_upload_says(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    status: int,
    field: str,
) -> None:
    """A field that cannot be used is named; a session that is not there is told before."""
    async with scene_of(monkeypatch) as scene:
        told = await scene.ask("POST", "/v1/blobs", DATA, **headers)
        assert told.status == status, told.body
        if field:
            assert told.json()["errors"][0]["field"] == field
        scene.shelf.refuses = "no_session"
        assert (await scene.ask("POST", "/v1/blobs", DATA, **headers)).status == 404


@pytest.mark.parametrize(
    ("because", "status", "kind"),
    [
        ("none", 501, "no-blobs"),
        ("no_session", 404, "unknown-session"),
        ("wrong_digest", 400, "wrong-digest"),
        ("key_taken", 422, "key-reused"),
        ("key_in_use", 409, "key-in-use"),
        ("shelf_full", 429, "blobs-full"),
        ("share", 429, "busy"),
        ("busy", 503, "busy"),
        ("slow", 408, "too-slow"),
        ("away", 503, "media-unavailable"),
    ],
)
async def test_refusals_of_an_upload(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    because: BlobRefusal,
    status: int,
    kind: str,
) -> None:
    """Each has a status and a word of its own; those that pass say when."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.refuses = because
        told = await scene.ask("POST", "/v1/blobs", DATA)
        assert (told.status, told.json()["type"]) == (status, f"urn:signald:problem:{kind}")
        assert told.headers.get("retry-after") == ("7" if status in (409, 429, 503) else None)
        scene.shelf.refuses, scene.shelf.away = None, True
        assert (await scene.ask("POST", "/v1/blobs", DATA)).json()["type"] == "urn:signald:problem:store-unavailable"


async def test_an_early_refusal_takes_no_body(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that waits for 100 Continue is refused before it sends a byte, and one that is let in is told to go on."""
    async with scene_of(monkeypatch) as scene:
        head = b"POST /v1/blobs HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
        scene.shelf.refuses = "shelf_full"
        told = await scene.served.dial().ask(head)
        assert (told.status, told.headers["connection"]) == (429, "close")
        scene.shelf.refuses = None
        peer = scene.served.dial()
        assert (await peer.ask(head)).status == 100
        assert (await peer.ask(b"abc")).json()["bytes"] == 3


async def test_a_blob_is_read(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes, with what makes them safe to show and to check."""
    async with scene_of(monkeypatch) as scene:
        told = await scene.get()
        assert (told.status, told.body) == (200, DATA)
        wanted = {
            "content-type": "audio/ogg", "content-length": str(len(DATA)), "etag": ETAG, "accept-ranges": "bytes",
            "cache-control": "private, no-cache", "content-disposition": f'attachment; filename="{BLOB}"',
            "x-content-type-options": "nosniff", "content-security-policy": "sandbox", "repr-digest": digest_field(SHA),
        }  # fmt: skip
        assert wanted.items() <= told.headers.items()
        head = await scene.ask("HEAD", f"/v1/blobs/{BLOB}", range="bytes=0-9")
        assert (head.status, head.body) == (200, b"")
        assert wanted.items() <= head.headers.items()
        assert "content-range" not in head.headers


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({"range": "bytes=100-299"}, 206, slice(100, 300)),
        ({"range": "bytes=1500-"}, 206, slice(1500, None)),
        ({"range": "bytes=-1"}, 206, slice(-1, None)),
        ({"range": "bytes=0-99999999"}, 206, slice(None)),
        ({"range": "bytes=0-1", "if_range": ETAG}, 206, slice(0, 2)),
        ({"range": "bytes=0-1", "if_range": '"other"'}, 200, slice(None)),
        ({"range": "bytes=0-1,4-5"}, 200, slice(None)),
        ({"range": "bytes=99999-"}, 416, None),
        ({"if_none_match": ETAG}, 304, None),
        ({"if_none_match": f'W/{ETAG}, "x"', "range": "bytes=0-1"}, 304, None),
        ({"if_none_match": '"x"'}, 200, slice(None)),
        ({"if_match": '"x"'}, 412, None),
        ({"if_match": ETAG, "range": "bytes=7-7"}, 206, slice(7, 8)),
    ],
)
async def test_parts_and_conditions(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    status: int,
    part: slice | None,
) -> None:
    """The part that is asked for, and no byte where the reader has them or asks for others."""
    async with scene_of(monkeypatch) as scene:
        told = await scene.get(**headers)
        assert told.status == status
        if part is not None:
            assert told.body == DATA[part]
            assert told.headers["content-length"] == str(len(told.body))
        if status == 206 and part is not None:
            start, end, _ = part.indices(len(DATA))
            assert told.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
        if status == 416:
            assert told.headers["content-range"] == f"bytes */{len(DATA)}"
        if status == 304:
            assert (told.body, told.headers["etag"]) == (b"", ETAG)


async def test_bytes_that_fail_on_their_way(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first byte it is an answer of its own; later the connection is cut, so that a part never passes for the whole."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.breaks_at = 0
        assert (await scene.get()).status == 503
        scene.shelf.breaks_at = 3000
        peer = scene.served.dial()
        come = await peer.ask_and_end(b"GET /v1/blobs/%b HTTP/1.1\r\nhost: a\r\n\r\n" % BLOB.encode())
        head, _, body = come.partition(b"\r\n\r\n")
        assert b"content-length: 10240" in head
        assert body == DATA[:3000]


async def test_a_reader_that_is_too_slow(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is not taken in its time ends, and gives its place back; so does one whose reader goes."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.go = trio.Event()
        for goes in (False, True):
            peer = scene.served.dial()
            await peer.send(b"GET /v1/blobs/%b HTTP/1.1\r\nhost: a\r\n\r\n" % BLOB.encode())
            await trio.testing.wait_all_tasks_blocked()
            assert scene.shelf.reading == 1
            if goes:
                await peer.stream.aclose()
            await trio.sleep(1 if goes else 65)
            assert scene.shelf.reading == 0


async def test_a_redirect(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bytes can be read elsewhere, the reader is sent there; what needs no bytes is answered here."""
    async with scene_of(monkeypatch) as scene:
        scene.shelf.url = "https://s3.example/b?sig=1"
        told = await scene.get(range="bytes=0-1")
        assert (told.status, told.headers["location"], told.body) == (307, scene.shelf.url, b"")
        assert (told.headers["cache-control"], told.headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert (await scene.get(if_none_match=ETAG)).status == 304
        assert (await scene.ask("HEAD", f"/v1/blobs/{BLOB}")).status == 200


async def test_what_a_caller_may_do_is_handed_on(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A party asks as its session, a worker must name one; a person and a service ask for themselves; an anonymous person may nothing."""
    async with scene_of(monkeypatch) as scene:
        other = "s_" + "b" * 24
        found = scene.shelf.finds
        await scene.get()
        assert found.pop() == (BLOB, CLIENT.session, Access(owner="ann"))
        assert (await scene.ask("GET", f"/v1/blobs/{BLOB}?session={other}")).status == 403
        scene.caller = WORKER
        assert (await scene.get()).status == 400
        await scene.ask("GET", f"/v1/blobs/{BLOB}?session={other}")
        assert found.pop() == (BLOB, other, Access(worker="w_1"))
        scene.caller = PERSON
        await scene.get()
        assert found.pop() == (BLOB, None, Access(owner="ann"))
        scene.caller = BACKEND
        await scene.get()
        assert found.pop() == (BLOB, None, Access(tenant="acme"))
        scene.caller = Caller("person", "", "")
        assert (await scene.get()).status == 401
        assert (await scene.ask("POST", "/v1/blobs?session=s_x", b"x")).status == 401
        assert found == []


async def test_a_blob_is_removed(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """204; what is no id, and what is not there, are 404; a node without media says 501 to everything."""
    async with scene_of(monkeypatch) as scene:
        assert (await scene.ask("DELETE", f"/v1/blobs/{BLOB}")).status == 204
        assert scene.shelf.removed == [BLOB]
        for odd in ("b_x", "x", BLOB + "x", "b_" + "%2e" * 44, "b_" + "x" * 43 + "%2f"):
            assert (await scene.ask("DELETE", f"/v1/blobs/{odd}")).status == 404
        scene.shelf.refuses = "no_blob"
        assert (await scene.ask("DELETE", f"/v1/blobs/{BLOB}")).json()["type"] == "urn:signald:problem:unknown-blob"
        assert (await scene.get()).status == 404
        scene.shelf.refuses = "none"
        assert {(await scene.ask(method, target)).status for method, target in (
            ("DELETE", f"/v1/blobs/{BLOB}"), ("GET", f"/v1/blobs/{BLOB}"), ("POST", "/v1/blobs"),
        )} == {501}  # fmt: skip
