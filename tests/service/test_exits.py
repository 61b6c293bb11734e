"""Every row of the table of exits (signald/core/exits.py), each cell seen from outside.

The store is what was handed to the committer, the trail is what was noted, and the party is what its connection got.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from msgspec import Raw, json

from signald.config import Config
from signald.core.exits import CLAIMED, EXITS, GIVEN, Cause, Detail, Exit, Handover, Holding, StoreStep, of_claim
from signald.core.head import Head
from signald.dialects.v1.client import ClientLink
from signald.dialects.v1.worker import WorkerLink
from signald.ids import SeededEntropy
from signald.net.admission import SetupGate
from signald.net.ending import CloseInfo
from signald.service.attached import LiveSession
from signald.service.auth import Authenticator
from signald.service.context import Context
from signald.service.dialect import Dialects
from signald.service.events import LinkOver
from signald.service.hub import Hub
from signald.service.seats import SeatState
from signald.service.worker_like import Offer
from signald.store.base import Op
from signald.store.registry.ops import DetachWorker, UpdateWorker
from signald.store.session.ops import Ack, Append, Detach, Look, Mark, Unpair, UnpairFailed
from signald.wire.close_codes import CloseCode
from signald.wire.messages import Message
from tests.net.settings import settings_of

SESSION, WORKER = "s_exits", "w_exits"
EPOCH = 3
REASON = "a reason"
TOLD_AT = 7.0

HEAD = Head(
    session=SESSION, created_ms=1, principal="alice", want={}, meta=b"", receipts=False,
    client_epoch=EPOCH, client_node="n1", worker=WORKER, worker_state="paired", worker_epoch=EPOCH, worker_node="n1",
    workers=1, up_last=5, up_acked=1, down_last=5, down_acked=1,
)  # fmt: skip

CLIENT_CAUSES = {Cause.CLIENT_GONE, Cause.CLIENT_CLAIMED, Cause.CLIENT_ENDED, Cause.CLIENT_BYE}
WHOLE_LINK = {cause for cause, row in EXITS.items() if row.ends_link} | {Cause.REMOVED}


class Kept:
    """A committer that answers nothing: what it was handed is all that is looked at."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.down_since: float | None = None
        self.answered_at = 0.0
        self.batches = 0

    def submit(self, op: Op, then: Any) -> None:
        """Keep it."""
        del then
        self.ops.append(op)

    async def call(self, op: Op, timeout_s: float = 5.0) -> Any:
        """Keep it, and never answer."""
        await self.call_many([op], timeout_s)

    async def call_many(self, ops: Sequence[Op], timeout_s: float = 5.0, **_: object) -> Any:
        """Keep them, and never answer."""
        del timeout_s
        self.ops += ops
        await trio.sleep_forever()

    async def call_each(self, *ops: Op) -> Any:
        """Keep them, and never answer."""
        await self.call_many(ops)

    def of(self, kind: type[Op]) -> list[Any]:
        """What it was handed of one kind."""
        return [op for op in self.ops if type(op) is kind]


class Conn:
    """A connection that keeps what it was given."""

    opened_at = last_received_at = 0.0
    room = True
    subprotocol = "signald.v1"

    def __init__(self) -> None:
        self.bearer: str | None = None
        self.on_room: Any = None
        self.closed: CloseInfo | None = None
        self.frames: list[dict[str, Any]] = []
        self.close_words: tuple[int, str] | None = None

    def send_text(self, payload: bytes) -> None:
        """Keep a frame."""
        self.frames.append(json.decode(payload))

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self, code: int, reason: str = "") -> None:
        """Keep it."""
        self.close_words = int(code), reason


@attrs.define
class Scene:
    """A node of which one party is about to leave one session."""

    hub: Hub
    kept: Kept
    session: LiveSession
    client: ClientLink
    worker: WorkerLink
    told: list[LinkOver] = attrs.field(factory=list)

    def link(self, cause: Cause) -> ClientLink | WorkerLink:
        """The link that is released for `cause`."""
        return self.client if cause in CLIENT_CAUSES else self.worker

    def steps(self) -> list[tuple[str, str, str]]:
        """What the trail says: (party, words, detail)."""
        self.hub.trail.store()
        noted = [json.decode(step) for mark in self.kept.of(Mark) for step in mark.steps]
        return [(one["party"], one["what"], one["detail"]) for one in noted]


def scene(nursery: trio.Nursery, *, told_to_go: bool = False, alone: str = "") -> Scene:
    """A session with both parties at one node, or with one of them; each has something to settle and to ack."""
    config = Config()
    config = attrs.evolve(config, node=attrs.evolve(config.node, id="n1"))
    kept = Kept()
    store = SimpleNamespace(now_ms=lambda: 1_000, lives=0)
    entropy = SeededEntropy(1)
    context = Context(config, store, kept, entropy, nursery.start_soon)  # type: ignore[arg-type]
    hub = Hub(
        context, Authenticator.from_config(context.config.auth), SetupGate(settings_of(), entropy=entropy), Dialects(())
    )
    attachments = hub.attachments
    session = attachments.adopt(HEAD)
    client = ClientLink(hub.parts, Conn(), session)  # type: ignore[arg-type]
    worker = WorkerLink(hub.parts, Conn(), WORKER, EPOCH, Offer("instance", {}, 9), "fleet")  # type: ignore[arg-type]
    if alone != "worker":
        attachments.open(client)
        attachments.attach(client, session, EPOCH, 1, "192.0.2.1")
    if alone != "client":
        attachments.workers[WORKER] = worker
        attachments.open(worker)
        attachments.attach(worker, session, EPOCH, 1)
        worker.seats[SESSION].state = SeatState.ACCEPTED
    for link in (client, worker):
        link.told_to_go, link.told_at = told_to_go, TOLD_AT
        if session.side(link.party).link is link:
            hub.relay.accept(session, link.party, Message(6, Raw(b"6")), None)
            assert hub.relay.ack(session, link.party, 4)
    made = Scene(hub, kept, session, client, worker)
    context.events.subscribe(LinkOver, made.told.append)
    kept.ops.clear()
    return made


def release(made: Scene, cause: Cause) -> Exit:
    """Release the party of the cause, as its callers do."""
    session = None if cause in WHOLE_LINK else made.session
    made.hub.attachments.release(made.link(cause), cause, session, REASON)
    return EXITS[cause]


both = pytest.mark.parametrize("told_to_go", [False, True])
rows = pytest.mark.parametrize("cause", EXITS, ids=lambda cause: cause.name)


def test_each_cause_has_a_row() -> None:
    """No cause is without a row, and no row without a cause."""
    assert set(EXITS) == set(Cause)


@rows
async def test_what_the_session_keeps_of_the_party(cause: Cause) -> None:
    """A party that is detached is not attached anywhere by this session, and its link serves it no more."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        row, link = release(made, cause), made.link(cause)
        side = made.session.side(link.party)
        assert (side.link is None) == row.detaches
        assert (side.node == "") == row.detaches
        assert link.over == row.ends_link
        assert (link not in made.hub.links) == row.ends_link
        if link.party == "worker":
            assert not link.serves(SESSION)
            assert (WORKER not in made.hub.worker_links) == row.ends_link
        nursery.cancel_scope.cancel()


@rows
@both
async def test_what_the_trail_says(cause: Cause, told_to_go: bool) -> None:
    """The trail has the words and the detail of the row, and nothing where the row has none."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery, told_to_go=told_to_go)
        link = made.link(cause)
        link.conn.closed = CloseInfo(1006, "", "remote")
        row = release(made, cause)
        owner = SESSION if cause in CLIENT_CAUSES else WORKER
        details = {
            Detail.NONE: "",
            Detail.HOW_OVER: "1006 by remote",
            Detail.EPOCH: f"epoch {EPOCH}",
            Detail.WORKER: owner,
            Detail.REASON: f"{owner}: {REASON}",
        }
        words = of_claim(told_to_go=told_to_go)[1] if row.trail == CLAIMED else row.trail
        assert made.steps() == ([(link.party, words, details[row.detail])] if words else [])
        nursery.cancel_scope.cancel()


@rows
async def test_what_the_store_hears(cause: Cause) -> None:
    """The store gets what the party had offered, its acks and the operation of the row; nothing else is said of the party."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        row, party = release(made, cause), made.link(cause).party
        await trio.testing.wait_all_tasks_blocked()
        kept = made.kept
        assert bool([op for op in kept.of(Append) if op.party == party]) == row.settles
        acked = [op for op in kept.of(Ack) if op.party == party]
        carried = [op for op in kept.of(Append) if op.party == party and op.ack]
        assert bool(acked or carried) == row.stores_acks
        assert bool(kept.of(Detach)) == (row.store is StoreStep.DETACH)
        assert bool(kept.of(DetachWorker)) == (row.store is StoreStep.DETACH and party == "worker")
        assert bool(kept.of(Unpair)) == (row.store is StoreStep.UNPAIR)
        assert bool(kept.of(UnpairFailed)) == (row.store is StoreStep.UNPAIR_FAILED)
        withdrawn = row.store in (StoreStep.UNPAIR, StoreStep.UNPAIR_FAILED)
        assert ((SESSION, WORKER) in made.hub.attachments.withdrawals.pairs) == withdrawn
        assert ((SESSION, WORKER) in made.hub.attachments.withdrawals.refused) == withdrawn
        for op in [*kept.of(Detach), *kept.of(Unpair), *kept.of(UnpairFailed)]:
            assert (op.session, op.node, op.epoch) == (SESSION, "n1", EPOCH)
        nursery.cancel_scope.cancel()


@rows
async def test_what_is_read_again(cause: Cause) -> None:
    """The session is read again for its peer here where the row looks, and the registry for the worker where it checks."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        made.session.looks.end()
        row, party = release(made, cause), made.link(cause).party
        assert ([op.party for op in made.kept.of(Look) if op.party != party] != []) == row.looks
        await trio.testing.wait_all_tasks_blocked()
        assert bool(made.kept.of(UpdateWorker)) == row.checks
        nursery.cancel_scope.cancel()


@rows
@pytest.mark.parametrize("peer", [False, True])
async def test_whether_the_session_is_forgotten(cause: Cause, peer: bool) -> None:
    """A session whose last party was released is forgotten where the row says so; one with a peer here never is."""
    async with trio.open_nursery() as nursery:
        party = "client" if cause in CLIENT_CAUSES else "worker"
        made = scene(nursery, alone="" if peer else party)
        row = release(made, cause)
        forgotten = SESSION not in made.hub.sessions
        assert forgotten == (row.if_idle and row.detaches and not peer)
        nursery.cancel_scope.cancel()


@rows
async def test_what_the_address_of_the_client_holds(cause: Cause) -> None:
    """The share of a session in the bytes of its address goes on, is that of one that is away, or is forgotten."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        row = release(made, cause)
        holding = made.hub.holdings._by_address.get("192.0.2.1")
        where = "forgotten" if holding is None else "away" if SESSION in holding.away else "unchanged"
        assert where == row.holding.value
        nursery.cancel_scope.cancel()


@rows
@both
async def test_what_the_party_is_told(cause: Cause, told_to_go: bool) -> None:
    """The connection gets the `session_ended`, the `error` and the close of the row, and no other."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery, told_to_go=told_to_go)
        row, link = release(made, cause), made.link(cause)
        conn: Any = link.conn
        ended = [frame["reason"] for frame in conn.frames if frame["type"] == "session_ended"]
        assert ended == ([REASON if row.says == GIVEN else row.says] if row.says else [])
        errors = [(frame["code"], frame["message"]) for frame in conn.frames if frame["type"] == "error"]
        assert errors == ([row.error] if row.error else [])
        if row.close == CLAIMED:
            code, reason = of_claim(told_to_go=told_to_go)
            assert conn.close_words == (code, reason)
        elif isinstance(row.close, CloseCode):
            assert conn.close_words == (row.close, row.error[0] if row.error else REASON)
        else:
            assert conn.close_words is None
        nursery.cancel_scope.cancel()


@rows
@pytest.mark.parametrize("by", ["local", "remote"])
@both
async def test_what_counts_as_a_handover(cause: Cause, by: Any, told_to_go: bool) -> None:
    """The drain hears of a party that is here no more; it is a handover if it was told to go, and as the row says."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery, told_to_go=told_to_go)
        made.link(cause).conn.closed = CloseInfo(1001, "", by)
        row, link = release(made, cause), made.link(cause)
        counts = {Handover.ALWAYS: True, Handover.BY_PEER: by == "remote", Handover.NEVER: False}[row.handover]
        if row.tells_drain:
            (told,) = made.told
            assert (told.party, told.owner) == (link.party, link.owner)
            assert told.goaway_at == (TOLD_AT if counts and told_to_go else None)
        else:
            assert made.told == []
            assert row.handover is Handover.NEVER, "a handover is told with the end of the link"
        handovers = made.hub.counts.handovers[link.party]
        assert sum(handovers.counts) == (counts and told_to_go)
        nursery.cancel_scope.cancel()


async def test_a_link_is_released_once() -> None:
    """A link that is over is not released again: its party may be attached here on another one by now."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        made.hub.attachments.release(made.client, Cause.CLIENT_CLAIMED)
        made.kept.ops.clear()
        made.hub.attachments.release(made.client, Cause.CLIENT_GONE)
        assert made.kept.ops == []
        assert len(made.told) == 1
        nursery.cancel_scope.cancel()


async def test_a_client_at_its_end_is_not_detached_in_the_store() -> None:
    """Behind the end of a session a `Detach` would be all that is left of it."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        made.client.ending = True
        release(made, Cause.CLIENT_GONE)
        assert made.kept.of(Detach) == []
        nursery.cancel_scope.cancel()


async def test_another_worker_takes_over_under_the_same_epoch() -> None:
    """A worker that is attached where another one is releases it first: no session has two workers."""
    async with trio.open_nursery() as nursery:
        made = scene(nursery)
        conn: Any = Conn()
        other = WorkerLink(made.hub.parts, conn, "w_other", EPOCH, Offer("instance", {}, 9), "fleet")
        made.hub.attachments.open(other)
        made.hub.attachments.attach(other, made.session, EPOCH, 1)
        assert made.session.worker.link is other
        assert not made.worker.serves(SESSION)
        assert other.serves(SESSION)
        assert made.worker.seats == {}
        nursery.cancel_scope.cancel()


def test_the_holding_of_a_worker_never_changes() -> None:
    """Only a client has a share of an address."""
    assert all(row.holding is Holding.UNCHANGED for cause, row in EXITS.items() if cause not in CLIENT_CAUSES)
