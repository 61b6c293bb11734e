"""HAProxy and nginx as the recipes in `conf/` set them up: started, reloaded, killed, and weighed by the shipped scripts.

The files are the shipped ones. Only ports and paths are put in, and each that is must be in the file: a recipe that changed
is noticed here, not by testing something else.
"""

import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio
from attrs import define, field

import signald
from signald.demo.cluster import free_port, kill_group
from tests.real.harness import HOST, Address, until

CONF = Path(signald.__file__).parent.parent / "conf"

Kind = Literal["haproxy", "nginx"]
KINDS: tuple[Kind, ...] = ("haproxy", "nginx")
Colour = Literal["blue", "green"]

START_S = 10.0
WEIGH_S = 15.0


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with every key of `values` replaced; each must be there."""
    missing = [key for key in values if key not in text]
    assert not missing, f"the recipe says nothing of {missing}"
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], text)


@define(eq=False)
class Colours:
    """Where the two nodes of one host listen."""

    blue: Address = field(factory=Address)
    green: Address = field(factory=Address)

    def __getitem__(self, colour: Colour) -> Address:
        return self.blue if colour == "blue" else self.green


class Proxy(ABC):
    """One proxy before the two colours."""

    def __init__(self, directory: Path, colours: Colours) -> None:
        self.directory = directory
        self.colours = colours
        self.port = free_port()
        self.output = directory / "proxy.log"
        self.process: trio.Process | None = None
        self.write()

    @property
    def url(self) -> str:
        """Where parties connect."""
        return f"ws://{HOST}:{self.port}"

    # --- what differs -------------------------------------------------------------------------------------------------

    @abstractmethod
    def write(self) -> None:
        """Write the files, from the recipe."""

    @property
    @abstractmethod
    def config(self) -> Path:
        """The file with the directives."""

    @abstractmethod
    def check_command(self) -> Sequence[str]:
        """What says whether the configuration is right."""

    @abstractmethod
    def _run_command(self) -> Sequence[str]: ...

    @abstractmethod
    def _weigh_command(self) -> tuple[Path, dict[str, str]]: ...

    @abstractmethod
    def _reload_signal(self) -> signal.Signals: ...

    # --- what is done with it -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        with self.output.open("ab") as sink:
            self.process = await trio.lowlevel.open_process(
                list(self._run_command()), start_new_session=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        await until(self._listens, START_S, "the proxy listens")

    async def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        try:
            stream = await trio.open_tcp_stream(HOST, self.port)
        except OSError:
            return False
        await stream.aclose()
        return True

    def said(self) -> str:
        """The end of what it wrote."""
        return self.output.read_text(errors="replace")[-2000:]

    def reload(self) -> None:
        """Have it read its files again, as its own service file would."""
        assert self.process is not None
        self.process.send_signal(self._reload_signal())

    async def kill(self) -> None:
        """End all its processes as a power cut would."""
        if self.process is not None:
            kill_group(self.process)
            with trio.move_on_after(5, shield=True):
                await self.process.wait()

    async def weigh(self, blue: int, green: int) -> None:
        """Say how many of 100 new connections each colour gets, with the shipped script."""
        script, environment = self._weigh_command()
        with trio.fail_after(WEIGH_S):
            done = await trio.run_process(
                [str(script), str(blue), str(green)],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, (done.stdout, done.stderr, self.said())

    async def flip_to(self, colour: Colour) -> None:
        """Send all new connections to `colour`."""
        await self.weigh(*((100, 0) if colour == "blue" else (0, 100)))


class Haproxy(Proxy):
    """HAProxy with its master, as Debian's service runs it."""

    def write(self) -> None:
        """Write the configuration, and the state of weights that the first start finds."""
        blue, green = self.colours.blue, self.colours.green
        self.config.write_text(
            fill(
                (CONF / "haproxy/haproxy.cfg").read_text(),
                {
                    "bind :8000": f"bind {HOST}:{self.port}",
                    # HAProxy does not start where the system does not allow it as many descriptors.
                    "maxconn 40000": "maxconn 4000",
                    "127.0.0.1:8080": f"{HOST}:{blue.websocket}",
                    "port 8081": f"port {blue.http}",
                    "127.0.0.1:8090": f"{HOST}:{green.websocket}",
                    "port 8091": f"port {green.http}",
                    "/run/haproxy/signald.sock": str(self._socket),
                    "/var/lib/haproxy/signald.state": str(self._state),
                },
            )
        )
        # HAProxy takes an empty file for one of an unknown version, and says so.
        self._state.write_text("1\n")

    @property
    def config(self) -> Path:
        """`haproxy.cfg`."""
        return self.directory / "haproxy.cfg"

    @property
    def _socket(self) -> Path:
        return self.directory / "ha.sock"

    @property
    def _state(self) -> Path:
        return self.directory / "ha.state"

    def check_command(self) -> Sequence[str]:
        """`haproxy -c`, which must not even warn."""
        return [_find("haproxy"), "-c", "-dW", "-f", str(self.config)]

    def _run_command(self) -> Sequence[str]:
        return [_find("haproxy"), "-W", "-f", str(self.config)]

    def _weigh_command(self) -> tuple[Path, dict[str, str]]:
        return CONF / "haproxy/signald-weigh", {"HAPROXY_SOCKET": str(self._socket), "HAPROXY_STATE": str(self._state)}

    def _reload_signal(self) -> signal.Signals:
        return signal.SIGUSR2


class Nginx(Proxy):
    """nginx with its master and workers."""

    def write(self) -> None:
        """Write the configuration and the weights."""
        blue, green = self.colours.blue, self.colours.green
        self._weights.write_text(
            fill(
                (CONF / "nginx/signald-weights.conf").read_text(),
                {"127.0.0.1:8080": f"{HOST}:{blue.websocket}", "127.0.0.1:8090": f"{HOST}:{green.websocket}"},
            )
        )
        self.config.write_text(
            fill(
                (CONF / "nginx/nginx.conf").read_text(),
                {
                    "listen 8000": f"listen {HOST}:{self.port}",
                    "/run/nginx.pid": str(self.directory / "nginx.pid"),
                    "/var/log/nginx/error.log": str(self.output),
                    "/etc/nginx/signald-weights.conf": str(self._weights),
                },
            )
        )

    @property
    def config(self) -> Path:
        """`nginx.conf`."""
        return self.directory / "nginx.conf"

    @property
    def _weights(self) -> Path:
        return self.directory / "weights.conf"

    def check_command(self) -> Sequence[str]:
        """`nginx -t`."""
        return [_find("nginx"), "-q", "-t", "-e", "stderr", "-c", str(self.config)]

    def _run_command(self) -> Sequence[str]:
        return [_find("nginx"), "-e", "stderr", "-c", str(self.config), "-g", "daemon off;"]

    def _weigh_command(self) -> tuple[Path, dict[str, str]]:
        return CONF / "nginx/signald-weigh", {"NGINX_WEIGHTS": str(self._weights), "NGINX_CONFIG": str(self.config)}

    def _reload_signal(self) -> signal.Signals:
        return signal.SIGHUP


def _find(program: str) -> str:
    # Debian puts them where only root looks.
    found = shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    assert found is not None, f"{program} is needed: apt-get install {program}"
    return found


MADE: dict[Kind, type[Proxy]] = {"haproxy": Haproxy, "nginx": Nginx}


@asynccontextmanager
async def open_proxy(kind: Kind, directory: Path, colours: Colours) -> AsyncIterator[Proxy]:
    """A running proxy for the time of the block."""
    proxy = MADE[kind](directory, colours)
    try:
        await proxy.start()
        yield proxy
    finally:
        await proxy.kill()
