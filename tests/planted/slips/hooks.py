"""Slips in what the core server is asked, and in the HTTP client."""

from tests.planted.bug import Bug

_CLIENT = "signald/http/client.py"
_DIALING = "signald/http/dialing.py"
_CORE = "signald/core/authorising.py"
_BREAKER = "signald/core/breaker.py"
_AUTHORISING = "signald/service/hooks/authorising.py"
_REASKING = "signald/service/hooks/reasking.py"
_STEPS = "signald/service/opening_steps.py"
_TESTS = "tests/service/test_authorising.py"

HOOKS = (
    Bug(
        "interim-answers-without-end",
        _DIALING,
        "BoundedStream.read",
        "self._left -= len(data)",
        "self._left -= 0",
        "bounded",
        "A server that says 100 Continue for ever holds the loop of the node until the deadline.",
        ("tests/http/test_client.py::test_interim_answers_do_not_hold_the_loop",),
    ),
    Bug(
        "carried-address-passes",
        _DIALING,
        "is_public",
        "is_public(str(inner))",
        "True",
        "nobody-hurts",
        "An inner IPv4 address that is carried by an IPv6 address passes the guard.",
        ("tests/http/test_client.py::test_an_inner_address_is_refused",),
    ),
    Bug(
        "packed-answer-taken",
        _CLIENT,
        "HttpClient._read",
        "headers.get('content-encoding', '')",
        '""',
        "bounded",
        "A compressed body is taken for the document itself.",
        ("tests/http/test_client.py::test_a_server_that_means_harm",),
    ),
    Bug(
        "answer-of-another-question",
        _CORE,
        "Question.key",
        "self, session=UNSET",
        'self, session=UNSET, claims=Raw(b"{}")',
        "nobody-hurts",
        "What was answered for one credential counts for another one of the same subject.",
        ("tests/core/test_authorising.py::test_a_question_is_its_own_key",),
    ),
    Bug(
        "trial-by-all",
        _BREAKER,
        "Breaker.admits",
        "    if state == 'trying':\n        self._tried_at = now\n",
        "",
        "bounded",
        "When the pause of the breaker is over, all parties that come try a server that is away, and wait for it.",
        ("tests/core/test_breaker.py::test_its_way_round", f"{_TESTS}::test_a_trial_that_fails"),
    ),
    Bug(
        "lie-lets-in",
        _AUTHORISING,
        "_body",
        "answer.status != 200",
        "answer.status >= 500",
        "nobody-hurts",
        "A page that says 403 or 302 and holds a right object lets a party in.",
        (f"{_TESTS}::test_a_lie_counts_as_away",),
    ),
    Bug(
        "open-is-forgotten",
        _STEPS,
        "admit",
        "return Admitted(Grant(True), context.now_ms())",
        "return Admitted(Grant(True), 0)",
        "nobody-hurts",
        "A party that was let in without an answer is never asked for.",
        (f"{_TESTS}::test_one_let_in_without_an_answer_is_asked_for_after_its_resume",),
    ),
    Bug(
        "let-in-by-a-node-that-drains",
        _STEPS,
        "admit",
        "credential.principal.role in context.refusing",
        "False",
        "one-hop",
        "A client that waited for the core server is let in at the end of a drain, and cut with it.",
        (f"{_TESTS}::test_a_drain_that_begins_meanwhile",),
    ),
    Bug(
        "away-ends-sessions",
        _REASKING,
        "Reasking._ask",
        "    if grant is None:\n        return False\n",
        '    if grant is None:\n        await self._endings.forbidden(name, "away")\n        return True\n',
        "nobody-hurts",
        "A core server that is away ends the sessions whose answer has run out.",
        (f"{_TESTS}::test_a_resume_never_waits",),
    ),
    Bug(
        "labels-lost-by-a-resume",
        "signald/store/registry/rules.py",
        "claim_worker",
        "{**op.labels, **worker.granted}",
        "op.labels",
        "nobody-hurts",
        "A worker that resumes has no more what the core server has given it.",
        ("tests/store/registry/test_contract.py::TestGranted",),
    ),
    Bug(
        "settings-lost-with-the-store",
        "signald/store/session/reseed.py",
        "reseed",
        "known.asked_until_ms >= record.asked_until_ms",
        "known.asked_until_ms < record.asked_until_ms",
        "nobody-hurts",
        "A store that has lost a session is not given back what the core server has said for it.",
        ("tests/store/session/test_contract.py::TestAnswers",),
    ),
)
