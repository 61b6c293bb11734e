"""The commands of `signald ctl`. Each asks one node; with `--json` it prints the answer unchanged.

Their exit codes are in `signald.exit_codes`.
"""

import json as json_module
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import attrs
from cyclopts import App, Parameter

from signald.ctl import fleet, show
from signald.ctl import top as top_screen
from signald.ctl.client import AdminClient, CtlError, find_node, read_token
from signald.ctl.wait import wait_for_drain
from signald.exit_codes import ExitCode

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]

RESEAL_POLL_S = 0.5

app = App(name="ctl", help="Operate a running node.")


@Parameter(name="*")
@attrs.frozen
class Target:
    """Which node is asked, and how the answer is printed.

    Parameters
    ----------
    node
        Name of a node of this host, or the path of its admin socket. Not needed when only one runs here.
    url
        Ask over TCP instead, for instance http://127.0.0.1:8081; needs the node's admin token.
    token_file
        File that holds the admin token; else SIGNALD_ADMIN_TOKEN holds it.
    json
        Print the answer as one JSON object.
    """

    node: str = ""
    url: str = ""
    token_file: Path | None = None
    json: Flag = False

    def client(self) -> AdminClient:
        """The node. Raises CtlError."""
        client = find_node(self.node, self.url, self.token_file, os.environ)
        client.verbatim = self.json
        return client

    def print(self, answer: Json, words: str) -> None:
        """Print `answer` as JSON, or `words` for a reader."""
        print(json_module.dumps(answer) if self.json else words)


HERE = Target()


@Parameter(name="*")
@attrs.frozen
class Many:
    """Several nodes at once, instead of one.

    Parameters
    ----------
    all_of
        Ask every node behind this name, for instance http://signald-admin:8081 of a headless service. Each live node of
        the cluster must be reached there.
    release
        Of these only the nodes of this release.
    """

    all_of: str = ""
    release: str = ""

    def nodes(self, target: Target) -> fleet.Fleet | None:
        """The nodes, None when one is meant. Raises CtlError."""
        if not self.all_of:
            if self.release:
                raise CtlError("--release goes with --all-of", ExitCode.USAGE)
            return None
        if target.node or target.url:
            raise CtlError("give --all-of, or say which node with --node or --url", ExitCode.USAGE)
        return fleet.Fleet(self.all_of, read_token(target.token_file, os.environ), release=self.release)

    @staticmethod
    def print(target: Target, members: list[fleet.Member], nodes: fleet.Fleet) -> None:
        """Print the status of several nodes."""
        words = "\n".join(show.status(member.status) for member in members) or f"no live {nodes.what}"
        target.print({"nodes": [member.status for member in members]}, words)


ONE = Many()


@app.command
def status(*, target: Target = HERE, many: Many = ONE) -> int:
    """Show what a node does, and how far its drain is."""
    if nodes := many.nodes(target):
        many.print(target, nodes.find(), nodes)
        return ExitCode.OK
    answer = target.client().get("status")
    target.print(answer, show.status(answer))
    return ExitCode.OK


@app.command
def drain(
    *,
    workers: Flag = False,
    clients: Flag = False,
    reason: str = "operator",
    wait: Flag = False,
    timeout_s: float = 600.0,
    target: Target = HERE,
    many: Many = ONE,
) -> int:
    """Move parties to the other nodes. No connection is cut, and the node stays until it is stopped; `abort` calls it off.

    Parameters
    ----------
    workers
        Workers only; their clients stay until clients are drained too.
    clients
        Clients only; a client with its worker on this node stays. Neither flag: both.
    reason
        Told to every party that moves.
    wait
        Wait until every party has moved; exit with 75 if one has not.
    timeout_s
        How long to wait.
    """
    kinds = [kind for kind, asked in (("workers", workers), ("clients", clients)) if asked] or ["workers", "clients"]
    if nodes := many.nodes(target):
        if not wait:
            raise CtlError("several nodes are only drained with --wait", ExitCode.USAGE)
        members, done = fleet.drain(nodes, kinds, reason, timeout_s=timeout_s, out=sys.stderr)
        many.print(target, members, nodes)
        return ExitCode.OK if done else ExitCode.NOT_NOW
    return _drain(target, kinds, reason, timeout_s if wait else None)


@app.command
def handover(
    *,
    workers: Flag = False,
    wait: Flag = False,
    reason: str = "rollout",
    to: str = "",
    timeout_s: float = 600.0,
    target: Target = HERE,
    many: Many = ONE,
) -> int:
    """Hand workers over to a new release before its traffic is switched: the gate of a blue-green rollout.

    With --all-of the workers of all nodes of --release are handed over; should that fail, or be interrupted, these nodes
    take workers again.

    Parameters
    ----------
    workers
        Without effect: a handover always moves workers. The flag says so to the reader of a script.
    wait
        Wait until every worker has moved; exit with 75 if one has not.
    reason
        Told to every worker.
    to
        With --all-of: the release that takes over. One of its nodes must be ready; those that were drained are recalled.
    timeout_s
        How long to wait.
    """
    del workers
    if nodes := many.nodes(target):
        if not wait:
            raise CtlError("several nodes are only handed over with --wait", ExitCode.USAGE)
        members, done = fleet.hand_over(nodes, to, reason, timeout_s=timeout_s, out=sys.stderr)
        many.print(target, members, nodes)
        return ExitCode.OK if done else ExitCode.NOT_NOW
    if to:
        raise CtlError("--to goes with --all-of", ExitCode.USAGE)
    return _drain(target, ["workers"], reason, timeout_s if wait else None)


def _drain(target: Target, parties: list[str], reason: str, timeout_s: float | None) -> int:
    client = target.client()
    answer = client.post("drain", {"parties": parties, "reason": reason})
    if timeout_s is None:
        target.print(answer, show.status(answer))
        return ExitCode.OK
    answer, done = wait_for_drain(client, parties, timeout_s, sys.stderr)
    target.print(answer, show.status(answer))
    return ExitCode.OK if done else ExitCode.NOT_NOW


@app.command
def abort(*, target: Target = HERE, many: Many = ONE) -> int:
    """Call a drain off: the node admits again, and parties that have not been told to go stay. Exit with 80 without a drain."""
    if nodes := many.nodes(target):
        many.print(target, fleet.recall(nodes), nodes)
        return ExitCode.OK
    # A node that does not drain has an exit code of its own, 80, unlike one that cannot be asked.
    answer = target.client().post("abort")
    target.print(answer, show.status(answer))
    return ExitCode.OK


@app.command
def reload(*, wait: Flag = False, target: Target = HERE) -> int:
    """Have a node read its configuration file again; one with a mistake changes nothing.

    Parameters
    ----------
    wait
        Said for the reader: the command always ends when the new configuration holds.
    """
    del wait
    answer = target.client().post("reload")
    target.print(answer, show.reload(answer))
    return ExitCode.OK


@app.command
def reseal(
    *,
    wait: Flag = False,
    show_only: Annotated[bool, Parameter(name="--show", negative="")] = False,
    target: Target = HERE,
) -> int:
    """Seal anew what the store holds under older keys, or plain, and say which keys can be retired. Any node can be asked.

    Parameters
    ----------
    wait
        Wait for the end; exit with 75 if it fails. It takes `node.lease_ttl_s` at least, until no node seals under an older key.
    show_only
        Begin nothing, and show how far this node is.
    """
    client = target.client()
    answer = client.get("reseal") if show_only else client.post("reseal")
    while wait and answer["state"] == "running":
        time.sleep(RESEAL_POLL_S)
        answer = client.get("reseal")
    target.print(answer, show.resealing(answer))
    return ExitCode.NOT_NOW if answer["state"] == "failed" else ExitCode.OK


@app.command
def nodes(*, target: Target = HERE) -> int:
    """List the live nodes of the cluster."""
    answer = target.client().get("nodes")
    target.print(answer, show.nodes(answer))
    return ExitCode.OK


@app.command
def workers(*, target: Target = HERE) -> int:
    """List the workers of the cluster."""
    answer = target.client().get("workers")
    target.print(answer, show.workers(answer))
    return ExitCode.OK


@app.command
def sessions(
    *, limit: int = 100, stuck: Flag = False, subject: str = "", tenant: str | None = None, target: Target = HERE
) -> int:
    """List sessions with a party at this node, or those of a subject, wherever they are.

    Parameters
    ----------
    limit
        How many at most.
    stuck
        Only those that are set aside, because a message has failed at every worker that was given it.
    subject
        Only those of this subject (`sub` of its token), in the whole cluster.
    tenant
        With --subject: the subject's tenant.
    """
    if tenant is not None and not subject:
        raise CtlError("--tenant goes with --subject", ExitCode.USAGE)
    if subject and stuck:
        raise CtlError("give --subject or --stuck", ExitCode.USAGE)
    of = f"&subject={quote(subject, safe='')}" if subject else f"&stuck={int(stuck)}"
    if tenant is not None:
        of += f"&tenant={quote(tenant, safe='')}"
    answer = target.client().get(f"sessions?limit={limit}{of}")
    target.print(answer, show.sessions(answer))
    return ExitCode.OK


@app.command
def jobs(session: str = "", /, *, limit: int = 100, target: Target = HERE, many: Many = ONE) -> int:
    """List the jobs of a session, or count the unfinished jobs of a node by state.

    A session counts at the node of its client, or at that of its worker while its client is away.

    Parameters
    ----------
    session
        The session's id; any node can be asked. Without it jobs are counted.
    limit
        How many at most.
    """
    if nodes := many.nodes(target):
        if session:
            raise CtlError("give a session, or --all-of to count at several nodes", ExitCode.USAGE)
        counts = [member.client.get("jobs") for member in nodes.find()]
        target.print({"nodes": counts}, show.job_counts(counts))
    elif session:
        answer = target.client().get(f"sessions/{quote(session, safe='')}/jobs?limit={limit}")
        target.print(answer, show.jobs(answer))
    else:
        answer = target.client().get("jobs")
        target.print(answer, show.job_counts([answer]))
    return ExitCode.OK


@app.command
def rooms(*, limit: int = 100, target: Target = HERE, many: Many = ONE) -> int:
    """List the rooms with members at this node, the largest first: members here and in all, position, records, bytes.

    Parameters
    ----------
    limit
        How many of each node at most.
    """
    found = many.nodes(target)
    clients = [member.client for member in found.find()] if found else [target.client()]
    answers = [client.get(f"rooms?limit={limit}") for client in clients]
    target.print({"nodes": answers} if found else answers[0], show.rooms(answers))
    return ExitCode.OK


@app.command
def room(name: str, /, *, tenant: str | None = None, limit: int = 100, target: Target = HERE) -> int:
    """Show a room and its members, wherever they are. Any node can be asked.

    Parameters
    ----------
    name
        The room, by the name that its members say.
    tenant
        The tenant whose room it is.
    limit
        How many members at most.
    """
    of = "" if tenant is None else f"&tenant={quote(tenant, safe='')}"
    answer = target.client().get(f"rooms/{quote(name, safe='')}?limit={limit}{of}")
    target.print(answer, show.room(answer))
    return ExitCode.OK


@app.command
def apps(*, limit: int = 100, target: Target = HERE) -> int:
    """List the apps of a DeepStream fleet in the whole cluster, with the state of each. Any node can be asked.

    Parameters
    ----------
    limit
        How many at most.
    """
    answer = target.client().get(f"apps?limit={limit}")
    target.print(answer, show.apps(answer))
    return ExitCode.OK


@app.command
def terminate(instance: str, /, *, tenant: str | None = None, target: Target = HERE) -> int:
    """Ask an app to clean up and end, wherever it is: `apps` shows how far it is. Any node can be asked.

    Parameters
    ----------
    instance
        The app, by its instance_id.
    tenant
        The tenant whose app it is; needed where several have one of this name.
    """
    answer = target.client().post("apps/terminate", {"instance": instance, "tenant": tenant})
    target.print(answer, show.terminated(answer))
    return ExitCode.OK


@app.command
def end(session: str, /, *, target: Target = HERE) -> int:
    """End a session, wherever its parties are: both are told, and nothing of it can be resumed. Any node can be asked.

    Parameters
    ----------
    session
        The session's id.
    """
    answer = target.client().post(f"sessions/{quote(session, safe='')}/end")
    target.print(answer, f"{answer['session']} is ended")
    return ExitCode.OK


@app.command
def retry(session: str, /, *, target: Target = HERE) -> int:
    """Hand a session out again that is set aside; any node can be asked.

    Parameters
    ----------
    session
        The session's id.
    """
    answer = target.client().post(f"sessions/{session}/retry")
    target.print(answer, show.retried(answer))
    return ExitCode.OK


@app.command
def trace(session: str, /, *, target: Target = HERE) -> int:
    """Show the steps of a session across all nodes: where it was, what it waited for, where it was lost.

    Parameters
    ----------
    session
        The session's id.
    """
    answer = target.client().get(f"sessions/{quote(session, safe='')}/trail")
    target.print(answer, show.trail(answer))
    return ExitCode.OK


@app.command
def receipt(of: str = "", /, *, fail_if: list[str] | None = None, target: Target = HERE, many: Many = ONE) -> int:
    """Show the fate of each session in a drain.

    Parameters
    ----------
    of
        The node that drained; by default the latest drain of the cluster.
    fail_if
        Exit with 79 if this holds of the totals, for instance 'lost>0'; may be given several times.
    """
    if nodes := many.nodes(target):
        if of:
            raise CtlError("give --all-of, or say which node drained", ExitCode.USAGE)
        return _receipts(target, nodes, fail_if or [])
    client = target.client()
    of = of or show.latest(client.get("receipts"))
    answer = client.get(f"receipts/{quote(of, safe='')}")
    target.print(answer, show.receipt(answer))
    failed = show.held(answer, fail_if or [])
    for condition in failed:
        print(f"signald: {condition} holds of the receipt", file=sys.stderr)
    return ExitCode.CONDITION_HOLDS if failed else ExitCode.OK


def _receipts(target: Target, nodes: fleet.Fleet, fail_if: list[str]) -> int:
    found = fleet.receipts(nodes)
    words = [f"{node}\n{show.receipt(one) if one else 'has not drained'}" for node, one in found.items()]
    target.print({"receipts": found}, "\n".join(words))
    failed = [(node, condition) for node, one in found.items() if one for condition in show.held(one, fail_if)]
    for node, condition in failed:
        print(f"signald: {condition} holds of the receipt of {node}", file=sys.stderr)
    return ExitCode.CONDITION_HOLDS if failed else ExitCode.OK


@app.command(name="log-level")
def log_level(level: Literal["debug", "info", "warning", "error"], /, *, target: Target = HERE) -> int:
    """Change what a node writes to its log, until its next start or reload.

    Parameters
    ----------
    level
        The least severity that is written.
    """
    answer = target.client().put("log-level", {"level": level})
    target.print(answer, f"{answer['before']} -> {answer['level']}")
    return ExitCode.OK


@app.command
def top(*, interval_s: float = 1.0, count: int = 0, target: Target = HERE) -> int:
    """Watch the node and its cluster.

    Parameters
    ----------
    interval_s
        Seconds between two looks.
    count
        How many looks; 0: until interrupted.
    """
    top_screen.run(target.client(), interval_s, count)
    return ExitCode.OK
