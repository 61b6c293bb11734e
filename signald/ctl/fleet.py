"""Several nodes behind one name: the pods of a release behind a headless service, all of which the gate of a rollout asks.

A name may resolve to pods of both releases, to dead pods, or not yet to a new one. So the nodes that answer are compared with
the cluster's own list, where each live node has a lease. A live node of the release that does not answer is a reason to wait.
"""

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO
from urllib.parse import urlsplit

import attrs

from signald.ctl.client import AdminClient, CtlError
from signald.exit_codes import ExitCode

Json = dict[str, Any]
Resolve = Callable[[str, int], list[tuple[str, int]]]

POLL_S = 0.5
NOT_YET = (ExitCode.UNAVAILABLE, ExitCode.NOT_NOW, ExitCode.SOFTWARE, ExitCode.STATE)
"""Exit codes of problems that may be over a moment later."""


@attrs.frozen
class Member:
    """One node of the fleet, with its latest status."""

    name: str
    client: AdminClient
    status: Json

    @property
    def parties(self) -> set[str]:
        """The kinds of parties that an operator's drain moves away from the node."""
        drain = self.status["drain"]
        return set(drain["parties"]) if drain is not None else set()

    @property
    def is_final(self) -> bool:
        """A signal has begun the drain: the node ends by itself, and its drain cannot be called off."""
        drain = self.status["drain"]
        return drain is not None and drain["by_signal"]

    @property
    def is_held(self) -> bool:
        """The drain is over, and the node stays."""
        return self.status["drain"] is not None and self.status["drain"]["phase"] == "hold"

    @property
    def stayed(self) -> int:
        """How many parties did not move."""
        return int(self.status["drain"]["plan"].get("stayed", 0)) if self.status["drain"] is not None else 0


def resolve(host: str, port: int) -> list[tuple[str, int]]:
    """Return every address of `host`. Raises CtlError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CtlError(f"{host} cannot be resolved: {error.strerror}", ExitCode.UNAVAILABLE) from None
    return sorted({(str(address[0]), int(address[1])) for *_, address in found})


def _resolve_now(host: str, port: int) -> list[tuple[str, int]]:
    return resolve(host, port)


class Fleet:
    """See the module. `release` "" means every node."""

    def __init__(self, url: str, token: str, *, release: str = "", resolve: Resolve | None = None) -> None:
        parts = urlsplit(url)
        # The addresses are asked one by one, so no certificate could name them.
        if parts.scheme != "http" or not parts.hostname:
            raise CtlError(f"expected a URL such as http://signald-admin:8081, got {url!r}", ExitCode.USAGE)
        self._where, self._host, self._port = url, parts.hostname, parts.port or 80
        self._token = token
        self.release = release
        self._resolve = resolve or _resolve_now

    def of(self, release: str) -> "Fleet":
        """The nodes of another release behind the same name."""
        return Fleet(self._where, self._token, release=release, resolve=self._resolve)

    @property
    def what(self) -> str:
        """A name for these nodes, for messages."""
        return f"nodes of release {self.release}" if self.release else "nodes"

    def find(self) -> list[Member]:
        """Return the live nodes of the release, none if none is live. Raises CtlError when one of them is not reached."""
        reached: dict[str, Member] = {}
        refused: CtlError | None = None
        for address, port in self._resolve(self._host, self._port):
            host = f"[{address}]" if ":" in address else address
            client = AdminClient(url=f"http://{host}:{port}", token=self._token)
            try:
                status = client.get("status")
            except CtlError as error:
                refused = error
            else:
                reached[status["node"]] = Member(status["node"], client, status)
        if not reached:
            raise refused or CtlError(f"{self._host} has no address", ExitCode.UNAVAILABLE)
        # Any node knows the cluster, but one that is about to end may have lost its store.
        live = _first(member.client for member in reached.values())
        missing = [node for node in live if self._means(live[node]) and node not in reached]
        if missing:
            raise CtlError(
                f"{', '.join(sorted(missing))} is live and does not answer behind {self._host}", ExitCode.NOT_NOW
            )
        return [reached[name] for name in sorted(reached) if self._means(reached[name].status["release"])]

    def _means(self, release: str) -> bool:
        return not self.release or release == self.release


def _first(clients: Iterator[AdminClient]) -> dict[str, str]:
    """Ask one after the other for the live nodes; returns each node's release. Raises CtlError when none can tell."""
    for client in clients:
        try:
            return {node["node"]: node["release"] for node in client.get("nodes")["nodes"]}
        except CtlError as error:
            failed = error
    raise failed


def drain(
    fleet: Fleet,
    parties: Sequence[str],
    reason: str,
    *,
    timeout_s: float,
    out: TextIO,
    unwanted: Callable[[], bool] = lambda: False,
) -> tuple[list[Member], bool]:
    """Drain all nodes of the fleet together, and wait; returns the nodes, and whether every party has moved.

    A node that joins during the wait is drained as well; a node that ends counts as moved. False as well when another
    operator calls one of the drains off, or when `unwanted`. Raises CtlError when a node answers not once in `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    begun: set[str] = set()
    said = ""
    while True:
        try:
            members = fleet.find()
            if unwanted():
                return members, False
            for member in members:
                if member.is_final or set(parties) <= member.parties:
                    begun.add(member.name)
                elif member.name in begun:
                    return members, False  # another operator has called it off
                else:
                    # All nodes begin before the wait for any, so that none is the successor of another for long.
                    member.client.post("drain", {"parties": list(parties), "reason": reason})
                    begun.add(member.name)
        except CtlError as error:
            if unwanted() or error.status not in NOT_YET or time.monotonic() > deadline:
                raise
            line = f"waiting: {error}"
        else:
            moving = [member for member in members if not member.is_held or not set(parties) <= member.parties]
            if not moving:
                return members, not any(member.stayed for member in members)
            if time.monotonic() > deadline:
                return members, False
            line = "; ".join(f"{member.name}: {member.status['line']}" for member in moving)
        if line != said:
            said = line
            print(line, file=out, flush=True)
        time.sleep(POLL_S)


@contextmanager
def suppress_kind(kind: str) -> Iterator[None]:
    """Ignore a problem of `kind`."""
    try:
        yield
    except CtlError as error:
        if error.kind != kind:
            raise


def recall(fleet: Fleet) -> list[Member]:
    """Call off the operator's drain of every node of the fleet that has one; returns the nodes. Raises CtlError."""
    for member in fleet.find():
        if member.parties and not member.is_final:
            with suppress_kind("not-draining"):  # the drain was called off since the latest status
                member.client.post("abort")
    return fleet.find()


def hand_over(fleet: Fleet, to: str, reason: str, *, timeout_s: float, out: TextIO) -> tuple[list[Member], bool]:
    """Hand the workers of the fleet to the nodes of release `to` ("" any): the gate of a rollout.

    The nodes of `to` are recalled first: after a rollback they may still be drained by the first rollout. When the handover
    fails or is interrupted, the fleet itself is recalled, so that a closed gate changes nothing.
    Raises CtlError.
    """
    if to and fleet.release in ("", to):
        raise CtlError(f"name with --release the release that {to} replaces; it cannot replace itself", ExitCode.USAGE)
    if to:
        heirs = recall(fleet.of(to))
        if not any(member.status["state"] == "ready" for member in heirs):
            raise CtlError(f"no node of release {to} is ready to take over", ExitCode.NOT_NOW)
    done = False
    with _listen_for_sigterm() as unwanted:
        try:
            members, done = drain(fleet, ["workers"], reason, timeout_s=timeout_s, out=out, unwanted=unwanted)
        finally:
            if not done:
                print("not handed over: the drains are called off", file=out, flush=True)
                _recall_reachable(fleet)
    return members, done


def _recall_reachable(fleet: Fleet) -> None:
    with suppress(CtlError):
        recall(fleet)


@contextmanager
def _listen_for_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield whether SIGTERM has come: the caller gave up waiting. A step under way is finished."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def receipts(fleet: Fleet) -> dict[str, Json | None]:
    """Return for each node of the fleet the receipt of its drain, None if it has not drained. Raises CtlError."""
    found: dict[str, Json | None] = {}
    for member in fleet.find():
        try:
            found[member.name] = member.client.get(f"receipts/{member.name}")
        except CtlError as error:
            if error.kind != "unknown-receipt":
                raise
            found[member.name] = None
    if not any(found.values()):
        raise CtlError(f"none of the {len(found)} {fleet.what} has drained", ExitCode.NO_SUCH_THING)
    return found
