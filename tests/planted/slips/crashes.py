"""Slips that show when a process dies between a request and its answer. The crash explorer must notice them."""

from tests.planted.bug import Bug

_ROUTE = "signald/http/api/jobs.py"
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
        "key-of-a-token",
        _ROUTE,
        "_Submitting.submission",
        "_digest(b'POST', b'/v1/jobs', headers.idempotency_key.encode())",
        "_digest(self.request.headers['authorization'].encode(), b'/v1/jobs', headers.idempotency_key.encode())",
        "job-once",
        "A key that is shown again with the next API token of its session makes a second job.",
        (f"{_EXPLORER}[submit-old-store]",),
    ),
    Bug(
        "nonce-of-a-node",
        "signald/service/api/jobs.py",
        "HttpJobs.submit",
        "new_nonce(context.entropy)",
        "context.node",
        "job-once",
        "A request that is made again at the node that has stored its job is not called a replay.",
        (f"{_EXPLORER}[submit-old-store]",),
    ),
)
