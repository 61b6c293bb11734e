"""The first code of the program `signald`. It keeps signals during the imports, which take most of a second."""

import sys

from signald import early
from signald.exit_codes import ExitCode

NEEDS_SERVER = "signald needs the extra server: pip install 'signald[server]'"
"""What the program says where only the SDK is installed; the script `signald` comes with every wheel."""


def main() -> int:
    """Run the command line and return the exit code."""
    if sys.argv[1:2] == ["serve"]:
        early.keep()
    try:
        from signald.cli import main as run_command_line
    except ModuleNotFoundError as missing:
        # A missing file of signald itself is a fault of this code, and no extra would bring it.
        if missing.name is None or missing.name.partition(".")[0] == "signald":
            raise
        print(f"{NEEDS_SERVER} ({missing.name} is missing)", file=sys.stderr)
        return ExitCode.UNAVAILABLE

    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
