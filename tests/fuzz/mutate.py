"""Damage, drawn from a `random.Random`: the same one gives the same damage, and Hypothesis may stand behind it."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from signald.testing.websocket import frame

T = TypeVar("T")

TOKENS = (
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\r\n", b"\r\n\r\n", b"\n", b"\x7f", b"%00", b"{", b"}", b"[",
    b"]", b'"', b"\\", b"\\u0000", b"\\ud800", b"NaN", b"1e400", b"-0", b"9007199254740993", b"__proto__", b"://", b"..", b";", b",",
    b"=",
)  # fmt: skip
"""What parsers of all kinds stumble over."""

NASTY_JSON = (
    b"null", b"true", b"false", b"0", b"-1", b"1.5", b"1e400", b"-1e-400", b"NaN", b"Infinity", b"9007199254740993",
    b"18446744073709551616", b"1" * 500, b'""', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\x00"', b'"\xff"', b'"\xed\xa0\x80"',
    b'"__proto__"', b"{}", b"[]", b"[[[[[[]]]]]]", b'{"a":1,"a":2}', b'{"__proto__":{"x":1}}', b'"' + b"x" * 300 + b'"', b"01",
    b"+1", b".5", b"'x'", b"undefined", b"/**/1", b"1,", b"",
)  # fmt: skip
"""Values, or what looks like one, to stand where another was meant."""


def pick(rng: Random, options: Sequence[T]) -> T:
    """Return one of `options`."""
    return options[rng.randrange(len(options))]


def _place(rng: Random, data: bytes | bytearray) -> int:
    return rng.randint(0, len(data))


def flip_bits(data: bytes, rng: Random) -> bytes:
    """Turn some bits over."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data: bytes, rng: Random) -> bytes:
    """Leave out a part, or everything behind a place."""
    start = _place(rng, data)
    return data[:start] + (data[start + rng.randint(1, 8) :] if rng.random() < 0.6 else b"")


def double(data: bytes, rng: Random) -> bytes:
    """Say a part again, once or many times."""
    start, stop = sorted((_place(rng, data), _place(rng, data)))
    return data[:stop] + data[start:stop] * pick(rng, (1, 1, 2, 20)) + data[stop:]


def insert(data: bytes, rng: Random) -> bytes:
    """Put something in that does not belong there."""
    place = _place(rng, data)
    return data[:place] + pick(rng, TOKENS) * pick(rng, (1, 1, 1, 50)) + data[place:]


def overwrite(data: bytes, rng: Random) -> bytes:
    """Put random bytes over others: lengths that lie, kinds that do not exist."""
    place = _place(rng, data)
    size = rng.randint(1, 8)
    return data[:place] + rng.randbytes(size) + data[place + size :]


DAMAGE: tuple[Callable[[bytes, Random], bytes], ...] = (flip_bits, cut, double, insert, overwrite)


def damage(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Do some of all this to `data`; sometimes go on with the end of another input."""
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        if others and rng.random() < 0.15:
            other = pick(rng, others)
            data = data[: _place(rng, data)] + other[_place(rng, other) :]
        else:
            data = pick(rng, DAMAGE)(data, rng)
    return data[:200_000]


def json_like(value: Any, rng: Random, share: float = 0.08) -> bytes:
    """Write `value` as JSON, with some of its values, keys, commas and brackets not what they should be."""
    if rng.random() < share:
        return bytes(pick(rng, NASTY_JSON))
    if isinstance(value, dict):
        parts = []
        for name, inner in value.items():
            key = json.dumps(name).encode()
            if rng.random() < share / 2:
                key = pick(rng, (b'"__proto__"', b'"type"', b'"seq"', b'"\\u0000"', b"7", b'""', key.upper()))
            if rng.random() >= share / 2:
                parts.append(key + b":" + json_like(inner, rng, share))
            if rng.random() < share / 2:
                parts.append(key + b":" + json_like(inner, rng, share))
        rng.shuffle(parts)
        return (
            b"{"
            + pick(rng, (b",",) * 30 + (b", ", b";", b",,", b"")).join(parts)
            + pick(rng, (b"}",) * 40 + (b"", b"]"))
        )
    if isinstance(value, list):
        return (
            b"[" + b",".join(json_like(inner, rng, share) for inner in value) + pick(rng, (b"]",) * 40 + (b"", b",]"))
        )
    return json.dumps(value).encode()


OPCODES = (0, 1, 2, 8, 9, 10, *range(16))
PAYLOADS = (
    b"",
    b"x",
    b"{}",
    b"\x03\xe8",
    b"\x03\xe8bye",
    b"\x03",
    b"\xff\xff",
    b"\x03\xed",
    b"\xc3",
    b"\xa4",
    b"y" * 125,
    b"z" * 126,
    b"w" * 5000,
)


def frames(said: Sequence[bytes], rng: Random) -> bytes:
    """Return frames that carry some of `said`: whole, in fragments, with control frames between, and with lies in them."""
    sent = []
    for _ in range(rng.randint(1, 6)):
        payload = pick(rng, said) if said and rng.random() < 0.7 else pick(rng, PAYLOADS)
        lie = rng.random()
        if lie < 0.35:
            sent.append(frame(1, payload))
        elif lie < 0.65:
            sent += _fragments(payload, rng)
        else:
            sent.append(
                frame(
                    pick(rng, OPCODES),
                    payload,
                    fin=rng.random() < 0.8,
                    rsv=pick(rng, (0, 0, 0, 0, 1, 2, 4)),
                    mask=pick(rng, (rng.randbytes(4), bytes(4), None)),
                    length=pick(rng, (None, None, None, len(payload) + 1, 0, 126, 65535, 2**40, 2**63)),
                    width=pick(rng, (None, None, None, 0, 2, 8)),
                )
            )
    data = b"".join(sent)
    return damage(data, rng) if rng.random() < 0.3 else data


def _fragments(payload: bytes, rng: Random) -> list[bytes]:
    cuts = sorted(_place(rng, payload) for _ in range(pick(rng, (1, 2, 3, 150))))
    parts = [payload[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    made = []
    for number, part in enumerate(parts):
        made.append(frame(1 if number == 0 else 0, part, fin=number == len(parts) - 1))
        if rng.random() < 0.1:
            made.append(frame(pick(rng, (9, 10, 8, 1, 2)), pick(rng, PAYLOADS[:9])))
    return made
