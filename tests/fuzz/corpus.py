"""Inputs that are always tried: small files beside this one, and those too large to keep as files.

An input of `frames`, `json` and `handshakes` begins with a line that says on which connection it is sent (`party.Stage`)
and how; all others are the bytes themselves. To keep a failure for ever, move its file here.
"""

import hashlib
from pathlib import Path

from signald.testing.websocket import frame, request
from tests.fuzz.inputs import LIVE

ROOT = Path(__file__).parent / "corpus"
MANY = 100_000
TEN_MB = 10_000_000


def kept(target: str) -> dict[str, bytes]:
    """Return the inputs of `target` by their names; a whole node gets those of its parts as well."""
    if target == "live":
        return {f"{kind}-{name}": kind.encode() + b"\n" + data for kind in LIVE for name, data in kept(kind).items()}
    files = sorted((ROOT / target).iterdir()) if (ROOT / target).is_dir() else []
    return {file.name: file.read_bytes() for file in files} | LARGE.get(target, {})


def save(folder: Path, target: str, data: bytes) -> Path:
    """Write an input that failed; its name is that of its content."""
    place = folder / target
    place.mkdir(parents=True, exist_ok=True)
    path = place / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


_DEEP = b'{"type":"message","seq":1,"data":' + b"[" * MANY
_LARGE_JSON = {
    "deep-nesting": b"connected text\n" + _DEEP + b"]" * MANY + b"}",
    "deep-nesting-as-an-opening": b'client text\n{"type":"connect","meta":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "unclosed-nesting": b"connected text\n" + _DEEP,
    "integer-of-5000-digits": b'connected text\n{"type":"message","seq":' + b"1" * 5000 + b',"data":1}',
    "data-of-5000-digits": b'connected text\n{"type":"message","seq":1,"data":' + b"1" * 5000 + b"}",
    "string-of-10-mb": b'connected text\n{"type":"message","seq":1,"data":"' + b"x" * TEN_MB + b'"}',
    "string-of-10-mb-to-a-worker": b'registered text\n{"type":"app_state","capacity":1,"x":"' + b"x" * TEN_MB + b'"}',
    "ten-thousand-keys": b'client text\n{"type":"connect",'
    + b",".join(b'"k%d":1' % number for number in range(5000))
    + b"}",
}
_LARGE_FRAMES = {
    "fragments-without-end": b"connected frames\n" + frame(1, b"{", fin=False) + frame(0, b"", fin=False) * 5000,
    "pings-without-end": b"connected frames\n" + frame(9, b"p") * 20_000,
    "one-read-of-10000-messages": b"connected frames\n" + frame(1, b'{"type":"ping"}') * 10_000,
    "messages-over-the-rate": b"connected frames\n"
    + b"".join(frame(1, b'{"type":"message","seq":%d,"data":1}' % seq) for seq in range(1, 1000)),
}
_LARGE_HANDSHAKES = {
    "endless-line": b"raw frames\n" + b"GET /" + b"a" * 20_000,
    "endless-header": b"raw frames\n" + request("/v1/client", (b"x-long", b"y" * 30_000)),
    "headers-without-end": b"raw frames\n" + request("/v1/client", *[(b"x-%d" % n, b"y") for n in range(500)]),
    "proxies-without-end": b"raw frames\n"
    + request("/v1/client", (b"x-forwarded-for", b",".join([b"10.0.0.1"] * 1000))),
}
_LARGE_HTTP = {
    "endless-line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "headers-without-end": b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    "body-of-1-mb": b"POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    "pipeline": b"GET /readyz?verbose HTTP/1.1\r\nhost: a\r\n\r\n" * 500,
}
_LARGE_TOML = {
    "deep-nesting": b"[log]\nlevel = " + b"[" * MANY,
    "deep-tables": b"[" + b"a." * 50_000 + b"a]\n",
    "integer-of-5000-digits": b"[listen]\nbacklog = " + b"1" * 5000,
    "more-than-a-page": b"# " + b"x" * 2_000_000,
}
LARGE: dict[str, dict[str, bytes]] = {
    "json": _LARGE_JSON,
    "frames": _LARGE_FRAMES,
    "handshakes": _LARGE_HANDSHAKES,
    "http": _LARGE_HTTP,
    "toml": _LARGE_TOML,
}
