"""The first code of the program `signald`. It keeps signals during the imports, which take most of a second."""

import sys

from signald import early


def main() -> int:
    """Run the command line and return the exit code."""
    if sys.argv[1:2] == ["serve"]:
        early.keep()
    from signald.cli import main as run_command_line

    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
