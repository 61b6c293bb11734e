"""What an application says and hears: refused at the caller, or unreadable by itself."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from signald.ids import SeededEntropy
from signald.sdk.bounds import Bounds
from signald.sdk.client_core import ClientCore
from signald.sdk.core import SessionCore
from signald.sdk.errors import Unreadable
from signald.sdk.events import MessageReceived, RealtimeReceived
from signald.sdk.values import Broken, read, read_history, readable, write
from signald.sdk.worker_core import WorkerCore
from signald.sdk.writing import Batch
from signald.wire.messages import Message

UNREADABLE = [
    b"1e999", b"-1e999", b"1" * 5000, b"[1e400]", rb'["\ud83d",1e999]', b'["\\ud83d",' + b"1" * 5000 + b"]", b"", b"[" * 5000,
    rb'"\ud83d',
]  # fmt: skip
HALF = "cut \ud83d"


def nested(levels: int) -> Any:
    """Return `levels` lists, one in the other."""
    value: Any = "leaf"
    for _ in range(levels):
        value = [value]
    return value


@dataclass
class Point:
    """What msgspec writes and JSON does not know."""

    x: float


@pytest.mark.parametrize("literal", UNREADABLE, ids=lambda one: repr(one[:20]))
def test_what_cannot_be_read_raises_when_it_is_read(literal: bytes) -> None:
    """Reading never raises before; then it raises a ValueError each time, and says nothing of the content."""
    value = read(Raw(literal))
    assert type(value) is Broken
    for event in (MessageReceived(1, value), RealtimeReceived(value)):
        for _ in range(2):
            with pytest.raises(Unreadable) as raised:
                _ = event.data
            assert isinstance(raised.value, ValueError)
            assert len(str(raised.value)) < 400


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_constant_that_is_not_json_is_not_read_by_the_slow_way(constant: bytes) -> None:
    """Half a pair beside it opens no door."""
    assert type(read(rb'["\ud83d",' + constant + b"]")) is Broken


def test_half_a_pair_is_read_as_the_str_that_holds_it() -> None:
    """As the standard library reads it; a whole pair is one character."""
    assert read(rb'{"text":"caf\u00e9 \ud83d","whole":"\ud83d\ude00","n":[1,2.5,null,true]}') == {
        "text": "caf\u00e9 \ud83d",
        "whole": "\U0001f600",
        "n": [1, 2.5, None, True],
    }


def test_one_entry_of_a_history_spoils_no_other() -> None:
    """Its `data` raises when it is read; the rest of it, and the other entries, are there."""
    first, second, third = read_history(
        [
            Raw(b'{"from":"client","seq":1,"data":1e999,"kind":"chat"}'),
            Raw(b'{"from":"worker","seq":1,"data":"b"}'),
            Raw(b"1e999"),
        ]
    )
    assert (first["from"], first["seq"], first["kind"]) == ("client", 1, "chat")
    for entry in (first, third):
        with pytest.raises(Unreadable):
            entry["data"]
        with pytest.raises(Unreadable):
            entry.get("data")
    with pytest.raises(KeyError):
        first["trace"]
    assert first.get("trace", 7) == 7
    assert second == {"from": "worker", "seq": 1, "data": "b"}


def test_an_unreadable_message_is_acked_by_asking_for_the_next() -> None:
    """It takes its place in the order like any other."""
    core = SessionCore("s_1", SeededEntropy(1))

    core.receive(Message(1, Raw(b"1e999")), None)
    core.receive(Message(2, Raw(b"2")), None)
    first = core.take()
    assert first is not None
    with pytest.raises(Unreadable):
        _ = first.data
    assert core.finish(first.seq)
    second = core.take()
    assert second is not None
    assert second.data == 2
    assert core.finished == 1


BAD: list[Any] = [
    float("nan"), float("inf"), -float("inf"), [1, float("nan")], {"a": {"b": float("inf")}}, {1, 2}, {"a": frozenset()},
    {1: 2}, {None: 1}, {(1, 2): 3}, {"a": {2.5: 1}}, [b"bytes"], object(), [object()], 10**5000, nested(32), Point(float("nan")),
    Raw(b"NaN"), Raw(b"1e999"), Raw(b"{"), OrderedDict([("a", float("nan"))]), {"a": Raw(b"1")},
]  # fmt: skip
SELF: list[Any] = []
SELF.append(SELF)
BAD.append(SELF)


@pytest.mark.parametrize("data", BAD, ids=lambda one: type(one).__name__)
def test_what_a_node_would_refuse_is_refused_at_the_caller(data: Any) -> None:
    """With a ValueError, and nothing is in the ledger: as a message, as realtime data, as `meta`, as `config`."""
    core = SessionCore(None, SeededEntropy(1))
    with pytest.raises(ValueError, match=r"JSON|deeper|digits"):
        core.send(data)
    assert (core.next_seq, core.unacked) == (1, 0)
    client = ClientCore(["ws://h"], entropy=SeededEntropy(1))
    with pytest.raises(ValueError, match=r"JSON|deeper|digits"):
        client.realtime(data)
    with pytest.raises(ValueError, match=r"JSON|deeper|digits"):
        ClientCore(["ws://h"], entropy=SeededEntropy(1), meta=data)
    with pytest.raises(ValueError, match=r"JSON|deeper|digits"):
        WorkerCore(["ws://h"], instance_id="i", entropy=SeededEntropy(1), config=data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (HALF, rb'"cut \ud83d"'),
        ({HALF: [1, "é"]}, rb'{"cut \ud83d":[1,"\u00e9"]}'),
        (nested(31), b"[" * 31 + b'"leaf"' + b"]" * 31),
        ((1, 2.5, True, None), b"[1,2.5,true,null]"),
        ({"a": None}, b'{"a":null}'),
        (Point(1.5), b'{"x":1.5}'),
        (datetime(2020, 1, 2, tzinfo=UTC), b'"2020-01-02T00:00:00Z"'),
        (2**70, str(2**70).encode()),
        (Raw(b'{"a": 1}'), b'{"a": 1}'),
        (OrderedDict(a=1), b'{"a":1}'),
    ],
)
def test_what_is_json_is_written(data: Any, text: bytes) -> None:
    """Half of a pair is written as its escape; what msgspec knows beside JSON stays as it was."""
    assert write(data, 31) == text
    json.loads(text)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "k" * 65}, {"trace": "t" * 257}, {"kind": "\ud83d"}, {"trace": "\ud83d"}, {"kind": 7}, {"trace": b"t"},
    ],
)  # fmt: skip
def test_texts_of_a_message_are_checked_at_the_caller(options: dict[str, Any]) -> None:
    """`kind` has at most 64 characters, `trace` 256, and both are text."""
    core = SessionCore(None, SeededEntropy(1))
    with pytest.raises(ValueError, match=r"kind|trace"):
        core.send("x", **options)
    assert core.next_seq == 1
    core.send("x", kind="é" * 64, trace="é" * 256)


@pytest.mark.parametrize("name", [None, "s_" + "x" * 24])
@pytest.mark.parametrize("binary", [False, True])
def test_the_size_counts_all_that_is_on_the_wire(name: str | None, binary: bool) -> None:
    """A frame of exactly the limit is taken; a byte more is refused, whatever the envelope is."""

    def sized(size: int) -> Any:
        return b"x" * size if binary else "x" * size

    def length(size: int) -> int:
        core = SessionCore(name, SeededEntropy(1), bounds=Bounds(message_bytes_max=1024))
        core.send(sized(size), kind="chat", trace="t")
        batch = Batch()
        core.write(0.0, batch)
        return len(batch.frames[0][1])

    fits = 1024 - length(0)
    assert length(fits) == 1024
    with pytest.raises(ValueError, match="at most 1024 bytes on the wire, not 1025"):
        length(fits + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"want": {str(number): "x" for number in range(33)}}, {"want": {"n" * 65: "x"}}, {"want": {"n": "v" * 257}},
        {"want": {"n": 7}}, {"want": {"n": "\ud83d"}}, {"want": {"\ud83d": "x"}}, {"history": 1001}, {"history": -1}, {"history": True},
        {"auth": ""}, {"auth": "x" * 8193}, {"auth": "\ud83d"}, {"recovery_token": "x" * 8193}, {"meta": "x" * 65536},
    ],
)  # fmt: skip
def test_options_of_a_client_are_checked_at_the_caller(options: dict[str, Any]) -> None:
    """What would be refused as an opening message is refused before anything is opened."""
    with pytest.raises(ValueError, match=r"want|history|auth|token|opening"):
        ClientCore(["ws://h"], entropy=SeededEntropy(1), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"instance_id": ""}, {"instance_id": "x" * 129}, {"instance_id": "\ud83d"}, {"capacity": -1}, {"capacity": 100_001},
        {"capacity": 1.5}, {"labels": {"n": None}}, {"labels": {"n": "v" * 257}}, {"config": "x" * 65536},
    ],
)  # fmt: skip
def test_options_of_a_worker_are_checked_at_the_caller(options: dict[str, Any]) -> None:
    """As those of a client."""
    with pytest.raises(ValueError, match=r"instance|capacity|labels|opening"):
        WorkerCore(["ws://h"], entropy=SeededEntropy(1), **{"instance_id": "i", **options})


def test_reasons_and_states_of_a_worker_are_checked_at_the_caller() -> None:
    """Nothing of them is cut short behind the caller's back."""
    core = WorkerCore(["ws://h"], entropy=SeededEntropy(1), instance_id="i")
    refusals: list[Callable[[], None]] = [
        lambda: core.bye("x" * 513),
        lambda: core.bye("\ud83d"),
        lambda: core.release(SessionCore("s", SeededEntropy(1)), "x" * 513, 0.0),
        lambda: core.set_state(capacity=-1),
        lambda: core.set_state(load=float("nan")),
        lambda: core.set_state(load=-1.0),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match=r"reason|capacity|load"):
            refused()
    assert not core.leaving


def test_readable_returns_what_is() -> None:
    """Only the stand-in raises."""
    assert readable({"a": 1}) == {"a": 1}
    assert readable(None) is None
