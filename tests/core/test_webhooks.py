"""Signatures of Standard Webhooks: the vector of the specification, two secrets while they rotate, and what is no signature."""

import base64

import pytest

from signald.core.webhooks import (
    SECRET_BYTES_MAX,
    SECRET_BYTES_MIN,
    TOLERANCE_S,
    BadSecret,
    BadSignature,
    Secrets,
    parse_secret,
    secrets_of,
    sign,
    signed_headers,
    verify,
)

VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NOW_S = 1614265330.0


def test_the_vector_of_the_specification() -> None:
    """Any library of the specification takes these signatures."""
    secrets = secrets_of(VECTOR_SECRET)
    assert sign(*VECTOR, secrets) == VECTOR_SIGNATURE
    verify(signed_headers(*VECTOR, secrets), VECTOR[2], secrets, NOW_S)


def test_both_secrets_sign_while_they_rotate() -> None:
    """A receiver may know the old secret or the new one."""
    both = secrets_of(OTHER_SECRET, VECTOR_SECRET)
    headers = signed_headers(*VECTOR, both)
    assert headers["webhook-signature"].split(" ")[1] == VECTOR_SIGNATURE
    for known in (OTHER_SECRET, VECTOR_SECRET):
        verify(headers, VECTOR[2], secrets_of(known), NOW_S)
    assert secrets_of(OTHER_SECRET, "") == secrets_of(OTHER_SECRET)
    assert not secrets_of("", "")


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({}, b'{"test": 2432232315}'),
        ({"webhook-id": "msg_other"}, VECTOR[2]),
        ({"webhook-timestamp": "1614265331"}, VECTOR[2]),
        ({"webhook-timestamp": str(1614265330 + TOLERANCE_S + 1)}, VECTOR[2]),
        ({"webhook-timestamp": "-1"}, VECTOR[2]),
        ({"webhook-timestamp": "9" * 400}, VECTOR[2]),
        ({"webhook-timestamp": "²"}, VECTOR[2]),
        ({"webhook-id": ""}, VECTOR[2]),
        ({"webhook-signature": ""}, VECTOR[2]),
        ({"webhook-signature": VECTOR_SIGNATURE[3:]}, VECTOR[2]),
        ({"webhook-signature": "v2" + VECTOR_SIGNATURE[2:]}, VECTOR[2]),
        ({"webhook-signature": "v1,é"}, VECTOR[2]),
        ({"webhook-signature": "v1,x " * 1000 + VECTOR_SIGNATURE}, VECTOR[2]),
    ],
)
def test_another_request_is_not_right(changes: dict[str, str], body: bytes) -> None:
    """A changed body, id or time, a replay, and odd texts are refused."""
    secrets = secrets_of(VECTOR_SECRET)
    with pytest.raises(BadSignature):
        verify(signed_headers(*VECTOR, secrets) | changes, body, secrets, NOW_S)


def test_without_the_secret_nothing_is_right() -> None:
    """A request that is signed with another secret is refused, and so is any by a receiver without one."""
    for known in (secrets_of(OTHER_SECRET), Secrets()):
        with pytest.raises(BadSignature):
            verify(signed_headers(*VECTOR, secrets_of(VECTOR_SECRET)), VECTOR[2], known, NOW_S)
    assert "webhook-signature" not in signed_headers(*VECTOR, Secrets())


@pytest.mark.parametrize("length", [SECRET_BYTES_MIN, 32, SECRET_BYTES_MAX])
def test_secrets(length: int) -> None:
    """Each length of the specification is taken."""
    assert parse_secret("whsec_" + base64.b64encode(b"s" * length).decode()) == b"s" * length


@pytest.mark.parametrize(
    "text",
    [
        VECTOR_SECRET[6:],
        "whsec_",
        "whsec_?" + VECTOR_SECRET[7:],
        VECTOR_SECRET[:-1],
        "whpk_" + VECTOR_SECRET[6:],
        "whsec_" + base64.b64encode(b"s" * 23).decode(),
        "whsec_" + base64.b64encode(b"s" * 65).decode(),
        "whsec_é" + VECTOR_SECRET[7:],
    ],
)
def test_what_is_no_secret(text: str) -> None:
    """It is refused, and the refusal holds nothing of it."""
    with pytest.raises(BadSecret) as refused:
        parse_secret(text)
    assert text[6:] == "" or text[6:] not in str(refused.value)


def test_secrets_show_nothing() -> None:
    """A secret stands in no repr."""
    assert repr(secrets_of(VECTOR_SECRET)) == "Secrets(keys=1)"
