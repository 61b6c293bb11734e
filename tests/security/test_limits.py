"""Limits at their edge, through the configuration of the whole service: what is allowed passes, one more does not."""

import json

import pytest

from signald.testing.websocket import Speaker, frame, text
from tests.conformance.service import Stage, in_memory


def padded(size: int) -> bytes:
    """Return a message of exactly `size` bytes."""
    front, back = b'{"type":"message","seq":1,"data":"', b'"}'
    return front + b"x" * (size - len(front) - len(back)) + back


def in_fragments(payload: bytes, count: int, empty: int = 0) -> bytes:
    """Return `payload` as one message of `count` frames, `empty` of them without content."""
    full = count - empty
    size = -(-len(payload) // full)
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    pieces[1:1] = [b""] * (count - len(pieces))
    assert len(pieces) == count
    return b"".join(frame(1 if index == 0 else 0, piece, fin=index == count - 1) for index, piece in enumerate(pieces))


SMALL = padded(512)


@pytest.mark.parametrize(
    ("allowed", "refused", "reason"),
    [
        pytest.param(text(padded(65536)), text(padded(65537)), "message over 65536 bytes", id="64-KiB-and-a-byte"),
        pytest.param(
            in_fragments(padded(65536), 2), in_fragments(padded(65537), 2), "message over 65536 bytes", id="in-pieces"
        ),
        pytest.param(
            in_fragments(SMALL, 128), in_fragments(padded(1032), 129), "message over 128 fragments", id="129-fragments"
        ),
        pytest.param(
            in_fragments(SMALL, 128, empty=120),
            in_fragments(SMALL, 129, empty=121),
            "message over 128 fragments",
            id="empty-fragments",
        ),
    ],
)
def test_one_more_is_too_big(allowed: bytes, refused: bytes, reason: str) -> None:
    """At the limit a message is acked; beyond it the connection ends with 1009, and the session can be resumed."""

    async def scene(stage: Stage) -> None:
        await stage.start()
        async with stage.bystanders():
            client, started = await stage.client()
            await client.send(allowed)
            assert (await client.hear("ack"))["seq"] == 1
            await client.send(refused)
            assert await client.closed_with() == (1009, reason)
            await client.hung_up_after()
            again = await stage.restore(started["recovery_token"])
            assert (await again.hear("session_restored"))["accepted"] == 1
            for party in stage.parties[2:]:
                await party.stream.aclose()

    in_memory(scene)


async def _errors(client: Speaker, count: int) -> list[dict[str, object]]:
    """Send `count` messages at once and return the errors that come before the answer to a ping behind them."""
    said = [text(json.dumps({"type": "message", "seq": seq, "data": 0})) for seq in range(1, count + 1)]
    await client.send(b"".join(said) + text('{"type":"ping"}'))
    errors: list[dict[str, object]] = []
    while True:
        opcode, payload = await client.frame()
        if opcode == 1:
            heard = json.loads(payload)
            if heard["type"] == "pong":
                return errors
            if heard["type"] == "error":
                errors.append(heard)


def test_the_10001st_message_of_a_burst_is_pushed_back() -> None:
    """Ten thousand are allowed at once here, so ten thousand pass; the next one is told when to come again, and is not lost."""

    async def scene(stage: Stage) -> None:
        window: dict[str, object] = {"messages_per_s": 1.0, "messages_burst": 10_000, "backlog_messages_max": 20_000}
        await stage.start(limits=window)
        client, _ = await stage.client()
        assert await _errors(client, 10_000) == []
        await client.send(text(json.dumps({"type": "message", "seq": 10_001, "data": 0})))
        error = await client.hear("error")
        assert (error["code"], error["expected"], error["fatal"]) == ("rate", 10_001, False)
        assert 0 < error["retry_after_ms"] <= 1001

    in_memory(scene)
