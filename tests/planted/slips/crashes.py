"""Slips that show when a process dies between a request and its answer. The crash explorer must notice them."""

from tests.planted.bug import Bug

_ROUTE = "signald/http/api/jobs.py"
_EXPLORER = "tests/crash/test_crash.py::test_killed_at_any_step"
_AROUND = "tests/crash/test_crash.py::test_killed_around_an_operation"

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
    Bug(
        "event-dropped-before-it-is-told",
        "signald/service/telling/turn.py",
        "Turn._send",
        "attempt = await self._receiver.tell(message_of(self._item.name, event))",
        "self._sent = event.n; await self._drop(); "
        "attempt = await self._receiver.tell(message_of(self._item.name, event))",
        "event-told",
        "The store drops an event whose attempt is not over: with the node it is lost.",
        (f"{_EXPLORER}[tell-old-post]",),
    ),
    Bug(
        "ended-session-forgotten-before-its-queue-is-due",
        "signald/store/sagas.py",
        "forget_session",
        "(Schedule('e', (session,), now_ms, now_ms), forget) if told",
        "(forget, Schedule('e', (session,), now_ms, now_ms)) if told",
        "event-told",
        "A node is killed between the two, and no node looks for the queue of a session that is over.",
        (f"{_AROUND}[tell-old-EndSession-1]",),
    ),
    Bug(
        "blob-whole-before-its-bytes",
        "signald/service/uploads.py",
        "Uploads._write",
        "await writing.finish()",
        "await self._finish(way, size, digest.digest()); await writing.finish()",
        "whole-blob",
        "A record is finished before the media have kept the bytes: a node killed between the two leaves a blob that cannot be read.",
        (f"{_EXPLORER}[upload-old-media]",),
    ),
)
