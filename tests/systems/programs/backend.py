"""B3: a backend that opens sessions for its users, looks at them, and ends them. usage: python backend.py URL

Its JWT is in `CREDENTIAL`, that of the user in `USER_CREDENTIAL`, the user's subject in `SUBJECT`.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

URL = sys.argv[1]
SUBJECT = os.environ["SUBJECT"]
WANT: dict[str, str] = json.loads(os.environ.get("WANT", "{}"))
"""The labels of the workers that may serve the user."""
PATIENCE_S = 40.0

Fields = dict[str, Any]


def say(saw: str, **more: object) -> None:
    """Print one thing that this program saw, as a line of JSON."""
    print(json.dumps({"saw": saw, **more}), flush=True)


class Api:
    """Requests as this backend makes them: what says "come again" is asked again."""

    def __init__(self) -> None:
        headers = {"Authorization": f"Bearer {os.environ['CREDENTIAL']}"}
        self._client = httpx2.AsyncClient(base_url=URL.replace("ws", "http", 1), headers=headers, timeout=30)

    async def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Make one request; raises TimeoutError when no node answers it."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                answer = await self._client.request(method, path, **options)
            except httpx2.TransportError as error:
                say("broken", method=method, path=path, why=type(error).__name__)
                await asyncio.sleep(0.1)
                continue
            if answer.status_code not in (429, 503):
                return answer
            await asyncio.sleep(float(answer.headers["retry-after"]))
        raise TimeoutError(path)


async def talk(token: str) -> None:
    """Be the user: take the session up by its token, and say one line."""
    while True:
        try:
            async with connect(
                f"{URL}/v1/client", subprotocols=[Subprotocol("signald.v1")], compression=None
            ) as socket:
                opening = {"type": "restore_session", "recovery_token": token, "auth": os.environ["USER_CREDENTIAL"]}
                await socket.send(json.dumps(opening))
                answer = json.loads(await socket.recv())
                say("attached", type=answer["type"], session=answer.get("session"), accepted=answer.get("accepted"))
                token = answer["recovery_token"]
                await socket.send(json.dumps({"type": "message", "seq": 1, "data": {"line": 1}}))
                async for frame in socket:
                    fields = json.loads(frame)
                    if fields["type"] == "message":
                        await socket.send(json.dumps({"type": "ack", "seq": fields["seq"]}))
                        say("answered", data=fields["data"])
                        return
        except (OSError, InvalidHandshake, ConnectionClosed):
            await asyncio.sleep(0.1)


async def main() -> None:
    """Open a session, use it, and end it."""
    api = Api()
    made = await api.ask("POST", "/v1/sessions", json={"subject": SUBJECT, "want": WANT, "meta": {"name": "Alice"}})
    session: Fields = made.json()
    path = f"/v1/sessions/{session['session']}"
    say("made", status=made.status_code, has=sorted(session), session=session["session"])
    await look(api, "before", path)
    await talk(session["recovery_token"])
    await look(api, "after", path)
    history = await api.ask("GET", f"{path}/history?limit=10")
    entries = history.json()["entries"]
    say("history", status=history.status_code, entries=[[one["from"], one["seq"], one["data"]] for one in entries])
    say("times", at=[one["at"] for one in entries])
    ended = await api.ask("DELETE", path)
    say("deleted", status=ended.status_code)
    gone = await api.ask("GET", path)
    listed = await api.ask("GET", f"/v1/sessions?subject={SUBJECT}")
    say(
        "gone",
        status=gone.status_code,
        listed=session["session"] in [one["session"] for one in listed.json()["sessions"]],
    )
    unknown = await api.ask("GET", "/v1/sessions/s_aaaaaaaaaaaaaaaaaaaaaaaa")
    say("unknown", status=unknown.status_code, type=unknown.headers["content-type"])
    say("end")


async def look(api: Api, when: str, path: str) -> None:
    """Show a session, alone and among those of its user."""
    one = await api.ask("GET", path)
    listed = await api.ask("GET", f"/v1/sessions?subject={SUBJECT}")
    mine = [entry["session"] for entry in listed.json()["sessions"]]
    view: Fields = one.json()
    say("looked", when=when, status=one.status_code, view=view, listed=view["session"] in mine)


if __name__ == "__main__":
    asyncio.run(main())
