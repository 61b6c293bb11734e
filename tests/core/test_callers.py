"""Callers and their access: the rules that each store repeats in its own words."""

import pytest

from signald.core.callers import ALL, Access, Caller
from signald.core.wants import SEPARATOR

ANN = f"acme{SEPARATOR}ann"


@pytest.mark.parametrize(
    ("access", "principal", "worker", "allowed"),
    [
        (ALL, ANN, "w_1", True),
        (ALL, "", "", True),
        (Access(owner="ann"), "ann", "", True),
        (Access(owner="ann"), ANN, "", False),
        (Access(owner=ANN), ANN, "", True),
        (Access(owner=""), "", "", True),
        (Access(owner=""), "ann", "", False),
        (Access(tenant="acme"), ANN, "", True),
        (Access(tenant="acme"), f"acme2{SEPARATOR}ann", "", False),
        (Access(tenant="acme"), "acme", "", False),
        (Access(tenant="acme"), "", "", False),
        (Access(tenant=""), f"{SEPARATOR}ann", "", True),
        (Access(tenant=""), "ann", "", False),
        (Access(worker="w_1"), ANN, "w_1", True),
        (Access(worker="w_1"), ANN, "w_2", False),
        (Access(worker="w_1"), ANN, "", False),
        (Access(worker=""), ANN, "", False),
    ],
)
def test_access_is_judged_by_the_principal_and_the_worker_of_a_session(
    access: Access, principal: str, worker: str, allowed: bool
) -> None:
    """An owner's name is compared whole, a tenant's up to its separator, a worker's never with no worker."""
    assert access.allows(principal, worker) is allowed


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (ALL, ("a", "")),
        (Access(owner=""), ("o", "")),
        (Access(owner="ann"), ("o", "ann")),
        (Access(tenant="acme"), ("t", f"acme{SEPARATOR}")),
        (Access(worker="w_1"), ("w", "w_1")),
    ],
)
def test_access_has_two_words_for_a_script(access: Access, words: tuple[str, str]) -> None:
    """The anonymous owner is not the same as no owner, and the word of a tenant ends with the separator."""
    assert access.words == words


def test_only_a_service_is_limited_by_scopes() -> None:
    """Scopes that are absent are all scopes; a list of none allows nothing."""
    assert Caller("client", "ann", "ann", session="s_1").may("jobs")
    assert Caller("service", "backend", "backend").may("users")
    limited = Caller("service", "backend", "backend", scopes=frozenset({"jobs"}))
    assert limited.may("jobs")
    assert not limited.may("users")
    assert not Caller("service", "backend", "backend", scopes=frozenset()).may("jobs")


def test_an_anonymous_party_is_a_principal_of_its_own() -> None:
    """All anonymous sessions share the empty principal, and must not share its budgets."""
    assert Caller("client", "", "", session="s_1").payer == "s_1"
    assert Caller("worker", "", "", worker="w_1").payer == "w_1"
    assert Caller("client", "ann", "ann", session="s_1").payer == "ann"
    assert not Caller("client", "", "", session="s_1").is_anonymous
    assert Caller("person", "", "").is_anonymous
