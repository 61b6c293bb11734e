"""Slips in telling the core server: order, leases, signatures, pauses, and what finds an event that was left behind."""

from tests.planted.bug import Bug

_WEBHOOKS = "signald/core/webhooks.py"
_DELIVERIES = "signald/core/deliveries.py"
_TURN = "signald/service/telling/turn.py"
_RECEIVER = "signald/service/telling/receiver.py"
_TELLER = "signald/service/telling/teller.py"
_ATTACHMENTS = "signald/service/attachments.py"
_SAGAS = "signald/store/sagas.py"

_OUTCOMES = ("tests/core/test_deliveries.py",)
_OF_EVENTS = "tests/service/telling/test_events.py::"
_OF_RECEIVERS = "tests/service/telling/test_receivers.py::"
_OF_NODES = "tests/service/telling/test_nodes.py::"

TELLING = (
    Bug(
        "event-behind-one-that-failed",
        _TURN,
        "Turn._send",
        "return self._failed(read.events, attempt.retry_after_s)",
        "self._failed(read.events, attempt.retry_after_s); continue",
        "event-told",
        "The events behind one that could not be told are told, and it is dropped with them.",
        (_OF_RECEIVERS + "test_one_session_that_is_refused_keeps_back_no_other",),
    ),
    Bug(
        "event-told-without-a-lease",
        _TURN,
        "Turn._has_time",
        "return trio.current_time() + self._context.config.core.events_timeout_s < self._lease_until",
        "return True",
        "event-told",
        "A node goes on with a queue whose lease is over, beside the node that has taken it.",
        (_OF_NODES + "test_two_nodes_never_have_one_queue_at_once",),
    ),
    Bug(
        "queue-kept-by-a-node-that-ends",
        _TURN,
        "Turn.run",
        "self._settle()",
        "pass",
        "event-told",
        "A node that ends does not give back what it holds: it waits for the end of the lease.",
        (_OF_NODES + "test_a_node_that_stops_hands_on_what_it_holds",),
    ),
    Bug(
        "old-secret-does-not-sign",
        _RECEIVER,
        "Receiver._secrets",
        "secrets_of(config.secret, config.secret_previous)",
        "secrets_of(config.secret)",
        "event-told",
        "While the secret rotates, a receiver that has not changed yet refuses each event.",
        (_OF_EVENTS + "test_both_secrets_sign_while_they_rotate",),
    ),
    Bug(
        "signature-without-the-id",
        _WEBHOOKS,
        "sign",
        "(message_id.encode(), timestamp_s)",
        '(b"msg", timestamp_s)',
        "event-told",
        "The id is not signed: a repetition passes for a new event.",
        ("tests/core/test_webhooks.py",),
    ),
    Bug(
        "redirect-counts-as-told",
        _DELIVERIES,
        "judge",
        "200 <= status < 300",
        "200 <= status < 400",
        "event-told",
        "A receiver that has moved is taken at its word, and its events are dropped.",
        _OUTCOMES,
    ),
    Bug(
        "pauses-do-not-grow",
        _DELIVERIES,
        "pause_s",
        "_doubled(PAUSE_FIRST_S, failures, PAUSE_MAX_S)",
        "_doubled(PAUSE_FIRST_S, 1, PAUSE_MAX_S)",
        "event-told",
        "A queue that fails is tried every few seconds for a day.",
        _OUTCOMES,
    ),
    Bug(
        "receiver-that-asks-for-time-gets-none",
        _DELIVERIES,
        "Reachability.note",
        "max(retry_after_s, bound * (0.5 + share / 2))",
        "bound * (0.5 + share / 2)",
        "event-told",
        "`Retry-After` holds for one queue only: the others go on at a receiver that is overloaded.",
        _OUTCOMES,
    ),
    Bug(
        "gone-is-forgotten",
        _RECEIVER,
        "Receiver._failed",
        "self.gone = True",
        "self.gone = False",
        "event-told",
        "A receiver that has answered 410 is told on.",
        (_OF_RECEIVERS + "test_410_ends_the_telling_until_an_operator_says_so",),
    ),
    Bug(
        "no-poll-without-an-event-of-its-own",
        _TELLER,
        "Teller.run",
        "trio.move_on_after(wait_s)",
        "trio.move_on_after(1e9)",
        "event-told",
        "A node asks the agenda only when it has entered something itself: what a dead node has left waits.",
        (_OF_NODES + "test_a_node_that_is_killed_in_the_middle",),
    ),
    Bug(
        "claim-does-not-look-for-events",
        _ATTACHMENTS,
        "Attachments.adopt",
        "if head.events:",
        "if not head.events:",
        "event-told",
        "What a killed node has not scheduled is not found by the node where the client resumes.",
        (_OF_NODES + "test_killed_between_the_step_and_the_agenda",),
    ),
    Bug(
        "forgotten-before-it-is-told",
        _SAGAS,
        "forget_session",
        "if told else",
        "if told and now_ms < 0 else",
        "event-told",
        "The registry forgets an ended session whose node was killed, and its last event is never told.",
        (_OF_NODES + "test_killed_between_the_end_and_the_agenda",),
    ),
)
