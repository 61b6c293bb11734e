"""A program on one of the fronts: clients that ask and workers that answer, numbered by their applications.

It asks until SIGTERM; then it waits for what is outstanding, and prints what it has counted, as JSON. On asyncio it imports no Trio.
"""

import importlib
import json
import signal
import sys
from collections import Counter
from functools import partial
from typing import Any

import anyio

from signald.demo.judge import Numbers

WAITING_MAX = 20
"""Questions of a client that wait for their answer: on a slow machine it asks no more, so that all are answered at the end."""

SETTLE_S = 60.0
"""Until all that was asked is answered, behind the last deploy."""


class Talk:
    """The parties of one process, and their counts."""

    def __init__(self, front: str, urls: list[str]) -> None:
        self.sdk: Any = importlib.import_module(f"signald.sdk.{front}")
        self.quick = self.sdk.Backoff(base_s=0.1, cap_s=1.0, going_away_s=0.2, refused_s=0.5)
        self.urls = urls
        self.questions: dict[str, Numbers] = {}
        self.answers: dict[str, Numbers] = {}
        self.texts = Counter[str]()
        """Streams by whether their text is what the worker has said."""
        self.events = Counter[str]()
        self.connections: list[int] = []
        self.asking = True
        self.settled = False
        """All that was asked has been answered."""

    async def answer(self, session: Any) -> None:
        """Stream a text for every question, and give it the number of the answer."""
        name = session.meta["name"]
        async for message in session:
            self.questions[name].receive(message.data["n"])
            number = self.answers[name].give()
            async with session.stream(kind="tokens") as out:
                for piece in str(number).zfill(8):
                    await out.write(piece)
                    await anyio.sleep(0.002)
            await session.send({"n": number})

    async def work(self, name: str, *, task_status: Any) -> None:
        """Run a worker until this task is cancelled."""
        options = {"instance_id": name, "capacity": 20, "backoff": self.quick}
        async with self.sdk.open_worker(self.urls, self.answer, **options) as worker:
            task_status.started()
            await worker.wait()

    async def chat(self, name: str) -> None:
        """Ask, and take the answers, until all of them are here."""
        asked, heard = self.questions.setdefault(name, Numbers()), self.answers.setdefault(name, Numbers())
        async with self.sdk.open_client(self.urls, meta={"name": name}, backoff=self.quick) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch, client)
                tasks.start_soon(self.listen, client, heard)
                while self.asking:
                    if asked.sent - heard.sent < WAITING_MAX:
                        await client.send({"n": asked.give()})
                    await anyio.sleep(0.1)
                await client.flush()
                while asked.lost or heard.lost or heard.sent < asked.sent:  # noqa: ASYNC110 - the numbers have no event
                    await anyio.sleep(0.05)
                await anyio.sleep(0.5)  # a number that comes twice would come now
                tasks.cancel_scope.cancel()
            self.connections.append(client.connections)
            await client.bye()

    async def listen(self, client: Any, heard: Numbers) -> None:
        """Take the answers; each comes behind a stream of the same text."""
        said = ""
        async for message in client:
            if message.stream is None:
                number = message.data["n"]
                heard.receive(number)
                self.texts["right" if said == str(number).zfill(8) else "wrong"] += 1
                said = ""
            elif message.data is not None:
                said += message.data

    async def watch(self, client: Any) -> None:
        """Count the events of a client."""
        async for event in client.events:
            self.events[type(event).__name__] += 1

    def counts(self) -> dict[str, Any]:
        """What has happened."""
        both = [*self.questions.values(), *self.answers.values()]
        return {
            "sent": sum(numbers.sent for numbers in both),
            "lost": sum(numbers.lost for numbers in both),
            "duplicated": sum(numbers.duplicated for numbers in both),
            "reordered": sum(numbers.reordered for numbers in both),
            "texts": dict(self.texts),
            "events": dict(self.events),
            "connections": self.connections,
            "settled": self.settled,
            "trio": "trio" in sys.modules,
        }


async def main(front: str, clients: int, workers: int, urls: list[str]) -> None:
    """Run the parties; see the module's text."""
    talk = Talk(front, urls)
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with anyio.create_task_group() as working:
            for number in range(workers):
                await working.start(talk.work, f"{front} {number}")
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as chats:
                    for number in range(clients):
                        chats.start_soon(talk.chat, f"client {number}")
                    print("talking", flush=True)
                    async for _ in signals:
                        talk.asking = False
                        scope.deadline = anyio.current_time() + SETTLE_S
                        break
                talk.settled = True
            working.cancel_scope.cancel()
    print(json.dumps(talk.counts()), flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    importlib.import_module(f"signald.sdk.{sys.argv[1]}").run(partial(main, *arguments))
