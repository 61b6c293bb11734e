"""The requests of one party to the HTTP API, in either event loop: asked again at the next node where one has gone."""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Final

import anyio

from signald.sdk.api_core import Answer, Asker, NoAnswer, Tries
from signald.sdk.network import OpenStream, Stream, network
from signald.sdk.requests import Body, Reply, ask, asked

REQUEST_S: Final = 20.0
"""For a whole request, and for a silence within a transfer: above the time in which a node answers that its store is away (503)."""

_PLAIN: Mapping[str, str] = {}


class Api:
    """The HTTP API as one party reaches it: at the node of its connection, with its API token."""

    def __init__(self, core: Asker, ssl_context: SSLContext | None, open_stream: OpenStream | None) -> None:
        self.core = core
        self._ssl_context = ssl_context
        self._opens = open_stream

    async def _open_stream(self, url: str, ssl_context: SSLContext | None) -> Stream:
        return await (self._opens or network().open_stream)(url, ssl_context)

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] = _PLAIN,
        body: Body | None = None,
        *,
        tries: Tries | None = None,
        is_transfer: bool = False,
    ) -> Answer:
        """Ask until there is an answer; return it when it is one of success. `tries` counts those that were of no use.

        Each try has REQUEST_S for the whole. Of a transfer it has no deadline but the caller's, and a bound for its silence.

        Raises:
            ApiRefused: it is another one, and asking again would not help.
            SessionGone: the session is over, and no node answers.
            OSError, PartyError: the body cannot be read.
        """
        tries = tries or Tries(self.core)
        while True:
            said = {**tries.begin(), **headers}
            answer: Answer | None = None
            try:
                answer = await ask(
                    self._open_stream, tries.url, method, target,
                    headers=said, body=body, ssl_context=self._ssl_context,
                    timeout_s=math.inf if is_transfer else REQUEST_S, silence_s=REQUEST_S,
                )  # fmt: skip
            except NoAnswer:
                pass
            else:
                if answer.succeeded:
                    return answer
            await anyio.sleep(tries.wait_s(answer))

    @asynccontextmanager
    async def asked(self, url: str, method: str, target: str, headers: Mapping[str, str]) -> AsyncIterator[Reply]:
        """Ask once, at the host of `url`; yield the answer as it comes.

        Raises:
            NoAnswer: there is none, or it breaks off.
        """
        async with asked(
            self._open_stream, url, method, target,
            headers=headers, ssl_context=self._ssl_context, silence_s=REQUEST_S,
        ) as reply:  # fmt: skip
            yield reply
