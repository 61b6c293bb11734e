"""Jobs behind a web application: POST /reports submits one, GET /reports/ID tells of it, DELETE cancels it.

uvicorn jobs_app:app             SIGNALD_URLS and TOKEN in the environment; STATE names a file; jobs_worker.py does the jobs

The application may be deployed too: the file has its session, and a client that asks again with its Idempotency-Key gets the same job.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from signald.sdk.asyncio import ApiRefused, Client, ClientState, Job, JobFailed, open_client

URLS = os.environ.get("SIGNALD_URLS", "ws://127.0.0.1:8080").split()
STATE = Path(os.environ.get("STATE", "jobs_app.state"))
DEADLINE_S = 600.0


class Text(BaseModel):
    """What a report is to be made of."""

    text: str


def load() -> ClientState | None:
    """Return the session that the application had before it was stopped, if there is one."""
    return msgspec.json.decode(STATE.read_bytes(), type=ClientState) if STATE.exists() else None


def save(state: ClientState) -> None:
    """Keep the session for the next start. Its recovery token is a secret."""
    STATE.touch(0o600)
    STATE.write_bytes(msgspec.json.encode(state))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one session of signald for as long as the application runs."""
    async with open_client(
        URLS, auth=os.environ.get("TOKEN"), jobs=True, want={"app": "reports"}, state=load()
    ) as client:
        app.state.client = client
        try:
            yield
        finally:
            save(client.state())


app = FastAPI(lifespan=lifespan)


@app.post("/reports", status_code=202)
async def submit(text: Text, request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> Any:
    """Submit a job. It is stored when this returns, whatever nodes come and go meanwhile."""
    client: Client = request.app.state.client
    try:
        job = await client.submit("report", {"text": text.text}, key=idempotency_key, deadline_s=DEADLINE_S)
    except ApiRefused as refused:
        raise HTTPException(refused.status, refused.title) from None
    return {"id": job.id}


@app.get("/reports/{name}")
async def read(name: str, request: Request) -> Any:
    """Tell how far a job is, and its result when it has ended."""
    job = _job(name, request)
    shown: dict[str, Any] = {"state": job.state, "progress": job.progress, "attempt": job.attempt}
    if job.state in ("queued", "running"):
        return shown
    try:
        return {**shown, "result": await job.result()}
    except JobFailed as failed:
        return {**shown, "error": {"code": failed.code, "message": failed.message}}


@app.delete("/reports/{name}", status_code=202)
async def cancel(name: str, request: Request) -> Any:
    """Ask the worker for the end of a job."""
    await _job(name, request).cancel()
    return {}


def _job(name: str, request: Request) -> Job:
    client: Client = request.app.state.client
    try:
        return client.job(name)
    except ValueError:
        raise HTTPException(404, "there is no such report") from None
