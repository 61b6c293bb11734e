"""The answers of the admin API in words and tables."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from signald.ctl.client import CtlError
from signald.exit_codes import ExitCode

Json = dict[str, Any]

_condition = re.compile(r"\s*([a-z_0-9.]+)\s*(>=|<=|==|!=|>|<)\s*(-?[0-9.]+)\s*")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> str:
    """Return columns of text; `nothing` without a row. No cell is cut, because a part of an id is useless."""
    drawn = Table(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column, no_wrap=True, overflow="ignore")
    count = 0
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
        count += 1
    if not count:
        return nothing
    out = StringIO()
    Console(file=out, width=1000, highlight=False, markup=False, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def status(answer: Json) -> str:
    """Return the state of a node in words."""
    counts, store = answer["statistics"], answer["store"]
    lines = [
        f"{answer['node']} ({answer['release']}): {answer['state']}, up {duration(answer['uptime_s'])}",
        f"  {counts['clients']} clients and {counts['workers']} workers here, {counts['sessions']} sessions",
        f"  {answer['line']}",
    ]
    if not store["answers"]:
        lines.append(f"  the store has not answered for {duration(store['away_s'])}: new parties are refused")
    return "\n".join(lines)


def nodes(answer: Json) -> str:
    """Return the table of the nodes of the cluster."""
    rows = [
        (
            one["node"] + (" *" if one["this"] else ""),
            one["release"],
            one["state"],
            one["connections"],
            one["lag_ms"],
            duration(one["up_s"]),
        )
        for one in answer["nodes"]
    ]
    return table(("NODE", "RELEASE", "STATE", "CONNECTIONS", "LAG MS", "UP"), rows, "no node is live")


def workers(answer: Json) -> str:
    """Return the table of the workers of the cluster."""
    rows = [
        (
            one["worker"],
            one["instance"],
            one["node"] or f"away {duration(one['away_s'])}",
            f"{one['assigned']}/{one['capacity']}",
            "leaving" if one["leaving"] else "",
            " ".join(f"{key}={value}" for key, value in sorted(one["labels"].items())),
        )
        for one in answer["workers"]
    ]
    return table(("WORKER", "INSTANCE", "NODE", "SESSIONS", "", "LABELS"), rows, "no worker is registered")


def apps(answer: Json) -> str:
    """Return the table of the apps of the cluster."""
    rows = [
        (
            one["instance"],
            one["state"],
            one["node"] or f"away {duration(one['away_s'])}",
            one["sessions"],
            one["subject"] or "-",
            "-" if one["tenant"] is None else one["tenant"],
        )
        for one in answer["apps"]
    ]
    text = table(("INSTANCE", "STATE", "NODE", "SESSIONS", "SUBJECT", "TENANT"), rows, "no app is registered")
    hidden = answer["total"] - len(rows)
    return f"{text}\n... and {hidden} more (--limit)" if hidden > 0 else text


def terminated(answer: Json) -> str:
    """Return what became of the order to end an app."""
    return f"{answer['instance']} at {answer['node']} is asked to clean up"


def sessions(answer: Json) -> str:
    """Return the table of the sessions of a node."""
    rows = [
        (
            one["session"],
            f"stuck at {one['stuck_at']}" if one.get("stuck_at") else one["state"],
            one["client_node"] or "away",
            one["worker"] or "-",
            one["worker_node"] or "-",
            f"{one['up']['acked']}/{one['up']['last']}",
            f"{one['down']['acked']}/{one['down']['last']}",
        )
        for one in answer["sessions"]
    ]
    text = table(
        ("SESSION", "STATE", "CLIENT AT", "WORKER", "WORKER AT", "UP ACKED", "DOWN ACKED"), rows, "no session is here"
    )
    hidden = answer["total"] - len(rows)
    return f"{text}\n... and {hidden} more (--limit)" if hidden > 0 else text


def job_counts(answers: Sequence[Json]) -> str:
    """Return how many unfinished jobs nodes have, by state."""
    rows = [
        (
            one["node"],
            one["states"]["queued"],
            one["states"]["running"],
            one["sessions"],
            f"{one['uncounted']} sessions are not counted" if one["uncounted"] else "",
        )
        for one in answers
    ]
    return table(("NODE", "QUEUED", "RUNNING", "SESSIONS WITH JOBS", ""), rows, "no node is live")


def jobs(answer: Json) -> str:
    """Return the table of the jobs of a session, the newest first."""
    rows = [
        (
            one["job"],
            one["kind"],
            one["state"],
            one["attempt"],
            one["failures"],
            *[_utc(one[at]) if one[at] else "-" for at in ("created_ms", "started_ms", "ended_ms", "deadline_ms")],
        )
        for one in answer["jobs"]
    ]
    columns = ("JOB", "KIND", "STATE", "ATTEMPT", "FAILURES", "CREATED (UTC)", "STARTED", "ENDED", "DEADLINE")
    text = table(columns, rows, f"{answer['session']} has no job")
    return f"{text}\n... and more (--limit)" if answer["more"] else text


def rooms(answers: Sequence[Json]) -> str:
    """Return the table of the rooms of nodes, each node's largest first."""
    rows = [
        (
            answer["node"],
            _room_name(one),
            f"{one['members_here']}/{one['members']}",
            one["position_here"]
            if one["position_here"] == one["position"]
            else f"{one['position_here']}/{one['position']}",
            one["records"],
            one["bytes"],
        )
        for answer in answers
        for one in answer["rooms"]
    ]
    text = table(("NODE", "ROOM", "MEMBERS", "POSITION", "RECORDS", "BYTES"), rows, "no room has members here")
    hidden = sum(answer["total"] - len(answer["rooms"]) for answer in answers)
    return f"{text}\n... and {hidden} more (--limit)" if hidden > 0 else text


def room(answer: Json) -> str:
    """Return a room, and the table of its members."""
    lines = [
        f"{_room_name(answer)}: position {answer['position']}, epoch {answer['epoch']}, publications kept from {answer['kept_from']} on",
        f"  {answer['records']} records; {answer['bytes']} bytes with the snapshot"
        + (f" of {answer['snapshot']}" if answer["snapshot"] else " (none)")
        + " and the updates behind it",
        f"  {answer['members']} members at {', '.join(answer['nodes']) or 'no node'}",
    ]
    rows = [(one["member"], one["presence_bytes"]) for one in answer["listed"]]
    if rows:
        lines.append(table(("MEMBER", "BYTES OF ITS PRESENCE"), rows, ""))
    hidden = answer["members"] - len(rows)
    return "\n".join(lines) + (f"\n... and {hidden} more (--limit)" if hidden > 0 else "")


def _room_name(one: Json) -> str:
    return str(one["room"]) if one["tenant"] is None else f"{one['room']} (tenant {one['tenant']})"


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def retried(answer: Json) -> str:
    """Return the line of a session that waits for a worker again."""
    return f"{answer['session']} waits for a worker again; {answer['failures']} hand-outs of message {answer['seq']} had failed"


def trail(answer: Json) -> str:
    """Return the steps of a session, one line each."""
    rows = []
    before: int | None = None
    for step in answer["steps"]:
        at = _utc(step["at_ms"])
        after = "" if before is None else f"+{(step['at_ms'] - before) / 1000:.3f}"
        before = step["at_ms"]
        rows.append((at, after, step["node"], step["party"], step["what"], step["detail"]))
    text = table(("UTC", "AFTER S", "NODE", "PARTY", "STEP", ""), rows, f"nothing is known of {answer['session']}")
    return f"{answer['session']}: {answer['state']}\n{_carried(answer.get('summary', {}))}{text}"


def _carried(summary: Json) -> str:
    if not summary:
        return ""  # of a node of release 0.1.0
    lasted = f", in {duration(summary['duration_ms'] / 1000)}" if "duration_ms" in summary else ""
    gaps = f"; {summary['gaps']} gaps, {summary['gap_ms'] / 1000:.1f} s in all" if summary["gaps"] else "; no gap"
    said = f"{summary['up']} messages up, {summary['down']} down"
    return f"{said} ({summary['up_bytes']} and {summary['down_bytes']} bytes by the steps below){lasted}{gaps}\n"


def latest(answer: Json) -> str:
    """Return the node of the latest receipt. Raises CtlError when there is none."""
    if not answer["receipts"]:
        raise CtlError("no node of this cluster has drained yet", ExitCode.NO_SUCH_THING)
    return str(answer["receipts"][0]["node"])


def receipt(answer: Json) -> str:
    """Return the totals of a drain."""
    totals = answer["totals"]
    rows = [(key, _words(value)) for key, value in totals.items()]
    return table(("", ""), rows, "")


def held(answer: Json, conditions: Sequence[str]) -> list[str]:
    """Return those of `conditions` that hold of a receipt's totals. Raises CtlError when one cannot be understood."""
    return [condition for condition in conditions if _holds(answer["totals"], condition)]


def _holds(totals: Json, condition: str) -> bool:
    found = _condition.fullmatch(condition)
    if found is None:
        raise CtlError(f"expected a condition such as 'lost>0', got {condition!r}", ExitCode.USAGE)
    name, sign, text = found.groups()
    value: Any = totals
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, int | float):
        known = ", ".join(key for key, one in totals.items() if isinstance(one, int | float))
        raise CtlError(f"the receipt has no number {name!r}; there are {known}", ExitCode.USAGE)
    limit = float(text)
    return {
        ">": value > limit,
        "<": value < limit,
        ">=": value >= limit,
        "<=": value <= limit,
        "==": value == limit,
        "!=": value != limit,
    }[sign]


RESEALING = {
    "none": "nothing was resealed since its start",
    "running": "resealing",
    "done": "all is sealed under this key",
    "failed": "resealing has failed",
}


def resealing(answer: Json) -> str:
    """How far a node is with sealing anew."""
    key = answer["key"]
    name = f"{key['name']} ({key['id']})" if key["id"] else "no key"
    lines = [
        f"{answer['node']}: {RESEALING[answer['state']]}{': ' + answer['why'] if answer['why'] else ''}",
        f"  under {name}: {answer['exchanged']} values sealed anew in {answer['passes']} passes, {answer['unreadable']} cannot be read",
    ]
    if answer["state"] == "done" and answer["retirable"]:
        keys = ", ".join(f"{one['name'] or 'a key of no line'} ({one['id']})" for one in answer["retirable"])
        lines.append(f"  no value of the store is under {keys}: `retired ID` may stand in the place of its line")
        if answer["blobs_keep_s"] is not None:
            keep = duration(answer["blobs_keep_s"])
            lines.append(f"  but for blobs: they keep their key until they are deleted, {keep} after they were stored")
    return "\n".join(lines)


def reload(answer: Json) -> str:
    """Return the effect of a reload in words."""
    lines = [f"applied: {', '.join(answer['applied']) or 'nothing has changed'}"]
    if answer["needs_restart"]:
        lines.append(f"needs a restart: {', '.join(answer['needs_restart'])}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return seconds in the two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "-"
    return "-" if value is None else str(value)
