"""The command line: serve, check and print the configuration, mint tokens, operate nodes, run the demo.

Exit codes are those of sysexits.h, which systemd names in its log: 0 done, 64 wrong usage, 78 a configuration that
cannot be used. `serve` and `demo` end with the code of the daemon and of the demo.
"""

import json
import os
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

import signald
from signald.config import (
    Config,
    ConfigError,
    Problem,
    check_memory,
    check_moves,
    check_stop_timeouts,
    drain_moves,
    load,
    load_comparable,
    load_with_origins,
    render_toml,
    schema,
)
from signald.config import effective as effective_config
from signald.config.changes import Source
from signald.ctl.client import CtlError
from signald.demo.options import EVERY_S, PAGE_PORT, DemoOptions
from signald.exit_codes import ExitCode

# Listed by `version`: a report about signald is often about their behaviour.
_libraries = ("trio", "wsproto", "hypercorn", "redis")

app = App(
    name="signald",
    help="A signaling daemon between clients and AI workers that can be redeployed at any moment.",
    version=signald.__version__,
    help_format="plaintext",
    result_action="return_value",
)
# Loaded when they are asked for: with the service they take most of a command's time.
app.command("signald.token_commands:app", name="token", help="Tokens that clients, workers and services show.")
app.command("signald.ctl.app:app", name="ctl", help="Operate a running node.")
config_app = App(name="config", help="The configuration that holds.")
app.command(config_app)

DEV_TOKEN_TTL_S = 86_400.0
ALL_ROOMS = {"*": ["join", "publish", "state"]}
"""Of a token for trying signald out: the first room is not to be refused."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process) and return the exit code."""
    _open_standard_files()
    status: int = ExitCode.OK
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    # The reader has closed the pipe, as `| head` does; the exit code of a node stays.
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that the interpreter's last flush is silent
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return _fail(f"the output cannot be written: {error.strerror}", ExitCode.OUTPUT)
    return status


def _run(arguments: Sequence[str]) -> int:
    try:
        result = app(
            arguments,
            exit_on_error=False,
            error_console=Console(stderr=True, soft_wrap=True),
            error_formatter=lambda error: f"signald: {error}",
        )
    except CycloptsError:
        return ExitCode.USAGE
    except ConfigError as error:
        return _report(error)
    except CtlError as error:
        return _fail(str(error), error.status)
    return result if isinstance(result, int) else ExitCode.OK


def _open_standard_files() -> None:
    """Put /dev/null in the place of each standard file that is closed: a socket or the database must not get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


@app.command
def serve(*, config: Path | None = None, dev: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Run a node until SIGTERM has drained it.

    Parameters
    ----------
    config
        Configuration file. Without one the defaults hold, which listen on loopback and keep an SQLite file in the
        working directory. SIGNALD_SECTION__KEY variables override both.
    dev
        Try signald out: on loopback, with a throwaway key and an embedded store that are gone with the process. It
        prints the addresses and a token for each kind of party.
    """
    if dev:
        if config is not None:
            return _fail("give --config or --dev, not both", ExitCode.USAGE)
        return _serve_dev()
    loaded = _load_usable(config)
    # Imported here, so that the other commands neither load the daemon nor depend on it.
    from signald.daemon import run

    return run(loaded, Source(config, os.environ))


def _serve_dev() -> int:
    from signald.daemon import run
    from signald.service.auth import mint

    with tempfile.TemporaryDirectory(prefix="signald-dev-") as directory:
        made = {
            "SIGNALD_STORE__URL": f"sqlite:{directory}/signald.db",
            "SIGNALD_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        }
        loaded = load(None, {**made, **os.environ})

        def announce(websocket_port: int, http_port: int) -> None:
            # Announced once the node serves: an address that another process uses must not look like one that answers.
            for role in ("client", "worker"):
                token = mint(
                    loaded.auth,
                    subject=f"dev-{role}",
                    role=role,
                    ttl_s=DEV_TOKEN_TTL_S,
                    now=time.time(),
                    rooms=ALL_ROOMS,
                )
                print(f"{role}: ws://{_host(loaded.listen.websocket[0])}:{websocket_port}/v1/{role}\n  auth {token}")
            print(
                f"health: http://{_host(loaded.listen.http[0])}:{http_port}/readyz\noperate: signald ctl status",
                flush=True,
            )

        return run(loaded, announce=announce)


def _host(address: str) -> str:
    return address.rpartition(":")[0]


@app.command(name="config-schema")
def config_schema() -> int:
    """Print a JSON Schema of the configuration file, for editors."""
    print(json.dumps(schema(), indent=2))
    return ExitCode.OK


@config_app.command(name="show")
def config_show(
    file: Path | None = None,
    /,
    *,
    origin: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Print the effective configuration: defaults, the file and the environment together. Secrets are not shown.

    Parameters
    ----------
    file
        The configuration file.
    origin
        Print the origin of each value beside it.
    json
        One JSON object, of section, key and value; with --origin of section, key, value and origin.
    """
    loaded, places = load_with_origins(file, os.environ)
    render = effective_config.as_json if json else effective_config.as_toml
    print(render(loaded, places, origin=origin), end="")
    return ExitCode.OK


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the completion script of a shell: `signald completion bash > /etc/bash_completion.d/signald`.

    Parameters
    ----------
    shell
        The shell.
    """
    print(app.generate_completion(prog_name="signald", shell=shell))
    return ExitCode.OK


@app.command(name="check-config")
def check_config(
    file: Path,
    /,
    *,
    systemd: list[Path] | None = None,
    k8s: Annotated[list[Path] | None, Parameter(allow_leading_hyphen=True)] = None,
) -> int:
    """Print every problem of a configuration file, environment included; exit with 78 if there is one.

    Among them is a node that admits more connections than a drain moves sessions within its budget; how many these are is printed.

    With --systemd or --k8s it may run on another machine than signald: a missing secret or certificate is mentioned, and
    is no problem.

    Parameters
    ----------
    file
        The file to check. It is read and its keys are loaded, nothing is started.
    systemd
        A unit that runs signald: does it grant the drain its time, and the budgets their memory? Its drop-ins follow as
        further units, in their order.
    k8s
        A manifest with pods of signald, with the same questions; may be given several times, and - is standard input.
    """
    units, manifests = systemd or [], k8s or []
    problems: list[Problem] = []
    try:
        known: Config | None = _load_usable(file)
    except ConfigError as error:
        if not (units or manifests):
            raise
        problems += error.problems
        known = load_comparable(file, os.environ)
    if known is not None:
        standard_input = sys.stdin.read() if Path("-") in manifests else ""
        problems += check_stop_timeouts(known.drain, units=units, manifests=manifests, standard_input=standard_input)
        problems += check_memory(known, units=units, manifests=manifests, standard_input=standard_input)
        problems += check_moves(known, str(file))
    for absent in [problem for problem in problems if problem.absent]:
        print(f"signald: not checked here: {absent}", file=sys.stderr)
    if mistakes := [problem for problem in problems if not problem.absent]:
        raise ConfigError(mistakes)
    for checked in (file, *units, *manifests):
        print(f"{checked}: ok{', but for what is not here' if problems and checked == file else ''}")
    if known is not None:
        print(f"a drain moves {drain_moves(known)}")
    return ExitCode.OK


@app.command(name="default-config")
def default_config() -> int:
    """Print a configuration file with every key, its default and the reason for it."""
    print(render_toml(), end="")
    return ExitCode.OK


@app.command
def version(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print the version of signald.

    Parameters
    ----------
    json
        One JSON object with the versions of Python and of the libraries that matter.
    """
    if json:
        _print_versions()
    else:
        print(f"signald {signald.__version__}")
    return ExitCode.OK


@app.command
def demo(
    *,
    sessions: int = 100,
    workers: int = 10,
    rate: float = 5.0,
    deploys: int = 3,
    store: str | None = None,
    kill: int = 0,
    cross: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    web: Annotated[bool, Parameter(negative="")] = False,
    port: int = PAGE_PORT,
    every: float = EVERY_S,
) -> int:
    """Deploy real nodes again and again under load, and show what the parties noticed.

    Parameters
    ----------
    sessions
        Clients, each with one session.
    workers
        Workers that share the sessions.
    rate
        Messages per second of each client.
    deploys
        How often the node is replaced.
    store
        URL of the store; by default an SQLite file of the demo's own.
    kill
        How many of the deploys are SIGKILL instead of SIGTERM.
    cross
        Clients and workers enter by different nodes.
    json
        One JSON object on standard output instead of words.
    web
        Serve a page that goes through deploys, rollbacks and kills, until Ctrl-C.
    port
        With --web: where the page is on this machine; 0 is any port.
    every
        With --web: seconds between two of the deploys, rollbacks and kills.
    """
    from signald.demo.main import run

    return run(DemoOptions(sessions, workers, rate, deploys, store, kill, cross, json, web, port, every))


def _load_usable(path: Path | None) -> Config:
    from signald.service.reloading import prepare

    config = load(path, os.environ)
    prepare(config, str(path or ""))
    return config


def _report(error: ConfigError) -> int:
    count = len(error.problems)
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return _fail(f"the configuration has {count} problem{'s' if count > 1 else ''}", ExitCode.CONFIGURATION)


def _fail(message: str, code: int) -> int:
    with suppress(OSError):  # the exit code says it as well
        print(f"signald: {message}", file=sys.stderr, flush=True)
    return code


def _print_versions() -> None:
    facts = {
        "signald": signald.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: distribution_version(name) for name in _libraries},
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(main())
