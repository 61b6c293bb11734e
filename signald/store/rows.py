"""The few ways in which memory and SQLite keep records, and the wake-ups of one batch."""

from collections.abc import Iterable
from typing import Protocol

from signald.core.head import Party
from signald.core.jobs import Job
from signald.core.life import Event
from signald.core.log import Entry
from signald.core.rooms import Entry as RoomEntry
from signald.core.rooms import Record as RoomRecord
from signald.store.base import WAKE_REALTIME, WAKE_ROOM, WAKE_SESSION, WAKE_WORKER, Wake
from signald.store.registry.agenda.records import Item
from signald.store.registry.ops import NodeInfo, Revocation
from signald.store.registry.queues.records import EventQueue
from signald.store.registry.records import Place, TrailCount, Worker
from signald.store.room.records import Head as RoomHead
from signald.store.room.records import Kept, Presence, Seat
from signald.store.session.events.records import Queue
from signald.store.session.jobs.records import Jobs
from signald.store.session.records import Past, Record, Way
from signald.store.session.streams.records import Stream
from signald.store.shelf.records import Item as BlobItem


class Rows(Protocol):
    """How a store keeps records. The rules change a record in place and then save it; nothing here decides anything.

    Lists leave out what cannot be read. A method that returns one record raises `Unreadable` for a damaged session or worker; any other
    damaged record counts as absent.
    """

    def session(self, session: str) -> Record | None: ...
    def save_session(self, record: Record) -> None: ...
    def drop_session(self, session: str, past: Past | None = None) -> None:
        """Remove the record, both logs, the streams and the history; with `past`, the history stays."""

    def past(self, session: str) -> Past | None: ...
    def drop_past(self, session: str) -> None:
        """Remove what is kept of an ended session, its history too; do nothing when there is nothing."""

    def pasts_over(self, until_ms: int, limit: int) -> list[str]:
        """Return ended sessions whose history is kept until `until_ms` at most, those that end first."""

    def put_entries(self, session: str, way: Way, entries: Iterable[Entry]) -> None: ...
    def trim_entries(self, session: str, way: Way, last: int) -> None:
        """Remove the entries up to and including `last`."""

    def read_entries(self, session: str, way: Way, after: int, limit: int) -> list[Entry]: ...

    def put_history(self, session: str, number: int, party: Party, body: bytes) -> None:
        """Keep one item (`core.chat_history`)."""

    def drop_history(self, session: str, number: int) -> bytes:
        """Remove one item and return it; empty where it was damaged."""

    def history(self, session: str) -> list[tuple[Party, bytes]]:
        """Return all items, oldest first."""

    def stream(self, session: str, way: Way, name: str) -> Stream | None: ...
    def streams(self, session: str) -> list[Stream]:
        """Return all streams in the order of their numbers."""

    def save_stream(self, session: str, stream: Stream) -> None: ...
    def drop_stream(self, session: str, stream: Stream) -> None: ...

    def jobs(self, session: str) -> Jobs | None:
        """Return a record of its own: a change of it is kept by `save_jobs` alone."""

    def save_jobs(self, jobs: Jobs) -> None: ...
    def drop_jobs(self, session: str) -> None:
        """Remove all that is kept of the jobs of a session."""

    def jobs_over(self, until_ms: int, limit: int) -> list[str]:
        """Return ended sessions whose jobs are kept until `until_ms` at most."""

    def job(self, session: str, n: int) -> Job | None: ...
    def save_job(self, session: str, job: Job) -> None: ...
    def drop_job(self, session: str, n: int) -> None:
        """Remove a job, its key, its input and its pieces."""

    def job_of_key(self, session: str, key: bytes) -> int:
        """Return the number of the job that was made with `key`; 0: none."""

    def job_at(self, session: str, place: int) -> int:
        """Return the number of the job that has ended at `place`; 0: it is not kept."""

    def put_input(self, session: str, n: int, data: bytes) -> None: ...
    def input(self, session: str, n: int) -> bytes | None: ...
    def drop_input(self, session: str, n: int) -> None: ...
    def put_piece(self, session: str, n: int, number: int, piece: Entry) -> None: ...
    def drop_pieces(self, session: str, n: int, last: int) -> None:
        """Remove the pieces of a job with a number up to `last`."""

    def pieces(self, session: str, n: int, first: int, last: int) -> list[Entry]:
        """Return the pieces of a job with numbers from `first` to `last`."""

    def pieces_after(self, session: str, job: Job, seq: int, limit: int) -> list[Entry]:
        """Return the first pieces of a job whose seq is above `seq`."""

    def queue(self, name: str) -> Queue | None:
        """Return the record of a queue of events, which is the caller's own: a change of it is kept by `save_queue` alone."""

    def save_queue(self, queue: Queue) -> None: ...
    def drop_queue(self, name: str) -> None:
        """Remove a queue and its events."""

    def queues_over(self, now_ms: int, limit: int) -> list[str]:
        """Return queues of ended sessions that are kept no longer at `now_ms`, those that end first."""

    def put_event(self, name: str, event: Event) -> None: ...
    def events(self, name: str, limit: int) -> tuple[list[Event], int]:
        """Return those of the first `limit` events that can be read, and the number of the last one looked at; 0: there is none."""

    def drop_events(self, name: str, upto: int) -> int:
        """Remove the events with numbers up to `upto`; return how many are left, whether they can be read or not."""

    def nodes(self) -> list[NodeInfo]:
        """Return all nodes in order of id."""

    def save_node(self, node: NodeInfo) -> None: ...
    def drop_node(self, node: str) -> None: ...

    def worker(self, worker: str) -> Worker | None: ...
    def workers(self) -> list[Worker]:
        """Return all workers in order of id."""

    def save_worker(self, worker: Worker) -> None: ...
    def drop_worker(self, worker: str) -> None: ...

    def place(self, session: str) -> Place | None: ...
    def save_place(self, place: Place) -> None: ...
    def drop_place(self, session: str) -> None: ...
    def waiting(self, limit: int) -> list[Place]:
        """Return the first places without a worker, in order of `order_ms`, then session id."""

    def is_wanted(self, node: str) -> bool:
        """Tell whether `node` (see `core.wants`) is on the way to the want of a waiting session."""

    def line(self, node: str, limit: int) -> list[Place]:
        """Return the first places of the line at `node`, in order of `order_ms`, then session id."""

    def strays(self, limit: int) -> list[str]:
        """Return sessions whose place an earlier release has written: the lines by want do not know them as they are."""

    def enter(self, session: str) -> None:
        """Enter the place of a stray in the lines by want as it is now, or remove it from them."""

    def sessions_of(self, worker: str) -> tuple[str, ...]:
        """Return the worker's sessions, in order of their ids."""

    def assigned(self, worker: str) -> int: ...

    def renew(self, session: str, until_ms: int) -> None:
        """Let the life of `session` in the index end at `until_ms`, unless it ends later already."""

    def life(self, session: str) -> int | None:
        """Return until when `session` lives in the index, None when it is not there."""

    def lives(self) -> int:
        """Return how many sessions are in the index."""

    def hold(self, session: str, holder: str, due_ms: int) -> None:
        """Count `session` for `holder`; the count is to be looked at from `due_ms` on."""

    def postpone_hold(self, session: str, due_ms: int) -> None: ...
    def drop_hold(self, session: str) -> None:
        """Count `session` no more for any holder."""

    def is_held(self, session: str) -> bool:
        """Tell whether `session` is counted for any holder."""

    def held_by(self, holder: str) -> int: ...
    def sessions_held(self, holder: str, after: str, limit: int) -> list[str]:
        """Return the first sessions counted for `holder` behind `after`, in order of their ids."""

    def holds_due(self, now_ms: int, limit: int) -> list[str]:
        """Return sessions whose count is to be looked at."""

    def drop_life(self, session: str) -> None: ...
    def overdue(self, now_ms: int, limit: int) -> list[str]:
        """Return the sessions whose life has ended, in order of its end, then of id."""

    def fact(self, name: str) -> bytes | None: ...
    def save_fact(self, name: str, value: bytes) -> None: ...

    def revocation(self, principal: str) -> Revocation | None: ...
    def save_revocation(self, revocation: Revocation) -> None: ...
    def drop_revocation(self, principal: str) -> None: ...
    def revocations(self) -> int:
        """Return how many principals are revoked."""

    def last_revocation(self) -> int:
        """Return the highest number, 0 for none."""

    def revocations_after(self, number: int, limit: int) -> list[Revocation]:
        """Return those with a higher number, in order of number."""

    def revocations_over(self, now_ms: int, limit: int) -> list[str]:
        """Return principals whose revocation has ended, in order of its end, then of name."""

    def item(self, kind: str, name: str) -> Item | None:
        """Return an item of the agenda. A damaged item is due at once, and under no lease."""

    def save_item(self, item: Item) -> None: ...
    def drop_item(self, kind: str, name: str) -> None: ...
    def room_owner(self, room: str) -> str:
        """Return the owner of a room of the agenda; empty: it has none."""

    def save_room_owner(self, room: str, owner: str) -> None:
        """Give a room its owner; empty: none."""

    def rooms_owned(self, owner: str) -> int:
        """Return how many rooms an owner has."""

    def items(self, kind: str) -> int:
        """Return how many items of a kind there are."""

    def items_at(self, kind: str, first_ms: int | None, last_ms: int | None, limit: int, *, taken: bool) -> list[Item]:
        """Return the first items under a lease, or under none, from `first_ms` to `last_ms` (None: no bound), by time, then by name."""

    def items_taken(self, kind: str, nonce: str) -> list[Item]:
        """Return the items that are under a lease taken with `nonce`, in order of their tickets."""

    def items_after(self, kind: str, after: str, limit: int) -> list[Item]:
        """Return the first items behind the name `after`, in order of name."""

    def agenda(self, kind: str, now_ms: int) -> tuple[int, int, int, int]:
        """Return how many items there are, are due and fail, and the earliest time at which one is due or has begun to fail; 0: none."""

    def event_queue(self, name: str) -> EventQueue | None: ...
    def save_event_queue(self, queue: EventQueue) -> None: ...
    def drop_event_queue(self, name: str) -> None: ...
    def event_queues_over(self, until_ms: int, limit: int) -> list[str]:
        """Return queues that are kept until `until_ms` at most, in order of that time, then of name."""

    def receipt(self, node: str) -> bytes | None: ...
    def save_receipt(self, node: str, body: bytes, now_ms: int, keep: int) -> None:
        """Keep `body` for `node`, and of all receipts the `keep` latest."""

    def receipts(self) -> list[tuple[str, int]]:
        """Return (node, at_ms) of all receipts, the latest first, then by node."""

    def add_steps(self, session: str, steps: Iterable[bytes], keep: int, now_ms: int, until_ms: int) -> None:
        """Add to a trail, keep its `keep` last steps until `until_ms`, and forget the trails whose time was over at `now_ms`."""

    def drop_steps(self, session: str) -> None: ...
    def steps(self, session: str) -> list[bytes]: ...

    def trail(self, session: str) -> TrailCount | None: ...
    def save_trail(self, trail: TrailCount) -> None: ...
    def drop_trail(self, session: str) -> None:
        """Count a trail no more."""

    def oldest_trails(self, limit: int) -> list[TrailCount]:
        """Return the counts of trails whose time ends first, then in order of session id."""

    def trails_bytes(self) -> int:
        """Return the sum of all counts."""

    def blob_item(self, shelf: str, blob: str) -> BlobItem | None: ...
    def save_blob_item(self, shelf: str, item: BlobItem) -> None: ...
    def drop_blob_item(self, shelf: str, blob: str) -> None: ...
    def is_doomed(self, shelf: str, blob: str) -> bool:
        """Tell whether a blob without a lease is doomed, also one that cannot be read."""

    def item_of_key(self, shelf: str, key: bytes) -> str:
        """Return the id of the blob that has `key`; empty: none."""

    def shelf_size(self, shelf: str) -> tuple[int, int]:
        """Return how many blobs a shelf has, and the sum of their bytes."""

    def uploads_over(self, shelf: str, until_ms: int, from_ms: int, limit: int) -> list[str]:
        """Return the first blobs whose lease ends by `until_ms` or after `from_ms`, in order of its end, then of id."""

    def blobs_over(self, shelf: str, until_ms: int, limit: int) -> list[str]:
        """Return the first blobs without a lease that are not doomed and are kept until `until_ms` at most, in the same order."""

    def blobs_doomed(self, shelf: str, limit: int) -> list[str]:
        """Return the first doomed blobs without a lease, in order of id."""

    def shelf_due(self, shelf: str) -> tuple[int, int]:
        """Return when the first lease ends, and when the first blob that is neither doomed nor leased does; 0: none."""

    def room(self, room: str) -> RoomHead | None:
        """Return a record of its own: a change of it is kept by `save_room` alone."""

    def save_room(self, head: RoomHead) -> None: ...
    def drop_room(self, room: str) -> None:
        """Remove all that is kept of a room."""

    def rooms_over(self, until_ms: int, limit: int) -> list[str]:
        """Return rooms without members that are kept until `until_ms` at most, those that end first."""

    def room_kept(self, room: str) -> Kept | None:
        """Return what a room remembers, which may be nothing; None: it cannot be read."""

    def save_room_kept(self, room: str, kept: Kept) -> None: ...

    def seat(self, room: str, member: str) -> Seat | None: ...
    def save_seat(self, room: str, member: str, seat: Seat) -> None: ...
    def members_by_node(self, room: str) -> dict[str, int]:
        """Count the members at each node by their seats."""

    def member_turn(self, room: str, member: str) -> int:
        """Return the last turn of a member; 0: it is none."""

    def presence(self, room: str, member: str) -> Presence | None: ...
    def save_presence(self, room: str, member: str, turn: int, presence: Presence) -> None: ...
    def members_after(self, room: str, turn: int, limit: int) -> list[str]:
        """Return the first members whose last turn is behind `turn`, in order of it."""

    def drop_member(self, room: str, member: str) -> None:
        """Remove its seat and its presence."""

    def put_room_entry(self, room: str, entry: RoomEntry) -> None: ...
    def room_entries(self, room: str, after: int, upto: int) -> list[RoomEntry]:
        """Return the entries behind `after` up to `upto`, by position."""

    def room_entry_size(self, room: str, position: int) -> int:
        """Return the bytes for which an entry counts."""

    def trim_room_entry(self, room: str, position: int, snapshot: int) -> None:
        """Remove an entry, unless it is an update behind the position `snapshot`."""

    def room_updates(self, room: str, after: int, limit: int) -> tuple[list[RoomEntry], int]:
        """Return the first `limit` updates behind `after`, without unreadable ones, and the position of the last; 0: there are fewer."""

    def room_updates_upto(self, room: str, after: int, upto: int) -> tuple[int, int]:
        """Return how many updates are behind `after` up to `upto`, and their bytes."""

    def snapshot(self, room: str) -> bytes:
        """Return the body of the snapshot; empty: there is none."""

    def save_snapshot(self, room: str, body: bytes, upto: int, floor: int) -> None:
        """Keep the snapshot, and remove the updates up to `upto` that are not behind `floor`."""

    def room_record(self, room: str, name: str) -> RoomRecord | None: ...
    def has_room_record(self, room: str, name: str) -> bool:
        """Tell whether there is such a record or its removal, also one that cannot be read."""

    def save_room_record(self, room: str, name: str, record: RoomRecord) -> None: ...
    def drop_room_record(self, room: str, name: str) -> None: ...
    def first_tombstone(self, room: str) -> tuple[str, int]:
        """Return the id and the position of the oldest removal, then the first by id."""

    def count_room_records(self, room: str) -> tuple[int, int, int]:
        """Return how many records there are, their bytes, and how many removals."""

    def room_changes(self, room: str, after: int, limit: int) -> tuple[list[tuple[str, RoomRecord]], int]:
        """Return records and removals whose last change is behind `after`, by its position, then by id, and the position of the last.

        They are the first `limit`, and all others of the same position as the last one. 0 instead of it: there are fewer.
        """


class Wakes:
    """The wake-ups of one batch, in order. Each that says `look` is said once; realtime messages are all different."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Wake]] = []
        self._said: set[tuple[str, Wake]] = set()

    def tell(self, node: str, wake: Wake) -> None:
        """Wake `node`, whichever it is."""
        told = (node, wake)
        if wake[:1] != WAKE_REALTIME:
            if told in self._said:
                return
            self._said.add(told)
        self.sent.append(told)

    def session(self, record: Record, by: str, *nodes: str) -> None:
        """Let each of `nodes`, other than `by` itself, look at the session."""
        for node in nodes:
            if node and node != by:
                self.tell(node, WAKE_SESSION + record.session.encode())

    def worker(self, worker: str, by: str, node: str) -> None:
        """Let `node`, if it is not `by` itself, look at the worker."""
        if node and node != by:
            self.tell(node, WAKE_WORKER + worker.encode())

    def room(self, room: str, by: str, node: str) -> None:
        """Let `node`, if it is not `by` itself, look at the room."""
        if node != by:
            self.tell(node, WAKE_ROOM + room.encode())
