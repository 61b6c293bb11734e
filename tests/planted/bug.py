"""One planted bug, as data."""

import attrs


@attrs.frozen
class Bug:
    """One slip: in a function of a file, one text is replaced by another."""

    name: str
    file: str
    function: str
    """Its qualified name; empty for a script that is one piece. See `place` for what counts as its text."""
    old: str
    """A text that the function has exactly once, without its layout."""
    new: str
    breaks: str
    """The invariant that is to notice; `liveness` for those after which a party waits for ever, `twin` for those of the Lua
    rules, which must say what the Python rules say, `js` for those of the client in JavaScript, which its own tests notice."""
    story: str
    noticed_by: tuple[str, ...] = ()
    """The tests that are to notice, as arguments of pytest; empty: the seeds of the simulation."""
