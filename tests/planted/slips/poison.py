"""Slips in what keeps one bad message from ending worker after worker."""

from tests.planted.bug import Bug

_WORKER_LINK = "signald/dialects/v1/worker.py"
_LOST_WORKERS = "signald/service/cluster/lost_workers.py"

POISON = (
    Bug(
        "lost-hand-out-not-counted",
        _LOST_WORKERS,
        "LostWorkers.sweep",
        "back', lost_ms=lost_ms)",
        "back')",
        "nobody-hurts",
        "A message that ends its worker is handed on for ever.",
        ("tests/service/test_poison.py::test_a_message_that_ends_each_worker_is_set_aside",),
    ),
    Bug(
        "refused-hand-out-not-counted",
        _WORKER_LINK,
        "WorkerLink._answered",
        "Cause.HANDED_BACK if failed else ",
        "",
        "nobody-hurts",
        "A message at which each handler raises is handed out twice a second for ever.",
        ("tests/service/test_poison.py::test_a_message_that_each_handler_refuses_is_set_aside",),
    ),
    Bug(
        "session-given-back-without-what-was-done",
        "signald/sdk/worker_seats.py",
        "WorkerSeats._say_rest",
        "seat.core.part(now, batch)",
        "seat.core.ended",
        "nobody-hurts",
        "Each worker in turn is given again what the one before it had done.",
        ("tests/sdk/test_trio_worker.py::test_a_handler_that_raises_at_a_message_has_finished_with_those_before",),
    ),
)
