"""Admission: slots, places, rates, and what is kept for parties that resume."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from signald.bucket import BUCKETS_MAX
from signald.ids import SeededEntropy
from signald.net.admission import Admission, SetupGate
from tests.net.settings import settings_of


def admission(**limits: float) -> Admission:
    return Admission(settings_of(**limits), entropy=SeededEntropy(1))


def never() -> None:
    raise AssertionError("this peer may keep its place")


class TestAdmission:
    """Handshakes, connections, rates."""

    def test_handshakes_are_counted_and_come_back(self) -> None:
        """A slot is refused when all are taken, and free again when one is given back."""
        under_test = admission(handshakes_in_progress_max=2)
        places = [under_test.begin_handshake("192.0.2.1", 0.0, never) for _ in range(2)]
        for place in places:
            assert place is not None
            under_test.heard(place, 10)
        assert under_test.begin_handshake("192.0.2.1", 0.0, never) is None
        assert sum(under_test.refused.values()) == 1
        assert places[0] is not None
        under_test.end_handshake(places[0])
        assert under_test.begin_handshake("192.0.2.1", 0.0, never) is not None

    def test_connections_are_refused_at_the_limit_with_a_spread_hint(self) -> None:
        """503 with a hint between one and two times the configured one, not the same for all peers."""
        under_test = admission(connections_max=1, retry_after_ms=1000)
        assert under_test.begin_connection("192.0.2.1", 0.0) is None
        hints = set()
        for _ in range(20):
            refusal = under_test.begin_connection("192.0.2.1", 0.0)
            assert refusal is not None
            assert refusal.status == 503
            assert 1000 <= refusal.retry_after_ms <= 2000
            hints.add(refusal.retry_after_ms)
        assert len(hints) > 10
        assert under_test.connections == 1
        under_test.end_connection("192.0.2.1")
        assert under_test.begin_connection("192.0.2.1", 0.0) is None

    def test_an_address_holds_its_share_of_the_connections(self) -> None:
        """At its share an address is refused, others are not; a trusted proxy that names no address has no share."""
        under_test = admission(connections_max=8, address_share=0.5)
        assert [under_test.begin_connection("192.0.2.1", 0.0) is None for _ in range(5)] == [True] * 4 + [False]
        assert under_test.begin_connection("192.0.2.2", 0.0) is None
        under_test.end_connection("192.0.2.1")
        assert under_test.begin_connection("192.0.2.1", 0.0) is None
        proxy = admission(connections_max=8, address_share=0.5)
        assert [proxy.begin_connection("10.0.0.1", 0.0, shared=True) is None for _ in range(9)] == [True] * 8 + [False]

    def test_a_subscriber_holds_one_share_with_all_its_addresses(self) -> None:
        """All addresses of an IPv6 /64, and both forms of an IPv4 address, share one share."""
        under_test = admission(connections_max=4, address_share=0.5)
        verdicts = [under_test.begin_connection(f"2001:db8::{number}", 0.0) for number in range(3)]
        assert [verdict is None for verdict in verdicts] == [True, True, False]
        under_test = admission(connections_max=4, address_share=0.5)
        verdicts = [under_test.begin_connection(one, 0.0) for one in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")]
        assert [verdict is None for verdict in verdicts] == [True, True, False]

    def test_each_address_has_its_own_rate(self) -> None:
        """The burst is spent per address and refills with time; a refused connect takes no place."""
        under_test = admission(connects_per_s=2.0, connects_burst=3)
        verdicts = [under_test.begin_connection("192.0.2.1", 0.0) for _ in range(4)]
        assert [verdict and verdict.status for verdict in verdicts] == [None, None, None, 429]
        assert under_test.connections == 3
        assert under_test.begin_connection("192.0.2.2", 0.0) is None
        assert under_test.begin_connection("192.0.2.1", 0.4) is not None
        assert under_test.begin_connection("192.0.2.1", 0.5) is None
        later = [under_test.begin_connection("192.0.2.1", 3600.0) for _ in range(4)]
        assert [verdict and verdict.status for verdict in later] == [None, None, None, 429]

    def test_an_ipv6_subscriber_is_a_64(self) -> None:
        """An address range of 2^64 addresses does not have 2^64 rates."""
        under_test = admission(connects_per_s=1.0, connects_burst=1)
        assert under_test.begin_connection("2001:db8::1", 0.0) is None
        assert under_test.begin_connection("2001:db8::ffff:2", 0.0) is not None
        assert under_test.begin_connection("2001:db8:0:1::1", 0.0) is None

    def test_addresses_remembered_are_bounded(self) -> None:
        """Beyond the bound strangers share one bucket, and addresses whose bucket is full again are forgotten."""
        under_test = admission(connects_per_s=1.0, connects_burst=1, connections_max=100_000)
        bound = BUCKETS_MAX
        for number in range(bound):
            assert under_test.begin_connection(f"a{number}", 0.0) is None
        assert under_test.begin_connection("stranger", 0.0) is None
        assert under_test.begin_connection("another", 0.9) is not None
        assert len(under_test._connects) == bound + 1
        assert under_test.begin_connection("later", 10.0) is None
        assert len(under_test._connects) == 1


class TestSetupGate:
    """Set-ups in progress."""

    def test_an_address_holds_its_share_of_the_set_ups(self) -> None:
        """One address fills half of the set-ups, resumes included; another address still finds a place."""
        gate = SetupGate(settings_of(setups_in_progress_max=8, address_share=0.5), entropy=SeededEntropy(1))
        assert [gate.enter(resume=True, remote="192.0.2.1") > 0 for _ in range(5)] == [False] * 4 + [True]
        assert gate.enter(resume=True, remote="192.0.2.2") == 0
        gate.leave("192.0.2.1")
        assert gate.enter(resume=True, remote="192.0.2.1") == 0

    def test_a_principal_holds_its_share_of_the_set_ups(self) -> None:
        """One principal from many addresses fills half of the set-ups; another's resume finds a place, and so does a worker."""
        gate = SetupGate(settings_of(setups_in_progress_max=8, address_share=0.5), entropy=SeededEntropy(1))
        remotes = [f"192.0.2.{number}" for number in range(5)]
        entered = [gate.enter(resume=True, remote=remote, principal="eve") for remote in remotes]
        assert [wait > 0 for wait in entered] == [False] * 4 + [True]
        assert gate.enter(resume=True, remote="192.0.2.9", principal="ann") == 0
        assert gate.enter(resume=True, remote="192.0.2.9") == 0
        gate.leave(remotes[0], "eve")
        assert gate.enter(resume=True, remote=remotes[4], principal="eve") == 0

    def test_a_principal_holds_its_share_of_the_connections(self) -> None:
        """Connections that are let in and those on their way count; a client that replaces its own adds none."""
        gate = SetupGate(settings_of(connections_max=8, address_share=0.5), entropy=SeededEntropy(1))
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(gate.client("eve"))
            assert gate.enter(resume=False, principal="eve") == 0
            assert gate.enter(resume=True, principal="eve") > 0
            assert gate.enter(resume=True, principal="eve", replaces=True) == 0
            assert gate.enter(resume=True, principal="ann") == 0
            assert gate.enter(resume=True) == 0
        gate.leave(principal="eve")
        gate.leave(principal="eve")
        assert gate.enter(resume=True, principal="eve") == 0

    def test_a_share_is_kept_for_resumes(self) -> None:
        """New parties stop at what is not reserved; resumes go on to the limit; no connection is closed for them."""
        gate = SetupGate(settings_of(setups_in_progress_max=4, resume_reserved_share=0.75), entropy=SeededEntropy(1))
        assert [gate.enter(resume=False) > 0 for _ in range(2)] == [False, True]
        assert [gate.enter(resume=True) > 0 for _ in range(4)] == [False, False, False, True]
        gate.leave()
        assert gate.enter(resume=False) > 0
        assert gate.enter(resume=True) == 0

    @given(st.integers(1, 1000), st.floats(0.0, 1.0), st.integers(0, 60_000))
    def test_no_configuration_locks_anybody_out_for_ever(self, places: int, share: float, hint: int) -> None:
        """Whatever the share, an empty gate lets in one of either kind, and a full one gives a hint above 0."""
        settings = settings_of(setups_in_progress_max=places, resume_reserved_share=share, retry_after_ms=hint)
        for resume in (False, True):
            gate = SetupGate(settings, entropy=SeededEntropy(1))
            assert gate.enter(resume=resume) == 0
            for _ in range(places):
                last = gate.enter(resume=resume)
            assert last > 0
            assert gate.in_progress <= places
