"""The messages of a worker about itself and about its assignments, as JSON. No I/O."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from signald.sdk.values import check_labels, check_text, write
from signald.wire.fields import KIND_MAX, NAME_MAX, REASON_MAX
from signald.wire.messages import KINDS_MAX


class Registration:
    """The options of the application that stand in each opening message of a worker."""

    __slots__ = ("_config", "_instance_id", "_kinds", "_labels")

    def __init__(
        self, instance_id: str, labels: Mapping[str, str], config: object, jobs: Sequence[str], depth_max: int
    ) -> None:
        """`jobs`: the kinds of jobs that it takes. Raises ValueError when an option is what signald would refuse."""
        if len(jobs) > KINDS_MAX:
            raise ValueError(f"a worker takes at most {KINDS_MAX} kinds of jobs, not {len(jobs)}")
        for kind in jobs:
            check_text("a kind of jobs", kind, KIND_MAX, 1)
        check_text("instance_id", instance_id, NAME_MAX, 1)
        check_labels("labels", labels)
        self._kinds = list(jobs)
        self._instance_id = instance_id
        self._labels = dict(labels)
        self._config = None if config is None else Raw(write(config, depth_max))

    def said(self, capacity: int, *, again: bool, api: bool) -> dict[str, object]:
        """Return the fields of an opening message. `again`: it is a resume. `api`: the worker asks for API tokens."""
        said: dict[str, object] = {
            "type": "app_ready",
            "instance_id": self._instance_id,
            "capacity": capacity,
            "reconnection": again,
        }
        if self._labels:
            said["labels"] = self._labels
        if self._config is not None:
            said["config"] = self._config
        if api:
            said["api"] = True
        if self._kinds:
            said["jobs"] = self._kinds
        return said


def app_state(capacity: int, load: float | None = None, *, leaving: bool, successor: bool = False) -> bytes:
    """Return the message about the room that a worker has. `successor`: it wants to know when others have room for its sessions."""
    said: dict[str, object] = {"type": "app_state", "capacity": capacity, "leaving": leaving}
    if successor:
        said["successor"] = True
    if load is not None:
        said["load"] = load
    return msgspec.json.encode(said)


def app_terminated(request_id: str, status: str, message: str) -> bytes:
    """Return the answer to a request to terminate."""
    said = {"type": "app_terminated", "request_id": request_id, "status": status, "message": message}
    return msgspec.json.encode(said)


def bye(reason: str) -> bytes:
    """Return the last message of a worker that leaves for good."""
    return msgspec.json.encode({"type": "bye", "reason": reason})


def session_accept(session: str, epoch: int | None) -> bytes:
    """Return the acceptance of an assignment."""
    return _answer({"type": "session_accept", "session": session}, epoch)


def session_refuse(session: str, reason: str, epoch: int | None, state: bytes | None = None) -> bytes:
    """Return the refusal of an assignment, or the release of a session, with the `state` for the next worker as JSON.

    The reason is cut to REASON_MAX.
    """
    said: dict[str, object] = {"type": "session_refuse", "session": session, "reason": reason[:REASON_MAX]}
    return _answer(said if state is None else {**said, "state": Raw(state)}, epoch)


def _answer(said: dict[str, object], epoch: int | None) -> bytes:
    """Answer an assignment with its epoch, so that the answer does not count for a later assignment."""
    return msgspec.json.encode(said if epoch is None else {**said, "epoch": epoch})
