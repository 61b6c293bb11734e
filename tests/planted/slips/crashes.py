"""Slips that show when a process dies between a request and its answer: the crash explorer must notice them, because no seed does."""

from tests.planted.bug import Bug

_ROUTE = "signald/http/api/jobs.py"
_JOB_RULES = "signald/store/session/jobs/rules.py"
_EXPLORER = "tests/crash/test_crash.py::test_killed_at_any_step"

CRASHES = (
    Bug(
        "payload-of-a-key-with-its-host",
        _ROUTE,
        "_Submitting.submission",
        "_digest(content_type.encode(), self.request.url.query.encode(), self.body)",
        "_digest(content_type.encode(), str(self.request.url).encode(), self.body)",
        "job-once",
        "A request that is made again at the address of another node is another request, and is refused with 422.",
        (f"{_EXPLORER}[submit-old-store]",),
    ),
    Bug(
        "no-job-while-the-client-is-away",
        _JOB_RULES,
        "create_job",
        "if opened is None or opened.record is None:",
        "if opened is None or opened.record is None or not opened.record.client.node:",
        "job-once",
        "A session whose client has lost its connection takes no job, and does not find one that it has.",
        (f"{_EXPLORER}[submit-c0-frame]",),
    ),
)
