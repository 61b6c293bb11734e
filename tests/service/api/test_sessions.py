"""Sessions over HTTP, on nodes in memory: what is shown of them, and what may be done with them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from signald.core.callers import ALL, Caller
from signald.http.api import sessions as noun
from signald.http.api.sessions import ShownSession
from signald.http.api.times import rfc3339
from signald.ids import job_id
from signald.service.auth import Principal
from signald.store.base import Result
from signald.store.session.jobs.ops import CreateJob
from signald.testing.cluster import Cluster, play
from tests.http.publicly import Answer, HttpPeer
from tests.service.api.asker import SERVICE, Asker
from tests.service.test_opening import AUTH
from tests.service.test_waiting import token, waiting

BEGAN = "2023-11-14T22:13:20.000Z"
"""When the clock of a cluster starts."""

NOBODY = "s_" + "a" * 24

Scene = Callable[[Cluster], Awaitable[None]]


def person(subject: str, tenant: str | None = None) -> Caller:
    """A user with a credential."""
    return Caller("person", Principal(subject, "client", tenant).name, subject, tenant)


async def two_nodes(cluster: Cluster) -> None:
    """Start two nodes that demand credentials."""
    for name in ("n1", "n2"):
        await cluster.start(name, auth=AUTH)


def test_a_session_is_shown_at_any_node(asking: Callable[[Cluster], Asker]) -> None:
    """Another node than its client's shows it just so: where it is, since when, and its worker."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        worker, _ = await cluster.worker("n2", auth=token("worker", "gpu"))
        client, started = await cluster.client("n1", auth=token("client", "ann"))
        session = started["session"]
        await worker.accept()
        await trio.sleep(2)
        shown = await asker.shown(session, at="n2")
        assert shown == await asker.shown(session)
        worker_id = shown["peer"].pop("id")
        assert worker_id.startswith("w_")
        assert shown == {
            "session": session, "subject": "ann", "node": "n1", "created_at": BEGAN, "connected_at": BEGAN,
            "last_seen_at": rfc3339(cluster.world.now_ms()), "presence": "online", "peer": {"state": "paired"},
            "rooms": [], "settings": {}, "jobs": [],
        }  # fmt: skip
        client.cut()
        await trio.sleep(1)
        away = await asker.shown(session, at="n2")
        left_ms = cluster.world.now_ms() - 1000
        assert (away["node"], away["presence"], away["last_seen_at"]) == (None, "away", rfc3339(left_ms))
        assert away["connected_at"] == BEGAN
        await cluster.restore("n2", started["recovery_token"], auth=token("client", "ann"))
        back = await asker.shown(session)
        assert (back["node"], back["connected_at"], back["created_at"]) == ("n2", rfc3339(left_ms + 1000), BEGAN)

    play(scene)


def test_a_node_that_is_gone_has_no_client(asking: Callable[[Cluster], Asker]) -> None:
    """After its node was killed, a client counts as away, last seen when it had attached there."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        _, started = await cluster.client("n1", auth=token("client", "ann"))
        cluster.kill("n1")
        await trio.sleep(30)
        shown = await asker.shown(started["session"], at="n2")
        assert (shown["node"], shown["presence"], shown["last_seen_at"]) == (None, "away", BEGAN)

    play(scene)


@pytest.mark.parametrize(
    ("by", "status"),
    [
        (SERVICE, 200),
        (Caller("service", "t\x1fbackend", "backend", "t"), 200),
        (Caller("service", "u\x1fbackend", "backend", "u"), 404),
        (person("ann", "t"), 200),
        (person("ann"), 404),
        (person("bob", "t"), 404),
    ],
)
def test_who_may_see_a_session(asking: Callable[[Cluster], Asker], by: Caller, status: int) -> None:
    """Its user may, and a service that is bound to no tenant, or to that of its user; for all others there is no such session."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        _, started = await cluster.client("n1", auth=token("client", "ann", tenant="t"))
        told = await asker("GET", f"/{started['session']}", by=by)
        assert told.status == status
        assert (await asker("GET", f"/{NOBODY}", by=by)).status == 404
        assert (await asker("DELETE", f"/{started['session']}", by=by)).status == (204 if status == 200 else status)

    play(scene)


def test_a_client_may_see_its_own_session_alone(asking: Callable[[Cluster], Asker]) -> None:
    """Another session of the same principal is none of a client's."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, one = await cluster.client("n1")
        _, other = await cluster.client("n1")
        by = Caller("client", "", "", session=one["session"])
        assert (await asker.shown(one["session"], by=by))["subject"] == ""
        assert (await asker("GET", f"/{other['session']}", by=by)).status == 403
        assert (await asker("DELETE", f"/{other['session']}", by=by)).status == 403

    play(scene)


def test_jobs_are_shown(asking: Callable[[Cluster], Asker]) -> None:
    """The jobs of a session stand with it while they are unfinished."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, started = await cluster.client("n1")
        session = started["session"]
        digest, now = bytes(32), cluster.world.now_ms()
        cluster.world.execute(
            [
                CreateJob(
                    session, "n1", ALL, "once", digest, digest, "tts", b"1", "", "", False, 0, 100, 1000, 60_000, now
                )
            ]
        )
        assert (await asker.shown(session))["jobs"] == [{"job": job_id(session, 1), "state": "queued", "attempt": 0}]

    play(scene)


def test_a_subject_has_a_list(asking: Callable[[Cluster], Asker]) -> None:
    """The sessions of a subject are listed wherever they are, in pages, and none of another subject or tenant."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        anns = []
        for place in range(5):
            _, started = await cluster.client(f"n{1 + place % 2}", auth=token("client", "ann"))
            anns.append(started["session"])
        await cluster.client("n1", auth=token("client", "ann", tenant="t"))
        await cluster.client("n1", auth=token("client", "bob"))
        anns.sort()
        assert await asker.ids("subject=ann") == await asker.ids("subject=ann", at="n2") == anns
        first = (await asker("GET", "?subject=ann&limit=3")).json()
        assert ([one["session"] for one in first["sessions"]], first["next"]) == (anns[:3], anns[2])
        assert await asker.ids(f"subject=ann&limit=3&after={first['next']}") == anns[3:]
        assert "next" not in (await asker("GET", "?subject=ann")).json()
        assert len(await asker.ids("subject=ann&tenant=t")) == 1
        assert await asker.ids("subject=nobody") == []
        await asker("DELETE", f"/{anns[0]}")
        assert await asker.ids("subject=ann") == anns[1:]

    play(scene)


def test_a_service_of_a_tenant_lists_within_it(asking: Callable[[Cluster], Asker]) -> None:
    """It need not name its tenant, and may name no other."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        by = Caller("service", "t\x1fbackend", "backend", "t")
        _, started = await cluster.client("n1", auth=token("client", "ann", tenant="t"))
        await cluster.client("n1", auth=token("client", "ann"))
        assert (
            await asker.ids("subject=ann", by=by)
            == await asker.ids("subject=ann&tenant=t", by=by)
            == [started["session"]]
        )
        assert (await asker("GET", "?subject=ann&tenant=u", by=by)).status == 403
        assert (await asker("POST", "", {"subject": "ann", "tenant": "u"}, by=by)).status == 403

    play(scene)


def test_a_session_of_an_earlier_release_is_listed_when_it_is_kept_alive(asking: Callable[[Cluster], Asker]) -> None:
    """A session that is not in the index enters it when its client resumes, and when its life is renewed."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        client, started = await cluster.client("n1", auth=token("client", "ann"))
        for away in (True, False):
            cluster.world.rows.drop_hold(started["session"])
            assert await asker.ids("subject=ann") == []
            if away:
                client.cut()
                await trio.sleep(1)
                await cluster.restore("n2", started["recovery_token"], auth=token("client", "ann"))
            else:
                await trio.sleep(101)
            await trio.sleep(0.1)
            assert await asker.ids("subject=ann") == [started["session"]]

    play(scene)


def test_what_is_asked_wrongly_is_told(asking: Callable[[Cluster], Asker]) -> None:
    """A field that is missing, of another type or out of bounds gets 400 with its name; an id that is none gets 404."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        for query, field in (
            ("", "subject"),
            ("?subject=", "subject"),
            ("?subject=a&limit=0", "limit"),
            ("?subject=a%1Fb", "subject"),
        ):
            told = await asker("GET", query)
            assert (told.status, told.json()["errors"][0]["field"]) == (400, field), query
        for body, field in (({}, "subject"), ({"subject": ""}, "subject"), ({"subject": "a", "pair": 1}, "pair")):
            told = await asker("POST", "", body)
            assert (told.status, told.json()["errors"][0]["field"]) == (400, field), body
        assert (await asker("GET", "/nonsense")).status == 404
        assert (await asker("PUT", f"/{NOBODY}")).status == 405

    play(scene)


def test_a_backend_begins_a_session_and_its_user_attaches(asking: Callable[[Cluster], Asker]) -> None:
    """The session is stored and away; its user attaches at any node with the token, and is served by a worker then."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        worker, _ = await cluster.worker("n1", auth=token("worker", "gpu"), labels={"lang": "de"})
        told = await asker("POST", "", {"subject": "ann", "want": {"lang": "de"}, "meta": {"from": "crm"}})
        made = told.json()
        session = made["session"]
        assert (told.status, told.headers["location"], made["token_ttl_ms"]) == (
            201,
            f"/v1/sessions/{session}",
            300_000,
        )
        await trio.sleep(60)
        shown = await asker.shown(session, at="n2")
        assert (shown["subject"], shown["presence"], shown["connected_at"], shown["last_seen_at"]) == (
            "ann",
            "away",
            None,
            BEGAN,
        )
        assert (shown["peer"], await waiting(cluster), await asker.ids("subject=ann")) == (
            {"state": "waiting"},
            [],
            [session],
        )
        client, restored = await cluster.restore("n2", made["recovery_token"], auth=token("client", "ann"))
        assert (restored["type"], restored["accepted"], restored["replaying"]) == ("session_restored", 0, 0)
        assigned = await worker.accept()
        assert (assigned["session"], assigned["client"]) == (session, {"meta": {"from": "crm"}, "subject": "ann"})
        while (await client.expect("peer"))["state"] != "paired":
            pass
        assert [sum(node.hub.counts.gaps.counts) for node in cluster.nodes.values()] == [0, 0]
        assert sum(node.hub.counters.sessions_started for node in cluster.nodes.values()) == 1

    play(scene)


def test_a_session_belongs_to_the_subject_it_was_begun_for(asking: Callable[[Cluster], Asker]) -> None:
    """Another subject with the token is refused, and nothing of the token is revoked."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        made = (await asking(cluster)("POST", "", {"subject": "ann"})).json()
        thief, _ = await cluster.restore("n1", made["recovery_token"], auth=token("client", "eve"))
        assert await thief.closed() == 4403
        _, restored = await cluster.restore("n1", made["recovery_token"], auth=token("client", "ann"))
        assert restored["type"] == "session_restored"

    play(scene)


def test_a_session_that_no_client_attaches_to_expires(asking: Callable[[Cluster], Asker]) -> None:
    """no-ghost: when its time to live is over, nothing of it is left, and its subject has its share back."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"resume_ttl_s": 10.0}, limits={"sessions_max": 2})
        asker = asking(cluster)
        by = Caller("service", "backend", "backend")
        made = (await asker("POST", "", {"subject": "ann"}, by=by)).json()
        refused = await asker("POST", "", {"subject": "ann"}, by=by)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert (await asker("POST", "", {"subject": "bob"}, by=by)).status == 201
        refused = await asker("POST", "", {"subject": "cid"}, by=by)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        await trio.sleep(20)
        assert cluster.world.rows.is_empty_of(made["session"])
        assert (await asker("POST", "", {"subject": "ann"}, by=by)).status == 201

    play(scene)


def test_a_session_may_be_begun_without_a_worker(asking: Callable[[Cluster], Asker]) -> None:
    """With `pair` false its user has no worker, as after `connect` with it."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        made = (await asker("POST", "", {"subject": "ann", "pair": False})).json()
        assert (await asker.shown(made["session"]))["peer"] == {"state": "none"}
        _, restored = await cluster.restore("n1", made["recovery_token"], auth=token("client", "ann"))
        assert restored["peer"] == {"state": "none", "id": None}

    play(scene)


def test_a_session_is_ended(asking: Callable[[Cluster], Asker]) -> None:
    """no-ghost: at any node, also a second time without harm; both parties are told."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        asker = asking(cluster)
        client, _, worker, _, session = await cluster.pair("n1", "n1")
        assert (await asker("DELETE", f"/{session}", at="n2")).status == 204
        assert await client.closed() == 4410
        assert client.aside[-1]["type"] == "session_ended"
        assert (await worker.expect("session_ended"))["session"] == session
        assert (await asker("DELETE", f"/{session}")).status == 404
        assert (await asker("GET", f"/{session}")).status == 404
        assert cluster.world.rows.is_empty_of(session)

    play(scene)


def test_without_the_store_nothing_is_answered(asking: Callable[[Cluster], Asker]) -> None:
    """While the store is away each request gets 503 with the time to ask again, and nothing remains of what was begun."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        asker = asking(cluster)
        _, started = await cluster.client("n1", auth=token("client", "ann"))
        cluster.world.outage = "down"
        for method, target, body in (
            ("GET", f"/{started['session']}", None),
            ("GET", "?subject=ann", None),
            ("DELETE", f"/{started['session']}", None),
            ("POST", "", {"subject": "ann"}),
        ):
            told = await asker(method, target, body)
            assert (told.status, told.headers["retry-after"]) == (503, "1"), (method, target)
        cluster.world.outage = ""
        await trio.sleep(400)
        assert await asker.ids("subject=ann") == [started["session"]]

    play(scene)


def test_to_begin_a_session_takes_two_steps(asking: Callable[[Cluster], Asker]) -> None:
    """A new session costs two batches of the store over HTTP as over a connection, and the index by principal none."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        store = cluster.nodes["n1"].committer.store
        execute, batches = store.execute, list[list[str]]()

        async def noting(ops: Any) -> list[Result]:
            names = [type(op).__name__ for op in ops]
            batches.append([name for name in names if name in {"Hold", "KeepAlive", "CreateSession", "Enqueue"}])
            return await execute(ops)

        store.execute = noting  # type: ignore[method-assign]
        await asking(cluster)("POST", "", {"subject": "ann"})
        assert [batch for batch in batches if batch] == [["Hold"], ["KeepAlive", "CreateSession"]]
        batches.clear()
        await cluster.client("n1", auth=token("client", "bob"))
        assert [batch for batch in batches if batch] == [["Hold"], ["KeepAlive", "CreateSession", "Enqueue"]]

    play(scene)


async def over_http(
    cluster: Cluster, method: str, target: str, bearer: str = "", body: Any = None, at: str = "n1"
) -> Answer:
    """Send a request to the public listener of a node."""
    ours, theirs = trio.testing.memory_stream_pair()
    node = cluster.nodes[at]
    node.hub.spawn(node.server.serve_stream, theirs, "memory")
    content = b"" if body is None else json.dumps(body).encode()
    auth = f"authorization: Bearer {bearer}\r\n" if bearer else ""
    head = f"{method} /v1/sessions{target} HTTP/1.1\r\nhost: a\r\n{auth}content-length: {len(content)}\r\n\r\n"
    return await HttpPeer(ours).ask(head.encode() + content)


def test_over_the_public_listener() -> None:
    """A backend begins a session with its JWT, the user's program shows and ends it with the API token; others are refused."""

    async def scene(cluster: Cluster) -> None:
        await two_nodes(cluster)
        backend, limited = token("service", "crm"), token("service", "crm", scope=["jobs"])
        refused = await over_http(cluster, "POST", "", body={"subject": "ann"})
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        for bearer in (limited, token("client", "ann")):
            assert (await over_http(cluster, "POST", "", bearer, {"subject": "ann"})).status == 403
        answer = await over_http(cluster, "POST", "", backend, {"subject": "ann"})
        made = answer.json()
        path, api = f"/{made['session']}", made["api_token"]
        assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
        await cluster.restore("n2", made["recovery_token"], auth=token("client", "ann"))
        for bearer in (api, backend, token("client", "ann")):
            shown = await over_http(cluster, "GET", path, bearer)
            assert (shown.status, shown.json()["node"]) == (200, "n2")
        assert (await over_http(cluster, "GET", path, token("client", "eve"))).status == 404
        assert (await over_http(cluster, "GET", path, made["recovery_token"])).status == 401
        assert (await over_http(cluster, "GET", f"/{NOBODY}", api)).status == 403
        assert (await over_http(cluster, "GET", "?subject=ann", api)).status == 403
        assert (await over_http(cluster, "DELETE", path, api)).status == 204
        assert (await over_http(cluster, "GET", path, api, at="n2")).status == 404

    play(scene)


def test_no_secret_is_shown() -> None:
    """The representation of a new session leaves its tokens out, for a log that shows it."""
    made = noun.MadeSession("s_1", "secret", 1, "secret", 1)
    assert "secret" not in repr(made)
    assert "token" not in str(ShownSession.__struct_fields__)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_times(ms: int, text: str) -> None:
    """Milliseconds since 1970 are an RFC 3339 text in UTC; what no text can name is the nearest time."""
    assert rfc3339(ms) == text
    assert rfc3339(2**53) == "9999-12-31T23:59:59.999Z"
