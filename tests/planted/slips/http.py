"""Slips in the HTTP half of the listener of the parties."""

from tests.planted.bug import Bug

_PUBLIC = "signald/http/public.py"
_STRICT = "signald/http/strict.py"

HTTP = (
    Bug(
        "length-beside-chunks-taken",
        _STRICT,
        "_judge_request",
        "b'content-length' in names or request.http_version",
        "request.http_version",
        "nobody-hurts",
        "A body that a proxy ends by its length is ended by its chunks here, and the rest is read as a request.",
        ("tests/http/test_strict.py::test_the_first_request_is_refused",),
    ),
    Bug(
        "later-heads-not-judged",
        _STRICT,
        "StrictConnection.next_event",
        "self.their_state is h11.IDLE",
        "self.their_state is h11.ERROR",
        "nobody-hurts",
        "Bare line feeds and folded headers pass, on which a proxy may disagree.",
        ("tests/http/test_strict.py::test_a_later_request_is_refused_alike",),
    ),
    Bug(
        "address-of-the-connection",
        _PUBLIC,
        "PublicConnection._run_app",
        "', '.join(hops) or None",
        "None",
        "nobody-hurts",
        "All clients behind a proxy share one rate.",
        ("tests/http/test_public.py::TestAddresses",),
    ),
    Bug(
        "idle-connections-keep-their-places",
        _PUBLIC,
        "PublicConnection.protocol_send",
        "self._owner.places.quiet(self.place, self._idle_since)",
        "pass",
        "nobody-hurts",
        "A newcomer is refused while idle connections hold all places.",
        ("tests/http/test_public.py::TestPlaces",),
    ),
    Bug(
        "connections-kept-through-a-stop",
        _PUBLIC,
        "PublicProtocol.is_last",
        "self.owner.stopping",
        "False",
        "bounded",
        "A client keeps its connection to a node that goes, and finds it cut in the end.",
        ("tests/http/test_public_drain.py",),
    ),
    Bug(
        "requests-cut-at-the-end",
        "signald/node.py",
        "_finish_http",
        "await public.finish(shutdown.answers_until)",
        "await public.finish(trio.current_time())",
        "bounded",
        "A request under way is cut when the parties have moved.",
        ("tests/http/test_public_drain.py::test_a_request_under_way_outlasts_the_drain",),
    ),
    Bug(
        "bodies-held-for-ever",
        "signald/http/api/app.py",
        "Api.__call__",
        "self.counts.bodies_held -= scope.get('state', {}).get('held_bytes', 0)",
        "pass",
        "bounded",
        "The budget of bodies is used up once and for all.",
        ("tests/http/test_api.py::TestBodies::test_all_bodies_have_one_budget",),
    ),
)
"""The slips, by the part of signald they are planted in."""
