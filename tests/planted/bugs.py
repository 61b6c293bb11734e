"""The planted bugs: small slips in the real code, as data. Each is one that a tired author could make and a reader overlook.

A bug replaces one text, which occurs exactly once in its file, by another. What it should break is an invariant of the
design, by its name; a campaign plants one at a time and asks whether the simulation notices.
"""

import attrs


@attrs.frozen
class Bug:
    """One slip."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    """The invariant that is to notice; `liveness` for those after which somebody waits for ever."""
    story: str


_SESSION_RULES = "signald/store/session_rules.py"
_REGISTRY_RULES = "signald/store/registry_rules.py"
_RECORDS = "signald/store/records.py"
_MEMORY = "signald/store/memory.py"
_COMMITTER = "signald/store/committer.py"
_LOG = "signald/core/log.py"
_SESSION = "signald/core/session.py"
_TOKENS = "signald/core/tokens.py"
_DRAIN = "signald/core/drain.py"
_RELAY = "signald/service/relay.py"
_HUB = "signald/service/hub.py"
_LOSSES = "signald/service/losses.py"
_LEASE = "signald/service/lease.py"
_MENDER = "signald/service/mender.py"
_CLIENT_OPENING = "signald/service/client_opening.py"
_SHUTDOWN = "signald/service/shutdown.py"
_MOVING = "signald/service/moving.py"
_WORKERS = "signald/service/workers.py"
_CONNECTION = "signald/net/connection.py"
_SDK_CORE = "signald/sdk/core.py"
_SDK_PARTY = "signald/sdk/party_core.py"
_SDK_WORKER = "signald/sdk/worker_core.py"
_SDK_CLIENT = "signald/sdk/client_core.py"
_SDK_BACKOFF = "signald/sdk/backoff.py"
_SDK_VALUES = "signald/sdk/values.py"
_SDK_DECODING = "signald/sdk/decoding.py"
_CODEC = "signald/wire/codec.py"

STORE = (
    Bug(
        "append-not-fenced",
        _SESSION_RULES,
        "    if refused := _not_holder(side, op.epoch, op.node):\n        return refused\n    # The ack counts",
        "    # The ack counts",
        "single-owner",
        "A node that has lost a party goes on appending for it.",
    ),
    Bug(
        "claim-far-ahead-believed",
        _SESSION_RULES,
        '    if _is_ahead(record, op.acked, op.received, op.ahead_max):\n        return base.Refused("ahead")\n    record.slots',
        "    record.slots",
        "nobody-hurts",
        "A client that claims positions which were never given out is believed, however far ahead they are.",
    ),
    Bug(
        "claimed-seqs-not-noted",
        _RECORDS,
        "                first, last = lost[0] if log.acked >= last else first, known\n                log.last = known\n",
        "                log.last = known\n",
        "nobody-hurts",
        "A hole that only a claim has made is taken for one that the store shows.",
    ),
    Bug(
        "word-of-a-worker-raises-the-log",
        _RECORDS,
        '            if way == "down" or party == "client":\n',
        '            if way == "down" or party:\n',
        "nobody-hurts",
        "A worker claims what its client is yet to say, which passes for a duplicate then, and is acked and lost.",
    ),
    Bug(
        "worker-claims-believed-without-bound",
        _SESSION_RULES,
        "    if _is_ahead(record, op.received, op.acked, op.ahead_max):\n",
        "    if op.received < op.acked < 0:\n",
        "nobody-hurts",
        "A worker that claims positions which were never given out is believed, however far ahead they are.",
    ),
    Bug(
        "client-principal-not-judged",
        _SESSION_RULES,
        '    if op.principal != record.principal:\n        return base.Refused("principal")\n',
        "",
        "token-once",
        "A stranger with a credential of its own resumes with a token that it has found, or has the owner's tokens revoked.",
    ),
    Bug(
        "ack-not-fenced",
        _SESSION_RULES,
        "    if refused := _not_holder(record.side(op.party), op.epoch, op.node):\n        return refused\n",
        "",
        "single-owner",
        "A node that has lost a party goes on acknowledging for it.",
    ),
    Bug(
        "detach-not-fenced",
        _SESSION_RULES,
        "    if not op.node or _not_holder(side, op.epoch, op.node):\n        return base.Done()\n    side.node = ",
        "    if not op.node:\n        return base.Done()\n    side.node = ",
        "single-owner",
        "The late detach of the old node detaches the party from the new one.",
    ),
    Bug(
        "worker-not-fenced",
        _REGISTRY_RULES,
        "    if worker.side.epoch != op.epoch:\n        return base.Fenced(worker.side.epoch)\n    worker.capacity",
        "    worker.capacity",
        "single-owner",
        "A node that has lost a worker speaks for it, and does not learn that it has moved.",
    ),
    Bug(
        "claim-keeps-the-epoch",
        _SESSION_RULES,
        "claim = Claim(op.nonce, side.epoch + 1, side.node",
        "claim = Claim(op.nonce, side.epoch or 1, side.node",
        "single-owner",
        "A claim of a session reuses the epoch of the one before.",
    ),
    Bug(
        "worker-claim-keeps-the-epoch",
        _REGISTRY_RULES,
        "claim = Claim(op.nonce, worker.side.epoch + 1, worker.side.node",
        "claim = Claim(op.nonce, worker.side.epoch, worker.side.node",
        "single-owner",
        "A claim of a worker reuses the epoch of the one before.",
    ),
    Bug(
        "unpair-keeps-the-epoch",
        _SESSION_RULES,
        '        record.worker_side.node = ""\n        record.worker_side.epoch = max(record.worker_side.epoch, op.epoch) + 1\n',
        '        record.worker_side.node = ""\n',
        "single-owner",
        "A session is taken from its worker under the epoch the worker's node still writes with.",
    ),
    Bug(
        "append-repeated-is-stored-twice",
        _SESSION_RULES,
        "    if new and new[0].seq <= log.last:\n"
        "        new = tuple(entry for entry in new if entry.seq > log.last)\n"
        "    result: Result\n"
        "    if new and new[0].seq != log.last + 1:",
        "    result: Result\n    if new and new[0].seq > log.last + 1:",
        "exactly-once",
        "An append that is sent again after a lost reply is stored again.",
    ),
    Bug(
        "claim-repeated-is-a-second-claim",
        _SESSION_RULES,
        "    if claim := record.client.claimed(op.nonce):\n        return _claimed(claim, record, _away_ms(claim, record, op.now_ms))\n",
        "",
        "token-once",
        "A claim that is sent again after a lost reply is judged again, with a token it has used itself.",
    ),
    Bug(
        "late-claim-granted",
        _SESSION_RULES,
        '    if record.client.is_late(op.now_ms):\n        return base.Refused("late")\n',
        "",
        "token-once",
        "A claim asked for long ago comes after its token has been rotated, and is called theft.",
    ),
    Bug(
        "claim-mixes-the-directions",
        _SESSION_RULES,
        'return _claim(record, "worker", op, op.received, op.acked, rows, wakes)',
        'return _claim(record, "worker", op, op.acked, op.received, rows, wakes)',
        "exactly-once",
        "What a worker has received counts as what it has sent.",
    ),
    Bug(
        "ack-goes-back",
        _SESSION_RULES,
        "    if seq <= log.acked:\n        return False\n    log.acked = seq\n",
        "    if seq == log.acked:\n        return False\n    log.acked = seq\n",
        "exactly-once",
        "An older ack that comes later counts.",
    ),
    Bug(
        "backlog-measured-from-the-wrong-end",
        _SESSION_RULES,
        "    elif new and new[-1].seq - log.acked > op.backlog_max:",
        "    elif new and new[-1].seq - log.last > op.backlog_max:",
        "bounded-memory",
        "A log grows as long as the receiver does not ack.",
    ),
    Bug(
        "receiver-not-woken",
        _SESSION_RULES,
        "    if new or (acked and record.receipts):",
        "    if acked and record.receipts:",
        "liveness",
        "What is appended for a party at another node waits there until somebody happens to look.",
    ),
    Bug(
        "session-outlives-its-end",
        _SESSION_RULES,
        "    wakes.session(record, by, record.client.node, record.worker_side.node)\n"
        "    rows.drop_session(record.session)\n",
        "    wakes.session(record, by, record.client.node, record.worker_side.node)\n",
        "no-ghost",
        "An ended session stays in the store.",
    ),
    Bug(
        "down-log-outlives-its-session",
        _MEMORY,
        '        self._entries.pop((session, "up"), None)\n        self._entries.pop((session, "down"), None)\n',
        '        self._entries.pop((session, "up"), None)\n',
        "no-ghost",
        "One of the two logs is not removed with its session.",
    ),
    Bug(
        "forgotten-session-counts-as-alive",
        _REGISTRY_RULES,
        "    rows.drop_place(op.session)\n    rows.drop_life(op.session)\n",
        "    rows.drop_place(op.session)\n",
        "no-ghost",
        "An ended session stays in the index of the living.",
    ),
    Bug(
        "reseed-with-acked-for-last",
        _SESSION_RULES,
        "    log.last = max(log.last, last)\n",
        "    log.last = max(log.last, acked)\n",
        "exactly-once",
        "A store that came back empty begins again at a seq that has been used.",
    ),
    Bug(
        "capacity-ignored",
        _MEMORY,
        "        return len(self._places_of.get(worker, ()))\n",
        "        return int(worker in self._places_of)\n",
        "bounded-memory",
        "A worker counts as having one session, however many it has.",
    ),
    Bug(
        "paired-session-reserved-again",
        _REGISTRY_RULES,
        "    if place is None or place.worker:\n",
        "    if place is None:\n",
        "sticky",
        "Two nodes that match at the same time give one session to two workers.",
    ),
    Bug(
        "released-session-not-in-line",
        _REGISTRY_RULES,
        "        _unplace(session, op.worker, rows, requeue=op.requeue)\n    rows.drop_worker",
        "        _unplace(session, op.worker, rows, requeue=False)\n    rows.drop_worker",
        "liveness",
        "The sessions of a worker that was given up wait for nobody.",
    ),
    Bug(
        "want-outlives-its-line",
        _MEMORY,
        "            for node in nodes:\n                self._wanted[node] -= 1",
        "            for node in nodes[1:]:\n                self._wanted[node] -= 1",
        "no-ghost",
        "What a session wanted stays in the tree of wants when it has gone.",
    ),
    Bug(
        "dead-node-counts-as-live",
        _REGISTRY_RULES,
        "    return base.Nodes(tuple(node for node in nodes if node.lease_until_ms > op.now_ms))",
        "    return base.Nodes(tuple(nodes))",
        "liveness",
        "A node whose lease has ended goes on counting as live.",
    ),
    Bug(
        "pace-forgets-what-was-taken",
        _REGISTRY_RULES,
        "    level = max(level - op.tokens, -PACE_DEBT_MAX_S * op.rate_per_s)\n    rows.save_fact",
        "    level = max(level, -PACE_DEBT_MAX_S * op.rate_per_s)\n    rows.save_fact",
        "paced",
        "The cluster's budget is never used up.",
    ),
    Bug(
        "replay-begins-one-late",
        _MEMORY,
        "(entry for entry in log if entry.seq > after)",
        "(entry for entry in log if entry.seq > after + 1)",
        "exactly-once",
        "A replay from the store leaves out its first message.",
    ),
    Bug(
        "batch-dropped-after-failure",
        _COMMITTER,
        "                continue\n            break\n",
        "                return\n            break\n",
        "liveness",
        "A batch whose outcome is unknown is not sent again, and nobody is answered.",
    ),
    Bug(
        "committer-last-in-first-out",
        _COMMITTER,
        "            batch = self._lines.take(self._batch_ops_max)\n",
        "            batch = self._lines.take(self._batch_ops_max)[::-1]\n",
        "exactly-once",
        "Operations reach the store in another order than they were handed over.",
    ),
)

CORE = (
    Bug(
        "tail-begins-one-late",
        _LOG,
        "        start = seq + 1 - tail[0].seq\n",
        "        start = seq + 2 - tail[0].seq\n",
        "exactly-once",
        "A replay from memory leaves out its first message.",
    ),
    Bug(
        "tail-begins-one-early",
        _LOG,
        "        start = seq + 1 - tail[0].seq\n",
        "        start = max(0, seq - tail[0].seq)\n",
        "exactly-once",
        "A replay from memory begins with a message the receiver has.",
    ),
    Bug(
        "stale-tail-kept",
        _LOG,
        "        if self.tail and self.tail[-1].seq != self.last:\n",
        "        if self.tail and self.tail[-1].seq > self.last:\n",
        "liveness",
        "What another node has written since is taken to be in memory.",
    ),
    Bug(
        "offer-not-deduped",
        _LOG,
        "        if entry.seq != expected:\n            return Offer.DUPLICATE if entry.seq < expected else Offer.GAP\n",
        "        if entry.seq > expected:\n            return Offer.GAP\n",
        "exactly-once",
        "A message that is offered again is appended again.",
    ),
    Bug(
        "pending-unbounded",
        _LOG,
        "        if len(self.pending) >= self.backlog_max or self.bytes_held + size > self.bytes_max:\n",
        "        if len(self.pending) >= self.backlog_max and self.bytes_held + size > self.bytes_max:\n",
        "bounded-memory",
        "What waits to be stored is bounded only when both bounds are passed.",
    ),
    Bug(
        "append-under-way-for-ever",
        _LOG,
        "        self._release(self.pending)\n        self.pending = []\n        self.in_flight = 0\n",
        "        self._release(self.pending)\n        self.pending = []\n",
        "liveness",
        "An append whose party went stays under way, and nothing is appended after it.",
    ),
    Bug(
        "resume-replays-nothing",
        _SESSION,
        "        side.sent = side.ack_due = side.ack_stored = received\n",
        "        side.ack_due = side.ack_stored = received\n",
        "exactly-once",
        "What was sent over the old connection and never arrived is not sent again over the new one.",
    ),
    Bug(
        "superseded-client-stays",
        _SESSION,
        "        client_superseded = head.client_epoch > self.client.epoch and self.client.link is not None\n",
        "        client_superseded = False\n",
        "single-owner",
        "A node does not let go of a client that another has claimed.",
    ),
    Bug(
        "token-dropped-at-issue",
        _TOKENS,
        "        return Slots(issued, presented, _retire(slots.retired, slots.previous)), Verdict.GRANTED\n",
        '        return Slots(issued, b"", _retire(slots.retired, presented)), Verdict.GRANTED\n',
        "token-once",
        "The presented token is retired with the issue of the next, which may be lost on its way.",
    ),
    Bug(
        "token-good-for-ever",
        _TOKENS,
        '    return Slots(slots.current, b"", _retire(slots.retired, slots.previous)) if slots.previous else slots\n',
        "    return slots\n",
        "token-once",
        "A token goes on resuming after its holder has shown the next.",
    ),
    Bug(
        "reuse-revokes-nothing",
        _TOKENS,
        "        return revoke(slots), Verdict.REUSED\n",
        "        return slots, Verdict.REUSED\n",
        "token-once",
        "A reused token is refused, and the tokens that came after it stay good.",
    ),
    Bug(
        "worker-given-up-at-once",
        _DRAIN,
        "            del self._workers_told[worker]\n            self._workers_told[worker] = now + self._worker_timeout_s\n",
        "            del self._workers_told[worker]\n            self._workers_told[worker] = now\n",
        "sticky",
        "A worker that was told to go has no time to do it.",
    ),
    Bug(
        "last-client-not-waited-for",
        _DRAIN,
        "        if self._workers_told or self._unready or self._ready or self._clients_told:\n",
        "        if self._workers_told or self._unready or self._ready:\n",
        "one-hop",
        "The drain is over as soon as the last client was told to go, and cuts it off.",
    ),
)

SERVICE = (
    Bug(
        "ack-before-append",
        _RELAY,
        "            self.accepted += 1\n            if message.trace",
        "            self.accepted += 1\n"
        "            if (sender := session.side(party).link) is not None:\n"
        "                sender.ack_later(session.id, message.seq)\n"
        "            if message.trace",
        "exactly-once",
        "A message is acked when it is taken, before the store has it.",
    ),
    Bug(
        "ack-counts-what-is-pending",
        _RELAY,
        "            if link is not None:\n                link.ack_later(session.id, target.last)\n            else:",
        "            if link is not None:\n                link.ack_later(session.id, target.expected - 1)\n            else:",
        "exactly-once",
        "The ack of one append covers what gathered while it was under way.",
    ),
    Bug(
        "refused-sender-not-told",
        _RELAY,
        "            target.absorb(result.last, result.acked)\n"
        "            if link is not None:\n"
        "                self.push_back(session, party, link)\n",
        "            target.absorb(result.last, result.acked)\n",
        "liveness",
        "A sender the store has pushed back is not told to offer its messages again.",
    ),
    Bug(
        "answer-to-an-older-claim-believed",
        _RELAY,
        "        if side.epoch != epoch:\n"
        "            return  # a claim came between: the party offers again whatever was not stored before it\n",
        "",
        "exactly-once",
        "The answer to an append of the connection before counts for the one that is there now.",
    ),
    Bug(
        "delivery-not-resumed",
        _RELAY,
        "            if session.side(link.party).link is link:\n                self.deliver(session, link.party)\n",
        "            if session.side(link.party).link is not link:\n                self.deliver(session, link.party)\n",
        "liveness",
        "A receiver that was too slow gets nothing more when it has room again.",
    ),
    Bug(
        "absence-of-the-store-is-a-sign",
        _LOSSES,
        "        self.check_store()\n",
        "        self._seen_at = max(self._seen_at, self._hub.committer.back_at)\n",
        "nobody-hurts",
        "A party that claims too much after any hiccup of the store is taken for the witness of a loss.",
    ),
    Bug(
        "claim-rings-the-alarm",
        _LOSSES,
        "        shown = claimed.agreed or self.is_store_in_doubt()\n",
        "        shown = True\n",
        "nobody-hurts",
        "What a party alone claims is reported as a loss of the store.",
    ),
    Bug(
        "loss-not-announced",
        _RELAY,
        '        self._events.lost(side.link, session.id, "received", lost, shown=shown)\n        side.sent = first - 1\n',
        "        side.sent = first - 1\n",
        "exactly-once",
        "The receiver is not told what the store has lost.",
    ),
    Bug(
        "link-not-forgotten",
        _HUB,
        "        link.over = True\n        self.links.discard(link)\n        if isinstance(link, ClientLink):\n",
        "        link.over = True\n        if isinstance(link, ClientLink):\n",
        "no-orphan-task",
        "A connection that is gone stays in the table of the living.",
    ),
    Bug(
        "moved-worker-told-its-sessions-are-over",
        _HUB,
        "            if isinstance(link, WorkerLink) and session.worker_id != link.worker:\n",
        "            if isinstance(link, WorkerLink):\n",
        "sticky",
        "A node whose worker has moved tells it that it has lost its sessions.",
    ),
    Bug(
        "idle-session-kept",
        _HUB,
        "        if not session.local and self.sessions.get(session.id) is session:\n",
        "        if not session.local and self.sessions.get(session.id) is not session:\n",
        "no-ghost",
        "A node holds sessions none of whose parties is there.",
    ),
    Bug(
        "lease-renewed-too-seldom",
        _LEASE,
        "        every_s = self._hub.config.node.lease_ttl_s / 3\n",
        "        every_s = self._hub.config.node.lease_ttl_s * 3\n",
        "sticky",
        "A node that lives counts as dead between two renewals.",
    ),
    Bug(
        "away-counted-in-the-wrong-unit",
        _LEASE,
        "now_ms - away_since_ms > timeout_s * 1000\n",
        "now_ms - away_since_ms > timeout_s\n",
        "sticky",
        "A worker whose connection broke is given up at once.",
    ),
    Bug(
        "empty-store-taken-for-ended-sessions",
        _MENDER,
        "        if name != self.incarnation:\n            log.error",
        "        if name != self.incarnation and hub.committer.down_since is not None:\n            log.error",
        "nobody-lost",
        "What a store has lost with everything counts as ended.",
    ),
    Bug(
        "history-lost-with-the-worker",
        _WORKERS,
        "            entries = history.entries if isinstance(history, History) else ()\n            link.send(\n",
        "            entries = ()\n            link.send(\n",
        "sticky",
        "The next worker is not told what was said before.",
    ),
    Bug(
        "acceptance-not-carried-over",
        _WORKERS,
        '            if head.worker_state == "paired":\n                link.accepted.add(name)\n            else:\n',
        '            if head.worker_state == "paired":\n                link.accepted.discard(name)\n            else:\n',
        "liveness",
        "A worker that moved gets no messages of the sessions it had accepted.",
    ),
    Bug(
        "refusal-forgets-the-detach",
        _WORKERS,
        '        session.detach("worker")\n        link.drop(session.id)\n        hub.forget_if_idle(session)\n',
        "        link.drop(session.id)\n        hub.forget_if_idle(session)\n",
        "liveness",
        "A session that its worker gave back stays attached to it here.",
    ),
    Bug(
        "pair-ready-wherever-the-worker-is",
        _MOVING,
        "        return not session.worker_id or self._hub.cluster.is_successor(session.worker.node)\n",
        "        return not session.worker_id or bool(session.worker.node)\n",
        "worker-first",
        "A client may go before its worker has.",
    ),
    Bug(
        "turn-comes-and-worker-forgotten",
        _MOVING,
        "        if not self._is_pair_ready(session):\n            # A worker that is here took it while",
        "        if session.worker_id and not session.worker.node:\n            # A worker that is here took it while",
        "worker-first",
        "Nobody looks again at the worker when the client's turn has come.",
    ),
    Bug(
        "late-client-forgotten",
        _MOVING,
        "            self._plan.client_came(session.id, ready=ready, now=trio.current_time())\n",
        "",
        "one-hop",
        "A client whose claim was under way when the drain began is not told to go.",
    ),
    Bug(
        "late-worker-forgotten",
        _MOVING,
        "            self._plan.worker_came(worker, len(link.sessions))\n",
        "",
        "one-hop",
        "A worker whose claim was under way when the drain began is not told to go.",
    ),
    Bug(
        "deadline-ignored",
        _SHUTDOWN,
        "                with trio.CancelScope(deadline=until(trio.current_time())) as self._scope:\n",
        "                with trio.CancelScope() as self._scope:\n",
        "bounded",
        "No phase of a drain has an end of its own.",
    ),
    Bug(
        "second-signal-ignored",
        _SHUTDOWN,
        "        else:\n            self._interrupt(DrainEvent.HURRY)\n",
        "        else:\n            self._pending = DrainEvent.HURRY\n",
        "bounded",
        "A second SIGTERM hurries nothing that is being waited for.",
    ),
    Bug(
        "draining-node-lets-in",
        _SHUTDOWN,
        "def _refuse(self) -> None:\n        self._hub.refusing = {",
        "def _refuse(self) -> None:\n        _ = {",
        "one-hop",
        "A node that is about to go takes new parties.",
    ),
    Bug(
        "abort-recalls-nothing",
        _SHUTDOWN,
        "        hub.watcher = None\n        hub.refusing = {}\n",
        "        hub.watcher = None\n",
        "liveness",
        "A node whose drain was called off goes on refusing.",
    ),
    Bug(
        "client-not-paced",
        _MOVING,
        "        await self._pace(plan, 1)\n",
        "",
        "paced",
        "Clients are told to go without asking the cluster's budget.",
    ),
    Bug(
        "secret-logged",
        _CLIENT_OPENING,
        "        replaying=head.down_last - received,\n        **log_fields(message.trace),\n",
        "        replaying=head.down_last - received,\n        token=token,\n        **log_fields(message.trace),\n",
        "token-once",
        "A log line carries a recovery token.",
    ),
    Bug(
        "keepers-left-behind",
        "signald/daemon.py",
        '                keepers.cancel_scope.cancel(reason="the node stops")\n',
        "",
        "bounded",
        "A task of a node goes on when all its parties have gone, and the process never exits.",
    ),
    Bug(
        "queue-cleared-after-the-write",
        _CONNECTION,
        "                    self._queue.clear()\n                sent = await self._transport.send(self._chunk)\n",
        "                sent = await self._transport.send(self._chunk)\n                self._queue.clear()\n",
        "exactly-once",
        "What is queued while a write is under way is thrown away with what was written.",
    ),
    Bug(
        "room-not-told",
        _CONNECTION,
        "            self._was_full = False\n            if self.on_room is not None and self._ending is None:\n",
        "            if self.on_room is None and self._ending is None:\n",
        "liveness",
        "Nobody hears that a full send queue has room again.",
    ),
)

SDK = (
    Bug(
        "sdk-acks-what-it-received",
        _SDK_CORE,
        "        self.received = self._behind_lost(seq)\n        self.inbox.append((message, binary))\n",
        "        self.received = self.finished = self._behind_lost(seq)\n        self.inbox.append((message, binary))\n",
        "exactly-once",
        "A message is acked before the application has it.",
    ),
    Bug(
        "sdk-dedupes-nothing",
        _SDK_CORE,
        "        if seq <= self.received:\n"
        "            # The sender of a duplicate has not seen our ack, or it was for an older claim.\n"
        "            self.ack_again()\n"
        "            return False\n"
        "        if seq != self.received + 1:\n",
        "        if seq > self.received + 1:\n",
        "exactly-once",
        "A message that is replayed reaches the application again.",
    ),
    Bug(
        "sdk-resends-nothing",
        _SDK_CORE,
        "        self.acked(accepted)\n        self.sent = self.accepted\n",
        "        self.acked(accepted)\n",
        "liveness",
        "What was on its way when the connection broke is not sent again.",
    ),
    Bug(
        "sdk-drops-what-is-unacked",
        _SDK_CORE,
        "        self.acked(accepted)\n        self.sent = self.accepted\n",
        "        self.acked(self.sent)\n        self.sent = self.accepted\n",
        "exactly-once",
        "What was on its way when the connection broke counts as stored.",
    ),
    Bug(
        "sdk-does-not-go-back",
        _SDK_CORE,
        "        self.sent = expected - 1\n        self._rewound_to = expected\n",
        "        self._rewound_to = expected\n",
        "liveness",
        "What signald refused is not offered again.",
    ),
    Bug(
        "sdk-breaks-before-it-makes",
        _SDK_PARTY,
        "        self._move = message\n        target = ",
        '        self._move = message\n        self.lost(link, None, "told to go", now)\n        target = ',
        "one-hop",
        "A party that is told to go leaves before it has somewhere to go.",
    ),
    Bug(
        "sdk-connects-twice",
        _SDK_PARTY,
        "        if self.over is not None or self.opening is not None:\n            return None\n",
        "        if self.over is not None:\n            return None\n",
        "one-hop",
        "A second connection is opened while the first waits for its answer.",
    ),
    Bug(
        "sdk-comes-back-in-step",
        _SDK_BACKOFF,
        "        return entropy.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(tries, 63)))\n",
        "        return min(self.cap_s, self.base_s * 2.0 ** min(tries, 63))\n",
        "paced",
        "All parties of a node that died come back at the same moment.",
    ),
    Bug(
        "sdk-keeps-what-it-lost",
        _SDK_WORKER,
        "            if name not in kept and name in self.sessions:\n",
        "            if name in kept and name not in self.sessions:\n",
        "single-owner",
        "A worker goes on with sessions that were given to others while it was away.",
    ),
    Bug(
        "sdk-hears-the-peer-from-the-node-it-left",
        _SDK_CLIENT,
        "            case PeerChanged() if link is self.current:\n",
        "            case PeerChanged():\n",
        "sticky",
        "What a node that was left says of the worker overrides what the new one said.",
    ),
    Bug(
        "sdk-odd-value-ends-its-reader",
        _SDK_VALUES,
        "    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:\n        return _read_slowly(",
        "    except UnicodeDecodeError as error:\n        return _read_slowly(",
        "nobody-hurts",
        "A value that Python cannot hold ends the worker that gets it.",
    ),
    Bug(
        "sdk-depth-is-no-decoding-error",
        _SDK_DECODING,
        "    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:\n        failed: Exception = error\n",
        "    except (msgspec.DecodeError, UnicodeDecodeError) as error:\n        failed: Exception = error\n",
        "nobody-hurts",
        "A frame that is nested too deep ends the program that gets it.",
    ),
    Bug(
        "sdk-negative-deadline-believed",
        _SDK_WORKER,
        "message.reason, max(message.deadline_ms, 0)",
        "message.reason, message.deadline_ms",
        "nobody-hurts",
        "A deadline that is over ends the worker with an error instead of in order.",
    ),
    Bug(
        "sdk-never-rests",
        _SDK_BACKOFF,
        " if self._quick >= QUICK_MAX else 0.0\n",
        " if self._quick < 0 else 0.0\n",
        "nobody-hurts",
        "A service that answers and then breaks every connection keeps a party dialling.",
    ),
    Bug(
        "wrong-frame-of-a-worker-is-an-error-of-the-node",
        _CODEC,
        "    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):\n        found = _NAMED",
        "    except (msgspec.DecodeError, UnicodeDecodeError):\n        found = _NAMED",
        "nobody-hurts",
        "The session of a frame that is nested too deep is looked for in a way that fails.",
    ),
)

POISON = (
    Bug(
        "lost-hand-out-not-counted",
        _LEASE,
        '"did not come back", lost_ms=lost_ms)',
        '"did not come back")',
        "nobody-hurts",
        "A message that ends its worker is handed on for ever.",
    ),
    Bug(
        "refused-hand-out-not-counted",
        _HUB,
        "self.workers.refused(link, session, reason, failed=failed)",
        "self.workers.refused(link, session, reason)",
        "nobody-hurts",
        "A message at which each handler raises is handed out twice a second for ever.",
    ),
)

BUGS: tuple[Bug, ...] = (*STORE, *CORE, *SERVICE, *SDK, *POISON)
