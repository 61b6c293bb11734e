"""A worker that answers each voice message with another one: the same, said backwards. Written from docs/protocol.md and docs/http.md.

usage: python voice_worker.py URL NAME CAPACITY

    {"voice": n}, blob    answered in the chat with {"to": n} and a blob, which is uploaded in pieces
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from websockets.asyncio.client import ClientConnection

if TYPE_CHECKING:
    from .ai_worker import Fields, Seat, Worker, say
else:  # the folder of the programs is no package
    sys.path.insert(0, str(Path(__file__).parent))
    from ai_worker import Fields, Seat, Worker, say

PATIENCE_S = 60.0
PIECE_BYTES = 2000
AGAIN = {408, 409, 429, 502, 503}


class VoiceWorker(Worker):
    """Worker with an API token."""

    def __init__(self, url: str, name: str, capacity: int) -> None:
        super().__init__(url, name, capacity)
        self.api_token = ""
        self.http = httpx2.AsyncClient(base_url=url.replace("ws", "http", 1), timeout=30)

    def _greeting(self, ticket: str) -> Fields:
        return {**super()._greeting(ticket), "api": True}

    async def _take(self, socket: ClientConnection, fields: Fields) -> None:
        self.api_token = fields.get("api_token", self.api_token)
        await super()._take(socket, fields)

    async def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Make one request; raises TimeoutError when no node answers it. A `body` is called for each try."""
        until = time.monotonic() + PATIENCE_S
        headers, body = more.pop("headers", {}), more.pop("body", None)
        while time.monotonic() < until:
            shown = {"Authorization": f"Bearer {self.api_token}", **headers}
            content = {} if body is None else {"content": body()}
            try:
                answer = await self.http.request(method, path, headers=shown, **content, **more)
            except httpx2.TransportError as error:
                say("broken", method=method, path=path, why=type(error).__name__)
                await asyncio.sleep(0.1)
                continue
            if answer.status_code not in AGAIN:
                return answer
            say("put off", method=method, path=path, status=answer.status_code)
            await asyncio.sleep(float(answer.headers.get("retry-after", "0.2")))
        raise TimeoutError(path)


class VoiceSeat(Seat):
    """One session, whose voices are answered one after the other."""

    worker: VoiceWorker

    def __init__(self, worker: VoiceWorker, session: str, next_seq: int) -> None:
        super().__init__(worker, session, next_seq)
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def hear(self, message: Fields) -> None:
        """Answer a voice, without holding up what comes behind it."""
        if message["seq"] <= self.received:
            return
        self.received = message["seq"]
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Fields) -> None:
        async with self._turn:
            n, blob, of = message["data"]["voice"], message["blob"], {"session": self.session}
            heard = await self.worker.ask("GET", f"/v1/blobs/{blob}", params=of)
            say("heard", n=n, blob=blob, status=heard.status_code, sha256=hashlib.sha256(heard.content).hexdigest())
            said = heard.content[::-1]

            async def pieces() -> AsyncIterator[bytes]:
                for at in range(0, len(said), PIECE_BYTES):
                    await asyncio.sleep(0.01)
                    yield said[at : at + PIECE_BYTES]

            headers = {"Content-Type": "audio/test", "Idempotency-Key": f"{self.session}-{n}-answer"}
            stored = await self.worker.ask("POST", "/v1/blobs", params=of, headers=headers, body=pieces)
            kept = stored.json()
            say("stored", n=n, status=stored.status_code, blob=kept.get("blob"), own=kept.get("bytes") == len(said))
            await self.send({"to": n}, blob=kept["blob"])
            await self.worker.write({"type": "ack", "session": self.session, "seq": message["seq"]})


VoiceWorker.seat = VoiceSeat

if __name__ == "__main__":
    asyncio.run(VoiceWorker(sys.argv[1], sys.argv[2], int(sys.argv[3])).run())
