"""Blobs of the SDK against a server in memory that breaks wherever it can: one blob is kept, and its bytes come whole or not at all."""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.blob_core import Blob
from signald.sdk.errors import ApiRefused, BlobFailed, SessionGone
from signald.sdk.front.blobs import PIECE_S, Blobs
from signald.sdk.front.sources import MEMORY_BYTES_MAX, SPOOL_BYTES_MAX, Source
from signald.sdk.party_records import Over
from tests.sdk.blob_server import Asking, BlobServer, Fault, session_of

DATA = SeededEntropy(1).token_bytes(100_000)


WITH_FILES_S = 0.2
"""How long all tasks must be idle before the virtual time goes on, where some of them wait for a thread that reads a file."""


def scene(
    test: Callable[[BlobServer, Blobs, Asking], Awaitable[None]], session: str | None = None, idle_s: float = 0.0
) -> None:
    """Run `test` in virtual time."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = BlobServer(nursery)
            await test(server, *server.blobs(session))
            nursery.cancel_scope.cancel(reason="the test is over")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=idle_s))


async def in_pieces(data: bytes, size: int = 7000, each_s: float = 0.0) -> AsyncIterator[bytes]:
    """Yield `data` as a recorder does."""
    for at in range(0, len(data), size):
        await trio.sleep(each_s)
        yield data[at : at + size]


async def parts(blobs: Blobs, blob: Blob, start: int = 0, end: int | None = None) -> bytes:
    """Return what a stream yields."""
    async with blobs.named(blob.id).open(start, end) as stream:
        assert stream.size == blob.size
        assert stream.content_type == blob.content_type or start >= blob.size
        return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("size", [0, 1, 20_000, MEMORY_BYTES_MAX - 1, MEMORY_BYTES_MAX + 1, 3 * MEMORY_BYTES_MAX])
def test_each_source_brings_its_bytes(size: int, tmp_path: Path) -> None:
    """A path, bytes and an iterator are kept as they are, and read back whole and in parts."""
    data = (DATA * (size // len(DATA) + 1))[:size]
    path = tmp_path / "voice"
    path.write_bytes(data)

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        for source in (path, str(path), data, bytearray(data), in_pieces(data, 70_000)):
            blob = await blobs.upload(source, "audio/ogg")
            assert server.kept[blob.id] == (data, "audio/ogg")
            assert (blob.size, blob.content_type, blob.sha256) == (size, "audio/ogg", hashlib.sha256(data).hexdigest())
        assert await blobs.named(blob.id).read() == data
        for start, end in ((0, 1), (3, 17), (size // 2, None), (size, None), (size + 5, size + 9), (0, size + 5)):
            assert await parts(blobs, blob, start, end) == data[start:end]
        assert len({headers["idempotency-key"] for _, line, headers in server.asked if line.startswith("POST")}) == 5

    scene(test, idle_s=WITH_FILES_S)


FAULTS = [
    Fault(refused=True), Fault(cut_body=1), Fault(cut_body=50_000), Fault(cut_body=100_000), Fault(silent=True),
    Fault(cut_answer=0), Fault(cut_answer=30), Fault(answer=(503, "busy", {"retry-after": "3"})),
    Fault(answer=(409, "key-in-use", {"retry-after": "20"})), Fault(answer=(429, "busy", {"retry-after": "1"})),
    Fault(answer=(502, "", {})), Fault(answer=(408, "too-slow", {})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("bytes", fault) for fault in FAULTS] + [("path", FAULTS[2]), ("path", FAULTS[6]), ("iterator", FAULTS[2])],
    ids=lambda value: str(value)[:60],
)
def test_an_upload_that_breaks_is_made_again(fault: Fault, kind: str, tmp_path: Path) -> None:
    """With the same key and the same bytes, whatever the source is: one blob is kept, and what a node asks to wait is waited."""
    path = tmp_path / "voice"
    path.write_bytes(DATA)

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        server.faults += [fault, Fault(refused=True), fault]
        begin = trio.current_time()
        sources: dict[str, Source] = {"bytes": DATA, "path": path, "iterator": in_pieces(DATA)}
        source = sources[kind]
        blob = await blobs.upload(source, "audio/ogg")
        assert server.kept == {blob.id: (DATA, "audio/ogg")}
        hint_s = float(fault.answer[2].get("retry-after", 0)) if fault.answer else 0.0
        assert 2 * hint_s <= trio.current_time() - begin < 2 * hint_s + 50
        said = [(headers["idempotency-key"], headers["content-digest"]) for _, _, headers in server.asked]
        assert len(set(said)) == 1

    scene(test, idle_s=WITH_FILES_S if kind == "path" else 0)


def test_an_upload_ends_in_its_time() -> None:
    """A service that is away for good, and one that takes nothing, cost the time that the caller gives; the key finds what was kept."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        for fault in (Fault(refused=True), Fault(silent=True)):
            server.faults += [fault] * 1000
            begin = trio.current_time()
            with pytest.raises(BlobFailed) as late:
                await blobs.upload(DATA, key="k", timeout_s=60)
            assert (late.value.reason, trio.current_time() - begin) == ("late", 60)
            server.faults.clear()
        assert len(server.kept) == 1
        blob = await blobs.upload(DATA, key="k")
        assert list(server.kept) == [blob.id]
        # The time is for the transfer: what is recorded meanwhile takes as long as it takes.
        assert (await blobs.upload(in_pieces(DATA, 1000, 0.1), timeout_s=5)).size == len(DATA)

    scene(test)


def test_what_is_refused_raises() -> None:
    """With the words of the problem, at once and with nothing asked again; no token is in the text."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        for status, kind in (
            (413, "too-large"), (403, "forbidden"), (404, "unknown-session"), (422, "key-reused"),
            (429, "blobs-full"), (501, "no-blobs"), (400, "bad-fields"),
        ):  # fmt: skip
            server.faults.append(Fault(answer=(status, kind, {})))
            with pytest.raises(ApiRefused) as refused:
                await blobs.upload(DATA, key="secret-key")
            assert (refused.value.status, refused.value.type) == (status, f"x#{kind}")
            assert "secret" not in str(refused.value) + repr(refused.value)
        assert len(server.asked) == 7
        with pytest.raises(ApiRefused, match="404"):
            await blobs.named("b_" + "x" * 44).read()

    scene(test)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
def test_arguments_that_signald_would_refuse(key: str) -> None:
    """Nothing is asked."""

    async def nothing() -> AsyncIterator[bytes]:
        yield "text"  # type: ignore[misc]

    async def test(server: BlobServer, blobs: Blobs, asking: Asking) -> None:
        for content_type in ("", "audio", "a/b\r\nx: y", "a/" + "b" * 127, "ä/b"):
            with pytest.raises(ValueError, match="content_type"):
                await blobs.upload(DATA, content_type)
        with pytest.raises(ValueError, match="key"):
            await blobs.upload(DATA, key=key)
        with pytest.raises(ValueError, match="iterator yields str"):
            await blobs.upload(nothing())
        with pytest.raises(ValueError, match="not int"):
            await blobs.upload(5)  # type: ignore[arg-type]
        for start, end in ((-1, None), (5, 5), (5, 1)):
            with pytest.raises(ValueError, match="part"):
                async with blobs.named("b_1").open(start, end):
                    pass
        asking.credentials.api = False
        for wrong in (blobs.upload(DATA), blobs.named("b_1").read(), blobs.named("b_1").delete()):
            with pytest.raises(ValueError, match="api=True"):
                await wrong
        assert not server.asked

    scene(test)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A file that is missing is an OSError, a directory and a pipe are said to be no files, and none of them waits."""

    os.mkfifo(tmp_path / "pipe")

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        with pytest.raises(FileNotFoundError):
            await blobs.upload(tmp_path / "missing")
        for odd in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(ValueError, match="no regular file"):
                await blobs.upload(odd)
        assert not server.asked

    scene(test)


@pytest.mark.parametrize("change", [b"", DATA[:-1], DATA[:50_000] + b"x" + DATA[50_001:]])
def test_a_file_that_changes_meanwhile_is_not_kept_half(change: bytes, tmp_path: Path) -> None:
    """The digest was said before: what is sent in another state is refused by the node, or ends early here."""
    path = tmp_path / "voice"
    path.write_bytes(DATA)

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        async def meddle() -> None:
            await trio.sleep(1)
            path.write_bytes(change)

        server.faults += [Fault(answer=(503, "busy", {"retry-after": "3"}))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meddle)
            with pytest.raises(BlobFailed) as changed:
                await blobs.upload(path)
        assert changed.value.reason == "changed"
        assert not server.kept

    scene(test, idle_s=WITH_FILES_S)


def test_an_iterator_is_bounded_and_closed() -> None:
    """One that yields more than is taken is closed at once, and nothing is asked."""
    closed: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        count = 0
        try:
            while True:
                count += 1
                yield bytes(100_000)
        finally:
            closed.append(count)

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        for most in (MEMORY_BYTES_MAX // 2, SPOOL_BYTES_MAX // 4):
            with pytest.raises(BlobFailed) as long:
                await blobs.upload(endless(), bytes_max=most)
            assert long.value.reason == "too_long"
            assert closed.pop() * 100_000 - most <= 100_000
        assert not server.asked

    scene(test, idle_s=WITH_FILES_S)


READ_FAULTS = [
    Fault(refused=True), Fault(cut_answer=0), Fault(cut_answer=1), Fault(cut_answer=33_333), Fault(silent=True),
    Fault(answer=(503, "busy", {"retry-after": "3"})), Fault(answer=(502, "", {})),
    Fault(without_ranges=True, cut_answer=70_000), Fault(where="http://media/x?sig=1"),
]  # fmt: skip


@pytest.mark.parametrize("fault", READ_FAULTS, ids=lambda fault: str(fault)[:60])
@pytest.mark.parametrize(("start", "end"), [(0, None), (10_000, 90_000)])
def test_a_download_that_breaks_goes_on_where_it_was(fault: Fault, start: int, end: int | None) -> None:
    """Over any breaks the bytes are those of the blob, each once."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        blob = await blobs.upload(DATA, "audio/ogg")
        server.faults += [fault, fault, Fault(cut_answer=5000), fault]
        assert await parts(blobs, blob, start, end) == DATA[start:end]
        server.faults += [fault, fault, Fault(cut_answer=5000), fault]
        assert await blobs.named(blob.id).read() == DATA

    scene(test)


def test_a_signed_url_gets_no_credential() -> None:
    """Bytes that are elsewhere are fetched there without the token. What leads out of HTTP or TLS is not followed."""

    async def test(server: BlobServer, blobs: Blobs, asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        server.faults += [Fault(where=f"http://media:9000/bucket/{blob.id}?sig=a%2Fb")]
        server.asked.clear()
        assert await parts(blobs, blob, 5, 50) == DATA[5:50]
        (_, _, shown), (host, line, headers) = server.asked
        assert (host, line) == ("media:9000", f"GET /bucket/{blob.id}?sig=a%2Fb")
        assert "authorization" in shown
        assert "authorization" not in headers
        assert (headers["range"], headers["host"]) == ("bytes=5-49", "media:9000")
        asking.url = "wss://node:80/v1/client"
        for where in (
            "http://media/x",
            "file:///etc/passwd",
            "/v1/jobs",
            "https://u:p@media/x",
            "https://",
            "https://[x",
        ):
            server.faults += [Fault(where=where)]
            server.asked.clear()
            assert await parts(blobs, blob, 5, 50) == DATA[5:50]
            assert {host for host, _, _ in server.asked} == {"node:80"}

    scene(test)


def test_other_bytes_are_noticed() -> None:
    """A blob read whole has its digest; another one in the middle, a wrong place and an encoding are no part of it."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        faults = [
            [Fault(spoil=lambda data: data[:-1] + b"x")],
            [Fault(cut_answer=1000), Fault(spoil=lambda data: data[:-1])],
            [Fault(headers={"content-encoding": "gzip"})],
            [Fault(cut_answer=1000), Fault(answer=(206, "", {"content-range": "bytes 0-99999/100000"}))],
        ]
        for some in faults:
            server.faults += some
            with pytest.raises(BlobFailed) as failed:
                await blobs.named(blob.id).read()
            assert failed.value.reason == "changed", some
            server.faults.clear()
        assert await blobs.named(blob.id).read() == DATA

    scene(test)


def test_reading_is_bounded() -> None:
    """By bytes before any is fetched, and by time: for a whole `read`, and for each piece of what comes as it is needed."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        with pytest.raises(BlobFailed) as long:
            await blobs.named(blob.id).read(bytes_max=len(DATA) - 1)
        assert long.value.reason == "too_long"
        assert await blobs.named(blob.id).read(bytes_max=len(DATA)) == DATA
        begin = trio.current_time()
        server.faults += [Fault(cut_answer=1000), *[Fault(refused=True)] * 1000]
        with pytest.raises(BlobFailed) as late:
            await blobs.named(blob.id).read(timeout_s=30)
        assert (late.value.reason, trio.current_time() - begin) == ("late", 30)
        server.faults.clear()
        async with blobs.named(blob.id).open() as stream:
            got = await anext(stream)
            # An application that plays what it has takes its time.
            await trio.sleep(3 * PIECE_S)
            while stream.position < 60_000:
                got += await anext(stream)
            server.faults += [Fault(silent=True)] * 1000
            await stream._drop()
            begin = trio.current_time()
            with pytest.raises(BlobFailed, match="late"):
                await anext(stream)
            assert trio.current_time() - begin == pytest.approx(PIECE_S)
        assert DATA.startswith(got)

    scene(test)


def test_the_newest_token_is_shown() -> None:
    """A token that ran out while there was no connection is no refusal; one that is the newest on a living connection is."""

    async def test(server: BlobServer, blobs: Blobs, asking: Asking) -> None:
        link, asking.current = asking.current, None
        server.tokens = {"t1"}

        async def come_back() -> None:
            await trio.sleep(10)
            asking.credentials.api_token = "t1"
            asking.current = link

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            blob = await blobs.upload(DATA)
        assert server.kept[blob.id][0] == DATA
        server.tokens = set()
        with pytest.raises(ApiRefused, match="401"):
            await blobs.upload(DATA)

    scene(test)


def test_after_the_end_of_the_session_few_tries_are_made() -> None:
    """A node that answers still tells of the blobs; where none does, the end of the session is the reason."""

    async def test(server: BlobServer, blobs: Blobs, asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        asking.over = Over(None, "bye", orderly=True)
        assert await blobs.named(blob.id).read() == DATA
        server.faults += [Fault(refused=True)] * 100
        for wrong in (blobs.upload(DATA), blobs.named(blob.id).read()):
            with pytest.raises(SessionGone, match="bye"):
                await wrong
        assert len(server.faults) == 100 - 12

    scene(test)


def test_a_blob_is_removed_once() -> None:
    """An answer that was lost is made up for by the next one; what never was there is said."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        server.faults.append(Fault(silent=True))
        await blobs.named(blob.id).delete()
        assert not server.kept
        with pytest.raises(ApiRefused, match="404"):
            await blobs.named(blob.id).delete()

    scene(test)


def test_a_worker_names_its_session_and_no_name_leads_elsewhere() -> None:
    """What a peer names is an id, or there is no such blob: no request is made of it."""

    async def test(server: BlobServer, blobs: Blobs, _asking: Asking) -> None:
        blob = await blobs.upload(DATA)
        await blobs.named(blob.id).read()
        await blobs.named(blob.id).delete()
        assert [session_of(line) for _, line, _ in server.asked] == [["s_1&x=2"]] * 3
        server.asked.clear()
        for odd in ("../jobs/j_1", "..", "b_", "b_a/b", "b_a?x", "b_é", "j_1", "b_a\r\nx: y", "b_a#"):
            with pytest.raises(ApiRefused, match="404"):
                await blobs.named(odd).read()
        assert not server.asked

    scene(test, "s_1&x=2")
