"""What is wrong with a configuration, said so that it can be mended: all of it at once, each with its place."""

import difflib
from collections.abc import Iterable, Sequence

import attrs


@attrs.frozen
class Problem:
    """One thing to mend. Never contains the value of a secret key."""

    where: str
    """`file:line` or the name of an environment variable; "" when it belongs to no place."""
    key: str
    """`section.key`, or "" when it is not about one key."""
    message: str
    absent: bool = False
    """It is about a file that is not on this machine, such as a secret of the machine that is to run signald."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` says all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean "x"?` for the valid word nearest to `word`, or "" when none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
