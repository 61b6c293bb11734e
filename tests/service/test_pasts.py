"""The bounds of the chat histories that outlive their sessions."""

import pytest
import trio
from msgspec.structs import replace

from signald.service import pasts
from signald.service.pasts import ENTRY_BYTES, Pasts
from signald.store.session.ops import Ended, EndSession
from signald.testing.cluster import Cluster, play
from tests.store.ops import head

KEEP_S = 100


async def opened(cluster: Cluster) -> Pasts:
    """The counts of a node where a principal has a quarter of 4,000 bytes."""
    node = await cluster.start("n1", auth={"api_token_ttl_s": KEEP_S}, admission={"address_share": 0.25})
    return node.hub.attachments.pasts


def ended(session: str, principal: str, size: int) -> Ended:
    """The end of a session that leaves so much, as it is counted."""
    return Ended(replace(head(session), principal=principal), (), size - ENTRY_BYTES)


def test_a_principal_has_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """fair: whoever has left as much as its share leaves no more, others do; what has gone makes room."""
    monkeypatch.setattr(pasts, "BYTES_MAX", 4000)

    async def scene(cluster: Cluster) -> None:
        kept = await opened(cluster)
        assert kept.keep_ms("s_1", "ann") == KEEP_S * 1000
        kept.count(ended("s_1", "ann", 600))
        await trio.sleep(KEEP_S / 2)
        kept.count(ended("s_2", "ann", 400))
        assert [kept.keep_ms("s_3", name) for name in ("ann", "eve")] == [0, KEEP_S * 1000]
        await trio.sleep(KEEP_S / 2)
        assert kept.keep_ms("s_3", "ann") == KEEP_S * 1000
        assert kept.bytes == 400

    play(scene)


def test_all_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the node has kept as much as it may, a history goes with its session, and nothing that is kept gives way."""
    monkeypatch.setattr(pasts, "BYTES_MAX", 4000)

    async def scene(cluster: Cluster) -> None:
        kept = await opened(cluster)
        for number in range(4):
            kept.count(ended(f"s_{number}", f"p{number}", 1000))
        assert kept.keep_ms("s_9", "new") == 0
        end = kept.end("s_9", "new", "done")[0]
        assert isinstance(end, EndSession)
        assert end.keep_ms == 0
        await trio.sleep(KEEP_S)
        assert (kept.keep_ms("s_9", "new"), kept.bytes) == (KEEP_S * 1000, 0)

    play(scene)


def test_an_anonymous_client_counts_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """fair: without a principal the address has the share."""
    monkeypatch.setattr(pasts, "BYTES_MAX", 4000)

    async def scene(cluster: Cluster) -> None:
        kept = await opened(cluster)
        sessions = []
        for remote in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            peer = await cluster.dial("n1", "/v1/client", remote=remote)
            sessions.append((await peer.ask({"type": "connect"}, "session_started"))["session"])
        kept.count(ended(sessions[0], "", 1000))
        assert [kept.keep_ms(session) for session in sessions] == [0, 0, KEEP_S * 1000]

    play(scene)


def test_an_empty_history_counts_as_well() -> None:
    """A session without a message leaves a record, which counts; one that is not kept does not."""

    async def scene(cluster: Cluster) -> None:
        kept = await opened(cluster)
        kept.count(Ended(head("s_1")))
        assert kept.bytes == 0
        kept.count(Ended(head("s_2"), (), 0))
        assert kept.bytes == ENTRY_BYTES

    play(scene)
