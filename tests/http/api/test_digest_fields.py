"""`Content-Digest`, by the examples of RFC 9530 and the rules of RFC 8941."""

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.http.api.digest_fields import digest_field, sha256_of

HELLO = b'{"hello": "world"}\n'
NAMED = "RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="
"""That of RFC 9530, appendix B.1, of the body above."""


@pytest.mark.parametrize(
    "values",
    [
        [f"sha-256=:{NAMED}:"],
        [f"sha-256=:{NAMED.rstrip('=')}:"],
        [f"sha-512=:AAAA:, sha-256=:{NAMED}:"],
        ["sha-512=:AAAA:", f"sha-256=:{NAMED}:"],
        [f"sha-256=:{b64encode(bytes(32)).decode()}:, sha-256=:{NAMED}:"],
        [f"  sha-256=:{NAMED}:;a=1;b ,unixsum=:AAA=:"],
    ],
)
def test_the_digest_of_a_body(values: list[str]) -> None:
    """One algorithm among several, in several lines, with parameters; the last of one name counts."""
    assert sha256_of(values) == hashlib.sha256(HELLO).digest()


def test_none_is_named() -> None:
    """No field, an empty one, and one of other algorithms."""
    for values in ([], [""], ["sha-512=:AAAA:"], ["md5=:AAAA:, *x=::"]):
        assert sha256_of(values) is None


@pytest.mark.parametrize(
    "value",
    [
        NAMED, f"sha-256={NAMED}", f"sha-256=:{NAMED}", "sha-256=:AAAA:", "sha-256=::", "sha-256", "sha-256=1", "SHA-256=:AAAA:",
        f"sha-256=:{NAMED}:,", f"sha-256=:{NAMED}: sha-512=:AAAA:", f"sha-256=:{NAMED}:;;", f"sha-256=:{NAMED[:-2]}-=:", ", ,",
        "sha-256=:A:", f"sha-512=:AAAA:;a=,b, sha-256=:{NAMED}:",
    ],
)  # fmt: skip
def test_what_is_no_digest(value: str) -> None:
    """A field that cannot be read is refused, and so is a digest of another length."""
    with pytest.raises(ValueError):
        sha256_of([value])


@given(st.binary(max_size=50))
def test_a_digest_is_read_as_it_is_written(body: bytes) -> None:
    """There and back."""
    digest = hashlib.sha256(body).digest()
    assert sha256_of([digest_field(digest)]) == digest


@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_field_is_read_or_refused(values: list[str]) -> None:
    """Nothing else is raised."""
    try:
        found = sha256_of(values)
    except ValueError:
        return
    assert found is None or len(found) == 32
