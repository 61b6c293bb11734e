"""The one table of close codes."""

import pytest

from signald.wire.close_codes import ADVICE, UNKNOWN, CloseCode, advice

FINAL = {1000, 4001, 4401, 4403, 4409, 4410}
"""After these a party neither comes back nor shows its token again."""

RETRY_AND_RESUME = {1001, 1011, 1012, 1013, 4408, 4429, 4508}


def test_every_code_has_its_advice() -> None:
    """A code that signald sends without a rule for its receiver would be a riddle."""
    assert set(ADVICE) == set(CloseCode)
    assert len({one.meaning for one in ADVICE.values()}) == len(ADVICE)


@pytest.mark.parametrize("code", sorted(CloseCode))
def test_what_a_party_may_do_next(code: CloseCode) -> None:
    """Moved, superseded, ended and refused parties stay away; those cut by our doing come back and resume."""
    told = advice(code)
    assert (not told.may_reconnect and not told.may_resume) is (code in FINAL)
    assert (told.may_reconnect and told.may_resume) is (code in RETRY_AND_RESUME)


def test_without_a_session_there_is_still_the_service() -> None:
    """4404 takes the token's worth, not the right to begin anew."""
    assert (advice(4404).may_reconnect, advice(4404).may_resume) == (True, False)


@pytest.mark.parametrize("code", [None, 1005, 1006, 3000, 4999])
def test_an_end_without_a_rule_means_resume(code: int | None) -> None:
    """A connection that just broke, and codes of the future, end no session."""
    assert advice(code) is UNKNOWN
    assert (UNKNOWN.may_reconnect, UNKNOWN.may_resume) == (True, True)
