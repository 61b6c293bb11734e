"""Slips of the poller and its pumps, which real sockets alone meet: tests name them."""

from tests.planted.bug import Bug

_POLLER = "signald/net/poller.py"
_PUMP = "signald/net/pump.py"
_TESTS = "tests/net/test_poller.py::"

POLLING = (
    Bug(
        "turn-without-a-bound",
        _POLLER,
        "Poller._run",
        "epoll.poll(0, READY_MAX)",
        "epoll.poll(0)",
        "liveness",
        "A thousand peers that send at once hold up the store and all other tasks.",
        (_TESTS + "test_a_turn_is_bounded_and_leaves_no_socket_out",),
    ),
    Bug(
        "closed-socket-is-read",
        _POLLER,
        "Poller._run",
        "if call is not None:",
        "if True:",
        "liveness",
        "A connection that another one has ended in the same turn ends the poller, and with it all connections.",
        (_TESTS + "test_a_read_that_ends_another_connection",),
    ),
    Bug(
        "poller-outlives-its-sockets",
        _POLLER,
        "Poller.remove",
        "self._scope.cancel(reason='there is no socket left to wait for')",
        "pass",
        "liveness",
        "A node that has no connection left waits for its poller, and never ends.",
        (_TESTS + "test_nothing_is_left_when_there_is_nothing_to_watch",),
    ),
    Bug(
        "fault-of-one-ends-all",
        _PUMP,
        "Pump._read",
        "self._wake(outcome.Error(error))",
        "raise",
        "liveness",
        "An error in the handler of one connection ends all of them.",
        (_TESTS + "test_what_a_read_raises_is_raised_where_the_task_sleeps",),
    ),
    Bug(
        "end-within-a-read-forgotten",
        _PUMP,
        "Pump._read",
        "self._wake(outcome.Value(None))",
        "pass",
        "liveness",
        "A connection that its own read has ended keeps its task, its session and its place for ever.",
        (_TESTS + "test_the_end_of_a_peer_is_no_bytes",),
    ),
    Bug(
        "woken-twice",
        _PUMP,
        "Pump.end",
        "if not self._is_within:",
        "if True:",
        "liveness",
        "A read that ends its connection and then fails loses the error that explains it.",
        (_TESTS + "test_a_fault_behind_the_end_is_raised",),
    ),
)
