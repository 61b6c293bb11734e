"""A worker that does jobs: the other side of jobs_app.py.

python jobs_worker.py [URL ...]          TOKEN in the environment, where the nodes ask for one
"""

import asyncio
import os
import sys

from signald.sdk.asyncio import WorkerJob, WorkerSession, run, run_worker

URLS = sys.argv[1:] or ["ws://127.0.0.1:8080"]
WORD_S = 0.2


async def report(job: WorkerJob) -> object:
    """Measure a text word by word. A deploy of signald in the middle does not start the job again; the loss of this worker does."""
    words = job.data["text"].split()
    letters = 0
    for number, word in enumerate(words, 1):
        if job.cancelled.is_set():
            return None
        await asyncio.sleep(WORD_S)
        letters += len(word)
        await job.progress({"done": number, "of": len(words)})
    return {"words": len(words), "letters": letters, "attempt": job.attempt}


async def session(session: WorkerSession) -> None:
    """Stay for the jobs of a session; the end of this handler would end the session."""
    async for _ in session:
        pass


async def main() -> None:
    """Serve ten applications at a time, and any number of jobs of each."""
    await run_worker(
        URLS,
        session,
        instance_id="reports-1",
        capacity=10,
        labels={"app": "reports"},
        on_job={"report": report},
        auth=os.environ.get("TOKEN"),
    )


if __name__ == "__main__":
    run(main)
