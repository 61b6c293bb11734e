"""Workers and clients of the SDK, as an application would write them, with the judge's pen at both ends.

A client asks numbered questions at a steady rate; its worker answers each with a number of its own. The numbers of the
answers belong to the session, not to the worker that gives them, as they would in an application's own database: a
session that went to another worker is still expected to count on.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from signald.demo.judge import Judge, Ledger, Moment
from signald.demo.options import DemoOptions
from signald.demo.watch import Note, Passes, watched_dial
from signald.sdk.errors import PartyError
from signald.sdk.trio import Client, Dial, WorkerSession, open_client, run_worker

STARTS_AT_ONCE = 32
"""Parties that connect at the same time when the demo starts: it shows deploys, not a storm."""
LEAVE_TIMEOUT_S = 10.0


class Parties:
    """All clients and workers of one demo."""

    def __init__(self, options: DemoOptions, judge: Judge, workers_url: str, clients_url: str, *, group: str) -> None:
        self._options = options
        self._judge = judge
        self._workers_url = workers_url
        self._clients_url = clients_url
        self.labels = {"demo": group}
        """Keeps workers and clients of one demo together, should several share a store."""
        self._passes = Passes()
        self.ledgers: dict[str, Ledger] = {}
        """By the client's name, which its worker is shown as `meta`."""
        self._complete = trio.Event()
        self._hushed = trio.Event()
        self._leaving = trio.Event()
        self._clients_staying = options.sessions
        self._left = trio.Event()
        self.worker_names = [f"worker {number}" for number in range(1, options.workers + 1)]

    def living_clients(self) -> set[str]:
        """Return the names of the clients whose session has not been lost."""
        return {ledger.name for ledger in self._judge.ledgers if ledger.why_lost is None}

    async def start(self, nursery: trio.Nursery) -> None:
        """Start every worker, then every client; when all sessions have started, let them talk and return."""
        trio.lowlevel.add_instrument(self._passes)
        await _start_all(nursery, [partial(self._work, name) for name in self.worker_names])
        names = [f"client {number}" for number in range(1, self._options.sessions + 1)]
        await _start_all(nursery, [partial(self._talk, name) for name in names])
        self._complete.set()

    def hush(self) -> None:
        """Have the clients ask nothing more: from here on the judge waits for the answers to what has been asked."""
        self._hushed.set()

    async def leave(self) -> None:
        """Have every client say bye; return when they have, or `LEAVE_TIMEOUT_S` later."""
        self._leaving.set()
        with trio.move_on_after(LEAVE_TIMEOUT_S):
            await self._left.wait()

    # --- a worker ------------------------------------------------------------------------------------------------

    async def _work(self, name: str, task_status: trio.TaskStatus[object]) -> None:
        # Room for twice its share: pairing takes the least loaded worker, not always the one the arithmetic would.
        share = -(-self._options.sessions // self._options.workers)
        await run_worker(
            self._workers_url,
            partial(self._answer, name),
            instance_id=f"{self.labels['demo']} {name}",
            capacity=2 * share,
            labels=self.labels,
            signals=False,
            dial=self._dialing(name, partial(self._note_worker, name)),
            task_status=task_status,
        )

    async def _answer(self, worker: str, session: WorkerSession) -> None:
        ledger = self.ledgers[session.meta["name"]]
        async for message in session:
            question = message.data["n"]
            ledger.questions.receive(question)
            await session.send({"n": ledger.replies.give(), "to": question, "from": worker})

    # --- a client ------------------------------------------------------------------------------------------------

    async def _talk(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        ledger = self.ledgers[name] = self._judge.open_ledger(name)
        try:
            async with open_client(
                self._clients_url,
                want=self.labels,
                meta={"name": name},
                dial=self._dialing(name, partial(self._note_client, ledger)),
            ) as client:
                ledger.session = client.session
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._listen, client, ledger)
                    await self._ask(client, ledger)
                    await self._leaving.wait()
                    nursery.cancel_scope.cancel(reason="the client leaves")
                await client.bye("the demo is over")
        except* PartyError as errors:
            if not self._leaving.is_set():
                ledger.why_lost = "; ".join(str(error) for error in errors.exceptions)
                if not ledger.session:
                    task_status.started()
        finally:
            self._clients_staying -= 1
            if not self._clients_staying:
                self._left.set()

    async def _ask(self, client: Client, ledger: Ledger) -> None:
        await self._complete.wait()
        interval_s = 1 / self._options.rate
        # A random start spreads the clients over the interval, as people would be.
        at = trio.current_time() + random.random() * interval_s  # noqa: S311 (no secret)
        while True:
            with trio.move_on_at(at):
                await self._hushed.wait()
            # Looked at again, for the time may have been up before: one more question would be asked after the last answer was
            # waited for, and counted as lost when the client leaves.
            if self._hushed.is_set():
                return
            now = trio.current_time()
            await client.send({"n": self._judge.asked(ledger, now)})
            # One that could not keep up asks less, it does not catch up: that would be another load than the one named.
            at = max(at + interval_s, now)

    async def _listen(self, client: Client, ledger: Ledger) -> None:
        async for message in client:
            answer = message.data
            self._judge.answered(
                ledger, question=answer["to"], reply=answer["n"], worker=answer["from"], now=trio.current_time()
            )
        if not self._leaving.is_set():
            ledger.why_lost = "the session ended although nobody said bye"

    # --- beneath the SDK -----------------------------------------------------------------------------------------

    def _dialing(self, name: str, note: Note) -> Dial:
        return watched_dial(self._passes, partial(self._judge.dialed, name), note)

    def _note_client(self, ledger: Ledger, said: dict[str, Any], at: Moment) -> None:
        if said["type"] == "goaway":
            self._judge.told_goaway(ledger.session, at)
        elif said["type"] == "session_restored":
            self._judge.resumed(ledger.name, [said["session"]], at, is_worker=False)

    def _note_worker(self, name: str, said: dict[str, Any], at: Moment) -> None:
        if said["type"] == "reconnection_ack":
            sessions = [one["session"] for one in said["sessions"]]
            self._judge.resumed(name, sessions, at, is_worker=True)


Start = Callable[..., Awaitable[object]]


async def _start_all(nursery: trio.Nursery, starts: Sequence[Start]) -> None:
    """Run `nursery.start` for each of `starts`, `STARTS_AT_ONCE` at a time, and return when all have started."""
    waiting = iter(starts)

    async def start_some() -> None:
        for start in waiting:
            await nursery.start(start)

    async with trio.open_nursery() as starters:
        for _ in range(STARTS_AT_ONCE):
            starters.start_soon(start_some)
