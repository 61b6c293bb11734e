"""Tests of the client's core: whatever happens to connections, every message arrives once and in order."""

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signald.ids import SeededEntropy
from signald.sdk.backoff import Backoff
from signald.sdk.client_core import ClientCore
from signald.sdk.errors import LinkBroken
from signald.sdk.events import LogLost
from signald.wire.codec import decode_client
from signald.wire.messages import Connect, RestoreSession
from tests.sdk.model import Model

STEPS = st.one_of(
    st.just(("connect", 0)),
    st.tuples(st.just("turn"), st.integers(1, 8)),
    st.tuples(st.sampled_from(["send", "say", "take"]), st.integers(1, 5)),
    st.tuples(st.sampled_from(["up", "down"]), st.integers(1, 8)),
    st.tuples(st.just("cut"), st.integers(0, 3)),
    st.just(("goaway", 0)),
    st.just(("refuse", 0)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
)
ESTABLISHED = [("connect", 0), ("up", 8), ("down", 8)]

LOST_MOVE = [
    *ESTABLISHED,
    *[("send", 5), ("up", 3), ("goaway", 0), ("down", 8), ("connect", 0)],
    *[("up", 8), ("cut", 0), ("cut", 0)],
]
"""A move whose grant never arrives, and the old connection is gone as well."""


def play(steps: list[tuple[str, int]], seed: int) -> Model:
    """Run a schedule, then let everything settle."""
    core = ClientCore(["ws://a"], entropy=SeededEntropy(seed), backoff=Backoff(base_s=0.1, cap_s=0.2))
    model = Model(core)
    for name, count in steps:
        if name == "connect":
            model.connect()
        elif name == "turn":
            model.connect()
            model.carry_up(count)
            model.carry_down(count)
        elif name == "up":
            model.carry_up(count)
        elif name == "down":
            model.carry_down(count)
        elif name == "cut":
            model.cut(count)
        elif name == "goaway":
            model.go_away()
        elif name == "refuse":
            model.refuse_next = True
        elif name == "wait":
            model.now += count / 10
        else:
            for _ in range(count):
                getattr(model, name)()
        assert model.stored == model.sent[: len(model.stored)]
        assert model.taken == model.pushed[: len(model.taken)]
        assert model.released <= len(model.taken)
    model.settle()
    return model


@settings(max_examples=300, deadline=None)
@example(LOST_MOVE, 0)
@given(st.lists(STEPS, max_size=60).map(lambda steps: [*ESTABLISHED, *steps]), st.integers(0, 3))
def test_every_message_arrives_once_and_in_order(steps: list[tuple[str, int]], seed: int) -> None:
    """Cuts, lost answers, moves, refusals: each side's messages reach the other exactly once, in order."""
    check(play(steps, seed))


@pytest.mark.parametrize("seed", range(100))
def test_every_message_arrives_once_and_in_order_over_long_schedules(seed: int) -> None:
    """The same over long random schedules, which a search for small ones seldom tries."""
    rng = random.Random(seed)
    names = rng.choices(
        ["turn", "connect", "send", "say", "take", "up", "down", "cut", "goaway", "refuse", "wait"],
        [6, 2, 6, 6, 6, 4, 4, 1, 1, 1, 2],
        k=300,
    )
    check(play([*ESTABLISHED, *[(name, rng.randint(1, 6)) for name in names]], seed))


def check(model: Model) -> None:
    """Nothing is lost, doubled, reordered or left behind."""
    assert model.core.over is None
    assert model.breaks == model.cuts  # the client itself never had a reason to cut
    assert model.stored == model.sent
    assert model.taken == model.pushed
    assert model.core.session.unacked == 0
    assert model.released == len(model.pushed)  # the last ack arrived as well


def test_the_opening_messages_are_what_the_wire_takes() -> None:
    """`connect` and `restore_session` decode strictly, with everything the application asked for."""
    core = ClientCore(
        ["ws://a"],
        entropy=SeededEntropy(0),
        auth=lambda: "jwt",
        want={"lang": "de"},
        meta={"n": 1},
        receipts=True,
        history=5,
    )
    link = core.opened("ws://a", 0.0)
    message, _ = decode_client(*core.write(link, 0.0)[0], 32)
    assert isinstance(message, Connect)
    assert (message.auth, message.want, bytes(message.meta), message.receipts) == (
        "jwt",
        {"lang": "de"},
        b'{"n":1}',
        True,
    )
    core.lost(link, None, "", 0.0)
    core.token = "s_1.x"
    message, _ = decode_client(*core.write(core.opened("ws://a", 1.0), 1.0)[0], 32)
    assert isinstance(message, RestoreSession)
    assert (message.recovery_token, message.history, message.auth) == ("s_1.x", 5, "jwt")


def attempt(core: ClientCore, now: float = 0.0) -> int:
    """What the next opening message of `core` counts; it is given up at once."""
    link = core.opened("ws://a", now)
    message, _ = decode_client(*core.write(link, now)[0], 32)
    core.lost(link, None, "", now)
    return message.attempt if isinstance(message, RestoreSession) else 0


def test_opening_messages_are_counted() -> None:
    """Each that resumes counts one more than all before it, answered or not."""
    core = play(ESTABLISHED, 0).core
    assert [attempt(core) for _ in range(3)] == [2, 3, 4]


def test_another_process_counts_on() -> None:
    """It counts from above what the first one may have sent after its state was saved, and so does the one after it."""
    core = play(ESTABLISHED, 0).core
    state = core.state()
    told = [attempt(core) for _ in range(3)]
    other = ClientCore(["ws://a"], entropy=SeededEntropy(0), state=state)
    assert attempt(other) > max(told)
    third = ClientCore(["ws://a"], entropy=SeededEntropy(0), state=other.state())
    assert attempt(third) > attempt(other)


def test_who_has_only_a_token_does_not_count_until_it_is_answered() -> None:
    """The count of its last process is unknown: a low count would pass for a message that comes late."""
    core = ClientCore(["ws://a"], entropy=SeededEntropy(0), recovery_token="s.1")
    assert [attempt(core), attempt(core)] == [0, 0]
    link = core.opened("ws://a", 0.0)
    answer = {
        "type": "session_restored", "session": "s", "recovery_token": "s.2", "token_ttl_ms": 1, "accepted": 0, "replaying": 0,
        "peer": {"state": "paired", "id": "w"}, "heartbeat_ms": 10_000,
    }  # fmt: skip
    core.receive(link, json.dumps(answer), 0.0)
    core.lost(link, None, "", 0.0)
    assert [attempt(core), attempt(core)] == [1, 2]


def test_an_answer_that_was_not_asked_for_breaks_the_connection() -> None:
    """The first frame is an answer to the opening message, and of its kind."""
    core = ClientCore(["ws://a"], entropy=SeededEntropy(0))
    link = core.opened("ws://a", 0.0)
    with pytest.raises(LinkBroken):
        core.receive(link, '{"type":"message","seq":1,"data":1}', 0.0)
    with pytest.raises(LinkBroken):
        core.receive(link, "not json", 0.0)


def test_a_loss_that_was_announced_is_no_gap() -> None:
    """After `log_lost` the messages behind the hole are taken, and the application is told of it."""
    model = play([*ESTABLISHED, ("say", 2), ("down", 8), ("take", 2)], 0)
    core = model.core
    assert core.current is not None
    error = {"type": "error", "code": "log_lost", "message": "", "lost_from": 3, "lost_to": 4}
    core.receive(core.current, json.dumps({**error, "direction": "received"}), 0.0)
    core.receive(core.current, '{"type":"message","seq":5,"data":"after"}', 0.0)
    taken = core.session.take()
    assert taken is not None
    assert (taken.seq, taken.data) == (5, "after")
    assert LogLost(3, 4) in core.events
    with pytest.raises(LinkBroken):
        core.receive(core.current, '{"type":"message","seq":7,"data":"too far"}', 0.0)


def test_a_loss_is_acked_in_its_turn() -> None:
    """What is lost counts as had once the application is through with what came before; of what we sent it counts for nothing."""
    model = play([*ESTABLISHED, ("say", 2), ("down", 8), ("take", 2)], 0)
    core = model.core
    assert core.current is not None
    core.write(core.current, 0.0)
    error = {"type": "error", "code": "log_lost", "message": "", "lost_from": 4, "lost_to": 6}
    core.receive(core.current, '{"type":"message","seq":3,"data":"before"}', 0.0)
    core.receive(core.current, json.dumps({**error, "direction": "sent"}), 0.0)
    assert (core.session.received, core.session.finished) == (3, 2)
    core.receive(core.current, json.dumps({**error, "direction": "received"}), 0.0)
    assert (core.session.received, core.session.finished) == (6, 2)
    assert core.session.finish(3)
    assert '{"type":"ack","seq":6}' in str(core.write(core.current, 0.0))


def test_an_ack_beyond_what_was_sent_breaks_the_connection() -> None:
    """The ledger is not trimmed by an impossible ack."""
    core = play(ESTABLISHED, 0).core
    assert core.current is not None
    with pytest.raises(LinkBroken):
        core.receive(core.current, '{"type":"ack","seq":1}', 0.0)


def test_a_session_without_a_worker_sends_nothing() -> None:
    """With `pair` false the opening says so; told `none`, the core refuses messages and realtime data, and reports no event of a peer."""
    core = ClientCore(["ws://a"], entropy=SeededEntropy(0), pair=False)
    link = core.opened("ws://a", 0.0)
    opening, _ = decode_client(*core.write(link, 0.0)[0], 32)
    assert isinstance(opening, Connect)
    assert opening.pair is False
    answer = {"session": "s_1", "recovery_token": "t", "token_ttl_ms": 1, "heartbeat_ms": 1000, "next_seq": 1}
    limits = {"message_bytes": 1000, "messages_per_s": 10.0, "messages_burst": 10, "backlog_messages": 10}
    peer = {"state": "none", "id": None}
    core.receive(link, json.dumps({"type": "session_started", **answer, "limits": limits, "peer": peer}), 0.0)
    assert (core.peer.state, list(core.events)) == ("none", [])
    for say in (core.session.send, core.realtime):
        with pytest.raises(ValueError, match="no worker"):
            say("x")
    assert core.session.next_seq == 1
