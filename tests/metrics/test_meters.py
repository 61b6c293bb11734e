"""What a node shows of itself, after things have happened to it."""

import ast
from pathlib import Path

import trio
import trio.testing
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from signald import dialects, service
from signald.core.jobs import ENDS
from signald.http.api.requests import CLASSES, METHODS, NO_ROUTE
from signald.http.client import REASONS as CALL_REASONS
from signald.net import refusal_log
from signald.node import Node
from signald.service.blobs import REFUSALS, UPLOAD_OUTCOMES
from signald.service.counts import APP_ENDS, APP_MESSAGES, APP_STATES, FULL, OUTCOMES
from signald.service.hooks.authorising import OUTCOMES as CORE_OUTCOMES
from signald.service.jwks import OUTCOMES as JWKS_OUTCOMES
from signald.service.meters import METRICS, render_table
from signald.service.rooms.counts import NOT_MADE, RESULTS
from signald.service.telling.receiver import ANSWER_REASONS
from signald.service.telling.turn import DROP_REASONS
from signald.tally import Histogram
from signald.testing.cluster import Cluster, play
from tests.http.publicly import HttpPeer
from tests.metrics.scraping import Scraper
from tests.service.deploys import traffic

ROOT = Path(__file__).resolve().parents[2]

UNITS = ("_seconds", "_bytes", "_info", "_total", "_ratio")
COUNTED_THINGS = {
    "signald_connections", "signald_sessions", "signald_workers", "signald_worker_capacity", "signald_worker_sessions",
    "signald_sessions_stuck", "signald_draining", "signald_drain_remaining", "signald_drain_rate", "signald_store_up",
    "signald_strangers", "signald_store_batch_operations", "signald_config_last_reload_successful",
    "signald_jobs_running", "signald_jobs_waiting", "signald_streams_open", "signald_api_connections", "signald_api_requests_in_flight",
    "signald_revoked_subjects", "signald_transfers_in_progress", "signald_media_abandoned", "signald_core_events_queues",
    "signald_rooms", "signald_room_members", "signald_apps", "signald_core_events_failing", "signald_core_events_stopped",
    "signald_core_up", "signald_core_questions_in_flight", "signald_core_questions_due", "signald_core_answers_remembered",
}  # fmt: skip
"""Metrics of things or of yes and no, which have no unit."""

LABELS = {
    "role": {"client", "worker"},
    "dialect": {"signald.v1", "canvas", "deepstream"},
    "code": {
        "other",
        "stream_over",
        "stream_superseded",
        *map(str, [200, 404, 500, *range(1000, 1014), 4001, *range(4400, 4411), 4429, 4508]),
    },
    "initiator": {"local", "remote", "abort"},
    "side": {"before", "after"},
    "direction": {"accepted", "delivered", "up", "down"},
    "operation": {"append", "ack", "other"},
    "outcome": {
        *OUTCOMES,
        *JWKS_OUTCOMES,
        *CORE_OUTCOMES,
        *ENDS,
        *UPLOAD_OUTCOMES,
        "believed",
        "refused",
        "let_in",
        "turned_away",
        *APP_ENDS,
        *APP_MESSAGES,
    },
    "reason": {
        "client",
        "worker",
        "expired",
        "revoked",
        "worker_lost",
        "unheard",
        "spent",
        "operator",
        "api",
        "forbidden",
        "lost",
        "refused",
        "handshake",
        "opening",
        "memory",
        *refusal_log.LABELS,
        "handshakes",
        "connections",
        "address",
        "rate",
        "body",
        "bodies",
        *FULL,
        *REFUSALS,
        *DROP_REASONS,
        *ANSWER_REASONS,
        *CALL_REASONS,
        *NOT_MADE,
    },
    "result": set(RESULTS),
    "state": {"ready", "leaving", "moving", *APP_STATES},
    "stage": {"handshake", "opening"},
    "method": {*METHODS, "other"},
    "route": {NO_ROUTE, "/hello"},
    "class": set(CLASSES),
}
"""Every value a label may take; those of the build are the operator's, and one of each."""


def value_is_bounded(name: str, label: str, value: str) -> bool:
    """Tell whether a label's value is one of few."""
    if label == "le":
        return value == "+Inf" or float(value) >= 0
    return name == "signald_build_info" or value in LABELS[label]


async def check_rules(node: Node) -> set[str]:
    """Hold all that is exported to the rules; returns the names of the samples."""
    scraper = Scraper(node)
    await scraper.get("/nowhere")
    samples = set()
    for family in (await scraper.families()).values():
        assert family.documentation
        if family.name.startswith(("process_", "python_")):
            continue
        kinds = {"counter": ("_total",), "histogram": ("_seconds", "_operations")}
        exported = f"{family.name}_total" if family.type == "counter" else family.name
        metric = next(one for one in METRICS if one.name == exported)
        assert metric.kind == family.type
        assert exported.endswith(kinds.get(family.type, ("",))), exported
        assert exported.endswith(UNITS) or exported in COUNTED_THINGS, exported
        assert family.type != "gauge" or not exported.endswith("_total")
        for sample in family.samples:
            samples.add(sample.name)
            assert set(sample.labels) - {"le"} == set(metric.labels)
            for label, value in sample.labels.items():
                assert value_is_bounded(family.name, label, value), (sample.name, label, value)
    return samples


def test_names_units_and_labels_follow_the_rules_of_prometheus() -> None:
    """Every sample has a unit or is a plain count, counters end in `_total`, and no label takes an id or a party's words."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        async with traffic(cluster, workers=2, clients=6) as load:
            new = await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            old.shutdown.signal()
            await cluster.wait_exit("n1")
            await load.settle()
            peer, _ = await cluster.client("n2")
            await peer.send({"type": "bye", "reason": "a party's own words"})
            await peer.closed()
            one, _ = await cluster.client("n2")
            await one.socket.aclose(4999, "no code anybody knows")
            other, _ = await cluster.restore("n2", "s_0000000000000000000000.none")
            assert await other.closed() == 4404
            assert (await HttpPeer(cluster.plain("n2")).ask(b"GET /a/b HTTP/1.1\r\nhost: a\r\n\r\n")).status == 404
            await trio.testing.wait_all_tasks_blocked()
            for node in (old, new):
                samples = await check_rules(node)
            exported = {name.removesuffix(end) for name in samples for end in ("", "_bucket", "_count", "_sum")}
            assert {metric.name for metric in METRICS} <= exported

    play(scene)


def test_both_formats_can_be_read() -> None:
    """A scraper gets what it asks for: the plain format, or OpenMetrics; never from a cache."""

    async def scene(cluster: Cluster) -> None:
        scraper = Scraper(await cluster.start("n1"))
        code, headers, _ = await scraper.get()
        assert (code, headers["cache-control"]) == (200, "no-store")
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        _, headers, text = await scraper.get(accept="application/openmetrics-text;version=1.0.0")
        assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")
        assert "signald_message_seconds" in {family.name for family in openmetrics(text)}  # type: ignore[no-untyped-call]

    play(scene)


def test_a_conversation_is_counted() -> None:
    """Connections, bytes, messages, sessions and their end are what has happened, and time is that of the messages."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        scraper = Scraper(node)
        client, _, worker, _, session = await cluster.pair("n1")
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.expect("message")
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "x" * 1000})
        await client.expect("message")
        assert await scraper.value("signald_connections", role="client", dialect="signald.v1") == 1
        assert await scraper.value("signald_messages_total", direction="accepted") == 4
        assert await scraper.value("signald_messages_total", direction="delivered") == 4
        assert await scraper.value("signald_message_seconds_count") == 4
        assert await scraper.value("signald_hops_total") == 0
        assert await scraper.value("signald_bytes_received_total") > 1000
        assert await scraper.value("signald_bytes_sent_total") > 1000
        assert await scraper.value("signald_sessions") == 1
        assert await scraper.value("signald_workers", state="ready") == 1
        assert await scraper.value("signald_worker_capacity") == 10
        assert await scraper.value("signald_worker_sessions") == 1
        assert await scraper.value("signald_store_batch_seconds_count") == node.hub.committer.batches
        await worker.send({"type": "ack", "session": session, "seq": 3})
        await client.send({"type": "ack", "seq": 1})
        await trio.sleep(1)
        assert [await scraper.value("signald_acks_total", role=role) for role in ("client", "worker")] == [1, 1]
        assert await scraper.value("signald_store_operations_total", operation="append") == 4
        assert await scraper.value("signald_store_operations_total", operation="ack") == 2
        assert await scraper.value("signald_store_operations_total", operation="other") == node.hub.committer.ops - 6
        await client.send({"type": "bye"})
        assert await client.closed() == 1000
        await trio.sleep(1)
        assert await scraper.value("signald_sessions") == 0
        assert await scraper.value("signald_sessions_ended_total", reason="client") == 1
        assert await scraper.value("signald_disconnects_total", code="1000", initiator="local") == 1
        assert await scraper.value("signald_connections", role="client", dialect="signald.v1") == 0
        assert await scraper.value("signald_connections_opened_total", role="client", dialect="signald.v1") == 1

    play(scene)


def test_a_message_that_waits_for_the_store_counts_with_its_wait() -> None:
    """The time of a message is from its read to its delivery, also when the store was away meanwhile."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        scraper = Scraper(node)
        client, _, worker, _, _ = await cluster.pair("n1")
        cluster.world.outage = "down"
        await client.send({"type": "message", "seq": 1, "data": 1})
        await trio.sleep(1)
        await client.send({"type": "message", "seq": 2, "data": 2})
        await trio.sleep(3)
        assert await scraper.value("signald_store_up") == 0
        cluster.world.outage = ""
        await worker.expect("message")
        await worker.expect("message")
        assert await scraper.value("signald_store_up") == 1
        assert await scraper.value("signald_store_outages_total") == 1
        assert 6.9 < await scraper.value("signald_message_seconds_sum") < 10

    play(scene)


def test_messages_that_cross_nodes_are_hops() -> None:
    """What is delivered for a sender at another node counts there as a hop."""

    async def scene(cluster: Cluster) -> None:
        here, there = await cluster.start("n1"), await cluster.start("n2")
        client, _, worker, _, _ = await cluster.pair("n1", "n2")
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.expect("message")
        assert await Scraper(there).value("signald_hops_total") == 2
        assert await Scraper(here).value("signald_hops_total") == 0
        assert await Scraper(here).value("signald_messages_total", direction="accepted") == 2

    play(scene)


def test_a_drain_is_counted_for_each_party() -> None:
    """Parties told to go, parties still to go, and how long each took; the successor counts the resumes."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1")
        before = Scraper(old)
        async with traffic(cluster, workers=2, clients=6) as load:
            new = await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            old.shutdown.signal()
            while not await before.value("signald_goaway_sent_total", role="worker"):  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.001)
            assert await before.value("signald_draining") == 1
            assert await before.value("signald_drain_remaining", role="client") == 6
            await cluster.wait_exit("n1")
            await load.settle()
            for role, count in (("client", 6), ("worker", 2)):
                assert await before.value("signald_goaway_sent_total", role=role) == count
                assert await before.value("signald_handover_seconds_count", role=role) == count
                assert await before.value("signald_drain_remaining", role=role) == 0
            assert 0 <= await before.value("signald_handover_seconds_sum", role="client") < 6 * 5
            assert await before.value("signald_disconnects_total", code="4001", initiator="local") == 8
            assert await Scraper(new).value("signald_resume_total", outcome="resumed") == 8

    play(scene)


def test_a_refused_resume_is_counted_by_its_error() -> None:
    """Each resume has one outcome: an unknown token, a token that was used before."""

    async def scene(cluster: Cluster) -> None:
        scraper = Scraper(await cluster.start("n1"))
        client, started = await cluster.client("n1")
        token = started["recovery_token"]
        client.cut()
        again, answer = await cluster.restore("n1", token)
        assert answer["type"] == "session_restored"
        await again.send({"type": "ping"})
        await again.expect("pong")
        for wrong, outcome in ((token, "token_reuse"), ("s_1.2", "nothing_to_resume")):
            refused, _ = await cluster.restore("n1", wrong)
            await refused.closed()
            assert await scraper.value("signald_resume_total", outcome=outcome) == 1
        assert await scraper.value("signald_resume_total", outcome="resumed") == 1

    play(scene)


def test_the_gap_of_a_resume_is_the_time_its_client_was_away() -> None:
    """Detached for some seconds: those; told to go and still attached: none; from a node that did not notice: not counted."""

    async def scene(cluster: Cluster) -> None:
        old, new = await cluster.start("n1"), await cluster.start("n2")
        scraper = Scraper(new)
        client, started = await cluster.client("n1")
        client.cut()
        await trio.sleep(7)
        client, answer = await cluster.restore("n2", started["recovery_token"])
        assert await scraper.value("signald_reconnect_gap_seconds_count") == 1
        assert 6.9 < await scraper.value("signald_reconnect_gap_seconds_sum") < 7.1
        _, answer = await cluster.restore("n1", answer["recovery_token"])
        assert await Scraper(old).value("signald_reconnect_gap_seconds_count") == 0
        old.shutdown.begin("test")
        await trio.sleep(1)
        await cluster.restore("n2", answer["recovery_token"])
        assert await scraper.value("signald_reconnect_gap_seconds_bucket", le="0.0") == 1

    play(scene)


def test_the_lag_of_the_backplane_grows_while_nothing_is_heard() -> None:
    """A node that is alone has none; with another one it is what a wake-up takes, or how long none has come."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        scraper = Scraper(node)
        await trio.sleep(20)
        assert await scraper.value("signald_backplane_lag_seconds") == 0
        assert node.hub.probe.number == 0
        await cluster.start("n2")
        await trio.sleep(12)
        assert node.hub.probe.number == 2
        assert await scraper.value("signald_backplane_lag_seconds") < 1
        node.hub.probe.heard = lambda wake: None  # type: ignore[method-assign]
        await trio.sleep(30)
        assert 24 < await scraper.value("signald_backplane_lag_seconds") < 31

    play(scene)


def test_sessions_that_expire_are_counted_as_such() -> None:
    """An abandoned session ends as `expired`, once."""

    async def scene(cluster: Cluster) -> None:
        scraper = Scraper(await cluster.start("n1", session={"resume_ttl_s": 5.0}))
        client, _ = await cluster.client("n1")
        client.cut()
        await trio.sleep(20)
        assert await scraper.value("signald_sessions_ended_total", reason="expired") == 1

    play(scene)


def test_a_node_that_starts_shows_its_process_only() -> None:
    """Before there is a node a scrape is answered too."""

    async def scene(_: Cluster) -> None:
        families = await Scraper(None).families()
        assert families
        assert all(name.startswith("process_") for name in families)

    play(scene)


def test_every_refusal_of_a_resume_has_its_outcome() -> None:
    """Whatever error the code can refuse a resume with is among the outcomes, so that each is 0 before it is 1."""
    before_it_is_one = {"out_of_place", "bad_message", "hello_timeout"}
    packages = [Path(package.__path__[0]) for package in (service, dialects)]
    trees = [ast.parse(path.read_text()) for package in packages for path in package.rglob("*.py")]
    errors = {
        call.args[1].value
        for tree in trees
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Turned"
        and len(call.args) > 1
        and isinstance(call.args[1], ast.Constant)
    }
    assert errors >= before_it_is_one
    assert errors - before_it_is_one - {"core_unavailable"} <= set(OUTCOMES)  # which only a new party can be told
    assert {"nothing_to_resume", "forbidden", "token_revoked", "token_reuse"} <= set(OUTCOMES)


def test_the_page_lists_every_metric() -> None:
    """The table of docs/metrics.md is the one of the code."""
    assert render_table() in (ROOT / "docs/metrics.md").read_text()


def test_a_histogram_counts_up_to_and_including_its_bounds() -> None:
    """A value on a bound belongs below it, one beyond all to infinity; the sum is of all values, each as often as it was met."""
    histogram = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (2.5, 1)):
        histogram.observe(value, times)
    assert (histogram.counts, histogram.total) == ([3, 0, 1], 5.0)
