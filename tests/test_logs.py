"""Logging: one line per event, of the right level, and never a secret."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from signald.config import LogConfig
from signald.logs import SECRET_NAMES, configure_logging, drop_secrets


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put structlog and the root logger back as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


def logged(event: dict[str, Any], level: Literal["info", "warning"] = "info") -> list[dict[str, Any]]:
    """Log one `info` event and return the lines written."""
    out = io.StringIO()
    configure_logging(LogConfig(level=level), stream=out)
    structlog.get_logger().info("session_started", **event)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_level_and_time() -> None:
    """A collector gets one object per line, in UTC."""
    (line,) = logged({"session": "s1", "text": "two\nlines"})
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "session_started", "level": "info", "session": "s1", "text": "two\nlines"}


def test_events_below_the_level_are_not_written() -> None:
    """log.level is the least severity written."""
    assert logged({}, "warning") == []


@pytest.mark.parametrize(
    "name", [*sorted(SECRET_NAMES), "Recovery-Token", "AUTHORIZATION", "worker_token", "jwt_secret"]
)
def test_keys_that_name_a_secret_are_dropped_at_any_depth(name: str) -> None:
    """A careless log call shows no secret, neither in the event nor inside its values."""
    (line,) = logged({name: "hunter2", "headers": {name: "hunter2", "host": "a"}, "all": [({name: "hunter2"},)]})
    assert "hunter2" not in json.dumps(line)
    assert line["headers"] == {"host": "a"}
    assert name not in line


def test_words_that_only_contain_a_secret_name_are_kept() -> None:
    """Counters such as token_reuse are no secrets."""
    (line,) = logged({"token_reuse": 1, "authenticated": True})
    assert (line["token_reuse"], line["authenticated"]) == (1, True)


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "token", "x-auth"]) | st.text(), inner),
    )
)
def test_dropping_secrets_keeps_the_rest(value: Any) -> None:
    """Whatever is logged, the processor neither fails nor changes values without secrets."""
    kept = drop_secrets(None, "", {"event": "x", "value": value})["value"]
    assert '"token":' not in json.dumps(kept)
    if not isinstance(value, (dict, list)):
        assert kept == value


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_are_logged_without_local_variables(form: Literal["json", "console"]) -> None:
    """A traceback names files and lines, and no values: those may be secrets."""
    out = io.StringIO()
    configure_logging(LogConfig(format=form), stream=out)
    try:
        held = "hunter2"
        [][len(held)]
    except IndexError:
        structlog.get_logger().exception("failed")
    assert "IndexError: list index out of range" in out.getvalue()
    assert "hunter2" not in out.getvalue().replace('held = "hunter2"', "")


def test_loggers_of_libraries_write_the_same_lines() -> None:
    """What trio or Hypercorn log comes out as JSON too, from warning on."""
    out = io.StringIO()
    configure_logging(LogConfig(), stream=out)
    logging.getLogger("library").warning("low on %s", "memory")
    logging.getLogger("library").info("chatter")
    (line,) = [json.loads(text) for text in out.getvalue().splitlines()]
    assert (line["event"], line["level"], line["logger"]) == ("low on memory", "warning", "library")


def test_values_that_are_not_json_are_written_as_text() -> None:
    """No log call fails because of what it was given."""
    (line,) = logged({"error": ValueError("x"), "raw": b"\xff"})
    assert (line["error"], line["raw"]) == ("x", "b'\\xff'")


async def test_context_of_a_task_is_in_its_lines() -> None:
    """Bound context stays with its task."""
    out = io.StringIO()
    configure_logging(LogConfig(), stream=out)

    async def party(name: str) -> None:
        with structlog.contextvars.bound_contextvars(session=name):
            await trio.lowlevel.checkpoint()
            structlog.get_logger().info("seen", by=name)

    async with trio.open_nursery() as nursery:
        for name in ("alice", "bob"):
            nursery.start_soon(party, name)
    lines = [json.loads(text) for text in out.getvalue().splitlines()]
    assert {line["session"] for line in lines} == {"alice", "bob"}
    assert all(line["session"] == line["by"] for line in lines)


def line_of(event: dict[str, Any], form: Literal["auto", "json", "console"], *, terminal: bool = False) -> str:
    """Log one event in a form, to a terminal or not; returns all that was written."""
    out = Terminal() if terminal else io.StringIO()
    configure_logging(LogConfig(format=form), stream=out)
    structlog.get_logger().warning(event.pop("event"), **event)
    return out.getvalue()


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        """As of a file."""
        return True


def test_a_terminal_gets_text_and_a_collector_json() -> None:
    """`log.format` "auto", the default, looks where the lines go."""
    assert LogConfig().format == "auto"
    assert line_of({"event": "store_away"}, "auto", terminal=True).startswith("\x1b[33mstore_away\x1b[0m ")
    assert json.loads(line_of({"event": "store_away"}, "auto"))["event"] == "store_away"
    assert json.loads(line_of({"event": "store_away"}, "json", terminal=True))["event"] == "store_away"
    assert line_of({"event": "store_away"}, "console").startswith("store_away ")


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_event_is_first(form: Literal["json", "console"]) -> None:
    """What has happened stands where the eye begins, in both forms."""
    line = line_of({"event": "store_away", "aaa": 1, "why": "no answer", "at": ["x", 2]}, form)
    if form == "json":
        assert list(json.loads(line)) == ["event", "level", "timestamp", "aaa", "why", "at"]
    else:
        assert re.fullmatch(r'store_away aaa=1 why="no answer" at=\["x", 2\] \[\d\d:\d\d:\d\d warning\]\n', line)


HOSTILE = "a\x1b[2J\x07\nforged_event session=s_1\r\x9b31m\u202e\u2028\ud83d"
"""What a party may say: it clears a screen, rings, forges lines, and turns the direction of what follows."""


def fail() -> None:
    """Raise an error with a text of a party."""
    raise ValueError(HOSTILE)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("place", ["event", "value", "nested", "name", "exception"])
def test_nothing_of_a_party_moves_a_terminal(form: Literal["json", "console"], place: str) -> None:
    """ESC, BEL, newlines, C1 and what reorders text are escaped, wherever they stand; a traceback's lines are indented."""
    out = io.StringIO()
    configure_logging(LogConfig(format=form), stream=out)
    log = structlog.get_logger()
    if place == "exception":
        try:
            fail()
        except ValueError:
            log.exception("failed")
    else:
        values: dict[str, dict[str, Any]] = {
            "event": {},
            "value": {"reason": HOSTILE},
            "nested": {"reasons": [{"a": HOSTILE}]},
            "name": {HOSTILE: 1},
        }
        log.info(HOSTILE if place == "event" else "closed", **values[place])
    written = out.getvalue()
    _, *rest = written.removesuffix("\n").split("\n")
    assert all(line.startswith("    ") for line in rest)
    assert not rest or place == "exception"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028\ud83d]", written)
    assert "forged_event" in written


class Unprintable:
    """A value whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_makes_a_log_call_fail(form: Literal["json", "console"]) -> None:
    """A line comes out whatever it was given, so that no connection ends by what it logs."""
    assert "RuntimeError" in line_of({"event": "closed", "by": Unprintable()}, form)
