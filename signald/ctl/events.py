"""`signald ctl events`: how the core server is told, and what to do when it is again."""

from typing import Any

from cyclopts import App

from signald.ctl import show
from signald.ctl.commands import HERE, ONE, Many, Target
from signald.exit_codes import ExitCode

Json = dict[str, Any]

app = App(name="events", help="Show how the core server is told of events, or try again.")

STATES = {
    "off": "core.events_url is not set: nothing is told",
    "ok": "the core server takes events",
    "away": "the core server is away",
    "gone": "the core server has answered 410: nothing is told by this node until `ctl events retry`, a reload or a restart",
}


@app.default
def status(*, limit: int = 20, target: Target = HERE, many: Many = ONE) -> int:
    """Show how much waits in the cluster and for how long, what fails, and how a node fares with the core server.

    Parameters
    ----------
    limit
        How many queues are listed at most: those that fail first.
    """
    if nodes := many.nodes(target):
        answers = [member.client.get(f"events?limit={limit}") for member in nodes.find()]
        target.print({"nodes": answers}, "\n".join(in_words(answer) for answer in answers))
        return ExitCode.OK
    answer = target.client().get(f"events?limit={limit}")
    target.print(answer, in_words(answer))
    return ExitCode.OK


@app.command
def retry(*, target: Target = HERE, many: Many = ONE) -> int:
    """Tell everything that waits now: pauses after failures end, and a node whose core server has answered 410 asks it again."""
    if nodes := many.nodes(target):
        answers = [member.client.post("events/retry") for member in nodes.find()]
        target.print({"nodes": answers}, "\n".join(_retried(answer) for answer in answers))
        return ExitCode.OK
    answer = target.client().post("events/retry")
    target.print(answer, _retried(answer))
    return ExitCode.OK


def _retried(answer: Json) -> str:
    return f"{answer['node']} tries again: {answer['queues']} queues wait"


def in_words(answer: Json) -> str:
    """Return the answer for a reader."""
    waiting, dropped = answer["waiting"], answer["dropped"]
    probe = "" if answer["next_probe_s"] is None else f", tried again in {show.duration(answer['next_probe_s'])}"
    failed = ", ".join(f"{count} {reason}" for reason, count in sorted(answer["failed"].items())) or "none failed"
    cluster = (
        f"  in the cluster {waiting['queues']} queues wait, {waiting['due']} due, {waiting['failing']} failing; "
        f"the longest for {show.duration(waiting['oldest_s'])}"
    )
    lines = [
        f"{answer['node']}: {STATES[answer['state']]}{probe}",
        f"  since its start {answer['delivered']} told, {failed}; dropped {dropped['full']} full, {dropped['expired']} expired",
        cluster,
    ]
    if answer["queues"]:
        rows = [
            (
                one["queue"],
                one["failures"],
                show.duration(one["failing_s"]) if one["failures"] else "",
                "now" if one["in_flight"] else f"in {show.duration(one['due_in_s'])}",
            )
            for one in answer["queues"]
        ]
        lines.append(show.table(("QUEUE", "FAILURES", "FAILING FOR", "TRIED"), rows, ""))
    return "\n".join(lines)
