"""A session as one node sees it: what a change of the store's head tells the client, and what it does to both sides."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.core.head import Head
from signald.core.log import Entry, Offer
from signald.core.pairing import Pairing
from signald.core.session import News, Session
from tests.core.heads import ASKED_2, ASSIGNED, AWAY, AWAY_2, ELSEWHERE, NEW, PAIRED, PAIRED_2, UNPAIRED, head, session


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        ([NEW], [None]),
        ([ASSIGNED, PAIRED], [None, "paired"]),
        ([PAIRED], ["paired"]),
        ([PAIRED, PAIRED], ["paired", None]),
        ([PAIRED, ELSEWHERE], ["paired", None]),
        ([PAIRED, AWAY, AWAY, ELSEWHERE], ["paired", "away", None, "paired"]),
        ([PAIRED, UNPAIRED, ASKED_2, PAIRED_2], ["paired", "waiting", None, "replaced"]),
        ([PAIRED, PAIRED_2], ["paired", "replaced"]),
        ([PAIRED, ASKED_2, PAIRED_2], ["paired", "waiting", "replaced"]),
        ([PAIRED, AWAY, UNPAIRED, PAIRED_2], ["paired", "away", "waiting", "replaced"]),
        ([PAIRED, AWAY, PAIRED_2], ["paired", "away", "replaced"]),
        ([PAIRED, AWAY_2, AWAY_2], ["paired", "replaced", "away"]),
        ([AWAY, UNPAIRED], ["away", "waiting"]),
        ([ASSIGNED, UNPAIRED], [None, None]),
        ([ASSIGNED, UNPAIRED, ASKED_2, PAIRED_2], [None, None, None, "paired"]),
    ],
)
def test_what_the_client_is_told(heads: list[Head], told: list[str | None]) -> None:
    """Each change of the head tells the client at most one state, and none tells it the same again."""
    one = session()
    assert [one.observe(each).tell for each in heads] == told


@pytest.mark.parametrize(
    ("first", "state", "known"),
    [(NEW, "waiting", ""), (ASSIGNED, "waiting", ""), (PAIRED, "paired", "w1"), (AWAY, "away", "")],
)
def test_a_session_met_for_the_first_time_is_as_the_store_says(first: Head, state: str, known: str) -> None:
    """A node that takes a session over answers with the state it finds, and takes the worker for known."""
    one = session(first)
    assert (one.peer_state, one.known_worker) == (state, known)
    assert one.observe(first) == News()


def test_a_newer_claim_supersedes_whoever_is_attached() -> None:
    """A higher epoch ends the attachment of that party and of no other; an old head does nothing."""
    one = session(PAIRED)
    one.attach("worker", "worker link", 1, "a", 0)
    news = one.observe(msgspec.structs.replace(ELSEWHERE, client_epoch=2, client_node="b"))
    assert (news.client_superseded, news.worker_superseded) == (True, True)
    assert (one.client.epoch, one.client.node, one.worker.epoch, one.worker.node) == (2, "b", 2, "b")
    stale = one.observe(PAIRED)
    assert (stale.client_superseded, stale.worker_superseded) == (False, False)
    assert (one.client.epoch, one.client.node, one.worker.node) == (2, "b", "b")


def test_acks_are_news_once() -> None:
    """What the receivers have is told when it grows."""
    one = session(PAIRED)
    grown = msgspec.structs.replace(PAIRED, up_last=4, up_acked=2, down_last=3, down_acked=3)
    news = one.observe(grown)
    assert (news.up_acked, one.up.acked, one.down.acked) == (True, 2, 3)
    assert one.observe(grown) == News()


def test_an_append_under_way_is_answered_by_its_own_result() -> None:
    """A look that has seen our append already does not move `last`: the entries would be missing from the tail."""
    one = session(PAIRED)
    assert one.up.offer(Entry(1, b"x")) is Offer.ACCEPTED
    one.up.take()
    one.observe(msgspec.structs.replace(PAIRED, up_last=1))
    assert one.up.last == 0
    assert [entry.seq for entry in one.up.stored(1, 0)] == [1]


def test_a_party_that_comes_back_begins_behind_what_it_stored_elsewhere() -> None:
    """An append under way for its older connection hides nothing that the store has: it can only be fenced."""
    one = session(PAIRED)
    one.up.offer(Entry(1, b"x"))
    one.up.take()
    claimed = msgspec.structs.replace(PAIRED, client_epoch=3, client_node="a", up_last=5)
    one.observe(claimed)
    one.attach("client", "new link", 3, "a", 0)
    assert (one.up.last, one.up.expected, one.up.bytes_held) == (5, 6, 0)


def test_attaching_takes_the_partys_word_for_what_it_has() -> None:
    """What it has received counts as sent and acked; what an older connection offered, the party offers again."""
    one = session(msgspec.structs.replace(PAIRED, down_last=5, down_acked=1))
    one.up.offer(Entry(1, b"x"))
    one.attach("client", "new link", 2, "a", 3)
    assert (one.client.sent, one.client.ack_due, one.down.acked) == (3, 3, 3)
    assert (one.up.expected, one.up.bytes_held) == (1, 0)


def test_acks_of_an_older_claim_that_were_not_stored_hold_no_more() -> None:
    """A party that is claimed again acks again: acks that the store never had are neither given back to it nor skipped in the log."""
    held = session(msgspec.structs.replace(PAIRED, up_last=3, up_acked=1, down_last=3, down_acked=1))
    held.up.ack(2)
    held.down.ack(2)
    held.observe(
        msgspec.structs.replace(
            PAIRED, client_epoch=2, worker_epoch=2, worker_node="b", up_last=3, up_acked=1, down_last=3, down_acked=1
        )
    )
    assert (held.head().up_acked, held.head().down_acked) == (1, 1)


def test_a_session_is_local_while_a_party_is_here() -> None:
    """Either party keeps it."""
    one = session(PAIRED)
    one.attach("worker", "worker link", 1, "a", 0)
    one.detach("client")
    assert one.local
    one.detach("worker")
    assert not one.local


def test_the_end_is_said_once_and_is_final() -> None:
    """An ended session tells `gone`, and nothing the store may still say changes it."""
    one = session(PAIRED)
    assert (one.end(), one.end()) == ("gone", None)
    assert (one.observe(PAIRED_2).tell, one.peer_state, one.pairing) == (None, "gone", Pairing.ENDED)


def test_a_node_gives_back_what_it_was_told() -> None:
    """The head made for a store that lost everything is the one last observed."""
    for told in (NEW, ASSIGNED, PAIRED, AWAY, ELSEWHERE, msgspec.structs.replace(PAIRED_2, up_last=7, up_acked=3)):
        one: Session[str] = Session(NEW, 10, 100)
        one.observe(told)
        assert one.head() == told


HEADS = st.builds(
    lambda worker, state, node, epochs: head(
        worker=worker,
        worker_state=state if worker else "",
        worker_node=node if worker else "",
        worker_epoch=epochs,
    ),
    st.sampled_from(["", "w1", "w2"]),
    st.sampled_from(["assigned", "paired"]),
    st.sampled_from(["", "a", "b"]),
    st.integers(0, 9),
)


@given(HEADS, st.lists(HEADS, max_size=12))
def test_whatever_heads_come_the_client_hears_a_story_that_makes_sense(first: Head, heads: list[Head]) -> None:
    """No sequence of heads is impossible; nothing is said twice in a row but `replaced`, and in the end it knows the truth."""
    one = session(first)
    told = [one.peer_state, *(one.observe(each).tell for each in heads)]
    said = [state for state in told if state is not None]
    assert all(after != before or after == "replaced" for before, after in pairwise(said))
    final = first
    for each in heads:  # a head with an older epoch comes from a store that has forgotten a claim: it is no truth
        final = each if each.worker_epoch >= final.worker_epoch else final
    one.observe(final)  # a worker that was replaced and left within one look is found away by the next
    wanted = "waiting" if final.worker_state != "paired" else "paired" if final.worker_node else "away"
    assert one.peer_state == wanted
