"""How a scene of rooms begins: nodes, and clients without a worker who have come to them; and what such clients say."""

from signald.testing.cluster import Cluster
from signald.testing.wire import Json, Peer


async def come(cluster: Cluster, at: str, **sections: dict[str, object]) -> list[tuple[Peer, Json]]:
    """Start a node for each different letter of `at`, and let a client come to each letter; returns them with their answers."""
    for name in sorted(set(at)):
        await cluster.start(name, **sections)
    return [await cluster.client(name, pair=False) for name in at]


async def join(peer: Peer, room: str = "r:1", **fields: object) -> Json:
    """Join a room, and return the answer."""
    await peer.send({"type": "join", "room": room, **fields})
    return await peer.expect("joined")


async def publish(peer: Peer, seq: int, room: str = "r:1", **fields: object) -> None:
    """Publish in a room."""
    await peer.send({"type": "publish", "room": room, "seq": seq, **fields})


async def published(peer: Peer, seq: int) -> None:
    """Wait until everything up to `seq` is."""
    while (await peer.expect("published"))["seq"] < seq:
        pass
