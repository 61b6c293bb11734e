"""A node's half of blobs, in memory and by the contract alone, with faults that a test orders; and a party that asks it."""

import base64
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio
import trio.testing
from attrs import define, field

from signald.ids import Entropy, SeededEntropy
from signald.sdk.credentials import Credentials
from signald.sdk.front.api import Api
from signald.sdk.front.blobs import Blobs
from signald.sdk.link import Link
from signald.sdk.party_records import Over

URL = "ws://node:80/v1/client"


class Asking:
    """A party as its requests see it."""

    def __init__(self) -> None:
        self.current: Link | None = Link(URL, 0.0, moving=False, token=None)
        self.url = URL
        self.credentials = Credentials(None, api=True)
        self.credentials.api_token = "t0"
        self.entropy: Entropy = SeededEntropy(5)
        self.over: Over | None = None

    def failure(self) -> Exception | None:
        """Return no error."""
        return None


@define
class Fault:
    """What goes wrong with one request."""

    refused: bool = False
    """Nothing listens."""
    cut_body: int | None = None
    """The connection breaks after so many bytes of the body."""
    answer: tuple[int, str, dict[str, str]] | None = None
    """(status, end of the problem's type, headers): said before the body is read."""
    cut_answer: int | None = None
    """It was done, and the answer breaks off after so many bytes."""
    silent: bool = False
    """It was done, and no answer comes."""
    without_ranges: bool = False
    """A proxy between that sends all."""
    spoil: Callable[[bytes], bytes] = lambda data: data
    """Another blob's bytes."""
    where: str = ""
    """They are elsewhere."""
    headers: dict[str, str] = field(factory=dict)
    """More of the answer."""


class BlobServer:
    """Keeps blobs."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.kept: dict[str, tuple[bytes, str]] = {}
        """Blob → its bytes and content type."""
        self.faults: deque[Fault] = deque()
        """Of the requests to come; without any they go well."""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """(host, method and target, headers) of each request that came."""
        self.tokens = {"t0"}
        self._keys: dict[str, str] = {}
        self._nursery = nursery

    async def open_stream(self, url: str, _context: SSLContext | None) -> trio.abc.Stream:
        """Connect. Raises OSError."""
        await trio.lowlevel.checkpoint()
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.refused:
            raise ConnectionRefusedError
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, urlsplit(url).netloc, theirs, fault)
        return ours

    def blobs(self, session: str | None = None) -> tuple[Blobs, Asking]:
        """Return the blobs of a party."""
        asking = Asking()
        return Blobs(Api(asking, None, self.open_stream), session), asking

    async def _serve(self, host: str, stream: trio.StapledStream[Any, Any], fault: Fault) -> None:
        connection = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = bytearray()
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(4096)))
                elif isinstance(event, h11.Request):
                    head = event
                    if fault.answer is not None:
                        break
                elif isinstance(event, h11.Data):
                    body += event.data
                    if fault.cut_body is not None and len(body) >= fault.cut_body:
                        return
                elif isinstance(event, h11.ConnectionClosed):
                    return
            assert head is not None
            await self._answer(host, connection, stream, head, bytes(body), fault)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(
        self,
        host: str,
        connection: h11.Connection,
        stream: trio.StapledStream[Any, Any],
        head: h11.Request,
        body: bytes,
        fault: Fault,
    ) -> None:
        headers = {name.decode(): value.decode() for name, value in head.headers}
        target = head.target.decode()
        self.asked.append((host, f"{head.method.decode()} {target}", headers))
        if fault.answer is not None:
            status, kind, said = fault.answer
            answer = (status, said, json.dumps({"type": f"x#{kind}", "title": kind}).encode())
        elif fault.where:
            answer = (307, {"location": fault.where}, b"")
        elif host == "node:80" and headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            answer = (401, {}, b'{"type":"x#unauthenticated"}')
        elif head.method == b"POST":
            answer = self._upload(headers, body)
        elif head.method == b"DELETE":
            answer = (204, {}, b"") if self.kept.pop(_id(target), None) else (404, {}, b'{"type":"x#unknown-blob"}')
        else:
            answer = self._read(_id(target), headers.get("range") if not fault.without_ranges else None, fault)
        if fault.silent:
            await trio.sleep_forever()
        status, said, content = answer
        response = h11.Response(
            status_code=status, headers=[*said.items(), *fault.headers.items(), ("content-length", str(len(content)))]
        )
        await stream.send_all(connection.send(response) or b"")
        if fault.cut_answer is not None:
            content = content[: fault.cut_answer]
        for at in range(0, len(content), 1000):
            await stream.send_all(content[at : at + 1000])

    def _upload(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        digest = hashlib.sha256(body).digest()
        if headers["content-digest"] != f"sha-256=:{base64.b64encode(digest).decode()}:":
            return 400, {}, b'{"type":"x#wrong-digest"}'
        key = headers["idempotency-key"]
        replayed = key in self._keys
        blob = self._keys.setdefault(key, f"b_{len(self._keys):044d}")
        if replayed and self.kept[blob] != (body, headers["content-type"]):
            return 422, {}, b'{"type":"x#key-reused"}'
        self.kept[blob] = (body, headers["content-type"])
        shown = {
            "blob": blob, "bytes": len(body), "content_type": headers["content-type"], "sha256": digest.hex(),
            "expires_at": "2026-12-30T00:00:00Z",
        }  # fmt: skip
        return 201, {"idempotency-replayed": "true"} if replayed else {}, json.dumps(shown).encode()

    def _read(self, blob: str, wanted: str | None, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        if blob not in self.kept:
            return 404, {}, b'{"type":"x#unknown-blob"}'
        data, content_type = self.kept[blob]
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = {"content-type": content_type, "repr-digest": f"sha-256=:{digest}:"}
        data = fault.spoil(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if found is None:
            return 200, headers, data
        start, end = int(found[1]), min(int(found[2] or 1 << 60) + 1, len(data))
        if start >= len(data):
            return 416, {"content-range": f"bytes */{len(data)}"}, b'{"type":"x#range"}'
        return 206, headers | {"content-range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end]


def _id(target: str) -> str:
    return urlsplit(target).path.rpartition("/")[2]


def session_of(target: str) -> list[str]:
    """Return the sessions that a target names."""
    return parse_qs(urlsplit(target).query).get("session", [])
