"""Slips that a seed of the simulation hardly meets, each with the test that notices it: policies, certificates, bounds, wants."""

from tests.planted.bug import Bug

_MOVING = "signald/service/drain/moving.py"
_MENDER = "signald/service/cluster/mender.py"
_LINE = "signald/service/line.py"
_MATCHMAKER = "signald/service/matchmaker.py"
_CLIENT_LINK = "signald/dialects/v1/client.py"
_LISTENER = "signald/net/listener.py"
_REGISTRY_RULES = "signald/store/registry/rules.py"

_WANTS = "tests/service/test_wants.py::"

NAMED: tuple[Bug, ...] = (
    Bug(
        "hold-taken-for-reassign-in-a-drain",
        _MOVING,
        "Mover._give_up",
        "'missed its budget')",
        "'missed its budget', leaving=True)",
        "sticky",
        "A drain gives the sessions of a worker that is late to others, although they are to be held for it.",
        (
            "tests/service/test_stragglers.py::test_the_policy_decides_about_the_sessions_of_a_worker_that_does_not_move",
        ),
    ),
    Bug(
        "held-session-waited-for-in-a-drain",
        _MOVING,
        "Mover._give_up_silent",
        "context.config.worker.on_loss == 'hold'",
        "False",
        "bounded",
        "A drain treats the sessions that are held for a worker that is away as those of one that is given up.",
        ("tests/service/test_stragglers.py::test_a_session_that_is_held_for_a_worker_that_is_away_holds_up_no_drain",),
    ),
    Bug(
        "given-back-without-want",
        _MENDER,
        "Mender._reseed_workers",
        "within_tenant(session.want, session.principal)",
        "within_tenant({}, session.principal)",
        "sticky",
        "A session that is given back with its worker after a loss of the store is matched with any worker next.",
        (_WANTS + "test_a_session_that_was_given_back_with_its_worker_wants_what_it_wanted",),
    ),
    Bug(
        "queued-again-without-want",
        _LINE,
        "enqueue",
        "session.want",
        "{}",
        "sticky",
        "A session that waits is given back without what it wants after a loss of the store.",
        (_WANTS + "test_a_session_that_waits_wants_what_it_wanted_after_a_loss",),
    ),
    Bug(
        "renewed-certificate-not-served",
        _LISTENER,
        "Server.renew",
        "self._settings, self._tls = (settings, tls)",
        "self._settings = settings",
        "liveness",
        "A certificate that was renewed is not shown to those that connect after a reload.",
        ("tests/systemd/test_reload.py::test_a_renewed_certificate_is_shown_to_the_next_who_connects",),
    ),
    Bug(
        "binary-realtime-without-limit",
        _CLIENT_LINK,
        "ClientLink._rare",
        "if self._rate.take_quietly():",
        "if binary is not None or self._rate.take_quietly():",
        "nobody-hurts",
        "Realtime of a client that is binary is counted by no rate.",
        ("tests/service/test_limits.py::test_realtime_counts_in_every_form",),
    ),
    Bug(
        "line-matched-to-five",
        _MATCHMAKER,
        "Matchmaker._suited",
        "WAITING_LIMIT, edges_max",
        "5, edges_max",
        "liveness",
        "A pass of the matchmaker reads only the first five that wait.",
        (_WANTS + "test_one_pass_pairs_as_many_as_there_is_room_for",),
    ),
    Bug(
        "line-read-to-five",
        _REGISTRY_RULES,
        "list_suited",
        "rows.line(node, share)",
        "rows.line(node, min(share, 5))",
        "liveness",
        "Of a waiting line only the first five are ever matched in one pass.",
        ("tests/store/test_length.py::test_a_long_line_is_read_as_far_as_is_asked", "-k", "memory"),
    ),
)
