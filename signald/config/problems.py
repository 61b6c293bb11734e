"""The problems of a configuration: all at once, each with its place and a remedy."""

import difflib
from collections.abc import Iterable, Sequence

import attrs


@attrs.frozen
class Problem:
    """One problem of the configuration. Never contains the value of a secret key."""

    where: str
    """`file:line` or the name of an environment variable; "" when it belongs to no place."""
    key: str
    """`section.key`, or "" when the problem is not about one key."""
    message: str
    absent: bool = False
    """The problem is a file that is missing here, and may exist on the machine that runs signald, such as a secret."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for the valid word nearest to `word`, or "" when none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
