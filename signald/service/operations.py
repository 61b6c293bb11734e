"""What a node lets its operators do, behind the admin API: the one place that turns its state into answers for people.

Answers are plain JSON values. Nothing here holds a secret: sessions and workers are named by their ids, parties by nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import attrs
import msgspec
import trio

from signald.config import ConfigError
from signald.core.callers import ALL
from signald.core.head import PARTIES, Head
from signald.core.holders import principal_holder
from signald.core.jobs import Job
from signald.core.session import Session
from signald.errors import OperationRefused
from signald.ids import SessionId, job_id
from signald.logs import set_level
from signald.service.apps import Apps
from signald.service.auth import Principal, is_name
from signald.service.cluster.lease import Lease
from signald.service.cluster.revocations import NAME_CHARS_MAX, RevocationKeeper
from signald.service.drain.shutdown import ShutdownScope
from signald.service.drain.status import DrainStatus, names_of
from signald.service.parts import Parts
from signald.service.reloading import Reloader
from signald.service.resealing import Resealing
from signald.service.rooms.status import room_json, rooms_json
from signald.service.telling.status import events_json
from signald.service.telling.teller import Teller
from signald.service.trail import Trail as TrailWriter
from signald.service.trail import summary
from signald.store.registry.ops import GetReceipt, ListNodes, ListReceipts, ListSessionsOf, ListWorkers
from signald.store.session.jobs.ops import JobList, ListChangedJobs, ListJobs
from signald.store.session.ops import Look, Looked, ReadTrail

Json = dict[str, Any]

REOPEN_S = 3.0
"""How long an operator waits to see that the node serves again: as long as the store may take to hear of it."""

COUNTED_MAX = 10_000
"""Sessions whose jobs are counted for one question: all that a node usually holds, and a second of work for the store at most."""

COUNTED_AT_ONCE = 100
"""Of these in one round trip, so that messages are stored between two."""

UNFINISHED_MAX = 1000
"""Unfinished jobs that are counted of one session."""

NEVER_MS = 1 << 52
"""Later than any end."""


class NodeOperations:
    """See the module; implements `signald.http.admin.Operations`."""

    def __init__(
        self,
        parts: Parts,
        trail: TrailWriter,
        lease: Lease,
        shutdown: ShutdownScope,
        statistics: Callable[[], dict[str, int]],
        revocations: RevocationKeeper,
        teller: Teller,
        resealing: Resealing,
    ) -> None:
        """`statistics` counts what is held here now."""
        self._context = parts.context
        self._attachments = parts.attachments
        self._retries = parts.retries
        self._endings = parts.endings
        self._rooms = parts.rooms
        self._apps = Apps(parts.context, parts.attachments, parts.terminations)
        self._trail = trail
        self._statistics = statistics
        self._revocations = revocations
        self._teller = teller
        self._resealing = resealing
        self._lease = lease
        self._shutdown = shutdown
        self._started_at = trio.current_time()
        self.reloader: Reloader | None = None
        """Of a node that was started from a configuration that can be read again."""

    # --- this node --------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """This node and its drain."""
        context, now = self._context, trio.current_time()
        drain = self._shutdown.status
        away_since = context.committer.down_since
        return {
            "node": context.node,
            "release": context.config.node.release,
            "state": self._state(drain),
            "line": drain.line(now),
            "uptime_s": round(now - self._started_at, 1),
            "store": {
                "answers": away_since is None,
                "away_s": 0.0 if away_since is None else round(now - away_since, 1),
            },
            "lag_ms": round(self._lease.lag.ms, 1),
            "drain": _drain_json(drain, now) if drain.draining else None,
            "statistics": self._statistics(),
        }

    def _state(self, drain: DrainStatus) -> str:
        if drain.by_signal:
            return "shutting_down"
        if drain.draining:
            return "drained" if drain.phase.value == "hold" else "draining"
        return "ready" if self._context.committer.down_since is None else "degraded"

    def drain(self, parties: list[str], reason: str) -> Json:
        """Begin a drain of `parties`, or widen the one under way; the same again changes nothing.

        Raises OperationRefused: unknown parties, no party, a reason too long for a `goaway`, a drain that a signal has begun.
        """
        asked = frozenset(party for party in PARTIES if f"{party}s" in parties)
        if not parties or len(asked) != len(set(parties)):
            raise OperationRefused("invalid", "invalid", f'parties are "workers" and "clients", got {parties}')
        if not 1 <= len(reason) <= 100:
            raise OperationRefused("invalid", "invalid", "a reason has 1 to 100 characters")
        shutdown = self._shutdown
        if shutdown.status.by_signal:
            raise OperationRefused("state", "shutting-down", "a signal has begun a drain of everybody already")
        if not shutdown.begin(reason, parties=asked):
            shutdown.extend(asked)
        return self.status()

    async def abort(self) -> Json:
        """Call an operator's drain off. Raises OperationRefused when there is none, or none that can be called off."""
        if not self._shutdown.status.draining:
            raise OperationRefused("state", "not-draining", "this node does not drain: there is nothing to call off")
        if not self._shutdown.abort():
            raise OperationRefused("state", "final", "a signal has begun this drain: it cannot be called off")
        with trio.move_on_after(REOPEN_S):
            while self._shutdown.status.draining:  # noqa: ASYNC110 - an operator's question, a few turns of the loop
                await trio.sleep(0.01)
        return self.status()

    async def reload(self) -> Json:
        """Read the configuration again. Raises OperationRefused with everything that is wrong with it; then nothing has changed."""
        if self.reloader is None:
            raise OperationRefused(
                "state", "not-reloadable", "this node was started without a configuration that can be read again"
            )
        try:
            change = await self.reloader.reload()
        except ConfigError as error:
            count = len(error.problems)
            detail = f"the configuration has {count} problem{'s' if count > 1 else ''}: nothing has changed"
            raise OperationRefused(
                "invalid", "configuration", detail, problems=[attrs.asdict(problem) for problem in error.problems]
            ) from None
        return {"applied": list(change.applied), "needs_restart": list(change.needs_restart)}

    def set_log_level(self, level: str) -> Json:
        """Log from `level` on, until the next start or reload. Raises OperationRefused."""
        try:
            before = set_level(level)
        except ValueError as error:
            raise OperationRefused("invalid", "invalid", str(error)) from None
        return {"level": level, "before": before}

    def sessions(self, limit: int, *, stuck: bool = False) -> Json:
        """Sessions with a party at this node, at most `limit` of them; `stuck`: only those that are set aside."""
        context, attachments = self._context, self._attachments
        names = sorted(name for name, one in attachments.sessions.items() if one.set_aside_at or not stuck)
        listed = [_session_json(attachments.sessions[name]) for name in names[:limit]]
        return {"node": context.node, "total": len(names), "sessions": listed}

    async def sessions_of(self, subject: str, tenant: str | None, limit: int) -> Json:
        """The sessions of a subject, wherever they are, at most `limit` of them."""
        context = self._context
        holder = principal_holder(Principal(subject, "client", tenant).name)
        found = await context.committer.call(ListSessionsOf(holder, "", limit + 1))
        looked = await context.committer.call_many([Look(name, "client", 0, 0) for name in found.sessions[:limit]])
        heads = [result.head for result in looked if isinstance(result, Looked)]
        listed = [_session_json(Session(head, 0, 0)) for head in heads]
        return {"node": context.node, "total": len(found.sessions), "sessions": listed}

    async def end(self, session: str) -> Json:
        """End a session, wherever its parties are. Raises OperationRefused when there is none."""
        if not await self._endings.by_order(session, "operator", "operator"):
            raise OperationRefused(
                "unknown", "unknown-session", f"there is no session {session}: it has ended, or never was"
            )
        return {"session": session, "ended": True}

    async def retry(self, session: str) -> Json:
        """Hand a session out again that is set aside, whichever node its client is at.

        Raises OperationRefused when there is no such session, or it is not set aside.
        """
        attachments, retries = self._attachments, self._retries
        failures = await retries.retry(session)
        if (held := attachments.sessions.get(session)) is not None and failures is not None and failures.set_aside:
            attachments.relay.look(held)
        if failures is None:
            raise OperationRefused(
                "unknown", "unknown-session", f"there is no session {session}: it has ended, or never was"
            )
        if not failures.set_aside:
            raise OperationRefused(
                "state", "not-stuck", f"{session} is not set aside: {failures.count} hand-outs have failed"
            )
        return {"session": session, "seq": failures.seq, "failures": failures.count}

    async def revoke(self, subject: str, tenant: str | None) -> Json:
        """Void the tokens of a subject that were issued before now, on all nodes.

        Raises OperationRefused when no token can have such a subject, when this node asks for no tokens, or when too many are revoked.
        """
        for name in (subject, tenant):
            if name is not None and (not is_name(name) or len(name) > NAME_CHARS_MAX):
                raise OperationRefused(
                    "invalid", "invalid", f"a name has {NAME_CHARS_MAX} characters at most, none of them 0x1f"
                )
        if not subject:
            raise OperationRefused("invalid", "invalid", "the subject is empty")
        at_ms = await self._revocations.revoke(Principal(subject, "client", tenant).name)
        return {"subject": subject, "tenant": tenant, "revoked_at_ms": at_ms}

    def reseal(self) -> Json:
        """Seal anew what is under older keys, or plain; returns how far it is. Raises OperationRefused."""
        return self._resealing.begin()

    def resealing(self) -> Json:
        """Return how far that is."""
        return self._resealing.status()

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def jobs(self) -> Json:
        """How many unfinished jobs the sessions of this node have, by state.

        A session counts at the node of its client; while its client is away, at that of its worker. So the sum over all nodes
        has each session once. `uncounted` are sessions beyond COUNTED_MAX.
        """
        context = self._context
        here = [
            one
            for one in self._attachments.sessions.values()
            if one.jobs and (one.client.link is not None or (one.worker.link is not None and not one.client.node))
        ]
        counted = here[:COUNTED_MAX]
        states = {"queued": 0, "running": 0}
        for start in range(0, len(counted), COUNTED_AT_ONCE):
            part = counted[start : start + COUNTED_AT_ONCE]
            # No job has ended so late: only the unfinished ones are read.
            listed = await context.committer.call_many(
                [ListChangedJobs(one.id, 0, NEVER_MS, UNFINISHED_MAX) for one in part]
            )
            for job in chain.from_iterable(result.jobs for result in listed if isinstance(result, JobList)):
                states[job.state] += 1
        return {"node": context.node, "sessions": len(here), "states": states, "uncounted": len(here) - len(counted)}

    async def jobs_of(self, session: str, limit: int) -> Json:
        """The jobs of a session, wherever its parties are, and also those that are kept beyond its end; no input and no result.

        Raises OperationRefused when nothing is known of the session.
        """
        context = self._context
        listed = await context.committer.call(
            ListJobs(SessionId(session), ALL, context.node, "", 0, limit, context.now_ms())
        )
        if not isinstance(listed, JobList):
            raise OperationRefused("unknown", "unknown-session", f"nothing is known of {session}")
        return {"session": session, "more": listed.more, "jobs": [_job_json(session, job) for job in listed.jobs]}

    # --- rooms ------------------------------------------------------------------------------------------------------

    async def rooms(self, limit: int) -> Json:
        """The rooms with members at this node, the largest first, at most `limit` of them."""
        return await rooms_json(self._context, self._rooms.hall, limit)

    async def room(self, room: str, tenant: str | None, limit: int) -> Json:
        """A room, wherever its members are, with up to `limit` of them. Raises OperationRefused when there is none."""
        return await room_json(self._context, self._rooms.hall, room, tenant, limit)

    # --- apps -------------------------------------------------------------------------------------------------------

    async def apps(self, limit: int) -> Json:
        """The apps of the cluster, at most `limit` of them."""
        return await self._apps.listed(limit)

    async def terminate(self, instance: str, tenant: str | None) -> Json:
        """Ask an app to clean up and end, wherever it is. Raises OperationRefused."""
        return await self._apps.terminate(instance, tenant)

    # --- the core server --------------------------------------------------------------------------------------------

    async def events(self, limit: int) -> Json:
        """How the core server is told of events; up to `limit` queues that wait."""
        return await events_json(self._context, self._teller, limit)

    async def retry_events(self) -> Json:
        """Tell everything that waits now. Raises OperationRefused where no core server is named."""
        if not self._context.config.core.events_url:
            raise OperationRefused("state", "no-core-server", "core.events_url is not set: nothing is told")
        return {"node": self._context.node, "queues": await self._teller.retry()}

    # --- the cluster ------------------------------------------------------------------------------------------------

    async def nodes(self) -> Json:
        """The live nodes."""
        now_ms = self._context.now_ms()
        listed = await self._context.committer.call(ListNodes(now_ms))
        nodes = sorted(listed.nodes, key=lambda info: (info.started_ms, info.id))
        return {
            "nodes": [
                {
                    "node": info.id,
                    "release": info.release,
                    "state": info.state,
                    "connections": info.connections,
                    "lag_ms": info.lag_ms,
                    "up_s": round((now_ms - info.started_ms) / 1000, 1),
                    "this": info.id == self._context.node,
                }
                for info in nodes
            ]
        }

    async def workers(self) -> Json:
        """The workers of the cluster."""
        listed = await self._context.committer.call(ListWorkers())
        now_ms = self._context.now_ms()
        return {
            "workers": [
                {
                    "worker": info.id,
                    "instance": info.instance,
                    "node": info.node,
                    "labels": info.labels,
                    "capacity": info.capacity,
                    "assigned": info.assigned,
                    "leaving": info.leaving,
                    "away_s": 0.0 if info.node else round(max(0, now_ms - info.away_since_ms) / 1000, 1),
                }
                for info in sorted(listed.workers, key=lambda info: (info.instance, info.id))
            ]
        }

    async def trail(self, session: str) -> Json:
        """The way of a session, across nodes, also of one that has ended. Raises OperationRefused when nothing is known of it."""
        context = self._context
        self._trail.store()
        looked, trail, listed = await context.committer.call_each(
            Look(session, "client", 0, 0), ReadTrail(session), ListNodes(context.now_ms())
        )
        if not trail.steps and not isinstance(looked, Looked):
            raise OperationRefused("unknown", "unknown-session", f"nothing is known of {session}")
        live = {info.id for info in listed.nodes}
        state = _whereabouts(looked.head, live) if isinstance(looked, Looked) else "ended"
        steps = [step for step in _readable(trail.steps) if type(step.get("at_ms")) is int]
        # Each node stores its steps a moment later, so those of two nodes may have come in another order.
        steps.sort(key=lambda step: int(step["at_ms"]))
        told = summary(steps)
        if isinstance(looked, Looked):
            # It goes on: the steps of the nodes that still hold it are to come.
            told |= {"up": looked.head.up_last, "down": looked.head.down_last}
            told["duration_ms"] = max(0, context.now_ms() - looked.head.created_ms)
        return {"session": session, "state": state, "summary": told, "steps": steps}

    async def receipts(self) -> Json:
        """The latest drains, newest first."""
        listed = await self._context.committer.call(ListReceipts())
        return {"receipts": [{"node": node, "at_ms": at_ms} for node, at_ms in listed.receipts]}

    async def receipt(self, node: str) -> Json:
        """The drain of `node`. Raises OperationRefused."""
        found = await self._context.committer.call(GetReceipt(node))
        for ledger in _readable([found.body]):
            return ledger
        raise OperationRefused("unknown", "unknown-receipt", f"{node} has left no receipt")


def _session_json(session: Session[Any]) -> Json:
    return {
        "session": session.id,
        "state": session.pairing.value,
        "worker": session.worker_id,
        "client_node": session.client.node,
        "worker_node": session.worker.node,
        "up": {"last": session.up.last, "acked": session.up.acked},
        "down": {"last": session.down.last, "acked": session.down.acked},
        "failures": session.failures.count,
        "stuck_at": session.set_aside_at,
    }


def _job_json(session: str, job: Job) -> Json:
    return {
        "job": job_id(session, job.n),
        "kind": job.kind,
        "state": job.state,
        "attempt": job.attempt,
        "failures": job.failures,
        "with_worker": bool(job.handed) and not job.over,
        "input_bytes": job.input_bytes,
        "result_bytes": job.size,
        "created_ms": job.created_ms,
        "started_ms": job.started_ms,
        "ended_ms": job.ended_ms,
        "deadline_ms": job.deadline_ms,
    }


def _readable(kept: Iterable[bytes]) -> Iterator[Json]:
    """What was kept as JSON, without what is damaged."""
    for each in kept:
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(each, type=dict[str, Any])


def _whereabouts(head: Head, live: set[str]) -> str:
    """Where the parties of a session are, in words."""

    def at(node: str) -> str:
        if not node:
            return "away"
        return f"at {node}" if node in live else f"was at {node}, which is gone"

    if head.failures.set_aside:
        return f"client {at(head.client_node)}, set aside at message {head.failures.seq}"
    if not head.pair:
        return f"client {at(head.client_node)}, wants no worker"
    if not head.worker:
        return f"client {at(head.client_node)}, waiting for a worker"
    return f"client {at(head.client_node)}, worker {head.worker} {at(head.worker_node)}"


def _drain_json(drain: DrainStatus, now: float) -> Json:
    return {
        "phase": drain.phase.value,
        "reason": drain.reason,
        "by_signal": drain.by_signal,
        "parties": names_of(drain.parties),
        "seconds": round(now - drain.began_at, 1),
        "seconds_left": round(max(0.0, drain.deadline - now), 1),
        "clients_left": drain.clients_left,
        "workers_left": drain.workers_left,
        "rate_per_s": drain.rate_per_s,
        "plan": attrs.asdict(drain)["plan"],
    }
