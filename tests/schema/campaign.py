"""schemathesis on a served `/openapi.json`: every check, for each kind of caller.

Half of all ids in requests are real ones, so that requests get behind 404. The others, and everything else, are drawn from the
document: what fits it must be taken, and what does not must be refused.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import httpx2
import trio

from tests.schema.served import Caller, Served

REAL_IDS = 0.5
"""Share of the ids in requests that exist."""

EXCEPTIONS: Sequence[tuple[Mapping[str, str], str, str]] = (
    (
        {"include-path": "/v1/jobs", "include-method": "POST"},
        "missing_required_header.expected-statuses = [400, 401, 403, 404, 413, 415]",
        "a session that is not there is told before a key that is missing",
    ),
    (
        {"include-path": "/v1/jobs"},
        'positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 422, 429, "5xx"]',
        "only a service and a person have to name the session: the document is the same for all callers; and a key may be taken (422)",
    ),
    (
        {"include-path": "/v1/blobs"},
        'positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 422, 429, "5xx"]',
        "a digest that is drawn is hardly ever that of the body; a session must be named by some callers; and a key may be taken (422)",
    ),
    (
        {"include-path": "/v1/blobs/{blob}"},
        'positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 412, 416, 429, "5xx"]',
        "a worker must name a session; and conditions and ranges are held to the bytes (412, 416)",
    ),
    *(
        (
            {"include-path": path},
            'positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 422, 429, "5xx"]',
            "data or changes, one of them; a session for some callers; a room may be full, and one of a user is read only; keys are taken",
        )
        for path in ("/v1/rooms/{room}", *(f"/v1/rooms/{{room}}/{rest}" for rest in ("history", "messages", "state")))
    ),
    (
        {"include-name": "GET /v1/jobs/{job}/result"},
        "ensure_resource_availability.enabled = false",
        "a job that has just been stored has no result yet, or never",
    ),
    (
        {"include-name": "GET /v1/sessions/{session}/history"},
        "use_after_free.enabled = false",
        "a chat history outlives its session",
    ),
    *(
        (
            {"include-name": f"{method} /v1/jobs/{{job}}{rest}"},
            "use_after_free.enabled = false",
            "a cancelled job is kept, and shown",
        )
        for method, rest in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", ""))
    ),
)
"""(operations, setting of a check, why the contract is otherwise)."""


PASSES: Sequence[tuple[str, Sequence[str]]] = (
    ("sessions live on", ("--exclude-operation-id", "endSession")),
    ("sessions end", ()),
)
"""(name, filter of operations). The first request that ends a session would leave nothing but refusals to the other operations on it."""


@attrs.frozen
class Outcome:
    """What schemathesis has found as one caller."""

    caller: Caller
    failed: bool
    said: str


def configuration(served: Served, caller: Caller, examples: int, seed: int) -> str:
    """Return the file that schemathesis reads: credentials never stand on a command line."""
    hooks = json.dumps(str(Path(__file__).parent / "hooks.py"))
    lines = [f"seed = {seed}", f"hooks = {hooks}", "[generation]", f"max-examples = {examples}", 'database = "none"']
    if served.credentials[caller]:
        lines += ["[headers]", f"Authorization = {json.dumps('Bearer ' + served.credentials[caller])}"]
    for name, values in served.ids.items():
        # Half of those that a client names are its own: it is refused for all others.
        own = [one for one in values if caller == "client" and served.is_first(name, one)]
        lines += [
            f"[dictionaries.{name}]",
            f"values = {json.dumps([*values, *(own * (len(values) // max(1, len(own))))])}",
        ]
    for name in served.ids:
        for place in ("path", "query"):
            lines += [f'[parameters."{place}.{name}"]', f'dictionary = "{name}"', f"probability = {REAL_IDS}"]
    for operation, check, _ in EXCEPTIONS:
        lines += ["[[operations]]", *(f"{key} = {json.dumps(value)}" for key, value in operation.items())]
        lines += [f"checks.{check}"]
    return "\n".join(lines) + "\n"


async def run(
    served: Served,
    caller: Caller,
    examples: int,
    seed: int,
    folder: Path,
    document: Path | None = None,
    filters: Sequence[str] = (),
) -> Outcome:
    """Test every operation that `filters` leave as `caller`, by the document that the node serves, or by another one."""
    file = folder / f"{caller}.toml"
    file.write_text(configuration(served, caller, examples, seed))
    command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(file), "run"]
    where = [str(document), "--url", served.url] if document else [f"{served.url}/openapi.json"]
    # All checks are on by default; said on the command line, they would be on in spite of the exceptions.
    # Without a filter, the operation that serves the document would be left out.
    options = ["--include-path-regex", "^/", "--no-color", "--warnings", "off"]
    done = await trio.run_process(
        [*command, *where, *options, *filters],
        capture_stdout=True,
        check=False,
        cwd=folder,
    )
    return Outcome(caller, done.returncode != 0, done.stdout.decode(errors="replace"))


def cases(outcome: Outcome) -> int:
    """How many requests were made."""
    found = re.search(r"(\d+) generated", outcome.said)
    return int(found[1]) if found else 0


async def operations(served: Served) -> list[tuple[str, str]]:
    """The (method, path) that the document has."""
    document = await trio.to_thread.run_sync(lambda: httpx2.get(f"{served.url}/openapi.json").json())
    return sorted((method.upper(), path) for path, methods in document["paths"].items() for method in methods)


def faults(served: Served) -> list[str]:
    """What the node has logged as a fault of its own."""
    lines = served.node.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "request_failed" in line or "task_failed" in line or "Traceback" in line]
