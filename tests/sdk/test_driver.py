"""The minimal driver of docs/sdk-driver.md runs as printed, and meets the scripted node."""

import asyncio
import re
from typing import Any

import pytest

from signald.ids import SeededEntropy
from signald.sdk.client_core import ClientCore
from signald.sdk.events import Gone, HandedOver
from tests.sdk.test_docs import DOCS, example
from tests.vectors.server import script
from tests.vectors.talk import HANG_S, QUICK, SAYS, SHORT, servers

PAGE = DOCS.with_name("sdk-driver.md")


def driver() -> Any:
    """Return the class of the page."""
    page = PAGE.read_text()
    code = re.search(r"^## A minimal driver\n.*?```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert code is not None
    names: dict[str, Any] = {}
    exec(compile(code[1], "sdk-driver.md", "exec"), names)
    return names["Driver"]


async def converse(url: str, gives: int) -> tuple[list[int], list[Any]]:
    """Say and hear numbers with the driver; return those heard, and the events."""
    core = ClientCore([url], entropy=SeededEntropy(1), backoff=QUICK, timing=SHORT)
    heard: list[int] = []
    events: list[Any] = []

    def deliver() -> None:
        events.extend(core.events)
        core.events.clear()
        while (message := core.session.take()) is not None:
            heard.append(message.data["n"])
            core.session.finish(message.seq)
            core.changed()

    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(driver()(core, deliver).run())
        while not core.established:  # noqa: ASYNC110 - the example has no event for it
            await asyncio.sleep(0.01)
        for number in range(1, SAYS + 1):
            core.session.send({"n": number})
            core.changed()
            await asyncio.sleep(0.005)
        while core.session.unacked or len(heard) < gives:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        core.session.bye = "done"
        core.changed()
    assert core.failure() is None
    return heard, events


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["honest", "moves", "answers_lost", "acks_lost", "messages_twice", "closes", "stalls", "no_messages"]
)
def test_the_minimal_driver_loses_nothing(name: str) -> None:
    """What the cores decide is enough: each number once and in order, over moves, breaks and silence."""
    with servers() as running:
        play, url = running.start_script(script(name), "client")
        heard, events = asyncio.run(converse(url, play.gives))
    assert heard == list(range(1, play.gives + 1))
    assert play.notes()["stored"] == list(range(1, SAYS + 1))
    assert events[-1] == Gone("bye")
    assert (HandedOver(None) in events) is (name == "moves")


def test_each_call_of_the_page_is_one_of_the_core() -> None:
    """The contract names methods that there are."""
    for name in (
        "plan",
        "opened",
        "unreachable",
        "receive",
        "blocked",
        "write",
        "due",
        "lost",
        "wake_at",
        "failure",
        "finish",
    ):
        assert callable(getattr(ClientCore, name))
        assert f"`{name}" in PAGE.read_text()
    assert example("A chat client")  # the page beside it
