"""A program on asyncio: clients that ask and workers that answer, numbered by their applications.

It asks until SIGTERM; then it waits for what is outstanding, and prints what it has counted, as JSON.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from functools import partial
from typing import Any

from signald.demo.judge import Numbers
from signald.sdk.asyncio import Backoff, Client, Disconnected, WorkerSession, open_client, open_worker, run

QUICK = Backoff(base_s=0.1, cap_s=1.0, going_away_s=0.2, refused_s=0.5)
SETTLE_S = 40.0


class Talk:
    """The parties of one process, and their counts."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.questions: dict[str, Numbers] = {}
        self.answers: dict[str, Numbers] = {}
        self.texts = Counter[str]()
        """Streams by whether their text is what the worker has said."""
        self.events = Counter[str]()
        self.connections: list[int] = []
        self.asking = True

    async def answer(self, session: WorkerSession) -> None:
        """Stream a text for every question, and give it the number of the answer."""
        name = session.meta["name"]
        async for message in session:
            self.questions[name].receive(message.data["n"])
            number = self.answers[name].give()
            async with session.stream(kind="tokens") as out:
                for piece in str(number).zfill(8):
                    await out.write(piece)
                    await asyncio.sleep(0.002)
            await session.send({"n": number})

    async def work(self, name: str, ready: asyncio.Event) -> None:
        """Run a worker until this task is cancelled."""
        async with open_worker(self.urls, self.answer, instance_id=name, capacity=20, backoff=QUICK) as worker:
            ready.set()
            await worker.wait()

    async def chat(self, name: str) -> None:
        """Ask, and take the answers, until all of them are here."""
        asked, heard = self.questions.setdefault(name, Numbers()), self.answers.setdefault(name, Numbers())
        async with open_client(self.urls, meta={"name": name}, backoff=QUICK) as client, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.watch(client))
            listening = tasks.create_task(self.listen(client, heard))
            while self.asking:
                await client.send({"n": asked.give()})
                await asyncio.sleep(0.1)
            await client.flush()
            while asked.lost or heard.lost or heard.sent < asked.sent:  # noqa: ASYNC110 - the numbers have no event
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)  # what is said twice would come now
            listening.cancel()
            watching.cancel()
            self.connections.append(client.connections)
            await client.bye()

    async def listen(self, client: Client, heard: Numbers) -> None:
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

    async def watch(self, client: Client) -> None:
        """Count the events of a client."""
        async for event in client.events:
            self.events[type(event).__name__] += 1
            if isinstance(event, Disconnected):
                self.events[f"closed {event.code}"] += 1

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
            "trio": "trio" in sys.modules,
        }


async def main(clients: int, workers: int, urls: list[str]) -> None:
    """Run the parties; see the module's text."""
    talk, stop = Talk(urls), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        working = []
        for number in range(workers):
            ready = asyncio.Event()
            working.append(tasks.create_task(talk.work(f"asyncio {number}", ready)))
            await ready.wait()
        chats = [tasks.create_task(talk.chat(f"client {number}")) for number in range(clients)]
        print("talking", flush=True)
        await stop.wait()
        talk.asking = False
        await asyncio.wait_for(asyncio.gather(*chats), SETTLE_S)
        for task in working:
            task.cancel()
    print(json.dumps(talk.counts()), flush=True)


if __name__ == "__main__":
    run(partial(main, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
