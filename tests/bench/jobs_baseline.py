"""The route that jobs are measured beside: `python -m tests.bench.jobs_baseline PORT REDIS_URL`.

uvicorn and Starlette answer `POST /v1/jobs` with 202 after one write to Redis. There is no check of the key, no worker, no result and
no bound.
"""

import asyncio
import json
import secrets
import sys

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def _serve(port: int, url: str) -> None:
    store = Redis.from_url(url)

    async def post(request: Request) -> JSONResponse:
        asked = json.loads(await request.body())
        job = f"j_{secrets.token_hex(12)}"
        await store.set(f"job:{job}", json.dumps({"kind": asked["kind"], "data": asked["data"], "state": "queued"}))
        return JSONResponse(
            {"job": job, "kind": asked["kind"], "state": "queued"},
            status_code=202,
            headers={"location": f"/v1/jobs/{job}", "retry-after": "1"},
        )

    app = Starlette(routes=[Route("/v1/jobs", post, methods=["POST"])])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
