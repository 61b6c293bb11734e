"""The time between SIGTERM and SIGKILL that the pods of Kubernetes manifests are granted."""

import re
from collections.abc import Iterator
from typing import Any

import attrs
import yaml

from signald.config.problems import Problem

DEFAULT_GRACE_S = 30.0
"""terminationGracePeriodSeconds of a pod that does not say it."""

# Where a kind keeps its pod.
_template_of = {
    "Pod": (),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Rollout"), ("spec", "template")),
}
# A container without a name of its own is signald's if it runs it.
_runs_signald = re.compile(r"(^|[/\s])signald($|[@:\s-])")
_quantity = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i|[kMGT]|)")
_multiples = {
    "": 1.0,
    **{unit: 1000.0**power for power, unit in enumerate("kMGT", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", 1)},
}
_plain_sleep = re.compile(r"(?:\S*/)?sleep\s+([0-9]+(?:\.[0-9]+)?)s?")


@attrs.frozen
class Pod:
    """How the pods of one manifest are stopped."""

    name: str
    """Kind and name."""
    grace_s: float
    pre_stop_s: float
    note: str
    """Why this grace holds where the manifest does not say it, for people; else ""."""
    memory_bytes: float | None = None
    """The memory limit of signald's container; None where there is none."""


def read_pods(where: str, text: str, problems: list[Problem]) -> Iterator[Pod]:
    """Yield the pods of the documents in `text`; what cannot be judged is added to `problems`."""
    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problems.append(Problem(where, "", f"is no YAML: {' '.join(str(error).split())}"))
        return
    found = False
    for document in _flat(documents):
        path = _template_of.get(str(document.get("kind")))
        pod = _dig(document, *path, "spec") if path is not None else None
        if not isinstance(pod, dict) or not isinstance(pod.get("containers"), list):
            continue
        found = True
        name = f"{document['kind']}/{_dig(document, 'metadata', 'name')}"
        try:
            yield _pod(name, pod)
        except ValueError as error:
            problems.append(Problem(where, name, str(error)))
    if not found:
        problems.append(Problem(where, "", "holds no pod: give the manifest of the Deployment or Rollout"))


def _flat(documents: list[Any]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if not isinstance(document, dict):
            continue
        items = document.get("items")
        if isinstance(items, list):
            yield from _flat(items)
        else:
            yield document


def _dig(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _pod(name: str, pod: dict[str, Any]) -> Pod:
    grace, note = pod.get("terminationGracePeriodSeconds"), ""
    if grace is None:
        grace, note = DEFAULT_GRACE_S, ", the default of Kubernetes"
    containers = [one for one in pod["containers"] if isinstance(one, dict)]
    # Hooks run beside each other. If none is known as signald's, it may be any.
    hooks = [_pre_stop_s(one) for one in containers if _is_signald(one)] or [_pre_stop_s(one) for one in containers]
    memory = [limit for one in containers if _is_signald(one) and (limit := _memory_bytes(one)) is not None]
    grace_s = _seconds(grace, "terminationGracePeriodSeconds")
    return Pod(name, grace_s, max(hooks, default=0.0), note, min(memory, default=None))


def _is_signald(container: dict[str, Any]) -> bool:
    if container.get("name") == "signald":
        return True
    words = [container.get("image"), *(container.get("command") or []), *(container.get("args") or [])]
    return any(_runs_signald.search(str(word)) for word in words)


def _memory_bytes(container: dict[str, Any]) -> float | None:
    limit = _dig(container, "resources", "limits", "memory")
    if limit is None:
        return None
    found = _quantity.fullmatch(str(limit))
    if found is None:
        raise ValueError(f"resources.limits.memory: expected a quantity such as 1Gi, got {limit!r}")
    return float(found.group(1)) * _multiples[found.group(2)]


def _pre_stop_s(container: dict[str, Any]) -> float:
    hook = _dig(container, "lifecycle", "preStop")
    if not hook:
        return 0.0
    sleep = _dig(hook, "sleep", "seconds")
    if sleep is not None:
        return _seconds(sleep, "preStop.sleep.seconds")
    command = _dig(hook, "exec", "command")
    words = command[-1:] if isinstance(command, list) and command[1:2] == ["-c"] else command
    plain = _plain_sleep.fullmatch(" ".join(map(str, words)).strip()) if isinstance(words, list) else None
    if plain is None:
        raise ValueError("nobody can say how long its preStop hook takes: use preStop.sleep.seconds")
    return float(plain.group(1))


def _seconds(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{key}: expected a number of seconds, got {value!r}")
    return float(value)
