"""Dialects: a session of two parties that speak different wires, through a drain; and the paths of a node."""

import json
from typing import Any

import pytest

from signald.config import Config
from signald.node import DIALECTS
from signald.service.dialect import Dialects
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.toy import Toy


async def until(peer: Peer, word: str) -> Any:
    """Receive until the toy says `word`; returns what it says of it."""
    while word not in (line := await peer.receive()):
        pass
    return line[word]


def test_parties_of_two_dialects_share_a_session_through_a_drain() -> None:
    """A toy client and a worker of `signald.v1`: paired, each hears the other, both are moved by a drain, nothing is lost."""

    async def scene(cluster: Cluster) -> None:
        cluster.dialects = (*DIALECTS, Toy())
        old = await cluster.start("old")
        worker, accepted = await cluster.worker("old")
        client = await cluster.dial("old", "/toy", "toy.1")
        assert client.socket.subprotocol == "toy.1"
        await client.send({"hello": 1})
        token = await until(client, "hi")
        session = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": session})
        # Several lines in one frame: the session numbers them.
        await client.socket.send_message(json.dumps({"say": "one"}) + "\n" + json.dumps({"say": [2]}) + "\n")
        assert [(await worker.expect("message"))["data"] for _ in range(2)] == ["one", [2]]
        await worker.send({"type": "message", "session": session, "seq": 1, "data": {"a": "b"}})
        assert await until(client, "heard") == {"a": "b"}
        await cluster.start("new")
        old.shutdown.signal()
        await worker.expect("goaway")
        listed = {"session": session, "received": 2, "acked": 1}
        again, _ = await cluster.resume("new", accepted["recovery_token"], listed)
        assert await until(client, "leave") == "draining"
        await again.send({"type": "message", "session": session, "seq": 2, "data": "while it is away"})
        back = await cluster.dial("new", "/toy", "toy.1")
        await back.send({"back": token, "have": 1})
        assert (await until(back, "again"))["token"].startswith(session)
        assert await until(back, "heard") == "while it is away"
        assert await client.closed() == 4001
        await back.send({"say": "here"})
        assert (await again.expect("message"))["seq"] == 3
        await cluster.wait_exit("old")
        await again.send({"type": "bye", "session": session, "reason": "done"})
        assert await until(back, "over") == "done"

    play(scene)


def test_a_dialect_refuses_in_its_own_words() -> None:
    """A token that resumes nothing is refused in the words of the dialect; so is an arrival during a drain."""

    async def scene(cluster: Cluster) -> None:
        cluster.dialects = (*DIALECTS, Toy())
        node = await cluster.start("one")
        client = await cluster.dial("one", "/toy", "toy.1")
        await client.send({"back": "nonsense", "have": 0})
        assert await until(client, "bad") == "nothing_to_resume"
        assert await client.closed() == 4404
        node.hub.refusing = {"client": 1013}  # type: ignore[dict-item]
        late = await cluster.dial("one", "/toy", "toy.1")
        assert await late.closed() == 1013
        assert late.close_reason.startswith("in ")
        assert late.close_reason.endswith(" ms")

    play(scene)


def test_no_two_dialects_share_a_path() -> None:
    """A path belongs to one dialect, and each path of a dialect is an endpoint of the listener."""
    with pytest.raises(ValueError, match="two dialects at /toy"):
        Dialects([Toy(), Toy()])
    spoken = Dialects([*DIALECTS, Toy()])
    endpoints = spoken.endpoints(Config())
    assert all(path in endpoints for path in ("/v1/client", "/v1/worker", "/toy"))
    assert endpoints["/toy"].subprotocols == ("toy.1",)
    assert spoken.spoken == [("client", "signald.v1"), ("worker", "signald.v1"), ("client", "toy")]
    longest = endpoints["/v1/worker"].message_bytes_max
    assert longest is not None
    assert longest > Config().limits.message_bytes_max
    assert spoken.party_at("/toy") == "client"
