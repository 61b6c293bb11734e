"""The tests in a planted copy, in a process of their own: `python -m tests.planted.trial ARGUMENT...` prints which failed first.

The arguments are those of pytest. Hypothesis looks for no smaller example: that there is one is all that counts.
"""

import json
import sys
from pathlib import Path

import pytest


class _Failed:
    """Hears of the first test that fails."""

    def __init__(self) -> None:
        self.test = ""

    def pytest_sessionstart(self) -> None:
        """Look where signald is, and set Hypothesis up: both are imported only now, as pytest wants it."""
        from hypothesis import Phase, settings

        import signald

        # What is tested must be the copy, however signald was installed.
        assert Path(signald.__file__).is_relative_to(Path.cwd()), signald.__file__
        settings.register_profile("trial", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
        settings.load_profile("trial")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hear of one phase of one test."""
        if report.failed and not self.test:
            self.test = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Hear of a file that cannot even be read: a mistake of the campaign, or a slip that does not compile."""
        if report.failed:
            raise pytest.UsageError(str(report.longrepr))


def main() -> int:
    """Run; the status is 0 when the tests were run, whatever came of them."""
    failed = _Failed()
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]], plugins=[failed])
    print()
    print(json.dumps({"test": failed.test}))
    return 0 if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(status)


if __name__ == "__main__":
    sys.exit(main())
