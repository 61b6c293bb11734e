"""The exit codes of every command: one number, one meaning. docs/operations.md shows this table to the letter.

Numbers up to 78 are those of sysexits.h, which systemd names in its log. Those above are signald's own.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command of signald ends with."""

    OK = 0
    ERROR = 1
    USAGE = 64
    NO_SUCH_THING = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    ADDRESS = 71
    OUTPUT = 74
    NOT_NOW = 75
    NO_SIGNALD = 76
    NOT_ALLOWED = 77
    CONFIGURATION = 78
    CONDITION_HOLDS = 79
    NO_DRAIN = 80
    STATE = 81
    INVALID_TOKEN = 82
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "drained and stopped; or the command has done what it was asked",
    ExitCode.ERROR: "`demo`: a party noticed a deploy. Others: an error of signald's own, with a traceback",
    ExitCode.USAGE: "wrong usage of the command line",
    ExitCode.NO_SUCH_THING: "`ctl`: no such session, room, app or receipt",
    ExitCode.NO_INPUT: "`ctl`: a file that the command line names cannot be read",
    ExitCode.UNAVAILABLE: "what the command needs does not answer: `serve` its store, `ctl` a node; or the extra `server` is not installed",
    ExitCode.SOFTWARE: "an error of signald's own ended the node, or a node answered `ctl` with one",
    ExitCode.ADDRESS: "`serve`: an address, or the path of the admin socket, cannot be used (taken, not permitted, read-only)",
    ExitCode.OUTPUT: "what the command prints cannot be written: a full disk. A node never ends over its log",
    ExitCode.NOT_NOW: "not now: the same command may succeed later. `serve`: another live process holds `node.id`. "
    "`ctl`: not all parties have moved in time, or the node is starting, or its store is away",
    ExitCode.NO_SIGNALD: "`ctl`: what answers is no signald",
    ExitCode.NOT_ALLOWED: "`ctl`: the admin token is missing or wrong",
    ExitCode.CONFIGURATION: "the configuration, or the store as it is set up, can never work. Restarting does not help",
    ExitCode.CONDITION_HOLDS: "`ctl receipt --fail-if`: a condition holds",
    ExitCode.NO_DRAIN: "`ctl abort`: the node does not drain, so there is nothing to call off",
    ExitCode.STATE: "`ctl`: the state of the node or session excludes the command: a signal has begun the drain, the node was started "
    "without a configuration that can be read again, the session is not set aside, the app is not connected, or no subject can be revoked",
    ExitCode.INVALID_TOKEN: "`token inspect`: a node refuses the token, for the reasons that were printed",
    ExitCode.INTERRUPTED: "`demo`: interrupted, as shells say it of SIGINT",
}
"""As in docs/operations.md."""
