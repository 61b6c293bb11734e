"""OpenTelemetry spans, where they are configured: the extra `signald[otel]`, and an endpoint to send them to.

What is told: the opening of a session or a worker (a resume too), a party's handover, and the way of each message that carries a sampled
traceparent, from its read until it was stored. A span is made when it is over, with both of its times, so nothing is kept in
between but the times. Without an endpoint nothing here is imported, and `Context.spans` is None.

The environment of OpenTelemetry (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER` and so on) holds as well.
"""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from signald.config import Config
from signald.config.problems import ConfigError, Problem
from signald.core.head import Party
from signald.service import events
from signald.wire.traces import parse

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

FLUSH_S = 1.0
"""How long spans may take to be sent at the end: a collector that is away must not hold an exit."""


class Spans:
    """Makes spans with a provider of our own: nothing global is set."""

    def __init__(self, provider: "TracerProvider", node: str) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._tracer = provider.get_tracer("signald")
        self._node = node
        self._origin_ns = time.time_ns() - round(trio.current_time() * 1e9)

    def tell(
        self,
        name: str,
        began: float,
        ended: float,
        trace: str | None = None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Something took from `began` to `ended` (trio time), as part of what `trace` (a traceparent) is part of."""
        span = self._tracer.start_span(
            name,
            context=self._context(trace),
            start_time=self._ns(began),
            attributes={"signald.node": self._node, **(attributes or {})},
        )
        span.end(self._ns(ended))

    def _ns(self, at: float) -> int:
        return self._origin_ns + round(at * 1e9)

    def _context(self, trace: str | None) -> "Context":
        api = self._trace
        parsed = parse(trace)
        if parsed is None:
            return self._around(api.INVALID_SPAN)
        flags = api.TraceFlags(api.TraceFlags.SAMPLED if parsed.sampled else api.TraceFlags.DEFAULT)
        context = api.SpanContext(int(parsed.trace_id, 16), int(parsed.span_id, 16), is_remote=True, trace_flags=flags)
        return self._around(api.NonRecordingSpan(context))

    def _around(self, span: "Span") -> "Context":
        context: Context = self._trace.set_span_in_context(span)
        return context


def tell_life(spans: Spans, of: events.Events) -> None:
    """Make a span of each opening and of each handover that `of` tells."""

    def opened(name: str, party: Party, owner: str, event: _Opening) -> None:
        spans.tell(f"signald.{name}", event.opened_at, trio.current_time(), event.trace, _about(party, owner))

    def over(event: events.LinkOver) -> None:
        if event.goaway_at is not None:
            about = {"signald.party": event.party, **_about(event.party, event.owner)}
            spans.tell("signald.handover", event.goaway_at, event.at, None, about)

    of.subscribe(events.ClientStarted, lambda one: opened("session_started", "client", one.session, one))
    of.subscribe(events.ClientResumed, lambda one: opened("session_restored", "client", one.session, one))
    of.subscribe(events.WorkerRegistered, lambda one: opened("worker_registered", "worker", one.worker, one))
    of.subscribe(events.WorkerResumed, lambda one: opened("worker_resumed", "worker", one.worker, one))
    of.subscribe(events.LinkOver, over)


_Opening = events.ClientStarted | events.ClientResumed | events.WorkerRegistered | events.WorkerResumed


def _about(party: Party, owner: str) -> dict[str, str]:
    return {f"signald.{'session' if party == 'client' else 'worker'}": owner}


@asynccontextmanager
async def exporting(config: Config, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Spans | None]:
    """Give the spans to be told within the block, or None where they are not configured; at the end what is left is sent.

    Raises ConfigError: they are wanted, and the extra is not installed.
    """
    endpoint = config.telemetry.otlp_endpoint
    wanted = endpoint or any(environment.get(name) for name in ENDPOINTS)
    if not wanted or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        missing = Problem("", "telemetry.otlp_endpoint", "spans need the extra: pip install signald[otel]")
        raise ConfigError([missing]) from None
    named = {"service.name": "signald", "service.instance.id": config.node.id, "service.version": config.node.release}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces" if endpoint else None)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Spans(provider, config.node.id)
    finally:
        # Its own timeouts are longer than an exit may take; a thread that is left behind ends with the process.
        with trio.move_on_after(FLUSH_S, shield=True):
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
