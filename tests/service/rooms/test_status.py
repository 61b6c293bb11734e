"""What an operator is told of rooms."""

from typing import Any

import pytest

from signald.ctl import show
from signald.errors import OperationRefused
from signald.service.rooms import status
from signald.testing.cluster import Cluster, play
from tests.service.api.test_rooms import service
from tests.service.test_credentials import AUTH, token


async def join(cluster: Cluster, at: str, room: str, **claims: Any) -> str:
    """Let a client come in and join a room; returns its session."""
    claim: dict[str, Any] = {"rooms": {"*": ["join", "publish"]}, **claims}
    peer, opened = await cluster.client(at, auth=token(10_000, **claim))
    await peer.ask({"type": "join", "room": room, "presence": {"name": "a secret"}}, "joined")
    session: str = opened["session"]
    return session


def test_rooms_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest first, and up to the limit; each with its members here and in all."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2"):
            await cluster.start(name, auth=AUTH)
        await join(cluster, "n1", "lobby")
        await join(cluster, "n1", "canvas:1", tenant="acme")
        await join(cluster, "n2", "lobby")
        await service(cluster, tenant="acme").patch("canvas:1", {"a": {"x": 1}})
        for _ in range(2):
            await service(cluster).posted("lobby", {"data": "a secret"})
        operations = cluster.nodes["n1"].operations
        answer = await operations.rooms(10)
        assert (answer["node"], answer["total"], answer["unread"]) == ("n1", 2, 0)
        first, second = answer["rooms"]
        assert first == {
            "room": "canvas:1", "tenant": "acme", "members": 1, "members_here": 1, "position": 1, "position_here": 1,
            "records": 1, "bytes": 3,
        }  # fmt: skip
        assert (second["room"], second["tenant"], second["members"], second["members_here"]) == ("lobby", None, 2, 1)
        assert second["position"] == second["position_here"] == 2
        assert "a secret" not in str(answer)
        assert len((await operations.rooms(1))["rooms"]) == 1
        assert "and 1 more" in show.rooms([await operations.rooms(1)])
        monkeypatch.setattr(status, "READ_MAX", 1)
        answer = await operations.rooms(10)
        assert (answer["total"], answer["unread"], len(answer["rooms"])) == (2, 1, 1)

    play(scene)


def test_a_room_is_shown_at_any_node() -> None:
    """Where its members are, by name; of what they say only the size."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name, auth=AUTH)
        sessions = [await join(cluster, at, "lobby") for at in ("n1", "n2")]
        await service(cluster).posted("lobby", {"data": 1})
        operations = cluster.nodes["n3"].operations
        answer = await operations.room("lobby", None, 10)
        assert [one["member"] for one in answer["listed"]] == sessions
        assert (answer["nodes"], answer["position"], answer["position_here"], answer["kept_from"]) == (
            ["n1", "n2"],
            1,
            None,
            1,
        )
        assert answer["listed"][0]["presence_bytes"] == len('{"name": "a secret"}')
        assert "a secret" not in str(answer)
        assert len((await operations.room("lobby", None, 1))["listed"]) == 1
        assert "2 members at n1, n2" in show.room(answer)
        for room, tenant in (("lobby", "acme"), ("hall", None), ("no room", None)):
            with pytest.raises(OperationRefused, match="there is no room"):
                await operations.room(room, tenant, 10)

    play(scene)
