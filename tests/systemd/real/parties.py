"""Clients and a worker that talk all through what is done to the units: a program of its own, in the network of the container.

    python -m tests.systemd.real.parties SECRET_FILE URL...

It prints `on` when all are connected, and `on` for each line `on` of its standard input when each client has had further
answers. At the line `settle` it judges and prints one JSON object. It ends with 1 when a message was lost, doubled or reordered.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import trio
import trio_websocket

from signald.config import AuthConfig
from signald.sdk.events import Disconnected, HandedOver, Resumed
from signald.service.auth import mint
from tests.real.harness import Talk, dial, open_talk

CLIENTS = 12
ALL_S = 120.0
KNOCK_EVERY_S = 0.1


def token(secret: str, role: Literal["client", "worker"]) -> str:
    """A token for as long as the program runs."""
    return mint(AuthConfig(jwt_secret=secret), subject="systemd", role=role, ttl_s=600, now=time.time())


async def knock(url: str, auth: str, answers: "Counter[str]") -> None:
    """Connect again and again; count what becomes of each attempt. Until cancelled."""
    while True:
        answers[await _answer(url, auth)] += 1
        await trio.sleep(KNOCK_EVERY_S)


async def _answer(url: str, auth: str) -> str:
    """What one attempt is told: the type of a frame, the code of a close, or the error of the socket."""
    told = "nothing"
    try:
        async with dial(url, "/v1/client") as peer:
            try:
                # No worker has this label: the load is not theirs.
                await peer.send({"type": "connect", "auth": auth, "want": {"for": "knocking"}})
                told = str((await peer.receive())["type"])
                await peer.send({"type": "bye"})
            except trio_websocket.ConnectionClosed as closed:
                if closed.reason is not None and told == "nothing":
                    told = str(closed.reason.code)
    except* (OSError, trio_websocket.HandshakeError) as group:
        told = repr(group.exceptions[0])
    return told


async def obey(talk: Talk) -> None:
    """Do what standard input says, until it says settle."""
    print("on", flush=True)
    async with trio.lowlevel.FdStream(0) as stream:
        async for chunk in stream:
            for line in chunk.decode().split():
                if line == "settle":
                    await talk.settle()
                    return
                await talk.goes_on(3, within_s=30)
                print("on", flush=True)


async def main(secret: str, urls: Sequence[str]) -> None:
    """See the module."""
    answers: Counter[str] = Counter()
    # The store outlives the program, and sessions of an earlier run wait in it for a worker.
    ours = {"run": str(os.getpid())}
    async with open_talk(ALL_S / 3) as talk, trio.open_nursery() as nursery:
        await talk.worker("worker", *urls, capacity=CLIENTS, labels=ours, auth=token(secret, "worker"))
        for number in range(CLIENTS):
            await talk.client(f"client {number}", *urls, want=ours, auth=token(secret, "client"))
        nursery.start_soon(knock, urls[0], token(secret, "client"), answers)
        gaps = [0.0]
        for chatter in talk.chatters:
            chatter.on_answer = lambda asked_at: gaps.append(trio.current_time() - asked_at)
        talk.begin()
        await talk.goes_on(3)
        await obey(talk)
        nursery.cancel_scope.cancel(reason="judged")
    chatters = talk.chatters
    said = {
        "answers": sum(one.answered for one in chatters),
        "codes": dict(Counter(event.code for one in chatters for event in one.saw(Disconnected))),
        "resumed": sum(len(one.saw(Resumed)) for one in chatters),
        "handed_over": sum(len(one.saw(HandedOver)) for one in chatters),
        "slowest_s": round(max(gaps), 3),
        "knocks": dict(answers),
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]).read_text().strip(), sys.argv[2:])
