"""What happens in each example before a deploy, between it and a kill, and behind the kill. Each is a coroutine on one stage."""

import importlib.util
import re
import signal
import socket
from contextlib import suppress
from typing import Any

import httpx2

from signald.demo.cluster import free_port
from tests.example_programs.stage import EXAMPLES, Stage, Story
from tests.real.harness import until

TOO_EARLY = "it was over before the kill, and proves nothing"


def loaded(name: str) -> Any:
    """The example `name` as a module, for what it would say."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def chat(stage: Stage) -> None:
    """Three questions, one between each two disturbances: three answers, in order and once, and no word about a lost session."""
    await stage.run("echo_worker.py")
    page = await stage.run("chat.py")
    await page.type("one")
    await page.shows("You said: one\n")
    await stage.deployed()
    await page.type("two")
    await page.shows("You said: two\n")
    await stage.killed()
    await page.type("three")
    await page.shows("You said: three\n")
    assert await page.leaves() == 0
    assert re.findall(r"You said: (\w+)", page.shown) == ["one", "two", "three"]
    assert page.told.count("HandedOver(") == 1
    assert page.told.count("Disconnected(") == page.told.count("Resumed(") == 1
    assert page.told.endswith("Gone(reason='the input has ended')\n")


async def streaming_answer(stage: Stage) -> None:
    """An answer grows through a deploy and a kill; the page is closed and opened again; then the reader stops the next answer."""
    await stage.run("streaming_worker.py", "stories-1")
    state = {"STATE": str(stage.directory / "reader.state")}
    page = await stage.run("streaming_client.py", "stories", environment=state)
    await page.type("a")
    await page.shows("a1 ")
    await stage.deployed()
    await stage.killed()
    assert "[complete]" not in page.shown, TOO_EARLY
    assert await page.leaves() == 0
    page = await stage.run("streaming_client.py", "stories", environment=state)
    await page.shows(r"\[complete\]")
    whole = "".join(f"a{number} " for number in range(100))
    assert page.shown == f"{whole}\n[complete]\n"
    await page.type("b")
    await page.shows("b1 ")
    await page.type("")
    await page.shows(r"\[cancelled\]")
    assert await page.leaves() == 0
    assert "b99 " not in page.shown


async def model(stage: Stage) -> None:
    """An answer of the model grows through both; then its worker is killed as well, and another one goes on with the half answer."""
    worker = await stage.run("llm_worker.py", "llm-1")
    page = await stage.run("streaming_client.py", "llm")
    await page.type("Where is the ship?")
    await page.shows(r"\w+ \w+ ")
    await stage.deployed()
    await stage.killed()
    assert "[complete]" not in page.shown, TOO_EARLY
    await stage.run("llm_worker.py", "llm-2")
    await worker.stops(signal.SIGKILL)
    half = page.shown
    await page.shows(r"\[complete\]")
    example = loaded("llm_worker")
    example.TOKEN_S = 0.0
    whole = "".join(example.MODEL.generate("Where is the ship?"))
    first, _, second = page.shown.partition("\n[attempt 2]\n")
    assert first.startswith(half)
    assert whole.startswith(first)
    assert second == whole + "\n[complete]\n"


async def jobs_from_fastapi(stage: Stage) -> None:
    """A job is submitted before the deploy, and is done once behind the kill. The same key finds it, and another one is cancelled."""
    await stage.run("jobs_worker.py")
    port = free_port()
    environment = {"SIGNALD_URLS": " ".join(stage.urls), "STATE": str(stage.directory / "app.state")}
    app = await stage.run(
        "uvicorn", "jobs_app:app", "--port", str(port), "--log-level", "warning",
        environment=environment, urls=False, module=True,
    )  # fmt: skip
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
        text = "word " * 100

        async def submit(key: str) -> str:
            answer = await web.post("/reports", json={"text": text}, headers={"Idempotency-Key": key})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        async def reads(name: str) -> Any:
            return (await web.get(f"/reports/{name}")).json()

        await until(lambda: _listens(port), 20, "the application listens")
        name = await submit("report-1")

        async def goes_on() -> bool:
            return bool((await reads(name))["progress"])

        await until(goes_on, 20, "the job is being done")
        await stage.deployed()
        await stage.killed()
        assert (await reads(name))["state"] == "running", TOO_EARLY
        assert await submit("report-1") == name
        other = await submit("report-2")
        assert (await web.delete(f"/reports/{other}")).status_code == 202

        async def is_over(which: str) -> bool:
            return (await reads(which))["state"] not in ("queued", "running")

        for which in (name, other):
            await until(lambda which=which: is_over(which), 20, "both have ended")
        assert (await reads(name))["result"] == {"words": 100, "letters": 400, "attempt": 1}
        assert (await reads(other))["state"] == "cancelled"
    assert await app.stops() in (0, -15)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


async def room(stage: Stage) -> None:
    """Each of two friends reads what the other says, in order and once, and both see the whole list."""
    ada, bob = await stage.run("room.py", "ada"), await stage.run("room.py", "bob")
    for one in (ada, bob):
        await one.shows("here: 2")
    await ada.type("one")
    await bob.shows("ada: one\n")
    await stage.deployed()
    await bob.type("+ bread")
    await ada.shows("list: bread\n")
    await ada.type("two")
    await stage.killed()
    await bob.shows("ada: two\n")
    await ada.type("+ milk")
    await bob.shows("list: bread, milk\n")
    await ada.type("three")
    await bob.shows("ada: three\n")
    assert re.findall(r"ada: (\w+)", bob.shown) == ["one", "two", "three"]
    assert [await one.leaves() for one in (ada, bob)] == [0, 0]


async def worker_behind_systemd(stage: Stage) -> None:
    """The worker says READY=1, numbers messages through both, and ends with 0 at SIGTERM, once its last session is over."""
    path = stage.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.setblocking(False)
        said: list[str] = []

        def told(state: str) -> bool:
            with suppress(BlockingIOError):
                said.append(notified.recv(100).decode())
            return state in said

        worker = await stage.run("steady_worker.py", environment={"NOTIFY_SOCKET": str(path)})
        await until(lambda: told("READY=1"), 20, "the worker is ready")
        page = await stage.run("chat.py", environment={"APP": "steady"})
        await page.type("one")
        await page.shows("1: one\n")
        await stage.deployed()
        await page.type("two")
        await page.shows("2: two\n")
        await stage.killed()
        worker.process.terminate()
        await until(lambda: told("STOPPING=1"), 20, "the worker stops")
        await page.type("three")
        await page.shows("3: three\n")
        assert worker.process.poll() is None
        assert await page.leaves() == 0
        assert await worker.ends() == 0


STORIES: dict[str, Story] = {
    "chat": chat,
    "streaming answer": streaming_answer,
    "model": model,
    "jobs from FastAPI": jobs_from_fastapi,
    "room": room,
    "worker behind systemd": worker_behind_systemd,
}
