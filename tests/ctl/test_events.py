"""`signald ctl events`: what it says of a node that tells a core server, from the answer of a real one in memory."""

import json
from typing import Any

import pytest

from signald.cli import main
from signald.ctl import commands
from signald.ctl.events import in_words
from signald.exit_codes import ExitCode
from signald.testing.cluster import Cluster, play
from tests.service.telling.core import Core, always, away, telling


def answered(behave: Any, seconds: float = 60.0) -> dict[str, Any]:
    """The answer of a node whose core server behaves so, a while after a session has begun."""
    found: dict[str, Any] = {}

    async def scene(cluster: Cluster) -> None:
        core = Core(cluster)
        core.behave, cluster.core = behave, core
        node = await cluster.start("n1", **telling())
        await cluster.client("n1")
        import trio

        await trio.sleep(seconds)
        found.update(await node.operations.events(10))

    play(scene)
    return dict(json.loads(json.dumps(found)))  # as it comes over HTTP


class Asked:
    """Stands for the admin API of a node."""

    verbatim = False

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        """Answer a question."""
        self.asked.append(f"GET {path}")
        return self.answer

    def post(self, path: str, _body: object = None) -> dict[str, Any]:
        """Answer an order."""
        self.asked.append(f"POST {path}")
        return {"node": "n1", "queues": 3}


@pytest.mark.parametrize(
    ("behave", "state", "words"),
    [
        (always(200), "ok", "1 told, none failed; dropped 0 full, 0 expired"),
        (away, "away", "0 told, "),
        (always(410), "gone", "1 gone"),
    ],
)
def test_the_state_in_words(behave: Any, state: str, words: str) -> None:
    """It says whether the server is there, what was told, and lists what waits."""
    answer = answered(behave)
    assert answer["state"] == state
    said = in_words(answer)
    assert words in said
    assert ("QUEUE" in said) == (state != "ok")
    assert answer["waiting"]["queues"] == (state != "ok")


def test_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`events` asks and shows, `events retry` orders; both as JSON when they are told to."""
    asked = Asked(answered(always(200)))
    monkeypatch.setattr(commands, "find_node", lambda *_: asked)
    assert main(["ctl", "events", "--limit", "5"]) == ExitCode.OK
    assert "takes events" in capsys.readouterr().out
    assert main(["ctl", "events", "retry"]) == ExitCode.OK
    assert "3 queues wait" in capsys.readouterr().out
    assert main(["ctl", "events", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["state"] == "ok"
    assert asked.asked == ["GET events?limit=5", "POST events/retry", "GET events?limit=20"]
