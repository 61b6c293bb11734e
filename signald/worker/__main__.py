"""Run a handler as a worker.

python -m signald.worker start bot:answer --url wss://signald.example     in production
python -m signald.worker dev bot:answer                                   on a developer's machine: options of `Env` are `dev`
python -m signald.worker simulate bot:answer --sessions 100               without signald: sessions in memory ask the handler
"""

import argparse
import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import anyio

from signald.sdk.front.departure import Leave, Mode
from signald.sdk.front.serving import run_worker
from signald.sdk.front.stage import STAGE
from signald.sdk.front.worker import open_worker
from signald.sdk.interrupted import quiet_interrupt
from signald.worker.simulated import SimulatedNode

OK, FAILED, USAGE = 0, 1, 2


def loaded(name: str) -> Any:
    """Return what `module:name` names.

    Raises:
        ValueError: there is no such thing.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f"a handler is `module:name`, not {name!r}")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` has it
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} is not there: {error}") from error
    return found


def backend() -> str:
    """Return the event loop for a handler: asyncio where its module has imported the SDK for asyncio and not the one for Trio."""
    return "asyncio" if "signald.sdk.asyncio" in sys.modules and "signald.sdk.trio" not in sys.modules else "trio"


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(labels.values()):
        raise ValueError("a label is `name=value`")
    return labels


async def _serve(arguments: argparse.Namespace, handler: Any) -> None:
    await run_worker(
        arguments.url,
        handler,
        instance_id=arguments.instance_id,
        capacity=arguments.capacity,
        labels=_labels(arguments.label),
        # Read for each connection: a supervisor may renew it.
        auth=(lambda: os.environ[arguments.auth_env]) if arguments.auth_env else None,
        on_job=loaded(arguments.jobs) if arguments.jobs else None,
        setup=loaded(arguments.setup) if arguments.setup else None,
        load=loaded(arguments.load) if arguments.load else None,
        load_max=arguments.load_max,
        health=arguments.health,
        leave=Leave(Mode[arguments.mode.upper()], graceful_s=arguments.graceful_s),
    )


async def _simulate(arguments: argparse.Namespace, handler: Any) -> int:
    node = SimulatedNode(arguments.sessions, arguments.messages, json.loads(arguments.say))
    prepared = None
    if arguments.setup:
        prepared = loaded(arguments.setup)()
        prepared = await prepared if hasattr(prepared, "__await__") else prepared
    async with open_worker(
        "ws://simulated",
        handler,
        instance_id="simulated",
        capacity=arguments.sessions,
        on_job=loaded(arguments.jobs) if arguments.jobs else None,
        prepared=prepared,
        dial=node.dial,
    ) as worker:
        with anyio.move_on_after(arguments.timeout_s):
            await node.wait()
        with anyio.move_on_after(1):
            await worker.leave()
    summary = node.summary()
    print(json.dumps(summary))
    return FAILED if summary["given_back"] or summary["not_over"] else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m signald.worker", description="Run a handler as a worker of signald."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in (("dev", "serve on a developer's machine"), ("start", "serve"), ("simulate", "ask the handler")):
        command = commands.add_parser(name, help=says)
        command.add_argument("handler", metavar="module:handler")
        command.add_argument("--jobs", metavar="module:on_job", help="what does jobs: a handler, or a table of them")
        command.add_argument("--setup", metavar="module:function", help="what prepares `session.prepared`")
        command.add_argument("--log-level", default="INFO")
        if name == "simulate":
            command.add_argument("--sessions", type=int, default=10)
            command.add_argument("--messages", type=int, default=1, help="for each session")
            command.add_argument("--say", default='"hello"', help="the data of each message, as JSON")
            command.add_argument("--timeout-s", type=float, default=60.0)
            continue
        command.add_argument("--url", action="append", help="once or more (default: ws://127.0.0.1:8080)")
        command.add_argument("--instance-id", default=socket.gethostname()[:128])
        command.add_argument("--capacity", type=int, default=1)
        command.add_argument("--label", action="append", default=[], metavar="name=value")
        command.add_argument("--auth-env", metavar="NAME", help="the environment variable with the credential")
        command.add_argument("--load", metavar="module:function", help="what returns the load, from 0 on")
        command.add_argument("--load-max", type=float, default=float("inf") if name == "dev" else 0.7)
        command.add_argument("--health", metavar="host:port", default=None if name == "dev" else "127.0.0.1:8081")
        command.add_argument(
            "--mode", choices=["graceful", "urgent", "immediate"], default="immediate" if name == "dev" else "graceful"
        )
        command.add_argument("--graceful-s", type=float, default=Leave().graceful_s)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the status of the process."""
    arguments = _parser().parse_args(words)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault(STAGE, "prod" if arguments.command == "start" else "dev")
    try:
        handler = loaded(arguments.handler)
        if arguments.command == "simulate":
            return int(anyio.run(_simulate, arguments, handler, backend=backend()))
        arguments.url = arguments.url or ["ws://127.0.0.1:8080"]
        with quiet_interrupt():
            anyio.run(_serve, arguments, handler, backend=backend())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    return OK


if __name__ == "__main__":
    sys.exit(main())
