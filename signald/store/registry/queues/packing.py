"""The operations on the event queues of the registry as RESP commands, each with the reader of its reply."""

from msgspec import msgpack

from signald.store.redis_codec import codec
from signald.store.redis_replies import read_done
from signald.store.registry.packing import pack_registry
from signald.store.registry.queues.ops import DropQueue, ReadQueue, TellCluster, TellWorker
from signald.store.registry.queues.replies import read_queue
from signald.store.session.events.ops import EventsLeft


def pack_tell_cluster(op: TellCluster) -> bytes:
    """Call `tell_cluster` of `queues.lua`."""
    return pack_registry("tell_cluster", op.once, op.type, msgpack.encode(op.fields), op.events_max, op.now_ms)


def pack_tell_worker(op: TellWorker) -> bytes:
    """Call `tell_worker` of `queues.lua`."""
    return pack_registry("tell_worker", op.worker, op.type, msgpack.encode(op.fields), op.events_max, op.now_ms)


codec(TellCluster, pack_tell_cluster, read_done)
codec(TellWorker, pack_tell_worker, read_done)
codec(ReadQueue, lambda op: pack_registry("read_queue", op.name, op.limit), read_queue)
codec(DropQueue, lambda op: pack_registry("drop_queue", op.name, op.upto), lambda _op, reply: EventsLeft(int(reply)))
