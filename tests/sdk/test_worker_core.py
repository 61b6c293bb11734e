"""Tests of the worker's core: which connection speaks for a session."""

import json

from signald.ids import SeededEntropy
from signald.sdk.link import Link
from signald.sdk.worker_core import WorkerCore


class Worker:
    """A worker's core and what the service says to it."""

    def __init__(self) -> None:
        self.core = WorkerCore(["ws://a"], instance_id="i", entropy=SeededEntropy(1), capacity=2)
        self.left = self.core.opened("ws://a", 0.0)
        self.hears(self.left, "app_accepted", status="ok", worker="w", recovery_token="w.one", **LIFE)

    def hears(self, link: Link, kind: str, **fields: object) -> None:
        """The service says something on one of its connections."""
        self.core.receive(link, json.dumps({"type": kind, **fields}), 0.0)

    def moves(self, kept: list[dict[str, object]], lost: list[str]) -> Link:
        """Resume on a new connection; the one before is still read."""
        link = self.core.opened("ws://b", 0.0)
        self.core.write(link, 0.0)
        answer = {"sessions": kept, "lost": lost, "session_restored": True, "server_status": "running"}
        self.hears(link, "reconnection_ack", status="ok", worker="w", recovery_token="w.two", **answer, **LIFE)
        assert self.left.state == "retiring"
        return link

    def has(self, session: str) -> list[int]:
        """The seqs that wait for the handler of a session."""
        return [message.seq for message, _ in self.core.sessions[session].core.inbox]

    def says(self, link: Link) -> list[str]:
        """The types of what it writes on a connection."""
        return [json.loads(payload)["type"] for _, payload in self.core.write(link, 0.0)]


LIFE: dict[str, object] = {"token_ttl_ms": 10_000, "heartbeat_ms": 20_000}


def test_a_connection_that_is_left_does_not_speak_for_a_session_assigned_anew() -> None:
    """exactly-once: what was on its way to the handler before is not the first that the next one gets, nor acks its words."""
    worker = Worker()
    worker.hears(worker.left, "session_assigned", session="s", client={}, next_seq=1, epoch=1)
    worker.hears(worker.left, "message", session="s", seq=1, data="one")
    now = worker.moves([], ["s"])
    worker.hears(now, "session_assigned", session="s", client={}, next_seq=3, epoch=2)
    core = worker.core.sessions["s"].core
    core.send("mine")
    worker.core.write(now, 0.0)
    worker.hears(worker.left, "message", session="s", seq=2, data="two")
    worker.hears(worker.left, "ack", session="s", seq=3)
    assert worker.has("s") == []
    assert core.accepted == 2
    worker.hears(now, "message", session="s", seq=1, data="one")
    worker.hears(now, "message", session="s", seq=2, data="two")
    worker.hears(now, "ack", session="s", seq=3)
    assert worker.has("s") == [1, 2]
    assert core.accepted == 3


def test_a_connection_that_is_left_speaks_for_a_session_that_was_kept() -> None:
    """What is on its way there when a worker moves need not come again."""
    worker = Worker()
    worker.hears(worker.left, "session_assigned", session="s", client={}, next_seq=1, epoch=1)
    worker.hears(worker.left, "message", session="s", seq=1, data="one")
    worker.moves([{"session": "s", "accepted": 0, "replaying": 1}], [])
    worker.hears(worker.left, "message", session="s", seq=2, data="two")
    assert worker.has("s") == [1, 2]


def test_a_join_that_came_before_the_acceptance_is_said_again_behind_it() -> None:
    """`not_accepted` names no room: a worker that has resumed accepts the session again, and joins the rooms that it is not in."""
    worker = Worker()
    worker.hears(worker.left, "session_assigned", session="s", client={}, next_seq=1, epoch=1)
    worker.core.write(worker.left, 0.0)
    now = worker.moves([{"session": "s", "accepted": 0, "replaying": 0}], [])
    worker.core.write(now, 0.0)
    worker.core.sessions["s"].rooms.join("r")
    worker.core.touched(worker.core.sessions["s"].core)
    assert worker.says(now) == ["join"]
    worker.hears(now, "error", code="not_accepted", message="", session="s", fatal=False)
    assert worker.says(now) == ["session_accept", "join"]


def test_a_session_that_is_given_back_says_before_that_what_it_has_done() -> None:
    """exactly-once: the next worker is not given a message whose answer is stored."""
    worker = Worker()
    worker.hears(worker.left, "session_assigned", session="s", client={}, next_seq=1, epoch=1)
    worker.hears(worker.left, "message", session="s", seq=1, data="one")
    worker.says(worker.left)
    core = worker.core.sessions["s"].core
    assert core.take() is not None
    core.send("the answer")
    core.finish(1)
    worker.core.release(core, "tired", 0.0)
    assert worker.says(worker.left) == ["message", "ack", "session_refuse"]
