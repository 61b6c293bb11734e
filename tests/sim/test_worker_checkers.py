"""What a worker may be told of a session that it has, and what it was through with when it gave one back."""

import msgspec
import pytest
from trio.testing import MockClock

from signald.core.log import Entry
from signald.store.base import Op
from signald.store.session.ops import AcceptSession, Ack, Append, ClaimWorkerSide, CreateSession, Unpair
from tests.sim.scene import Scene
from tests.sim.small import draw_small
from tests.sim.worker_checkers import Finished, Kept

S, W, OTHER = "s_1", "w_1", "w_2"
NODE = "n1"
BACKLOG = 100


class Story:
    """A session in the hands of a worker, with three messages for it, and what the checkers make of what comes then."""

    def __init__(self) -> None:
        self.scene = Scene(draw_small(1), keep=False)
        self.scene.sessions[S] = self.scene.clients[0]
        self.kept, self.finished = Kept(self.scene), Finished(self.scene)
        self.wire = self.scene.network.connect("w0", NODE, lambda _wire, _data: None, lambda _name, _why: None).name
        entries = tuple(Entry(seq, b"hello", history=False) for seq in (1, 2, 3))
        self.done(
            CreateSession(S, NODE, "a", "", {}, b"", False, bytes(32), 0, 60_000),
            claim(W),
            AcceptSession(S, NODE, 1),
            Append(S, "client", NODE, 1, entries, 0, BACKLOG, BACKLOG, BACKLOG, 0),
        )
        self.kept.told(self.wire, "app_accepted", msgspec.json.encode({"type": "app_accepted", "worker": W}))

    def done(self, *ops: Op) -> None:
        """The store has done this."""
        results = self.scene.world.execute(ops)
        self.kept.applied(ops, results)
        self.finished.applied(ops, results)

    def says(self, kind: str, **fields: object) -> None:
        """The worker says something of the session."""
        self.finished.said(self.wire, kind, msgspec.json.encode({"type": kind, "session": S, **fields}))

    def hears_of_the_end(self) -> None:
        """The worker hears that the session is over for it."""
        self.kept.told(self.wire, "session_ended", msgspec.json.encode({"type": "session_ended", "session": S}))

    @property
    def broken(self) -> list[str]:
        """The promises that were broken."""
        return [name for name, _ in self.scene.violations]


def claim(worker: str) -> ClaimWorkerSide:
    """`worker` is given the session."""
    return ClaimWorkerSide(S, NODE, f"claimed by {worker}", worker, True, 0, 0, 0)


async def test_told_what_is_not_so(autojump_clock: MockClock) -> None:
    """sticky: a worker that has a session, and never lost it, is not told that it is over for it."""
    story = Story()
    story.hears_of_the_end()
    assert story.broken == ["sticky"]


@pytest.mark.parametrize("ops", [(Unpair(S, NODE, W, 1),), (claim(OTHER),), (Unpair(S, NODE, W, 1), claim(W))])
async def test_told_late(ops: tuple[Op, ...], autojump_clock: MockClock) -> None:
    """A worker that has lost a session is told so, and be it when it has the session again."""
    story = Story()
    story.done(*ops)
    story.hears_of_the_end()
    assert story.broken == []


async def test_told_of_a_bye(autojump_clock: MockClock) -> None:
    """A worker is told of the end of a session whose client has said bye, though the store has yet to hear of it."""
    story = Story()
    story.scene.clients[0].byed = True
    story.hears_of_the_end()
    assert story.broken == []


@pytest.mark.parametrize(
    ("known", "reason", "node", "wrong"),
    [
        (2, "failed", NODE, False),
        (1, "failed", NODE, True),
        (1, "no answer", NODE, False),  # the node's own decision: what the worker says may be on its way
        (1, "failed", "n2", False),  # another node has given the worker up meanwhile
    ],
)
async def test_given_back(known: int, reason: str, node: str, *, wrong: bool, autojump_clock: MockClock) -> None:
    """exactly-once: what a worker had acked when it gave a session back is acked before another worker has the session."""
    story = Story()
    story.says("ack", seq=3)
    story.says("session_accept")  # assigned anew: that ack was for an assignment before
    story.says("ack", seq=2)
    story.says("session_refuse", reason="failed")
    story.finished.refused(S, W, reason)
    story.done(Ack(S, "worker", NODE, 1, known), Unpair(S, node, W, 1))
    assert story.broken == ["exactly-once"] * wrong
