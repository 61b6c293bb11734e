"""Two nodes that hold one session, a store they both write, and a naive model of what must come out.

The store is a plain list for each direction; the nodes are two `Session` objects driven as the relay drives them: offers,
appends whose answers may be late or lost, looks that may be stale, claims by either party at either node, acks. What each
receiver is given is compared with what was stored.
"""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signald.core.head import Head, Party
from signald.core.log import Entry, Offer
from signald.core.pairing import Pairing
from signald.core.session import Session
from tests.examples import examples

NODES = ("a", "b")
PARTIES: tuple[Party, Party] = ("client", "worker")
WAY = {"client": "up", "worker": "down"}
"""The direction a party writes."""

nodes = st.sampled_from(NODES)
parties = st.sampled_from(PARTIES)
picks = st.integers(0, 3)
"""Which of the parties that are attached somewhere, of at most four."""


def other(party: Party) -> Party:
    return "worker" if party == "client" else "client"


class Store:
    """The truth: what a store has of one session, kept as simply as can be."""

    def __init__(self) -> None:
        self.log: dict[str, list[Entry]] = {"up": [], "down": []}
        self.acked = {"up": 0, "down": 0}
        self.epoch: dict[Party, int] = {"client": 0, "worker": 0}
        self.node: dict[Party, str] = {"client": "", "worker": ""}
        self.state = ""

    def head(self) -> Head:
        return Head(
            "s_1", 5, "ann", {}, b"", False, self.epoch["client"], self.node["client"], "w" if self.state else "", self.state,
            self.epoch["worker"], self.node["worker"], 1, len(self.log["up"]), self.acked["up"], len(self.log["down"]),
            self.acked["down"],
        )  # fmt: skip

    def append(self, party: Party, node: str, epoch: int, entries: tuple[Entry, ...]) -> tuple[int, int] | None:
        """(last, acked), or None when fenced."""
        if (epoch, node) != (self.epoch[party], self.node[party]):
            return None
        log = self.log[WAY[party]]
        assert entries[0].seq <= len(log) + 1, "a node appends what follows, or what is there already"
        log.extend(one for one in entries if one.seq > len(log))
        return entries[-1].seq, self.acked[WAY[party]]


class SessionAgainstAModel(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.held: dict[str, Session[str]] = {}
        self.asked: dict[tuple[str, Party], tuple[int, tuple[Entry, ...]]] = {}
        """Appends under way: (node, party) → (epoch, entries)."""
        self.read: dict[Party, list[int]] = {"client": [], "worker": []}
        """Seqs each receiver's application has, in order."""
        self.told: dict[str, str] = {}
        """What the client's connection at each node was told last."""
        self.heads = [self.store.head()]
        self.claim("a", "client", accepts=True)
        self.claim("b", "worker", accepts=True)

    def attached(self) -> list[tuple[str, Party]]:
        """The sides with a connection, superseded or not."""
        return [
            (node, party)
            for node in sorted(self.held)
            for party in PARTIES
            if self.held[node].side(party).link is not None
        ]

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(node=nodes, party=parties, accepts=st.booleans())
    def claim(self, node: str, party: Party, accepts: bool) -> None:
        """A party resumes at a node: the store's answer and the attachment are one step."""
        store = self.store
        store.epoch[party] += 1
        store.node[party] = node
        received = len(self.read[party])
        way = WAY[other(party)]
        store.acked[way] = max(store.acked[way], received)
        if party == "worker":
            store.state = "paired" if accepts or store.state == "paired" else "assigned"
        head = store.head()
        session = self.held.get(node)
        if session is None:
            session = Session(head, 6, 40)
        else:
            self.observe(node, head)
        self.held[node] = session  # that may have ended the last attachment here, as in `Hub.adopt`
        session.attach(party, f"{party} link", store.epoch[party], node, received)
        if party == "client":
            self.told[node] = session.peer_state
        assert session.log_from(party).expected == len(store.log[WAY[party]]) + 1, "it begins where it is told to"
        self.asked.pop((node, party), None)
        self.heads.append(head)

    @precondition(lambda self: self.attached())
    @rule(pick=picks)
    def detach(self, pick: int) -> None:
        """A connection ends, and its node says so to the store, which heeds it if the party was not claimed since."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        epoch = session.side(party).epoch
        session.detach(party)
        self.asked.pop((node, party), None)
        if (epoch, node) == (self.store.epoch[party], self.store.node[party]):
            self.store.node[party] = ""
        self.heads.append(self.store.head())
        if not session.local:
            del self.held[node]

    @precondition(lambda self: self.attached())
    @rule(pick=picks, ahead=st.sampled_from([0, 0, 0, -1, -2, 1]), size=st.integers(0, 12), take=st.booleans())
    def offer(self, pick: int, ahead: int, size: int, take: bool) -> None:
        """A sender offers the next message, an old one, or one too far; a body names its sender and its seq."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        log = session.log_from(party)
        seq = max(1, log.expected + ahead)
        verdict = log.offer(Entry(seq, f"{party}{seq}".encode() + b"." * size))
        assert (verdict is Offer.ACCEPTED) <= (ahead == 0 or seq == log.expected - 1)
        assert len(log.pending) <= 6
        assert log.bytes_held <= 40 or not log.pending
        if take:
            self.take(pick)

    @precondition(lambda self: self.attached())
    @rule(pick=picks)
    def take(self, pick: int) -> None:
        """What is pending goes to the store."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        entries = session.log_from(party).take()
        if entries:
            assert (node, party) not in self.asked, "one append at a time"
            self.asked[node, party] = (session.side(party).epoch, entries)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "answer lost", "not done"]))
    def answer(self, data: st.DataObject, how: str) -> None:
        """The store did it; or did it and its answer was lost, and the same batch is sent again; or it did not."""
        node, party = key = data.draw(st.sampled_from(sorted(self.asked)))
        epoch, entries = self.asked[key]
        log = self.held[node].log_from(party)
        if how == "not done":
            del self.asked[key]
            log.retry()
            return
        result = self.store.append(party, node, epoch, entries)
        self.heads.append(self.store.head())
        if how == "answer lost":
            return  # the committer asks again: the entry in `asked` stays
        del self.asked[key]
        if result is None:
            log.forget_pending()
            self.observe(node, self.store.head())
        else:
            assert log.stored(*result) == list(entries), "what was appended is new to the tail, and can be delivered"

    @precondition(lambda self: self.attached())
    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        """What the receiver has not been sent is sent, as far as this node has it; the application takes it."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        side, source = session.side(party), session.log_to(party)
        entries = source.after(side.sent) or []
        for entry in entries:
            assert entry == self.store.log[WAY[other(party)]][entry.seq - 1], "what is delivered is what was stored"
            assert entry.seq == side.sent + 1, "dense"
            side.sent = entry.seq
            if entry.seq > len(self.read[party]):
                assert entry.seq == len(self.read[party]) + 1, "no receiver sees a gap"
                self.read[party].append(entry.seq)

    @precondition(lambda self: self.attached())
    @rule(pick=picks)
    def ack(self, pick: int) -> None:
        """The receiver acks what its application has, and the store is told."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        side = session.side(party)
        side.ack_due = max(side.ack_due, min(len(self.read[party]), session.log_to(party).last))
        session.log_to(party).ack(side.ack_due)
        if (side.epoch, node) == (self.store.epoch[party], self.store.node[party]):
            way = WAY[other(party)]
            self.store.acked[way] = max(self.store.acked[way], side.ack_due)
            self.heads.append(self.store.head())

    @precondition(lambda self: self.attached())
    @rule(pick=picks, limit=st.integers(0, 5), stale=st.integers(0, 3))
    def look(self, pick: int, limit: int, stale: int) -> None:
        """The store is read, and what was read may be overtaken by others' writes before it is taken in."""
        node, party = self.attached()[pick % len(self.attached())]
        session = self.held[node]
        head = self.heads[-1 - min(stale, len(self.heads) - 1)] if stale else self.store.head()
        way = WAY[other(party)]
        last = head.down_last if party == "client" else head.up_last
        acked = head.down_acked if party == "client" else head.up_acked
        after = max(session.side(party).sent, acked)
        self.observe(node, head, tuple(self.store.log[way][after:last][:limit]), party)

    def observe(self, node: str, head: Head, entries: tuple[Entry, ...] = (), reader: Party | None = None) -> None:
        """Take in a head, and do what the hub does about the news."""
        session = self.held[node]
        news = session.observe(head, entries, reader)
        superseded = {"client": news.client_superseded, "worker": news.worker_superseded}
        for party in PARTIES:
            if superseded[party]:
                assert self.store.epoch[party] > 0
                assert head.client_epoch > 1 or head.worker_epoch > 1
                session.side(party).link = None
                session.log_from(party).forget_pending()
                self.asked.pop((node, party), None)
        if news.tell is not None and session.client.link is not None:
            assert news.tell != self.told[node] or news.tell == "replaced", "nothing is said twice"
            self.told[node] = news.tell
        if news.loss:
            assert head != self.store.head(), "the store never lost anything: only a stale head may know less"
        if not session.local:
            del self.held[node]

    # --- what holds at all times ----------------------------------------------------------------------------------

    @invariant()
    def no_node_knows_more_than_the_store(self) -> None:
        for session in self.held.values():
            for way, log in (("up", session.up), ("down", session.down)):
                stored = self.store.log[way]
                assert 0 <= log.acked <= log.last <= len(stored)
                assert list(log.tail) == stored[log.last - len(log.tail) : log.last]
                assert log.bytes_held == sum(len(one.body) for one in [*log.tail, *log.pending])

    @invariant()
    def nothing_is_acked_that_nobody_has(self) -> None:
        for party in PARTIES:
            assert self.store.acked[WAY[other(party)]] <= len(self.read[party])

    @invariant()
    def at_most_one_attachment_holds_the_newest_epoch(self) -> None:
        for party in PARTIES:
            newest = [
                node
                for node, session in self.held.items()
                if session.side(party).link is not None and session.side(party).epoch == self.store.epoch[party]
            ]
            assert len(newest) <= 1

    def teardown(self) -> None:
        """Both parties come back to one node, and everything that was stored arrives."""
        self.asked.clear()
        self.held.clear()
        for party in PARTIES:
            self.claim("a", party, accepts=True)
        for _ in range(len(self.store.log["up"]) + len(self.store.log["down"]) + 2):
            for pick in range(len(PARTIES)):
                self.look(pick, 5, 0)
                self.deliver(pick)
        for party in PARTIES:
            assert len(self.read[party]) == len(self.store.log[WAY[other(party)]])
        assert self.held["a"].pairing is Pairing.PAIRED
        assert msgspec.structs.replace(self.held["a"].head(), up_acked=0, down_acked=0) == msgspec.structs.replace(
            self.store.head(), up_acked=0, down_acked=0
        )


TestSessionAgainstAModel = SessionAgainstAModel.TestCase
TestSessionAgainstAModel.settings = settings(max_examples=examples(300), stateful_step_count=40, deadline=None)
