"""Every decoder, searched by Hypothesis with the mutators of the fuzzer: small failures are easier to understand."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.fuzz.decoders import DECODERS, REFUSED, TAKEN


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=examples(60), deadline=None)
@given(rng=st.randoms(use_true_random=False), noise=st.binary(max_size=40))
def test_a_decoder_takes_an_input_or_refuses_it(name: str, rng: Random, noise: bytes) -> None:
    """Only what it says it raises ever comes out of it, for damaged inputs and for noise."""
    assert DECODERS[name].call(DECODERS[name].draw(rng)) in (TAKEN, REFUSED)
    assert DECODERS[name].call(noise) in (TAKEN, REFUSED)
