"""`python -m tests.systemd.real --suite trixie`: the same tests under another systemd."""

import argparse
import sys
from pathlib import Path

import pytest

from tests.systemd.real.root import SUITES

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.systemd.real", description=__doc__)
    parser.add_argument("--suite", choices=list(SUITES), default="trixie")
    chosen, rest = parser.parse_known_args()
    sys.exit(pytest.main([str(Path(__file__).parent), f"--suite={chosen.suite}", *rest]))
