"""A session and a head of a store that has lost something: see the nouns and the drawing of `core.failover`."""

import msgspec
import pytest

from signald.core.failover import NO_LOSS, Loss, Overtaken
from signald.core.head import Head
from signald.core.log import Entry
from signald.core.pairing import Pairing
from tests.core.heads import ASSIGNED, AWAY_2, NEW, PAIRED, PAIRED_2, UNPAIRED, session


def test_the_drawing() -> None:
    """The usurper of the drawing: three messages known, two received, and a usurper that begins after the first of them."""
    one = session(msgspec.structs.replace(PAIRED_2, down_last=3))
    one.client.sent = 2
    news = one.observe(msgspec.structs.replace(GIVEN_AGAIN, worker_epoch=4, said_before=1))
    assert (news.usurped, news.loss) == ((3, 3), Loss(messages=True))
    assert (one.void_to, one.down.last) == (5, 6)
    theirs = session(msgspec.structs.replace(GIVEN_AGAIN, worker_epoch=4, said_before=1))
    theirs.detach("client")
    theirs.attach("worker", "worker link", 4, "a", 0)
    given_back = msgspec.structs.replace(GIVEN_AGAIN, worker_epoch=4, worker_node="a", said_before=1, down_last=6)
    assert theirs.observe(given_back).overtaken == Overtaken((1, 5), by_claim=False)


def test_a_head_that_ends_too_early_has_lost_messages_and_nothing_else() -> None:
    """The claims hold, so only the messages are given back; a head that has them all has lost nothing."""
    one = session(msgspec.structs.replace(PAIRED, up_last=4, down_last=3))
    assert one.observe(msgspec.structs.replace(PAIRED, up_last=3, down_last=3)).loss == Loss(messages=True)
    assert one.observe(msgspec.structs.replace(PAIRED, up_last=4, down_last=3)).loss is NO_LOSS
    assert not NO_LOSS


def test_a_head_that_has_lost_events_is_given_back_what_was_known() -> None:
    """Neither the number of the last event nor whether the session is told is believed of such a head."""
    one = session(msgspec.structs.replace(PAIRED, events=4, events_max=9))
    news = one.observe(msgspec.structs.replace(PAIRED, events=3, events_max=0))
    assert (news.loss, one.head().events, one.head().events_max) == (Loss(messages=True), 4, 9)
    assert one.observe(msgspec.structs.replace(PAIRED, events=5, events_max=0)).loss is NO_LOSS
    assert (one.head().events, one.head().events_max) == (5, 0)


@pytest.mark.parametrize(("here", "loss"), [(True, Loss(claim=True)), (False, NO_LOSS)])
def test_the_node_of_a_worker_knows_best_that_it_accepted(here: bool, loss: Loss) -> None:
    """An acceptance has no epoch: a head without it is outdated where the worker is attached, and news elsewhere."""
    one = session(PAIRED)
    if here:
        one.attach("worker", "worker link", 1, "a", 0)
    news = one.observe(ASSIGNED)
    assert news.loss == loss
    assert news.tell == (None if here else "waiting")


def test_a_claim_of_the_client_is_named_as_the_evidence_against_a_worker() -> None:
    """Where only the client claims to know the seqs, no loss of the store is shown."""
    one = session(PAIRED)
    one.attach("worker", "worker link", 1, "a", 0)
    claimed = msgspec.structs.replace(PAIRED, down_last=4, down_claimed=(1, 4))
    assert one.observe(claimed).overtaken == Overtaken((1, 0), by_claim=True)


@pytest.mark.parametrize("older", [ASSIGNED, UNPAIRED, NEW])
def test_a_store_that_has_lost_who_has_the_session_is_told_and_not_believed(older: Head) -> None:
    """Worker and epoch are known together: of an older head neither is taken, or a mix of both would be given back."""
    seen = session(PAIRED_2)
    news = seen.observe(older)
    assert news.loss == Loss(claim=True)
    assert news.tell is None
    assert (seen.worker_id, seen.worker.epoch, seen.pairing) == ("w2", 3, Pairing.PAIRED)
    told = seen.head()
    assert (told.worker, told.worker_state, told.worker_epoch) == ("w2", "paired", 3)


def test_what_was_refused_and_done_after_all_is_the_workers_own() -> None:
    """A request to append arrives a second time when there is room again: no other worker has spoken in its place."""
    one = session(PAIRED)
    one.attach("worker", "worker link", 1, "a", 0)
    for seq in (1, 2):
        one.down.offer(Entry(seq, b"x"))
    one.down.take()
    one.down.forget_pending()  # `Full`
    assert one.observe(msgspec.structs.replace(PAIRED, down_last=2)).overtaken is None
    assert one.observe(msgspec.structs.replace(PAIRED, down_last=3)).overtaken == Overtaken((1, 2), by_claim=False)


GIVEN_AGAIN = msgspec.structs.replace(PAIRED, worker="w3", worker_epoch=2, worker_node="b", down_last=5)
"""What a store knows that had forgotten w2, and has given its session to w3."""


@pytest.mark.parametrize("epoch", [2, 3])
def test_who_was_given_the_session_by_a_store_that_had_forgotten_it_keeps_it(epoch: int) -> None:
    """What it has said under numbers that the client has heard is passed over, one number is given up, and the worker here goes."""
    one = session(msgspec.structs.replace(PAIRED_2, down_last=2, down_acked=1))
    one.attach("worker", "worker link", 3, "a", 0)
    one.client.sent = 2
    one.down.offer(Entry(3, b"x"))
    one.down.take()
    given = msgspec.structs.replace(GIVEN_AGAIN, worker_epoch=epoch)
    news = one.observe(given, tuple(Entry(seq, b"again") for seq in (3, 4, 5)), "client")
    assert (news.usurped, news.loss, news.overtaken, news.tell) == ((3, 2), Loss(messages=True), None, "replaced")
    assert (one.worker_id, one.worker.epoch, one.void_to) == ("w3", epoch, 5)
    assert (one.down.last, one.down.expected, list(one.down.tail), one.down.bytes_held) == (6, 7, [], 0)
    assert one.observe(given).usurped is None


@pytest.mark.parametrize(("acked", "kept"), [(0, 2), (4, 4)])
def test_a_worker_apart_from_its_client_gives_way_when_somebody_has_spoken_in_its_place(acked: int, kept: int) -> None:
    """Its client may have heard the other: what it has said itself, and the client did not ack, is lost."""
    one = session(msgspec.structs.replace(PAIRED_2, said_before=2, down_last=7, down_acked=acked))
    one.detach("client")
    one.attach("worker", "worker link", 3, "a", 0)
    assert one.observe(msgspec.structs.replace(GIVEN_AGAIN, down_last=kept)).usurped is None
    assert one.observe(msgspec.structs.replace(GIVEN_AGAIN, down_last=kept + 1)).usurped == (acked + 1, 7)


@pytest.mark.parametrize("here", ["client", "worker"])
def test_a_newer_claim_that_begins_inside_what_was_said_is_one_of_a_store_that_lost_it(here: str) -> None:
    """A newly assigned worker numbers from a seq behind all that was said before, also where it has gone on past that since."""
    known = msgspec.structs.replace(PAIRED, down_last=5, down_acked=1)
    newer = msgspec.structs.replace(PAIRED_2, worker_node="b", down_last=7, down_acked=1)
    one = session(known)
    if here == "worker":
        one.attach("worker", "worker link", 1, "a", 0)
        one.detach("client")
    else:
        one.client.sent = 3
    assert one.observe(msgspec.structs.replace(newer, said_before=4)).usurped == (5, 5)
    assert (one.worker_id, one.worker.epoch, one.said_before, one.void_to) == ("w2", 3, 4, 7)
    assert session(known).observe(msgspec.structs.replace(newer, said_before=5)).usurped is None
    again = msgspec.structs.replace(newer, worker="w1")
    assert session(known).observe(msgspec.structs.replace(again, said_before=0)).usurped is None, "it has resumed"
    assert session(known).observe(msgspec.structs.replace(again, said_before=5)).usurped is None
    assert session(known).observe(msgspec.structs.replace(again, said_before=4)).usurped == (5, 5), "assigned anew"


@pytest.mark.parametrize("known", [PAIRED_2, AWAY_2])
def test_a_store_that_has_forgotten_a_worker_and_holds_nothing_new_is_given_back_what_it_lost(known: Head) -> None:
    """What the worker before had said is no sign that it speaks again; nor is that of a worker that was not let go."""
    one = session(msgspec.structs.replace(known, down_last=5))
    older = msgspec.structs.replace(PAIRED, down_last=5)
    assert (one.observe(older).usurped, one.observe(older).loss.claim) == (None, True)
    before = session(msgspec.structs.replace(PAIRED, down_last=5))
    before.observe(msgspec.structs.replace(UNPAIRED, down_last=5))
    assert before.observe(msgspec.structs.replace(PAIRED, down_last=6)).usurped is None
