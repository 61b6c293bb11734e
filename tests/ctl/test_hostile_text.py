"""What parties have said reaches an operator's terminal as text: nothing in it moves the cursor, rings or forges a line."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from signald.cli import main

HOSTILE = "\x1b[2J\x07a\nforged \u202eline\r\x9b31m"
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/admin/workers": {
        "workers": [
            {
                "worker": "w_1", "instance": HOSTILE, "node": HOSTILE, "assigned": 1, "capacity": 2,
                "labels": {HOSTILE: HOSTILE}, "leaving": False, "away_s": None,
            }
        ]
    },
    "/v1/admin/sessions/s_1/jobs?limit=100": {
        "session": "s_1",
        "more": False,
        "jobs": [
            {
                "job": "j_1", "kind": HOSTILE, "state": "running", "attempt": 1, "failures": 0,
                "created_ms": 1, "started_ms": 1, "ended_ms": 0, "deadline_ms": 0,
            }
        ],
    },
    "/v1/admin/rooms?limit=100": {
        "node": HOSTILE, "total": 3, "unread": 0,
        "rooms": [
            {
                "room": "canvas:1", "tenant": "acme", "members": 3, "members_here": 2, "position": 9, "position_here": 8,
                "records": 4, "bytes": 512,
            },
            {
                "room": "lobby", "tenant": None, "members": 1, "members_here": 1, "position": 0, "position_here": 0,
                "records": 0, "bytes": 0,
            },
        ],
    },
    "/v1/admin/rooms/canvas%3A1?limit=100&tenant=acme": {
        "node": "a", "room": "canvas:1", "tenant": "acme", "members": 3, "members_here": 2, "position": 9, "position_here": 8,
        "records": 4, "bytes": 512, "epoch": HOSTILE, "kept_from": 3, "snapshot": 0, "nodes": ["a", "b"],
        "listed": [{"member": "s_1", "presence_bytes": 12}, {"member": "s_1/worker", "presence_bytes": 0}],
    },
    "/v1/admin/sessions/s_1/trail": {
        "session": "s_1",
        "state": HOSTILE,
        "steps": [{"at_ms": 0, "node": HOSTILE, "party": "client", "what": HOSTILE, "detail": HOSTILE}],
    },
}  # fmt: skip


class _Node(BaseHTTPRequestHandler):
    """An admin API whose answers hold what parties have said."""

    def do_GET(self) -> None:
        """Answer from the table; anything else is a problem whose detail is as bad."""
        answer = ANSWERS.get(self.path)
        body = json.dumps(answer or {"type": "urn:signald:problem:x", "detail": HOSTILE}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where it answers."""
    server = HTTPServer(("127.0.0.1", 0), _Node)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "asked",
    [["workers"], ["trace", "s_1"], ["jobs", "s_1"], ["sessions"], ["rooms"], ["room", "canvas:1", "--tenant", "acme"]],
)
def test_answers_and_problems_are_printable(asked: list[str], url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every control character is an escape, in tables, in a trail and in a problem; newlines begin lines of ours only."""
    main(["ctl", *asked, "--url", url])
    shown = "".join(capsys.readouterr())
    assert "\\x1b[2J\\x07a\\x0aforged \\u202eline\\x0d\\x9b31m" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert not re.search("^forged", shown, re.MULTILINE)


def test_json_is_as_it_came(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the text itself, which JSON escapes on its own."""
    main(["ctl", "workers", "--url", url, "--json"])
    assert json.loads(capsys.readouterr().out) == ANSWERS["/v1/admin/workers"]


def test_rooms_are_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a node is behind the store, both positions; members here and in all; what is not shown is said."""
    main(["ctl", "rooms", "--url", url])
    _, first, second, more = capsys.readouterr().out.splitlines()
    assert first.split()[-7:] == ["canvas:1", "(tenant", "acme)", "2/3", "8/9", "4", "512"]
    assert second.split()[-5:] == ["lobby", "1/1", "0", "0", "0"]
    assert more == "... and 1 more (--limit)"
    main(["ctl", "room", "canvas:1", "--tenant", "acme", "--url", url])
    shown = capsys.readouterr().out
    assert "canvas:1 (tenant acme): position 9" in shown
    assert "4 records; 512 bytes with the snapshot (none)" in shown
    assert "3 members at a, b" in shown
    assert "... and 1 more" in shown
