"""The examples of docs/sdk.md are short, and they run."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from signald.sdk import trio as sdk
from signald.testing.balancer import Balancer
from signald.testing.cluster import Cluster, play

DOCS = Path(__file__).parents[2] / "docs" / "sdk.md"


def example(name: str, page: Path = DOCS) -> str:
    """The code under the heading `name`."""
    found = re.search(rf"^## {name}\n+```python\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["A chat client", "An echo worker"])
def test_twelve_lines_are_enough(name: str) -> None:
    """Each example is a whole program of at most twelve lines of code."""
    assert len([line for line in example(name).splitlines() if line.strip()]) <= 12


def test_two_draw_on_the_canvas(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/rooms.md runs as printed; only the network is exchanged."""
    code = example("A shared canvas", DOCS.with_name("rooms.md"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 12

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")

        def open_client(_: str, **options: Any) -> Any:
            return sdk.open_client("ws://lb", dial=balancer.dial, **options)

        names: dict[str, Any] = {"open_client": open_client, "RoomPublication": sdk.RoomPublication}
        exec(compile(re.sub(r"^(import|from) .*$", "", code, flags=re.MULTILINE), "rooms.md", "exec"), names)
        async with trio.open_nursery() as nursery:
            for name in ("Ada", "Bob"):
                nursery.start_soon(names["draw"], name)
                await trio.sleep(1)
            nursery.cancel_scope.cancel(reason="enough was drawn")

    play(scene)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("20")]
    assert lines == ["Ada reads Bob is here and sees ['shape of Ada', 'shape of Bob']"]


def test_the_chat_client_talks_to_the_echo_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """Both programs run as printed; only the network and the keyboard are exchanged."""
    mains: list[Any] = []

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        balancer = Balancer(cluster, "n0")
        typed = ["How are you?\n"]

        async def wait_typed(_: object) -> None:
            if not typed:
                await trio.sleep_forever()

        def open_client(_: str, **options: Any) -> Any:
            return sdk.open_client("ws://lb", dial=balancer.dial, **options)

        async def run_worker(_: str, handler: sdk.Handler, **options: Any) -> None:
            await sdk.run_worker("ws://lb", handler, dial=balancer.dial, **options)

        names = {
            "open_client": open_client,
            "run_worker": run_worker,
            "WorkerSession": sdk.WorkerSession,
            "run": mains.append,
            "wait_typed": wait_typed,
            "os": SimpleNamespace(environ={}),
            "sys": SimpleNamespace(stdin=SimpleNamespace(readline=typed.pop)),
        }
        for name in ("An echo worker", "A chat client"):
            code = re.sub(r"^(import|from) .*$", "", example(name), flags=re.MULTILINE)
            code = code.replace("trio.run(", "run(").replace("trio.lowlevel.wait_readable(", "wait_typed(")
            exec(compile(code, str(DOCS), "exec"), dict(names))
        async with trio.open_nursery() as nursery:
            for main in mains:
                nursery.start_soon(main)
            await trio.sleep(3)
            nursery.cancel_scope.cancel(reason="enough was said")

    play(scene)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("20")]
    assert lines[-2:] == ["Good morning", "How are you?"]
    assert lines[0].startswith("serving s_")
