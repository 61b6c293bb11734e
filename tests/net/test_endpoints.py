"""Endpoints: fixed paths, and patterns whose last segment is the peer's."""

import pytest

from signald.net.endpoints import SEGMENT_CHARS_MAX, Endpoint, Endpoints, read_segment

ENDPOINTS = Endpoints({"/v1/client": Endpoint(), "/ws/{session_id}": Endpoint(("canvas",)), "/ws/fixed": Endpoint()})


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/client", "/v1/client"),
        ("/ws/board-1", "/ws/{session_id}"),
        ("/ws/b%C3%BChne%20.~@", "/ws/{session_id}"),
        ("/ws/fixed", "/ws/fixed"),
        ("/ws/" + "a" * SEGMENT_CHARS_MAX, "/ws/{session_id}"),
        ("/ws/" + "%F0%9F%8E%A8" * SEGMENT_CHARS_MAX, "/ws/{session_id}"),
        ("/ws/" + "a" * (SEGMENT_CHARS_MAX + 1), None),
        ("/ws/", None),
        ("/ws", None),
        ("/ws/a/b", None),
        ("/ws/a/", None),
        ("/ws/{session_id}", None),
        ("/ws/%FF", None),
        ("/ws/%zz", None),
        ("/ws/a%00b", None),
        ("/ws/a%0Ab", None),
        ("/ws/\u00fc", None),
        ("/v1/other", None),
        ("", None),
    ],
)
def test_the_route_of_a_path(path: str, route: str | None) -> None:
    """A segment is one of RFC 3986, of so many characters that can be shown; a fixed path comes first."""
    assert ENDPOINTS.route(path) == route
    assert (path in ENDPOINTS) is (route is not None)


def test_a_segment_is_read_as_utf_8() -> None:
    """What is written as `%xx` is the text of the peer."""
    assert read_segment("b%C3%BChne") == "b\u00fchne"
    assert read_segment("a%2Fb") == "a/b"
    assert ENDPOINTS["/ws/{session_id}"].subprotocols == ("canvas",)


@pytest.mark.parametrize("pattern", ["/{a}/b", "/ws/{a}{b}", "{a}", "/ws/x{a}"])
def test_a_pattern_ends_in_one_whole_segment(pattern: str) -> None:
    """A pattern of another form is a mistake of its dialect."""
    with pytest.raises(ValueError, match="no pattern"):
        Endpoints({pattern: Endpoint()})
