"""The worker that the page talks to: `python -m signald.demo.web.worker URL GROUP`.

It answers questions word by word, answers the page's numbered beats, and, where aiortc is installed, shows a video. It runs on asyncio,
as aiortc does, and in a process of its own, as workers do: the nodes come and go between it and the page.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Any, Final

from attrs import define, field

from signald.demo.judge import Numbers
from signald.demo.web.story import answer
from signald.sdk.asyncio import MessageReceived, SessionGone, StreamOver, WorkerSession, run, run_worker

CAPACITY: Final = 50
"""Sessions at once: tabs of a visitor, and those that he has closed and whose sessions have not expired."""
WORD_S: Final = 0.07
"""Between two words: somewhat faster than one reads, as a model is."""
ANSWERS_MAX: Final = 4
"""Answers that are being said in one session at a time. A page that asks more is told so, and nothing queues up."""
AHEAD_MAX: Final = 1000
"""How far a beat may be ahead of the last one: each number between them is remembered as missing. A page has no such holes."""
BUSY: Final = "I am still saying four other answers. Ask again when one of them is over."


@define(eq=False)
class Beats:
    """The numbered beats of one page, as they arrived here, and the numbers of the answers.

    A page that is loaded again counts anew, under another name: what its predecessor had under way is not missing from its numbers.
    """

    page: str = ""
    questions: Numbers = field(factory=Numbers)
    answers: Numbers = field(factory=Numbers)

    def hear(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a beat; None for what is no beat."""
        page, number = said.get("page"), said.get("n")
        if not isinstance(page, str) or type(number) is not int or number < 1:
            return None
        if page != self.page:
            self.page, self.questions, self.answers = page, Numbers(), Numbers()
        if number > self.questions.sent + AHEAD_MAX:
            return None
        self.questions.sent = max(self.questions.sent, number)
        self.questions.receive(number)
        heard = self.questions
        return {
            "page": page,
            "to": number,
            "n": self.answers.give(),
            "lost": heard.lost,
            "doubled": heard.duplicated,
            "late": heard.reordered,
        }


class Visit:
    """One session: a tab of a visitor."""

    def __init__(self, session: WorkerSession, tasks: asyncio.TaskGroup) -> None:
        self._session = session
        self._tasks = tasks
        self._beats = Beats()
        self._saying = 0
        self._call = make_call(session)

    async def hear(self, message: MessageReceived) -> None:
        """Answer a message, or begin to; a page may say anything."""
        if message.kind == "beat" and isinstance(message.data, dict):
            if (heard := self._beats.hear(message.data)) is not None:
                await self._session.send(heard, kind="beat", history=False)
        elif message.kind == "signal":
            if self._call is not None:
                await self._call.hear(message.data)
        elif message.kind in (None, "chat"):
            text = message.data.get("text") if isinstance(message.data, dict) else None
            if isinstance(text, str):
                self._tasks.create_task(self._answer(f"answer-{message.seq}", text))

    async def _answer(self, name: str, question: str) -> None:
        words = answer(question) if self._saying < ANSWERS_MAX else [BUSY]
        self._saying += 1
        try:
            with suppress(StreamOver, SessionGone):
                async with self._session.stream(name, kind="tokens") as out:
                    for word in words:
                        if out.cancelled.is_set():
                            break
                        await out.write(word)
                        await asyncio.sleep(WORD_S)
        finally:
            self._saying -= 1

    async def close(self) -> None:
        """End the call, if there is one."""
        if self._call is not None:
            await self._call.close()


def make_call(session: WorkerSession) -> Any:
    """Return what answers a page's call, or None without the extra `video`."""
    try:
        from signald.demo.web.video import Call
    except ImportError:
        return None
    return Call(session)


async def serve(session: WorkerSession) -> None:
    """Serve one tab until its session ends. Nothing is awaited between two messages that could hold up a beat."""
    async with asyncio.TaskGroup() as tasks:
        visit = Visit(session, tasks)
        try:
            async for message in session:
                await visit.hear(message)
        finally:
            await visit.close()


async def main() -> None:
    """Serve the sessions that ask for the label of this demo."""
    url, group = sys.argv[1:3]
    await run_worker(url, serve, instance_id=f"{group} scripted worker", capacity=CAPACITY, labels={"demo": group})


if __name__ == "__main__":
    run(main)
