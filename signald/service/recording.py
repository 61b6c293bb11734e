"""What counters and the log take from the life events of a node (`service.events`)."""

import structlog

from signald.core.exits import EXITS, StoreStep
from signald.core.jobs import ENDS
from signald.service import events
from signald.service.context import Context
from signald.wire.traces import log_fields

log = structlog.get_logger(__name__)


class Recorder:
    """Counts each event, and writes its line of the log. One for each node."""

    def __init__(self, context: Context) -> None:
        """Subscribe to the events of `context`, whose counters are counted up."""
        self._context = context
        self._counters, self._counts = context.counters, context.counts
        subscribe = context.events.subscribe
        subscribe(events.ClientStarted, self._client_started)
        subscribe(events.SessionCreated, self._session_created)
        subscribe(events.ClientResumed, self._client_resumed)
        subscribe(events.WorkerRegistered, self._worker_registered)
        subscribe(events.WorkerResumed, self._worker_resumed)
        subscribe(events.PartyReleased, self._party_released)
        subscribe(events.LinkOver, self._link_over)
        subscribe(events.WorkerGivenUp, self._worker_given_up)
        subscribe(events.HandoutFailed, self._handout_failed)
        subscribe(events.SetAside, self._set_aside)
        subscribe(events.Retried, self._retried)
        subscribe(events.JobStored, self._job_stored)
        subscribe(events.JobTold, self._job_told)
        subscribe(events.StreamsInterrupted, self._streams_interrupted)
        subscribe(events.SessionEnded, self._session_ended)
        subscribe(events.SessionGone, self._session_gone)
        subscribe(events.ResumeRefused, self._resume_refused)

    def _client_started(self, event: events.ClientStarted) -> None:
        self._counters.sessions_started += 1
        log.info(
            "session_started",
            node=self._context.node,
            session=event.session,
            dialect=event.dialect,
            **log_fields(event.trace),
        )

    def _session_created(self, event: events.SessionCreated) -> None:
        self._counters.sessions_started += 1
        log.info("session_created", node=self._context.node, session=event.session)

    def _client_resumed(self, event: events.ClientResumed) -> None:
        self._counters.resumes += 1
        if event.gap_s is not None:
            self._counts.gaps.observe(event.gap_s)
        log.info(
            "session_restored",
            node=self._context.node,
            session=event.session,
            epoch=event.epoch,
            replaying=event.replaying,
            dialect=event.dialect,
            **log_fields(event.trace),
        )

    def _worker_registered(self, event: events.WorkerRegistered) -> None:
        self._counters.workers_registered += 1
        log.info(
            "worker_registered",
            node=self._context.node,
            worker=event.worker,
            instance=event.instance,
            capacity=event.capacity,
            dialect=event.dialect,
            **log_fields(event.trace),
        )

    def _worker_resumed(self, event: events.WorkerResumed) -> None:
        self._counters.resumes += 1
        log.info(
            "worker_resumed",
            node=self._context.node,
            worker=event.worker,
            epoch=event.epoch,
            sessions=event.sessions,
            lost=event.lost,
            dialect=event.dialect,
            **log_fields(event.trace),
        )

    def _party_released(self, event: events.PartyReleased) -> None:
        if EXITS[event.cause].store in (StoreStep.UNPAIR, StoreStep.UNPAIR_FAILED):
            log.info("session_refused", session=event.session, worker=event.owner, reason=event.reason)

    def _link_over(self, event: events.LinkOver) -> None:
        if event.goaway_at is not None:
            self._counts.handovers[event.party].observe(event.at - event.goaway_at)

    def _worker_given_up(self, event: events.WorkerGivenUp) -> None:
        if event.leaving:
            log.info("worker_left", worker=event.worker, sessions=len(event.sessions), reason=event.reason)
        else:
            log.warning("worker_given_up", worker=event.worker, sessions=len(event.sessions), reason=event.reason)

    def _handout_failed(self, event: events.HandoutFailed) -> None:
        self._counts.failed_handouts[event.cause] += 1

    def _set_aside(self, event: events.SetAside) -> None:
        self._counts.set_aside += 1
        log.warning("session_set_aside", session=event.session, seq=event.seq, failures=event.failures)

    def _retried(self, event: events.Retried) -> None:
        log.info("session_retried", session=event.session)

    def _job_stored(self, event: events.JobStored) -> None:
        self._counts.jobs_stored += 1
        self._counts.job_stores.observe(event.seconds)
        log.debug("job_stored", session=event.session, job=event.job, kind=event.kind)

    def _job_told(self, event: events.JobTold) -> None:
        if event.state in ENDS:
            self._counts.jobs_ended[event.state] += 1
            self._counts.job_lives.observe(event.seconds)
            log.debug("job_ended", session=event.session, job=event.job, state=event.state, attempt=event.attempt)

    def _streams_interrupted(self, event: events.StreamsInterrupted) -> None:
        log.info("streams_interrupted", session=event.session, streams=len(event.streams))

    def _session_ended(self, event: events.SessionEnded) -> None:
        self._counts.ended[event.cause] += 1

    def _session_gone(self, event: events.SessionGone) -> None:
        if event.held:
            self._counters.sessions_ended += 1
            log.info("session_ended", session=event.session, reason=event.reason)

    def _resume_refused(self, event: events.ResumeRefused) -> None:
        self._counters.resumes_refused += 1
        if event.reason == "token_reuse":
            self._counters.token_reuse += 1
            log.warning("token_reuse", owner=event.owner)
