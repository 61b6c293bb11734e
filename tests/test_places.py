"""Places before a party is known: which peer gives way to a newcomer, and which to the memory budget."""

import random

from signald.places import SILENT_AFTER_S, MemoryBudget, Place, Places


class Peers:
    """Peers at one stage; remembers which gave way, by name."""

    def __init__(self, limit: int, budget: MemoryBudget | None = None) -> None:
        self.places = Places(budget)
        self.limit = limit
        self.gone: list[str] = []
        self.here: dict[str, Place] = {}

    def come(self, name: str, holder: str, now: float, *, says: int = 0) -> bool:
        """Let a peer come; it says so many bytes at once. Tell whether it has a place."""
        place = self.places.take(holder, now, self.limit, lambda: self.gone.append(name))
        if place is None:
            return False
        self.here[name] = place
        if says:
            self.places.heard(place, says)
        return True


def test_the_oldest_silent_peer_of_the_address_with_most_gives_way() -> None:
    """A newcomer from elsewhere takes the place of the oldest silent peer of the address that holds most."""
    peers = Peers(4)
    peers.come("honest", "b", 0.0)
    for number in range(3):
        peers.come(f"silent {number}", "a", number / 10)
    assert peers.come("late", "c", 5.0)
    assert peers.gone == ["silent 0"]


def test_a_peer_that_is_quiet_again_counts_as_silent_from_then_on() -> None:
    """One that has had its answer gives way before those that are being served, the one that is quiet for longest first."""
    peers = Peers(3)
    for number, name in enumerate("abc"):
        peers.come(name, name, float(number), says=1)
    peers.places.quiet(peers.here["c"], 10.0)
    peers.places.quiet(peers.here["a"], 11.0)
    peers.places.quiet(peers.here["a"], 9.0)  # it was quiet already, and stays the later one
    assert peers.come("d", "d", 20.0, says=1)
    assert peers.come("e", "e", 20.0, says=1)
    assert peers.gone == ["c", "a"]


def test_a_place_counts_for_its_present_holder() -> None:
    """A renamed place makes the new holder the larger one, talking or silent."""
    peers = Peers(3)
    peers.come("one", "a", 0.0, says=1)
    peers.come("two", "b", 0.0)
    peers.come("three", "c", 0.0, says=1)
    peers.places.rename(peers.here["one"], "c")
    peers.places.rename(peers.here["two"], "c")
    assert peers.come("late", "d", 0.5)
    assert peers.gone == ["two"]
    assert {place.holder for place in peers.places} == {"c", "d"}


def test_a_peer_that_makes_progress_stays_while_another_is_silent() -> None:
    """The oldest peer of all keeps its place when it speaks."""
    peers = Peers(3)
    peers.come("slow", "a", 0.0, says=10)
    peers.come("silent", "a", 0.5)
    peers.come("slow too", "b", 0.6, says=10)
    assert peers.come("late", "c", 5.0)
    assert peers.gone == ["silent"]


def test_a_large_address_that_speaks_keeps_its_places_while_a_small_one_is_silent() -> None:
    """A silent peer gives way before peers that make progress, even where these have an address with more places."""
    peers = Peers(4)
    peers.come("silent", "b", 0.0)
    for number in range(3):
        peers.come(f"slow {number}", "a", 0.5, says=10)
    assert peers.come("late", "c", 5.0)
    assert peers.gone == ["silent"]


def test_an_address_that_trickles_loses_to_newcomers_from_elsewhere() -> None:
    """Bytes that lead nowhere keep no place: the address with the most places gives way, down to its fair part."""
    peers = Peers(8)
    for number in range(8):
        peers.come(f"trickle {number}", "a", 0.0, says=1)
    for number in range(4):
        assert peers.come(f"other {number}", "b", 1.0, says=10)
    assert peers.gone == [f"trickle {number}" for number in range(4)]
    assert not peers.come("other 4", "b", 1.0)
    assert peers.come("third", "c", 1.0)


def test_a_newcomer_that_had_no_time_to_speak_is_not_replaced_by_a_crowd() -> None:
    """While one address holds nearly all places by trickling, its further peers replace no newcomer of another address."""
    peers = Peers(8)
    for number in range(7):
        peers.come(f"trickle {number}", "a", 0.0, says=1)
    peers.come("new", "b", 1.0)
    peers.come("other", "c", 1.0 + SILENT_AFTER_S / 2)
    assert peers.gone == ["trickle 0"]


def test_proxied_peers_hold_a_place_each() -> None:
    """Among peers that are each a holder of their own, the oldest silent one gives way, however many there are."""
    peers = Peers(100)
    for number in range(100):
        peers.come(f"{number}", f"proxy {number}", number / 100)
    for number in range(50):
        assert peers.come(f"late {number}", f"proxy late {number}", 5.0, says=10)
    assert peers.gone == [f"{number}" for number in range(50)]


def test_the_largest_of_the_address_that_holds_most_gives_way_at_the_memory_budget() -> None:
    """Beyond the budget the address with the most bytes loses its largest peers, at every stage; others stay."""
    budget = MemoryBudget()
    handshakes, strangers = Peers(100, budget), Peers(100, budget)
    strangers.come("worker", "b", 0.0, says=190)
    for number in range(10):
        strangers.come(f"hoard {number}", "a", 0.0, says=80 + number)
    handshakes.come("late", "c", 1.0, says=20)
    budget.relieve(1000)
    assert strangers.gone == ["hoard 9", "hoard 8", "hoard 7"]
    assert (handshakes.gone, budget.bytes, budget.evicted) == ([], 1055 - 264, 3)
    budget.relieve(1000)
    assert budget.evicted == 3


def test_counts_hold_after_any_order_of_events() -> None:
    """After a thousand random events the counts, the bytes and the ranking are those of the places that are held."""
    rng = random.Random(5)
    budget = MemoryBudget()
    peers = Peers(20, budget)
    for number in range(1000):
        held = [place for place in peers.here.values() if place.held]
        if held and rng.random() < 0.3:
            peers.places.leave(rng.choice(held))
        elif held and rng.random() < 0.1:
            peers.places.quiet(rng.choice(held), number / 50)
        elif held and rng.random() < 0.1:
            peers.places.rename(rng.choice(held), rng.choice("abcd"))
        elif held and rng.random() < 0.5:
            peers.places.heard(rng.choice(held), rng.randrange(100))
            budget.relieve(700)
        else:
            peers.come(f"{number}", rng.choice("abcd"), number / 50)
        held = [place for place in peers.here.values() if place.held]
        assert set(held) == set(peers.places)
        assert peers.places.taken == len(held) <= 20
        assert budget.bytes == sum(place.bytes for place in held) <= 700
        counts = {holder: sum(place.holder == holder for place in held) for holder in "abcd"}
        largest = peers.places._all.largest()
        assert counts.get(largest or "", 0) == max(counts.values())
