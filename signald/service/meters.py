"""What a node shows of itself: every metric by name, and where its value comes from.

Most of it is read when somebody asks, from what the node knows anyway. The rest is counted where it happens, by plain integers
(`service.counts`): no part of signald holds an object of the metrics library, and a message pays for no more than a counter.
Labels take few values, all of them listed in the code: never an id, a reason given by a party, or a path.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Literal

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from signald import __version__
from signald.core.head import Party
from signald.http.api.requests import RequestCounts
from signald.http.public import PublicHttp
from signald.ids import is_named
from signald.logs import lines_dropped
from signald.net.listener import Server
from signald.net.refusal_log import LABELS as REFUSAL_REASONS
from signald.service.cluster.lease import Lease
from signald.service.dialect import Dialects
from signald.service.drain.shutdown import ShutdownScope
from signald.service.hub import Hub
from signald.service.streams import CODES as STREAM_CODES
from signald.service.telling.teller import Teller
from signald.store.session.ops import Ack, Append
from signald.tally import Histogram


@attrs.frozen
class Observed:
    """The parts of a node that metrics are read from."""

    hub: Hub
    server: Server
    lease: Lease
    shutdown: ShutdownScope
    answers: Counter[int]
    """HTTP answers given on `listen.http` and the admin socket, by status code."""
    public: PublicHttp
    """HTTP connections of the listener of the parties."""
    requests: RequestCounts
    """HTTP requests there."""
    teller: Teller
    """Tells the core server what happens."""


Values = Iterable[tuple[tuple[str, ...], float | Histogram]]
"""Values by their labels."""


@attrs.frozen
class Metric:
    """One metric. `name` is the one of the exposition: counters end in `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    read: Callable[[Observed], Values]

    def family(self, observed: Observed) -> Family:
        """The metric with its values now."""
        if self.kind == "histogram":
            family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, histogram in self.read(observed):
                assert isinstance(histogram, Histogram)
                family.add_metric(labels, _buckets(histogram), histogram.total)
            return family
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        plain: CounterMetricFamily | GaugeMetricFamily = kind(self.name, self.help, labels=self.labels)
        for labels, value in self.read(observed):
            assert not isinstance(value, Histogram)
            plain.add_metric(labels, value)
        return plain


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))


def _one(read: Callable[[Observed], float | Histogram]) -> Callable[[Observed], Values]:
    """For a metric without labels."""
    return lambda observed: [((), read(observed))]


def _by(read: Callable[[Observed], Iterable[tuple[object, float | Histogram]]]) -> Callable[[Observed], Values]:
    """For a metric with one label."""
    return lambda observed: [((str(label),), value) for label, value in read(observed)]


def _by_dialect(dialects: Dialects, counts: Counter[str]) -> Values:
    """From routes to roles and dialects."""
    found: Counter[tuple[str, str]] = Counter()
    for route, count in counts.items():
        found[dialects.party_at(route), dialects.at(route).name] += count
    return [(labels, found[labels]) for labels in dialects.spoken]


def _workers(observed: Observed) -> Iterator[tuple[str, int]]:
    states = Counter(
        "moving" if link.told_to_go else "leaving" if link.leaving else "ready"
        for link in observed.hub.worker_links.values()
    )
    return ((state, states[state]) for state in ("ready", "leaving", "moving"))


def _apps(observed: Observed) -> Iterator[tuple[str, int]]:
    hub = observed.hub
    apps = [link for name, link in hub.worker_links.items() if is_named(name)]
    asked = sum(hub.terminations.has(link) for link in apps)
    return iter((("authenticated", len(apps) - asked), ("terminating", asked)))


def _remaining(observed: Observed) -> Iterator[tuple[Party, int]]:
    status = observed.shutdown.status
    yield "client", status.clients_left
    yield "worker", status.workers_left


def _release(observed: Observed) -> Values:
    return [((__version__, observed.hub.config.node.release), 1.0)]


def _strangers(observed: Observed) -> Iterator[tuple[str, int]]:
    yield "handshake", observed.server.admission.handshakes
    yield "opening", observed.hub.gate.strangers.taken


def _evicted(observed: Observed) -> Iterator[tuple[str, int]]:
    yield "handshake", observed.server.admission.places.evicted
    yield "opening", observed.hub.gate.strangers.evicted
    yield "memory", observed.hub.gate.budget.evicted + observed.hub.gate.party_budget.evicted


def _disconnects(observed: Observed) -> Values:
    return [((str(code) if code else "other", by), n) for (code, by), n in observed.server.ended.items()]


def _oldest_event_s(observed: Observed) -> float:
    since_ms = observed.teller.agenda.oldest_ms
    return max(0, observed.hub.context.now_ms() - since_ms) / 1000 if since_ms else 0.0


def _operations(observed: Observed) -> Iterator[tuple[str, int]]:
    committer = observed.hub.committer
    appends, acks = committer.kinds[Append], committer.kinds[Ack]
    yield "append", appends
    yield "ack", acks
    yield "other", committer.ops - appends - acks


METRICS: tuple[Metric, ...] = (
    Metric(
        "signald_build_info",
        "gauge",
        ("version", "release"),
        "The version that runs, and what its operator calls it; always 1.",
        _release,
    ),
    # traffic
    Metric(
        "signald_connections",
        "gauge",
        ("role", "dialect"),
        "WebSocket connections that are open, by the wire that is spoken there: signald.v1, canvas or deepstream.",
        lambda o: _by_dialect(o.hub.dialects, Counter(one.route for one in o.server.connections.values())),
    ),
    Metric(
        "signald_connections_opened_total",
        "counter",
        ("role", "dialect"),
        "WebSocket connections that came past their handshake.",
        lambda o: _by_dialect(o.hub.dialects, o.server.opened),
    ),
    Metric(
        "signald_openings_refused_total",
        "counter",
        ("dialect",),
        "WebSocket connections that were open and were not let in: turned away at their opening message or by a drain, or gone "
        "before they were answered.",
        _by(lambda o: [(name, o.hub.counts.openings_refused[name]) for name in o.hub.dialects.names]),
    ),
    Metric(
        "signald_strangers",
        "gauge",
        ("stage",),
        "Peers that are not let in yet: in their handshake, or open without an answered opening message.",
        _by(_strangers),
    ),
    Metric(
        "signald_strangers_bytes",
        "gauge",
        (),
        "Bytes received from these peers, and of unfinished messages of parties; at admission.strangers_bytes_max the largest give way.",
        _one(lambda o: o.hub.gate.budget.bytes + o.hub.gate.party_budget.bytes),
    ),
    Metric(
        "signald_evicted_total",
        "counter",
        ("reason",),
        "Peers that gave way before they were let in: silent in the handshake, silent before the opening message, or at the "
        "memory budget. A steady rate is an attack or a bound that is too low.",
        _by(_evicted),
    ),
    Metric(
        "signald_connects_refused_total",
        "counter",
        ("reason",),
        "Handshakes refused with 503 or 429: no place among handshakes, admission.connections_max reached, or an address beyond its share "
        "or rate.",
        _by(lambda o: o.server.admission.refused.items()),
    ),
    Metric(
        "signald_disconnects_total",
        "counter",
        ("code", "initiator"),
        "WebSocket connections that are over, by close code (1005, 1006: none was said; other: one "
        "that signald does not know) and which side began: local, remote, or abort (no close was begun).",
        _disconnects,
    ),
    Metric(
        "signald_handshakes_refused_total",
        "counter",
        ("reason",),
        "WebSocket handshakes that were refused: origin, path, method, upgrade, bad_request, too_long, unauthorized, rate (of "
        "one address), busy (no place), tls (its handshake failed), timeout (no whole request in time), internal, other. A line "
        "of the log says more.",
        _by(lambda o: [(reason, o.server.refusals.counts[reason]) for reason in sorted(REFUSAL_REASONS)]),
    ),
    Metric(
        "signald_bytes_received_total",
        "counter",
        (),
        "Bytes read from WebSocket connections, frame headers included; TLS and handshakes not.",
        _one(lambda o: o.server.traffic.received_bytes),
    ),
    Metric(
        "signald_bytes_sent_total",
        "counter",
        (),
        "Bytes written to WebSocket connections, as above.",
        _one(lambda o: o.server.traffic.sent_bytes),
    ),
    Metric(
        "signald_deflated_bytes_total",
        "counter",
        ("side",),
        "Bytes of messages before they were deflated, and after (limits.compression). Those that a room is told count once, however "
        "many hear them; messages that were sent as they are do not count.",
        _by(
            lambda o: [
                ("before", o.server.traffic.deflatable_bytes),
                ("after", o.server.traffic.deflated_bytes),
            ]
        ),
    ),
    Metric(
        "signald_messages_total",
        "counter",
        ("direction",),
        "Messages (`message`, not `realtime`): accepted from a sender here, or delivered to a "
        "receiver here. One that crosses nodes is accepted at one and delivered at another.",
        _by(lambda o: [("accepted", o.hub.relay.accepted), ("delivered", o.hub.relay.delivered)]),
    ),
    Metric(
        "signald_acks_total",
        "counter",
        ("role",),
        "Acks received here, by the role of their sender. Each covers all messages up to its number.",
        _by(lambda o: o.hub.relay.acks.items()),
    ),
    Metric(
        "signald_hops_total",
        "counter",
        (),
        "Messages delivered here whose sender is attached at another node.",
        _one(lambda o: o.hub.relay.hops),
    ),
    Metric(
        "signald_message_seconds",
        "histogram",
        (),
        "From the read that brought a message, through the store, to the send queue of its "
        "receiver, where both parties are here. Messages that travel together count as long as the "
        "oldest of them.",
        _one(lambda o: o.hub.relay.seconds),
    ),
    # streams
    Metric(
        "signald_stream_refusals_total",
        "counter",
        ("code",),
        "Pieces of streams that were refused, because their stream was over or a higher attempt had begun.",
        _by(lambda o: [(code, o.hub.relay.refused[code]) for code in STREAM_CODES]),
    ),
    Metric(
        "signald_stream_cancels_total",
        "counter",
        (),
        "Requests of clients here to end a stream of their worker.",
        _one(lambda o: o.hub.attachments.streams.cancels),
    ),
    Metric(
        "signald_streams_interrupted_total",
        "counter",
        (),
        "Streams that this node has ended, because the next worker did not go on with them within worker.adopt_streams_s.",
        _one(lambda o: o.hub.attachments.streams.interrupted),
    ),
    Metric(
        "signald_streams_open",
        "gauge",
        (),
        "Streams of workers here that are open, as far as this node knows.",
        _one(lambda o: o.hub.attachments.streams.open),
    ),
    # sessions and workers
    Metric(
        "signald_sessions", "gauge", (), "Sessions with a party attached here.", _one(lambda o: len(o.hub.sessions))
    ),
    Metric(
        "signald_sessions_started_total",
        "counter",
        (),
        "Sessions started here.",
        _one(lambda o: o.hub.counters.sessions_started),
    ),
    Metric(
        "signald_paused_seconds_total",
        "counter",
        (),
        "Seconds in which this process did not attend to its peers: stopped, suspended, or busy for a quarter of a second or "
        "more. Their deadlines and rates do not count them.",
        _one(lambda o: o.hub.pauses.total_s),
    ),
    Metric(
        "signald_send_queues_bytes",
        "gauge",
        (),
        "Bytes that wait for peers which take them slowly; at limits.send_queues_bytes_max the largest are closed with 4508.",
        _one(lambda o: o.server.queues.bytes),
    ),
    Metric(
        "signald_logs_bytes",
        "gauge",
        (),
        "Bytes of messages that this node holds for its sessions, not stored or not acked; at limits.logs_bytes_max senders are "
        "pushed back.",
        _one(lambda o: o.hub.attachments.logs_bytes()),
    ),
    Metric(
        "signald_sessions_refused_total",
        "counter",
        ("reason",),
        "New sessions refused because of what is in the store: limits.sessions_max is reached (store), or an address or principal has "
        "its share of it (share), or an address too many bytes (bytes).",
        _by(lambda o: o.hub.counts.sessions_refused.items()),
    ),
    Metric(
        "signald_address_pushed_back_total",
        "counter",
        (),
        "Messages pushed back because their address has too much in the store that is not acked.",
        _one(lambda o: o.hub.holdings.pushed_back),
    ),
    Metric(
        "signald_sessions_ended_total",
        "counter",
        ("reason",),
        "Sessions ended by this node: by the bye of a client or worker, expired, worker_lost "
        "(worker.on_loss = end), unheard (the client was gone before it was told of its session), spent (its numbers "
        "had run out), operator (ctl end), or api (a request over HTTP).",
        _by(lambda o: o.hub.counts.ended.items()),
    ),
    Metric(
        "signald_failed_handouts_total",
        "counter",
        ("reason",),
        "Hand-outs of a session to a worker that ended badly, as noted by this node: the worker was lost, or refused the "
        "session after it had accepted it.",
        _by(lambda o: o.hub.counts.failed_handouts.items()),
    ),
    Metric(
        "signald_sessions_set_aside_total",
        "counter",
        (),
        "Sessions that this node has set aside, because their hand-outs had failed worker.failures_max times at one message.",
        _one(lambda o: o.hub.counts.set_aside),
    ),
    Metric(
        "signald_sessions_stuck",
        "gauge",
        (),
        "Sessions that are set aside and whose client is attached here.",
        _one(lambda o: sum(bool(one.set_aside_at) for one in o.hub.sessions.values() if one.client.link is not None)),
    ),
    Metric(
        "signald_jobs_stored_total",
        "counter",
        (),
        "Jobs that were stored at the request of a caller here; replays of an earlier request are not counted.",
        _one(lambda o: o.hub.counts.jobs_stored),
    ),
    Metric(
        "signald_job_store_seconds",
        "histogram",
        (),
        "From a request for a job, its body read, until the job is stored.",
        _one(lambda o: o.hub.counts.job_stores),
    ),
    Metric(
        "signald_jobs_running",
        "gauge",
        (),
        "Jobs that the workers attached here have.",
        _one(lambda o: o.hub.jobs.running()),
    ),
    Metric(
        "signald_jobs_waiting",
        "gauge",
        (),
        "Unfinished jobs that were given to no worker yet, of sessions whose client is attached here.",
        _one(lambda o: o.hub.jobs.waiting()),
    ),
    Metric(
        "signald_jobs_ended_total",
        "counter",
        ("outcome",),
        "Jobs of whose end a client attached here was told, by that end.",
        _by(lambda o: o.hub.counts.jobs_ended.items()),
    ),
    Metric(
        "signald_job_seconds",
        "histogram",
        (),
        "From the creation of such a job to its end.",
        _one(lambda o: o.hub.counts.job_lives),
    ),
    Metric(
        "signald_resume_total",
        "counter",
        ("outcome",),
        "Resumes asked for here, by what became of them: resumed, the error code they were refused "
        "with, or left (the party did not wait).",
        _by(lambda o: o.hub.counts.resumes.items()),
    ),
    Metric(
        "signald_workers",
        "gauge",
        ("state",),
        "Workers attached here: ready, leaving (they asked for no more sessions), moving (they were told to go).",
        _by(_workers),
    ),
    Metric(
        "signald_worker_capacity",
        "gauge",
        (),
        "Sessions that the workers attached here have room for, in all.",
        _one(lambda o: sum(link.capacity for link in o.hub.worker_links.values())),
    ),
    Metric(
        "signald_worker_sessions",
        "gauge",
        (),
        "Sessions that the workers attached here have.",
        _one(lambda o: sum(len(link.seats) for link in o.hub.worker_links.values())),
    ),
    # apps
    Metric(
        "signald_apps",
        "gauge",
        ("state",),
        "Apps of a DeepStream fleet attached here: authenticated, terminating (they were asked to clean up).",
        _by(_apps),
    ),
    Metric(
        "signald_app_states_total",
        "counter",
        ("state",),
        "How often an app here came into a state: connected, authenticated, terminating, disconnected.",
        _by(lambda o: o.hub.counts.app_states.items()),
    ),
    Metric(
        "signald_apps_ended_total",
        "counter",
        ("outcome",),
        "Apps that were asked to clean up: ok, failed (by their own word), late (closed with 1001), gone (they hung up).",
        _by(lambda o: o.hub.counts.apps_ended.items()),
    ),
    Metric(
        "signald_app_messages_total",
        "counter",
        ("outcome",),
        "Messages of apps: paired (to a client), told (to the core server); dropped: unwanted (no core server is named), too_big, rate, "
        "backlog (a client is too far behind; counted as paired too), store. withheld: a client's message that no app understands.",
        _by(lambda o: o.hub.counts.app_messages.items()),
    ),
    Metric(
        "signald_jwks_fetches_total",
        "counter",
        ("outcome",),
        "Fetches of auth.jwks_url: fetched, failed (no document came), refused (the document was no usable key set).",
        _by(lambda o: o.hub.jwks.outcomes.items()),
    ),
    Metric(
        "signald_jwks_age_seconds",
        "gauge",
        (),
        "How long ago the key set in force was fetched; at auth.jwks_stale_max_s it counts no more. 0 without auth.jwks_url.",
        _one(lambda o: o.hub.jwks.age_s),
    ),
    Metric(
        "signald_core_questions_total",
        "counter",
        ("outcome",),
        "Questions to core.authorize_url: allowed, refused, cached (answered before), failed (no answer in time, or another status), "
        "wrong (no such object), skipped (not made, because it is away or all places were taken).",
        _by(lambda o: o.hub.authoriser.outcomes.items()),
    ),
    Metric(
        "signald_core_unanswered_total",
        "counter",
        ("outcome",),
        "New parties for which there was no answer, by core.on_failure: let_in or turned_away.",
        _by(lambda o: (("let_in", o.hub.authoriser.let_in), ("turned_away", o.hub.authoriser.turned_away))),
    ),
    Metric(
        "signald_core_up",
        "gauge",
        (),
        "0 while the core server failed too often in a row and new parties do not wait for it (core.breaker_failures_max).",
        _one(lambda o: float(o.hub.authoriser.state == "closed")),
    ),
    Metric(
        "signald_core_questions_in_flight",
        "gauge",
        (),
        "Questions that wait for their answer, or for one of core.authorize_in_flight_max places.",
        _one(lambda o: o.hub.authoriser.in_flight),
    ),
    Metric(
        "signald_core_questions_due",
        "gauge",
        (),
        "Sessions that are to be asked for again, because their answer had run out when their client resumed.",
        _one(lambda o: o.hub.reasking.waiting),
    ),
    Metric(
        "signald_core_answers_remembered",
        "gauge",
        (),
        "Answers that are remembered for their ttl_ms.",
        _one(lambda o: o.hub.authoriser.remembered),
    ),
    Metric(
        "signald_credentials_ended_total",
        "counter",
        ("reason",),
        "Connections closed with 4401 because their JWT had run out (auth.expiry_grace_s), or its subject was revoked.",
        _by(lambda o: o.hub.credentials.ended.items()),
    ),
    Metric(
        "signald_revoked_subjects",
        "gauge",
        (),
        "Subjects whose tokens are revoked, as this node knows them.",
        _one(lambda o: len(o.hub.context.revocations)),
    ),
    # the core server
    Metric(
        "signald_core_events_delivered_total",
        "counter",
        (),
        "Events that this node has told the core server, answered with 2xx.",
        _one(lambda o: o.teller.receiver.delivered),
    ),
    Metric(
        "signald_core_events_failed_total",
        "counter",
        ("reason",),
        "Attempts at events that failed, each to be repeated: gone (410), busy (408, 429, 503), server_error (other 5xx), refused_event "
        "(any other status), or why no answer came.",
        _by(lambda o: o.teller.receiver.failed.items()),
    ),
    Metric(
        "signald_core_events_dropped_total",
        "counter",
        ("reason",),
        "Events that are never told: full (core.events_queue_max of one queue were waiting), expired (core.events_keep_s were over).",
        _by(lambda o: o.teller.tally.dropped.items()),
    ),
    Metric(
        "signald_core_events_unscheduled_total",
        "counter",
        (),
        "Queues for which the agenda of the cluster had no room, at each try; they wait at their node.",
        _one(lambda o: o.teller.scheduling.refused),
    ),
    Metric(
        "signald_core_events_queues",
        "gauge",
        (),
        "Queues of sessions, workers and the cluster whose events wait to be told, of the whole cluster, as read every 10 s.",
        _one(lambda o: o.teller.agenda.count),
    ),
    Metric(
        "signald_core_events_failing",
        "gauge",
        (),
        "Of these, queues whose last attempt has failed.",
        _one(lambda o: o.teller.agenda.failing),
    ),
    Metric(
        "signald_core_events_oldest_seconds",
        "gauge",
        (),
        "For how long the queue that waits or fails the longest has done so, in the whole cluster.",
        _one(_oldest_event_s),
    ),
    Metric(
        "signald_core_events_stopped",
        "gauge",
        (),
        "1 when the core server has answered 410 to this node, which tells it nothing until ctl events retry, a reload or a restart.",
        _one(lambda o: float(o.teller.receiver.gone)),
    ),
    # deploys
    Metric(
        "signald_draining",
        "gauge",
        (),
        "1 while this node drains, by a signal or by an operator.",
        _one(lambda o: float(o.shutdown.status.draining)),
    ),
    Metric(
        "signald_drain_remaining",
        "gauge",
        ("role",),
        "Parties this node has still to move; 0 when it does not drain.",
        _by(_remaining),
    ),
    Metric(
        "signald_drain_rate",
        "gauge",
        (),
        "Sessions per second this node asks the cluster to let it move.",
        _one(lambda o: o.shutdown.status.rate_per_s),
    ),
    Metric(
        "signald_goaway_sent_total",
        "counter",
        ("role",),
        "Parties told to go to another node.",
        _by(lambda o: o.hub.counts.goaways.items()),
    ),
    Metric(
        "signald_handover_seconds",
        "histogram",
        ("role",),
        "From telling a party to go until it was gone from here: its claim at another node was seen, or it left.",
        _by(lambda o: o.hub.counts.handovers.items()),
    ),
    Metric(
        "signald_reconnect_gap_seconds",
        "histogram",
        (),
        "How long clients that resumed here had been away; 0 for those that came from a draining node before their "
        "connection there had ended. Clients whose node was killed, or had not noticed their loss, are left out, because "
        "the begin of their absence is unknown.",
        _one(lambda o: o.hub.counts.gaps),
    ),
    # the store
    Metric(
        "signald_store_up",
        "gauge",
        (),
        "1 while the store answers.",
        _one(lambda o: float(o.hub.committer.down_since is None)),
    ),
    Metric(
        "signald_store_outages_total",
        "counter",
        (),
        "How often the store has ceased to answer.",
        _one(lambda o: o.hub.committer.outages),
    ),
    Metric(
        "signald_log_lost_total",
        "counter",
        (),
        "Losses of messages that the store has shown, one for each party told. Claims of one party are not counted here.",
        _one(lambda o: o.hub.losses.shown),
    ),
    Metric(
        "signald_claims_ahead_total",
        "counter",
        ("outcome",),
        "Positions that a party claimed beyond what is stored: believed for its session, or refused because they lay further "
        "ahead than limits.claim_ahead_max. Shows lies, bugs of an SDK, and a store restored from a snapshot.",
        _by(lambda o: [("believed", o.hub.losses.believed), ("refused", o.hub.losses.refused)]),
    ),
    Metric(
        "signald_store_batch_seconds",
        "histogram",
        (),
        "Round trips to the store, each with a batch of operations; of those that were sent again, the last attempt.",
        _one(lambda o: o.hub.committer.seconds),
    ),
    Metric(
        "signald_store_batch_operations",
        "histogram",
        (),
        "Operations in one round trip to the store.",
        _one(lambda o: o.hub.committer.sizes),
    ),
    Metric(
        "signald_store_operations_total",
        "counter",
        ("operation",),
        "Operations that the store has answered: appends of messages, acks that found no append to ride with, and all others.",
        _by(_operations),
    ),
    Metric(
        "signald_trail_steps_left_out_total",
        "counter",
        (),
        "Steps missing from what ctl trace shows, because the store was away for too long.",
        _one(lambda o: o.hub.trail.left_out),
    ),
    Metric(
        "signald_trails_given_way_total",
        "counter",
        (),
        "Trails removed before their time, the oldest first, because all of them have limits.trails_bytes_max.",
        _one(lambda o: o.hub.trail.given_way),
    ),
    Metric(
        "signald_backplane_lag_seconds",
        "gauge",
        (),
        "How long this node's last wake-up to itself took, sent every few seconds while there is another node; it grows "
        "while one is not heard. 0 for a node that is alone.",
        _one(lambda o: o.hub.probe.lag_s),
    ),
    # the process
    Metric(
        "signald_http_requests_total",
        "counter",
        ("code",),
        "HTTP requests answered (probes, scrapes, the admin API), by status code.",
        _by(lambda o: sorted(o.answers.items())),
    ),
    Metric(
        "signald_loop_lag_seconds",
        "gauge",
        (),
        "How late the event loop lately ran what was due; it rises at once and falls by halves, ten times a second.",
        _one(lambda o: o.lease.lag.ms / 1000),
    ),
    Metric(
        "signald_log_lines_dropped_total",
        "counter",
        (),
        "Log lines that standard error did not take: it is closed, full, or not read.",
        _one(lambda _: lines_dropped()),
    ),
    Metric(
        "signald_api_connections",
        "gauge",
        (),
        "HTTP connections on the listener of the parties; beside signald_connections.",
        _one(lambda o: len(o.public.connections)),
    ),
    Metric(
        "signald_api_connects_refused_total",
        "counter",
        ("reason",),
        "HTTP connections refused there with 503 or 429: admission.http_connections_max reached, or the rate of an address.",
        _by(lambda o: o.public.refused.items()),
    ),
    Metric(
        "signald_api_connections_evicted_total",
        "counter",
        (),
        "HTTP connections that gave way to a newcomer: idle ones, or those of the address with the most.",
        _one(lambda o: o.public.places.evicted),
    ),
    Metric(
        "signald_api_requests_total",
        "counter",
        ("method", "route", "class"),
        "Requests of the HTTP API that are over, by method, template of the route (none: no such path) and class of the status "
        "(cut: no whole answer, because the client went or the answer failed).",
        lambda o: o.requests.answered.items(),
    ),
    Metric(
        "signald_api_requests_in_flight",
        "gauge",
        (),
        "Requests of the HTTP API under way, streams of events and waits included.",
        _one(lambda o: o.requests.in_flight),
    ),
    Metric(
        "signald_api_request_seconds",
        "histogram",
        ("route",),
        "From the head of a request of the HTTP API to the end of its answer, by template of the route; waits and streams included.",
        _by(lambda o: o.requests.seconds.items()),
    ),
    Metric(
        "signald_api_requests_refused_total",
        "counter",
        ("reason",),
        "Requests of the HTTP API refused before their handler: the rate of a principal (429), a body beyond its bound (413), all "
        "bodies together (503).",
        _by(lambda o: o.requests.refused.items()),
    ),
    Metric(
        "signald_api_bodies_bytes",
        "gauge",
        (),
        "Bytes of the bodies of requests that are held in memory; at limits.request_bodies_bytes_max further ones get 503.",
        _one(lambda o: o.requests.bodies_held),
    ),
    # blobs
    Metric(
        "signald_uploads_total",
        "counter",
        ("outcome",),
        "Uploads of blobs that are over: kept, replayed (same key, same bytes), refused, or cut (the sender went, the body was too long).",
        _by(lambda o: o.hub.blobs.uploads_ended.items()),
    ),
    Metric(
        "signald_uploads_refused_total",
        "counter",
        ("reason",),
        "Uploads refused once their session was known: the key (key_taken, key_in_use), bounds of the owner (shelf_full), places (share, "
        "busy), the sender (wrong_digest, slow), or media and store without an answer (away, store).",
        _by(lambda o: o.hub.blobs.refused.items()),
    ),
    Metric(
        "signald_transfers_in_progress",
        "gauge",
        ("direction",),
        "Uploads (up) and downloads (down) under way; their bounds are blobs.uploads_in_progress_max and downloads_in_progress_max.",
        _by(lambda o: (("up", o.hub.blobs.uploading.taken), ("down", o.hub.blobs.downloading.taken))),
    ),
    Metric(
        "signald_blob_bytes_total",
        "counter",
        ("direction",),
        "Bytes of blobs that have come (up) and that were read through this node (down).",
        _by(lambda o: (("up", o.hub.blobs.uploads.bytes), ("down", o.hub.blobs.bytes_read))),
    ),
    Metric(
        "signald_blobs_removed_total",
        "counter",
        (),
        "Blobs whose bytes this node has deleted: their time was over, they were removed, or an upload had left them.",
        _one(lambda o: o.hub.blobs.shelves.removed),
    ),
    Metric(
        "signald_blobs_missing_total",
        "counter",
        (),
        "Reads of a blob that is kept and whose bytes are not in the media: the nodes have different media, or others have deleted there.",
        _one(lambda o: o.hub.blobs.missing),
    ),
    Metric(
        "signald_media_failures_total",
        "counter",
        (),
        "Calls of the media (a directory, S3) that had no answer or failed.",
        _one(lambda o: 0 if o.hub.context.media is None else o.hub.context.media.counts.failed),
    ),
    Metric(
        "signald_media_abandoned",
        "gauge",
        (),
        "Threads that still carry out a call of the media whose request is over; at blobs.threads no call can be made.",
        _one(lambda o: 0 if o.hub.context.media is None else o.hub.context.media.counts.abandoned),
    ),
    # rooms
    Metric(
        "signald_rooms",
        "gauge",
        (),
        "Rooms that have members attached here.",
        _one(lambda o: len(o.hub.rooms.hall.rooms)),
    ),
    Metric(
        "signald_room_members",
        "gauge",
        (),
        "Members of rooms that are attached here, each once for each of its rooms.",
        _one(lambda o: o.hub.rooms.hall.members),
    ),
    Metric(
        "signald_room_publications_total",
        "counter",
        ("result",),
        "Publications that came to this node: stored, behind a gap (gap), or refused by a right (forbidden), a bound (too_big, room_full), "
        "their form (bad_record), their rate (rate), or for the want of the extra yjs (unsupported).",
        _by(lambda o: o.hub.rooms.hall.counts.publications.items()),
    ),
    Metric(
        "signald_room_deliveries_total",
        "counter",
        (),
        "Publications written to members attached here, each member counted.",
        _one(lambda o: o.hub.rooms.hall.counts.deliveries),
    ),
    Metric(
        "signald_rooms_not_made_total",
        "counter",
        ("reason",),
        "Rooms that were not made: their owner has as many as it may (too_many_made), or there are as many in all (rooms_full).",
        _by(lambda o: o.hub.rooms.hall.counts.refused.items()),
    ),
    Metric(
        "signald_room_fanout_seconds",
        "histogram",
        (),
        "From the time at which a publication is stored until it is written to the members attached here.",
        _one(lambda o: o.hub.rooms.hall.counts.fanouts),
    ),
    Metric(
        "signald_room_slow_members_total",
        "counter",
        (),
        "Members that were put out of a room because they did not take what is published as fast as it comes.",
        _one(lambda o: o.hub.rooms.hall.counts.slow),
    ),
    Metric(
        "signald_config_last_reload_successful",
        "gauge",
        (),
        "1 if the configuration last read is in force.",
        _one(lambda o: float(o.hub.counts.reload_ok)),
    ),
    Metric(
        "signald_config_last_reload_timestamp_seconds",
        "gauge",
        (),
        "When the configuration was last read, at the start or since (seconds since 1970).",
        _one(lambda o: o.hub.counts.reload_at_s),
    ),
)
"""All that is exported while a node runs, beside what the library tells of the process (`process_*`)."""


class NodeCollector(Collector):
    """Reads a node when it is asked; of one that is still starting there is nothing to say."""

    def __init__(self, observed: Callable[[], Observed | None]) -> None:
        """`observed` gives the parts once they are there."""
        self._observed = observed

    def collect(self) -> Iterator[Family]:
        """Every metric with its values now."""
        observed = self._observed()
        if observed is not None:
            yield from (metric.family(observed) for metric in METRICS)


def node_registry(observed: Callable[[], Observed | None]) -> CollectorRegistry:
    """A registry of a node's own, with its process beside it."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(observed))
    ProcessCollector(registry=registry)
    return registry


def render_table() -> str:
    """The metrics as the table of docs/metrics.md."""
    rows = ["| metric | kind | labels | is |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"
