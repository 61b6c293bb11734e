"""The page for the engineer of a backend: its code verifies what is sent, and its tables name what is told."""

import re
from typing import Any, get_args

import pytest

from signald.core.life import EventType
from signald.core.webhooks import secrets_of, signed_headers
from tests.docs.code import ROOT
from tests.service.telling.core import SECRET

PAGE = (ROOT / "docs/core-server.md").read_text(encoding="utf-8")
NOW_S = 1_793_023_200
BODY = b'{"type":"session.ended"}'


def receiver() -> Any:
    """The function of the page."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names["is_from_signald"]


def test_the_code_of_the_page_takes_what_is_sent() -> None:
    """Signed with one secret or with two."""
    other = "whsec_" + "A" * 42 + "8="
    for secrets in (secrets_of(SECRET), secrets_of(other, SECRET)):
        assert receiver()(signed_headers("msg_1", NOW_S, BODY, secrets), BODY, SECRET, now=NOW_S + 299)


@pytest.mark.parametrize(
    ("body", "now", "secret"), [(BODY + b" ", 0, SECRET), (BODY, 301, SECRET), (BODY, 0, "whsec_AAAA")]
)
def test_the_code_of_the_page_refuses_all_else(body: bytes, now: int, secret: str) -> None:
    """Another body, an old request, another secret."""
    headers = signed_headers("msg_1", NOW_S, BODY, secrets_of(SECRET))
    assert not receiver()(headers, body, secret, now=NOW_S + now)


def test_each_type_is_in_the_table() -> None:
    """Those of sessions, of workers and of the cluster, and no other."""
    named = set(re.findall(r"^\| `([a-z]+\.[a-z]+)` \| the ", PAGE, re.MULTILINE))
    assert named == {*get_args(EventType), "worker.registered", "worker.lost", "deploy.finished", "app.message"}
