"""HTTP through a deploy of real nodes: no request that was sent goes without its answer."""

import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.http.publicly import HttpPeer
from tests.net.test_real import certificate
from tests.real.harness import HOST, dial, exit_of, open_nodes, term, url_of

pytestmark = pytest.mark.real

ASK = b"GET /v1/nothing HTTP/1.1\r\nhost: a\r\n\r\n"


class Asking:
    """Clients that ask again and again, each on a connection that it keeps as long as it may."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.answers: Counter[int] = Counter()
        self.last_ones = 0
        """Answers that ended their connection."""
        self.cut: list[str] = []
        """Requests without an answer."""
        self._tls = tls

    async def _connect(self) -> HttpPeer:
        stream: trio.abc.Stream = await trio.open_tcp_stream(HOST, self.port)
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_hostname="localhost", https_compatible=True)
        return HttpPeer(stream)

    async def run(self, pause_s: float) -> None:
        """Ask until no connection is taken any more."""
        while True:
            try:
                peer = await self._connect()
            except OSError:
                return
            with suppress(Exception):
                await self._use(peer, pause_s)
            await trio.aclose_forcefully(peer.stream)

    async def _use(self, peer: HttpPeer, pause_s: float) -> None:
        asked = 0
        while True:
            began = trio.current_time()
            try:
                answer = await peer.ask(ASK)
            except (OSError, EOFError, trio.BrokenResourceError) as error:
                self.cut.append(
                    f"request {asked} of its connection, after {trio.current_time() - began:.3f} s: {error!r}"
                )
                raise
            asked += 1
            self.answers[answer.status] += 1
            if answer.headers.get("connection") == "close":
                self.last_ones += 1
                return
            await trio.sleep(pause_s)


@pytest.mark.parametrize("secure", [False, True], ids=["over TCP", "over TLS"])
async def test_no_request_is_cut_by_a_planned_stop(secure: bool, tmp_path: Path) -> None:
    """While a node drains, clients with kept connections and clients with new ones get every answer, until nothing listens."""
    listen: dict[str, object] = {}
    tls = None
    if secure:
        certificate_file, key = certificate(tmp_path)
        listen = {"tls_certificate_file": str(certificate_file), "tls_key_file": str(key)}
        tls = ssl.create_default_context(cafile=str(certificate_file))
    limits = {"requests_per_s": 0}
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'one.db'}") as nodes:
        blue = await nodes.start("blue", limits=limits, listen=listen)
        await nodes.start("green", limits=limits)
        asking = Asking(blue.websocket[1], tls)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(60) as patience:
                for number in range(8):
                    nursery.start_soon(asking.run, 0.002 * number)
                await trio.sleep(1)
                if not secure:
                    # A client that heeds no goaway, so that the drain takes its time.
                    stays = await nursery.start(_stay, url_of(blue))
                term(blue)
                assert await exit_of(blue) == 0
            assert not patience.cancelled_caught
            nursery.cancel_scope.deadline = trio.current_time() + 5
        assert asking.cut == []
        assert set(asking.answers) == {404}
        assert asking.last_ones >= 8
        if not secure:
            stays.cancel()


async def _stay(url: str, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with dial(url, "/v1/client") as peer:
            await peer.send({"type": "connect"})
            task_status.started(scope)
            await trio.sleep_forever()
