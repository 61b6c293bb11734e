"""Options that differ between a developer's machine and production."""

import os
from collections.abc import Mapping
from typing import Generic, Literal, TypeVar, cast

from attrs import frozen

T = TypeVar("T")
Stage = Literal["dev", "prod"]

STAGE = "SIGNALD_WORKER_STAGE"
"""The environment variable that names the stage; `python -m signald.worker dev` sets it."""


@frozen
class Env(Generic[T]):
    """An option that is `dev` on the machine of a developer, and `prod` everywhere else."""

    dev: T
    prod: T


def stage(environment: Mapping[str, str] = os.environ) -> Stage:
    """Return the stage: `prod` unless the environment says `dev`, because a server is not to behave as a laptop by an omission.

    Raises:
        ValueError: it says something else.
    """
    said = environment.get(STAGE) or "prod"
    if said not in ("dev", "prod"):
        raise ValueError(f"{STAGE} is `dev` or `prod`, not {said!r}")
    return cast("Stage", said)


def chosen(option: "T | Env[T]") -> T:
    """Return an option as it is in the present stage.

    Raises:
        ValueError: as `stage`.
    """
    if isinstance(option, Env):
        return cast("T", option.dev if stage() == "dev" else option.prod)
    return option
