"""Nothing that signald writes shows a secret or a message: not at debug level, not in a traceback, not when it is told nonsense.

Everything secret is marked before it goes in; then all that came out is searched for the marks.
"""

import base64
import io
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from signald.config import AuthConfig, LogConfig
from signald.dialects.v1.client import ClientLink
from signald.logs import logging_to
from signald.service.auth import mint
from signald.testing.websocket import Speaker, close, request, text
from tests.conformance.service import SUBPROTOCOL, Stage, in_memory
from tests.real.harness import exit_of, open_nodes, term
from tests.service.test_opening import AUTH, token_for
from tests.store.redis_servers import Server, servers
from tests.test_logs import restored  # noqa: F401 - puts the loggers back as they were

MARK = "canary"
PASSWORD = f"{MARK}-of-the-store"
SECRET = f"{MARK}-of-the-issuer-" + "x" * 32


class Marked:
    """What must never be seen again."""

    def __init__(self, *secrets: str) -> None:
        """Begin with these."""
        self._secrets = [MARK, *secrets]

    def add(self, secret: str) -> str:
        """Add a secret that carries no mark, and return it. Of a token the part behind its name counts as well."""
        self._secrets += [secret, secret.rpartition(".")[2]]
        return secret

    def seen_in(self, written: str) -> list[str]:
        """Return the secrets that `written` shows, in clear or in one of the ways they are coded on their way here."""
        found = []
        for secret in self._secrets:
            coded = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
            if any(form in written for form in (secret, coded, secret[: len(secret) // 2 + 8], secret.encode().hex())):
                found.append(secret)
        return found


async def talk_nonsense(dial: Callable[[], Awaitable[Speaker]], bearer: str, marked: Marked) -> None:
    """Put marks wherever a party can put anything, rightly and wrongly."""
    coded = base64.urlsafe_b64encode(bearer.encode()).rstrip(b"=")
    session = f"s_{MARK}." + "A" * 43
    for said in (
        request(f"/v1/client?token={MARK}", SUBPROTOCOL),
        request(f"/{MARK}", (b"Connection", b"close"), SUBPROTOCOL, without=(b"Connection",)),
        request("/v1/client", (b"Authorization", MARK.encode()), (b"Origin", MARK.encode())),
        request("/v1/client", (b"Sec-WebSocket-Protocol", b"signald.bearer." + MARK.encode() + b"!")),
        request("/v1/client", (b"Cookie", MARK.encode()), without=(b"Upgrade",)),
        MARK.encode() + b"\r\n\r\n",
    ):
        party = await dial()
        await party.send(said)
        await party.hung_up_after()
    nonsense = text(f'{{"type":"message","seq":"{MARK}","data":"{MARK}"')
    for headers, goodbye, code in (
        ([SUBPROTOCOL, (b"Authorization", b"Bearer " + bearer.encode())], nonsense, 4400),
        ([(b"Sec-WebSocket-Protocol", b"signald.v1, signald.bearer." + coded)], close(4000, MARK.encode()), 4000),
    ):
        party = await dial()
        await party.open(*headers)
        await party.say({"type": "connect", "meta": {MARK: MARK}, "want": {"of": "nobody"}})
        marked.add((await party.hear("session_started"))["recovery_token"])
        await party.say({"type": "message", "seq": 1, "data": MARK, "kind": MARK})
        await party.hear("ack")
        await party.say({"type": "realtime", "data": MARK})
        await party.say({"type": MARK, "data": MARK})
        await party.hear("error")
        await party.send(goodbye)
        assert (await party.closed_with())[0] == code
    for opening in (
        {"type": "connect", "auth": MARK},
        {"type": "connect", "auth": bearer, "want": MARK},
        {"type": "restore_session", "recovery_token": MARK, "auth": bearer, "received": 0},
        {"type": "restore_session", "recovery_token": session, "auth": bearer, "received": 0},
        {"type": "restore_session", "recovery_token": session, "auth": bearer, "received": 0, "ticket": MARK},
        {"type": MARK},
    ):
        party = await dial()
        await party.open(SUBPROTOCOL)
        await party.say(opening)
        await party.hear("error")
        await party.send(close(1000, MARK.encode()))
        await party.hung_up_after()


def test_no_secret_is_logged_not_even_in_a_traceback() -> None:
    """At debug level, with a reader, a writer and an opening that fail in the middle of what they hold."""
    marked = Marked()
    out = io.StringIO()

    async def scene(stage: Stage) -> None:
        node = await stage.start()
        bearer = marked.add(token_for("ann", "client"))
        await talk_nonsense(stage.dial, bearer, marked)
        client, started, worker, session = await stage.pair()
        marked.add(started["recovery_token"])
        thief = await stage.restore(started["recovery_token"], subject="eve")
        await thief.closed_with()

        def fail(*arguments: object) -> None:
            raise RuntimeError("asked to")

        node.hub.relay.accept = fail  # type: ignore[assignment]
        await client.say({"type": "message", "seq": 1, "data": MARK})
        assert await client.closed_with() == (1011, "internal error")
        await worker.say({"type": "message", "session": session, "seq": 1, "data": MARK})
        assert await worker.closed_with() == (1011, "internal error")
        node.hub.auth = None  # type: ignore[assignment]
        party = await stage.connect()
        await party.say({"type": "connect", "auth": bearer})
        assert await party.closed_with() == (1011, "internal error")

    with logging_to(out, LogConfig(level="debug")):
        in_memory(scene)
    written = out.getvalue()
    assert written.count("handler_failed") == 3
    assert "Traceback" in written
    assert '"level": "debug"' in written
    assert marked.seen_in(written) == []


@pytest.mark.real
async def test_no_secret_is_written_by_a_process(tmp_path: Path) -> None:
    """The same of a node in its own process, with the passwords of its configuration, from its start to its end by SIGTERM."""
    marked = Marked(PASSWORD, SECRET)
    redis = Server(tmp_path, "--requirepass", PASSWORD)
    async with servers(redis):
        url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}"
        async with open_nodes(tmp_path, url, {"auth": {"jwt_secret": SECRET}, "log": {"level": "debug"}}) as nodes:
            node = await nodes.start("node")

            async def dial() -> Speaker:
                party = Speaker(await trio.open_tcp_stream(*node.websocket))
                parties.append(party)
                return party

            parties: list[Speaker] = []
            auth = AuthConfig(jwt_secret=SECRET)
            bearer = marked.add(mint(auth, subject="ann", role="client", ttl_s=600, now=time.time()))
            with trio.fail_after(60):
                await talk_nonsense(dial, bearer, marked)
                for party in parties:
                    await party.stream.aclose()
            term(node)
            assert await exit_of(node) == 0
            written = node.log.read_text()
            assert [json.loads(line)["event"] for line in written.splitlines()][-1] == "stopped"
            assert marked.seen_in(written) == []


@pytest.mark.real
async def test_a_store_that_turns_us_away_is_not_named_with_its_password(tmp_path: Path) -> None:
    """What a process that cannot start says to its supervisor shows no password, on any stream."""
    redis = Server(tmp_path, "--requirepass", "another")
    async with servers(redis), open_nodes(tmp_path, f"redis://:{PASSWORD}@127.0.0.1:{redis.port}") as nodes:
        node = await nodes.start("node", ready=False, log={"level": "debug"})
        assert await exit_of(node, 30) == 78
        assert "cannot_serve" in node.log.read_text()
        assert Marked().seen_in(node.log.read_text()) == []


def test_messages_and_tokens_are_not_in_reprs() -> None:
    """What a debugger or a careless log call prints of the objects that hold secrets does not show them."""
    marked = Marked()

    async def scene(stage: Stage) -> None:
        node = await stage.start()
        client, started = await stage.client()
        marked.add(started["recovery_token"])
        await client.say({"type": "message", "seq": 1, "data": MARK})
        await client.hear("ack")
        session = node.hub.sessions[started["session"]]
        link = session.client.link
        assert isinstance(link, ClientLink)
        for held in (node, node.hub, node.hub.auth, session, link, link.conn, link.tokens, node.committer):
            assert marked.seen_in(repr(held)) == [], type(held)
        assert str(AUTH["jwt_secret"]) not in repr(node.hub.auth) + repr(node.hub.config)

    in_memory(scene)
