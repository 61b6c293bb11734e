"""Spans: which steps get one, under which parent, and that unwanted spans cost nothing."""

import subprocess
import sys
from collections.abc import Sequence

import attrs
import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from signald.config import Config
from signald.config.problems import ConfigError
from signald.service.telemetry import Spans, exporting
from signald.testing.cluster import Cluster, play
from signald.wire.traces import log_fields, parse

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = TRACE[:-1] + "0"


class Collector:
    """Takes in what nodes tell."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self, node: str) -> Spans:
        """Where a node tells its spans."""
        return Spans(self._provider, node)

    def named(self, name: str) -> Sequence[ReadableSpan]:
        """The spans of one name, oldest first."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


def seconds(span: ReadableSpan) -> float:
    """How long a span was."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_message_with_a_sampled_trace_gets_a_span_from_its_read_until_it_is_stored() -> None:
    """It is the child of its sender's span; messages without a trace, or with one that is not sampled, get none."""

    async def scene(cluster: Cluster) -> None:
        collector = Collector()
        cluster.spans = collector.spans
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        cluster.world.outage = "down"
        for seq, trace in ((1, TRACE), (2, UNSAMPLED), (3, "nonsense")):
            await client.send({"type": "message", "seq": seq, "data": 1, "trace": trace})
        await client.send({"type": "message", "seq": 4, "data": 1})
        await trio.sleep(2)
        assert len(cluster.nodes["n1"].hub.sessions[session].client.traced) == 1
        cluster.world.outage = ""
        for seq in range(1, 5):
            assert (await worker.expect("message"))["seq"] == seq
        (span,) = collector.named("signald.message")
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == TRACE[3:-3]
        assert dict(span.attributes or {}) == {
            "signald.node": "n1",
            "signald.session": session,
            "signald.party": "client",
            "signald.seq": 1,
        }
        assert 2 <= seconds(span) < 4

    play(scene)


def test_openings_and_handovers_get_spans() -> None:
    """Start, registration and resume of each party, as part of the trace it gives, and the way of each that was told to go."""

    async def scene(cluster: Cluster) -> None:
        collector = Collector()
        cluster.spans = collector.spans
        old = await cluster.start("n1")
        worker, accepted = await cluster.worker("n1")
        client, started = await cluster.client("n1", trace=TRACE)
        await worker.accept()
        await cluster.start("n2")
        old.shutdown.signal()
        await worker.expect("goaway")
        await trio.sleep(1)
        named = {"session": started["session"], "received": 0}
        await cluster.resume("n2", accepted["recovery_token"], named)
        await client.expect("goaway")
        await trio.sleep(2)
        await cluster.restore("n2", started["recovery_token"])
        await cluster.wait_exit("n1")
        (opened,) = collector.named("signald.session_started")
        assert opened.parent is not None
        assert f"{opened.parent.trace_id:032x}" == TRACE[3:35]
        assert (opened.attributes or {})["signald.session"] == started["session"]
        for name in ("signald.session_restored", "signald.worker_registered", "signald.worker_resumed"):
            (span,) = collector.named(name)
            assert span.parent is None
        moved = collector.named("signald.handover")
        assert [(span.attributes or {})["signald.party"] for span in moved] == ["worker", "client"]
        assert [round(seconds(span)) for span in moved] == [1, 2]

    play(scene)


def test_what_is_followed_is_forgotten_with_what_was_not_stored() -> None:
    """A party that goes before its message is stored leaves nothing behind that would be told later."""

    async def scene(cluster: Cluster) -> None:
        collector = Collector()
        cluster.spans = collector.spans
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, _, _, _ = await cluster.pair("n1")
        cluster.world.outage = "down"
        await client.send({"type": "message", "seq": 1, "data": 1, "trace": TRACE})
        await trio.sleep(0.01)
        client.cut()
        cluster.world.outage = ""
        await trio.sleep(5)
        client, answer = await cluster.restore("n1", started["recovery_token"])
        await client.send({"type": "message", "seq": answer["accepted"] + 1, "data": 2})
        await client.expect("ack")
        assert len(collector.named("signald.message")) <= 1
        assert not cluster.nodes["n1"].hub.sessions[started["session"]].client.traced

    play(scene)


async def test_spans_are_exported_only_where_somebody_wants_them() -> None:
    """No endpoint: none; an endpoint in the configuration or the environment: some; unless the SDK is switched off."""
    wanted = attrs.evolve(Config(), telemetry=attrs.evolve(Config().telemetry, otlp_endpoint="http://127.0.0.1:9"))
    variable = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with exporting(Config(), {}) as spans:
        assert spans is None
    async with exporting(wanted, {"OTEL_SDK_DISABLED": "true"}) as spans:
        assert spans is None
    for config, environment in ((wanted, {}), (Config(), variable)):
        async with exporting(config, environment) as spans:
            assert spans is not None


async def test_an_endpoint_without_the_extra_is_a_mistake_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at the start, with what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    wanted = attrs.evolve(Config(), telemetry=attrs.evolve(Config().telemetry, otlp_endpoint="http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match=r"pip install signald\[otel\]"):
        async with exporting(wanted, {}):
            pass


@pytest.mark.real
def test_nothing_of_it_is_imported_unasked() -> None:
    """The daemon runs without the extra."""
    code = "import sys, signald.cli, signald.daemon; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        TRACE[:-3],
        TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACE.replace("00f067aa0ba902b7", "0" * 16),
        TRACE.upper(),
        "ff" + TRACE[2:],
        TRACE + "\n",
        TRACE + "-" + "x" * 300,
    ],
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    """Nothing that a party made up is logged or told."""
    assert parse(text) is None
    assert log_fields(text) == {}


def test_a_traceparent_is_read() -> None:
    """Ids, and whether it is sampled; a later version with more in it as well."""
    parsed = parse(TRACE)
    assert parsed == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
    assert parse(UNSAMPLED) == (*TRACE.split("-")[1:3], False)
    assert parse("01" + TRACE[2:] + "-more") == parsed
    assert log_fields(TRACE) == {"trace_id": TRACE.split("-")[1]}
