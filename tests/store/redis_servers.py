"""Real Redis servers for tests, on free ports, each ended by its process id; and a proxy that loses replies."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from redis import Redis
from redis.connection import Connection, SSLConnection
from redis.exceptions import RedisError

from signald.demo.cluster import free_port

HOST = "127.0.0.1"
START_S = 45.0


async def until(holds: Callable[[], bool], within_s: float) -> None:
    """Ask again and again until something outside this process is so."""
    with trio.fail_after(within_s):
        while not holds():  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.02)


class Server:
    """One redis-server (or sentinel) that can be killed, frozen and started again on the same port."""

    def __init__(self, home: Path, *options: str, tls: dict[str, str] | None = None) -> None:
        """`options` are those of redis-server; the first may be the path of a configuration file."""
        self.port = free_port()
        self.bus_port = free_port() if "--cluster-enabled" in options else 0
        """Where the members of a cluster talk; by itself a server would take one far above its own that may be taken."""
        self.url = f"redis://{HOST}:{self.port}"
        self._home = home / str(self.port)
        self._home.mkdir(parents=True)
        self._options = options
        self._tls = tls or {}
        self._process: trio.Process | None = None

    def client(self) -> Redis:
        """Return a client of redis-py's own; the caller closes it."""
        settings: dict[str, Any] = {"ssl": True, **self._tls} if self._tls else {}
        return Redis(host=HOST, port=self.port, socket_timeout=5, **settings)

    def ask(self, *words: object) -> Any:
        """Send one command on a connection of its own and return the answer, as it came."""
        settings: dict[str, Any] = {"host": HOST, "port": self.port, "socket_timeout": 5, "protocol": 2, **self._tls}
        connection: Any = (SSLConnection if self._tls else Connection)(**settings)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        port = ["--port", "0", "--tls-port", str(self.port)] if self._tls else ["--port", str(self.port)]
        if self.bus_port:
            port += ["--cluster-port", str(self.bus_port)]
        file = [option for option in self._options[:1] if not option.startswith("--")]
        options = self._options[len(file) :]
        command = ["redis-server", *file, *port, "--bind", HOST, "--dir", str(self._home), "--save", "", *options]
        with (self._home / "log").open("ab") as log:
            self._process = await trio.lowlevel.open_process(command, stdout=log, stderr=log)
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, (self._home / "log").read_text()
            return self._answers()

        await until(answers, START_S)

    def _answers(self) -> bool:
        try:
            self.ask("PING")
        except RedisError as error:
            return "Authentication" in str(error)
        return True

    async def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + START_S):
                await self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let the server hang: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def servers(*all_of: Server) -> AsyncIterator[None]:
    """Run servers for the time of the block."""
    try:
        for server in all_of:
            await server.start()
        yield
    finally:
        for server in all_of:
            await server.kill()


# --- several servers ----------------------------------------------------------------------------------------------


def replica_of(primary: Server, home: Path, *options: str) -> Server:
    """Make a replica, to be started."""
    return Server(home, "--replicaof", HOST, str(primary.port), "--repl-diskless-sync-delay", "0", *options)


def sentinel_of(primary: Server, home: Path, down_after_ms: int = 500) -> Server:
    """Make a sentinel that decides alone about the service `main`, to be started after its servers."""
    config = home / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main {HOST} {primary.port} 1\n"
        f"sentinel down-after-milliseconds main {down_after_ms}\n"
        "sentinel failover-timeout main 3000\n"
    )
    return Server(home, str(config), "--sentinel")


async def form_cluster(members: list[Server]) -> None:
    """Make one cluster of servers, each with its share of the slots, and wait until all agree."""
    share = 16384 // len(members)
    for number, member in enumerate(members):
        last = 16384 if number == len(members) - 1 else (number + 1) * share
        member.ask("CLUSTER", "ADDSLOTS", *range(number * share, last))
        if number:
            meet(member, members[0])
    for member in members:
        await until(lambda member=member: serves_all(member), 90)  # type: ignore[misc]


def meet(member: Server, other: Server) -> None:
    """Have a server join the cluster that another one is in."""
    member.ask("CLUSTER", "MEET", HOST, other.port, other.bus_port)


def serves_all(member: Server) -> bool:
    """Tell whether a member of a cluster knows the owner of each slot, and that all slots are served."""
    info = member.ask("CLUSTER", "INFO")
    return b"cluster_slots_ok:16384" in info and b"cluster_state:ok" in info


# --- the way to them ----------------------------------------------------------------------------------------------


class Proxy:
    """A TCP proxy in front of a server that can forward requests and lose their replies."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.url = ""
        self.lose_replies = False
        """While true, what the server answers is thrown away, and the connection is cut after the first of it."""
        self.lost = trio.Event()
        self._to_port = to_port

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        self.port = listeners[0].socket.getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}"
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)  # type: ignore[arg-type]

    async def _serve(self, near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream(HOST, self._to_port) as far, trio.open_nursery() as nursery:

            async def carry(source: trio.SocketStream, target: trio.SocketStream, lossy: Callable[[], bool]) -> None:
                try:
                    async for data in source:
                        if lossy():
                            self.lost.set()
                            break
                        await target.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel(reason="one side has gone")

            nursery.start_soon(carry, near, far, lambda: False)
            nursery.start_soon(carry, far, near, lambda: self.lose_replies)


@asynccontextmanager
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """Run a proxy in front of `server` for the time of the block."""
    made = Proxy(server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel(reason="the test is over")
