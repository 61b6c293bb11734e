"""A credential that runs out, as the SDK sees it: a function is asked for a fresh one, or the application is told."""

import json
from collections.abc import Callable

import pytest

from signald.ids import SeededEntropy
from signald.sdk.client_core import ClientCore
from signald.sdk.events import AuthExpiring
from signald.sdk.link import Link
from signald.sdk.party_core import PartyCore
from signald.sdk.worker_core import WorkerCore

STARTED = {
    "type": "session_started", "session": "s_1", "recovery_token": "t", "token_ttl_ms": 60000, "peer": {"state": "waiting"}, "next_seq": 1,
    "limits": {"message_bytes": 65536, "messages_per_s": 100, "messages_burst": 100, "backlog_messages": 1000}, "heartbeat_ms": 15000,
}  # fmt: skip
ACCEPTED = {
    "type": "app_accepted",
    "status": "ok",
    "worker": "w_1",
    "recovery_token": "t",
    "token_ttl_ms": 60000,
    "heartbeat_ms": 15000,
}
EXPIRING = {"type": "error", "code": "auth_expiring", "message": "", "fatal": False, "retry_after_ms": 30000}
REFUSED = {"type": "error", "code": "auth_refused", "message": "", "fatal": False}

Auth = str | Callable[[], str] | None


def connected(role: str, auth: Auth) -> tuple[PartyCore, Link]:
    """A party whose opening was answered."""
    core: PartyCore
    if role == "client":
        core = ClientCore(["ws://a"], entropy=SeededEntropy(1), auth=auth)
    else:
        core = WorkerCore(["ws://a"], entropy=SeededEntropy(1), instance_id="w", auth=auth)
    link = core.opened("ws://a", 0)
    core.write(link, 0)
    core.receive(link, json.dumps(STARTED if role == "client" else ACCEPTED), 0)
    notices(core)
    return core, link


def said(core: PartyCore, link: Link, now: float = 0) -> list[dict[str, object]]:
    return [json.loads(payload) for _, payload in core.write(link, now)]


def notices(core: PartyCore) -> list[object]:
    """Return and forget what the application is told."""
    queue = core.events if isinstance(core, ClientCore) else core.notices  # type: ignore[attr-defined]
    found = list(queue)
    queue.clear()
    return found


@pytest.mark.parametrize("role", ["client", "worker"])
def test_a_function_is_asked_for_a_fresh_credential(role: str) -> None:
    """It is sent at once, and the application hears nothing of it."""
    made = iter(["first", "second", "third"])
    core, link = connected(role, lambda: next(made))
    core.receive(link, json.dumps(EXPIRING), 1)
    assert said(core, link, 1) == [{"type": "auth", "auth": "second"}]
    assert notices(core) == []


@pytest.mark.parametrize("role", ["client", "worker"])
def test_without_a_function_the_application_is_told(role: str) -> None:
    """It gives a new credential by `renew_auth`, which later connections show too."""
    core, link = connected(role, "first")
    core.receive(link, json.dumps(EXPIRING), 1)
    assert said(core, link, 1) == []
    assert notices(core) == [AuthExpiring(30.0)]
    core.renew_auth("second")
    assert said(core, link, 1) == [{"type": "auth", "auth": "second"}]
    assert core.credentials.auth() == "second"
    with pytest.raises(ValueError, match="auth"):
        core.renew_auth("x" * 9000)


@pytest.mark.parametrize("role", ["client", "worker"])
def test_a_refused_credential_is_told(role: str) -> None:
    """What the function gave was no better: the application must know, and messages go on unharmed."""
    core, link = connected(role, lambda: "stale")
    core.receive(link, json.dumps(EXPIRING), 1)
    said(core, link, 1)
    core.receive(link, json.dumps(REFUSED), 3)
    assert notices(core) == [AuthExpiring(None)]


def test_a_function_that_fails_ends_nothing() -> None:
    """Its error is the application's: it is told as where there is no function."""
    calls = iter(["first"])

    def auth() -> str:
        for one in calls:
            return one
        raise OSError("the token service is away")

    core, link = connected("client", auth)
    core.receive(link, json.dumps(EXPIRING), 1)
    assert notices(core) == [AuthExpiring(30.0)]


def test_a_node_that_says_it_without_end_is_heard_once_a_second() -> None:
    """Each word would make the application fetch a token."""
    asked: list[int] = []

    def auth() -> str:
        asked.append(1)
        return "x"

    core, link = connected("client", auth)
    for _ in range(1000):
        core.receive(link, json.dumps(EXPIRING), 1)
    assert len(asked) == 2  # the opening, and once
    core.receive(link, json.dumps(EXPIRING | {"retry_after_ms": -(10**15)}), 2.5)
    assert len(asked) == 3


def test_nothing_is_sent_again_for_it() -> None:
    """The hint of `auth_expiring` is a grace, and no pause for messages."""
    core, link = connected("client", "first")
    assert isinstance(core, ClientCore)
    core.session.send("hello")
    assert [one["type"] for one in said(core, link, 1)] == ["message"]
    core.receive(link, json.dumps(EXPIRING), 1)
    core.session.send("again")
    assert [one["type"] for one in said(core, link, 1)] == ["message"]
