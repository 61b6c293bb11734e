"""The comparison of `check-config --systemd` and `--k8s`: does a unit or a manifest grant the time that a drain needs?

systemd counts from its SIGTERM. Kubernetes counts from before the preStop hook, so the time of the hook is not granted. A
time that cannot be known, such as that of a hook that runs a program, is a problem as well, because it may be too short.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from signald.config.checks import drain_needs_s
from signald.config.manifests import read_pods
from signald.config.problems import Problem
from signald.config.sections import DrainConfig
from signald.config.units import read_unit

DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
"""A unit or a manifest larger than this is neither."""


@attrs.frozen
class Granted:
    """The time that one file grants between SIGTERM and SIGKILL."""

    where: str
    key: str
    seconds: float
    said: str
    """The derivation of the time, for a reader."""

    def problem(self, drain: DrainConfig) -> Problem | None:
        """Return the problem of this time; None when the drain fits."""
        needed, why = drain_needs_s(drain)
        if self.seconds < needed:
            message = f"{self.said}, the drain needs {needed:g} s ({why}): {needed - self.seconds:g} s too short"
            return Problem(self.where, self.key, message)
        if self.seconds < drain.stop_timeout_s:
            short = drain.stop_timeout_s - self.seconds
            message = f"{self.said}, drain.stop_timeout_s counts on {drain.stop_timeout_s:g} s: {short:g} s too short"
            return Problem(self.where, self.key, message)
        return None


def check_stop_timeouts(
    drain: DrainConfig, *, units: Sequence[Path], manifests: Sequence[Path], standard_input: str = ""
) -> list[Problem]:
    """Return what is wrong with the stop timeouts of a unit (the file and its drop-ins) and of manifests.

    The path "-" among the manifests means `standard_input`, for what kustomize has put together.
    """
    problems: list[Problem] = []
    granted: list[Granted] = []
    for read in (_of_units(units, problems), _of_manifests(manifests, standard_input, problems)):
        granted += read
    return problems + [found for one in granted if (found := one.problem(drain)) is not None]


def _of_units(paths: Sequence[Path], problems: list[Problem]) -> Iterator[Granted]:
    texts: list[tuple[str, str]] = []
    for path in paths:
        text = read_document(path, problems)
        if text is not None:
            texts.append((str(path), text))
    if not texts:
        return
    unit = read_unit(texts)
    problems += unit.problems
    if not unit.problems:
        yield Granted(unit.where, unit.key, unit.stop_s, f"grants {unit.stop_s:g} s{unit.note}")


def _of_manifests(paths: Sequence[Path], standard_input: str, problems: list[Problem]) -> Iterator[Granted]:
    for path in paths:
        text = standard_input if str(path) == "-" else read_document(path, problems)
        if text is None:
            continue
        where = "standard input" if str(path) == "-" else str(path)
        for pod in read_pods(where, text, problems):
            hook = f" less {pod.pre_stop_s:g} s of preStop" if pod.pre_stop_s else ""
            said = f"grants {pod.grace_s - pod.pre_stop_s:g} s ({pod.grace_s:g} s{pod.note}{hook})"
            yield Granted(where, f"{pod.name}: terminationGracePeriodSeconds", pod.grace_s - pod.pre_stop_s, said)


def read_document(path: Path, problems: list[Problem]) -> str | None:
    """Return the text of a unit or a manifest; None, and one of `problems` more, when it cannot be read."""
    try:
        with path.open("rb") as opened:
            data = opened.read(DOCUMENT_BYTES_MAX + 1)
        if len(data) <= DOCUMENT_BYTES_MAX:
            return data.decode()
        problems.append(Problem(str(path), "", f"is larger than {DOCUMENT_BYTES_MAX} bytes"))
    except OSError as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), "", f"is no text file: {error}"))
    return None
