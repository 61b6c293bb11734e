"""Slips in the dialect of a DeepStream fleet, and in what the node does for workers without a token; each with the tests that notice it."""

from tests.planted.bug import Bug

_LINK = "signald/dialects/deepstream/link.py"
_PROOFS = "signald/dialects/deepstream/proofs.py"
_MESSAGES = "signald/dialects/deepstream/messages.py"
_HEALTH = "signald/dialects/deepstream/health.py"
_DIALECT = "signald/dialects/deepstream/dialect.py"
_EVENTS = "signald/dialects/deepstream/events.py"
_OPENING = "signald/service/named_opening.py"
_TERMINATING = "signald/service/terminating.py"
_SHUTDOWN = "signald/service/drain/shutdown.py"
_MOVING = "signald/service/drain/moving.py"
_LOST = "signald/service/cluster/lost_workers.py"
_CONNECTION = "signald/net/connection.py"
_RULES = "signald/store/registry/rules.py"
_LUA = "signald/store/registry/workers.lua"

_ROWS = "tests/deepstream/test_rows.py::"
_PAIRS = "tests/deepstream/test_pairs.py::"
_OPENINGS = "tests/deepstream/test_openings.py::"
_DRAINS = "tests/deepstream/test_drains.py::"
_NAMED = "tests/store/registry/test_named.py::"

DEEPSTREAM: tuple[Bug, ...] = (
    Bug(
        "app-message-received-when-written",
        _PROOFS,
        "Proofs.shown",
        "payload == b'%d' % self._number",
        "True",
        "exactly-once",
        "Any Pong of an app counts for the Ping in flight, also one that it has sent by itself: what it has not read is acked.",
        (_PAIRS + "test_received_is_what_the_app_has_read",),
    ),
    Bug(
        "app-close-proves-nothing",
        _CONNECTION,
        "Connection._heed_last_word",
        "self._ending.initiator == 'local'",
        "self._ending.initiator == 'abort'",
        "exactly-once",
        "The answer to a Close is not taken as the word that all before it was read: a deploy gives messages out twice.",
        (_PAIRS + "test_a_deploy_repeats_and_loses_nothing",),
    ),
    Bug(
        "app-frames-behind-close-dropped",
        _LINK,
        "AppLink.__init__",
        "conn.takes_late = True",
        "conn.takes_late = False",
        "exactly-once",
        "What an app says before it has read the Close of a deploy is thrown away, and the app has no ack to miss.",
        (_PAIRS + "test_a_deploy_repeats_and_loses_nothing",),
    ),
    Bug(
        "app-pinged-for-each-message",
        _PROOFS,
        "Proofs.shown",
        "self._not_before = trio.current_time() + PAUSE_S",
        "self._not_before = 0.0",
        "bounded",
        "An app is pinged as fast as it answers, and closed for the flood of its Pongs.",
        (_PAIRS + "test_many_messages_are_few_pings",),
    ),
    Bug(
        "client-says-terminate-app",
        _MESSAGES,
        "data_for_app",
        "kind in RESERVED",
        "kind in OWN",
        "nobody-hurts",
        "A client ends its app by a message that reads like an order of signald.",
        (_PAIRS + "test_what_no_app_understands_is_withheld",),
    ),
    Bug(
        "app-of-another-subject-superseded",
        _RULES,
        "claim_named",
        "op.principal != worker.principal",
        "op.principal == ''",
        "nobody-hurts",
        "An instance is taken over by another subject that knows its name.",
        (_NAMED + "TestClaim::test_another_principal", _OPENINGS + "TestNames::test_another_subject_is_refused"),
    ),
    Bug(
        "app-of-another-subject-superseded-lua",
        _LUA,
        "operation.claim_named",
        "if record[PRINCIPAL] ~= principal then",
        "if principal == '' then",
        "twin",
        "In Redis an instance is taken over by another subject.",
        (_NAMED + "TestClaim::test_another_principal",),
    ),
    Bug(
        "tenants-share-the-names-of-apps",
        _OPENING,
        "_id_of",
        "'' if tenant is None else f'={tenant}'",
        "''",
        "nobody-hurts",
        "One tenant keeps the apps of another out by their names.",
        (_OPENINGS + "TestNames::test_another_subject_is_refused",),
    ),
    Bug(
        "core-server-asked-for-a-return",
        _OPENING,
        "_claim",
        "create=False",
        "create=True",
        "nobody-hurts",
        "A new app is let in without a question to the core server.",
        (_OPENINGS + "TestCoreServer::test_asked_for_new_apps_only",),
    ),
    Bug(
        "app-forgotten-like-a-worker",
        _LOST,
        "LostWorkers.sweep",
        "config.deepstream.resume_timeout_s if is_named(info.id) else config.worker.resume_timeout_s",
        "config.worker.resume_timeout_s",
        "sticky",
        "An app that waits for a minute before it comes back, as its guide says, finds nothing.",
        (_ROWS + "TestD5::test_restored", _ROWS + "TestD5::test_kept_for_so_long"),
    ),
    Bug(
        "late-app-told-1000",
        _TERMINATING,
        "Terminations._see_it_end",
        "how == 'late'",
        "how == 'gone'",
        "nobody-lost",
        "An app that has not answered is told that it has ended in order, and is forgotten.",
        (_ROWS + "TestD2::test_late",),
    ),
    Bug(
        "busy-app-without-a-limit",
        _TERMINATING,
        "Terminations.busy",
        "min(until, ending.limit)",
        "until",
        "bounded",
        "An app that an operator ends says it is busy for an hour, and is waited for as long.",
        (_DRAINS + "TestOperator::test_a_busy_app_is_not_waited_for_without_end",),
    ),
    Bug(
        "busy-app-shortens-its-time",
        _TERMINATING,
        "Terminations.busy",
        "max(ending.deadline, min(until, ending.limit))",
        "min(until, ending.limit)",
        "nobody-lost",
        "An app that says it is busy for a moment more has less time than one that says nothing.",
        (_DRAINS + "test_a_busy_app_has_longer",),
    ),
    Bug(
        "app-asked-before-health-is-seen",
        _SHUTDOWN,
        "ShutdownScope._unready",
        "self._refuse()",
        "self._refuse(); self._begin_terminations()",
        "worker-first",
        "Apps are asked to end before load balancers have seen that the node goes away.",
        (_ROWS + "TestD4::test_order",),
    ),
    Bug(
        "operators-drain-ends-apps",
        _SHUTDOWN,
        "ShutdownScope._unready",
        "self._status.by_signal",
        "True",
        "worker-first",
        "A drain that an operator may call off ends the apps.",
        (_DRAINS + "test_an_operators_drain",),
    ),
    Bug(
        "slow-app-given-up-in-a-drain",
        _MOVING,
        "Mover._give_up_silent",
        "is_named(session.worker_id)",
        "False",
        "sticky",
        "An app that keeps the waits of its guide loses its client to the budget of workers that know GOAWAY.",
        (_DRAINS + "test_a_client_waits_for_its_app",),
    ),
    Bug(
        "arrival-told-1001",
        _DIALECT,
        "Deepstream.arrival_code",
        "return CloseCode.REFUSED",
        "return _code",
        "one-hop",
        "An app that arrives at the very end of a drain is told 1001 and comes back too soon.",
        (_ROWS + "TestD1::test_1013_to_the_very_end",),
    ),
    Bug(
        "app-told-1012",
        _LINK,
        "AppLink.close",
        "CloseCode.GOING_AWAY if code is CloseCode.RESTARTING else code",
        "code",
        "one-hop",
        "Where no other node is ready an app is closed with a code that its guide does not know.",
        (_DRAINS + "test_reconnect_without_a_successor",),
    ),
    Bug(
        "instances-of-all-tenants-shown",
        _HEALTH,
        "_instances",
        "caller.role == 'service' and caller.tenant is None",
        "caller.role == 'service'",
        "nobody-hurts",
        "The health answer names the instances of one tenant to the backend of another.",
        (_OPENINGS + "TestOpenings::test_who_sees_the_instances",),
    ),
    Bug(
        "two-messages-told-as-one",
        _EVENTS,
        "CoreEvents.tell",
        "f'{self._prefix}-{self._number}'",
        "self._prefix",
        "exactly-once",
        "An app that says the same twice is taken for a repetition of one request, and told once.",
        (_OPENINGS + "TestCoreServer::test_told_what_apps_say",),
    ),
)
