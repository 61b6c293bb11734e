"""Jobs over HTTP, at whole nodes: what a program that knows the contract alone sees."""

import json
from typing import Any

import trio

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.http.publicly import Answer, HttpPeer


class Api:
    """A program that asks nodes over HTTP, each request on a connection of its own."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        self.cluster = cluster
        self.token = token

    async def ask(
        self, node: str, method: str, target: str, body: bytes = b"", *, bearer: str | None = None, **headers: str
    ) -> Answer:
        """Send a request to `node` and return its answer."""
        lines = [f"{method} {target} HTTP/1.1", "host: a", f"content-length: {len(body)}"]
        token = self.token if bearer is None else bearer
        lines += [f"authorization: Bearer {token}"] if token else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        async with self.cluster.plain(node) as stream:
            peer = HttpPeer(stream)
            return await peer.ask("\r\n".join([*lines, "", ""]).encode() + body)

    async def submit(self, node: str, key: str, kind: str = "tts", data: Any = None, **more: Any) -> Answer:
        """Submit a job with JSON as its input."""
        fields = {name: more.pop(name) for name in ("deadline_ms", "session") if name in more}
        body = json.dumps({"kind": kind, "data": data, **fields}).encode()
        more = {"content_type": "application/json", "idempotency_key": key, **more}
        return await self.ask(node, "POST", "/v1/jobs", body, **more)


async def scene_of(cluster: Cluster, *nodes: str) -> tuple[Peer, Peer, str, Api]:
    """A client at the first node and a worker at the last one, paired: client, worker, session, a program with the client's token."""
    for node in nodes:
        await cluster.start(node)
    worker, _ = await cluster.worker(nodes[-1], jobs=["*"])
    client, started = await cluster.client(nodes[0], api=True)
    await worker.accept()
    return client, worker, started["session"], Api(cluster, started["api_token"])


async def end(worker: Peer, session: str, job: str, seq: int, data: Any, **more: Any) -> None:
    """The worker ends a job with its last piece."""
    said = {"type": "message", "session": session, "seq": seq, "data": data, "stream": job, "end": True, **more}
    await worker.send(said)


def test_submitted_and_shown() -> None:
    """202 with the job, its place and the queued state; any node shows it, lists it, and then how it runs."""

    async def scene(cluster: Cluster) -> None:
        _, worker, session, api = await scene_of(cluster, "n1", "n2", "n3")
        made = await api.submit("n2", "one", data={"text": "Hello"})
        job = made.json()
        assert (made.status, made.headers["location"], made.headers["retry-after"]) == (
            202,
            f"/v1/jobs/{job['job']}",
            "1",
        )
        assert {name: job[name] for name in ("session", "kind", "state", "attempt")} == {
            "session": session, "kind": "tts", "state": "queued", "attempt": 0,
        }  # fmt: skip
        assert job["created_at"].endswith("Z")
        assert "idempotency-replayed" not in made.headers
        given = await worker.expect("job")
        assert (given["job"], given["data"]) == (job["job"], {"text": "Hello"})
        await trio.sleep(1)
        shown = (await api.ask("n1", "GET", made.headers["location"])).json()
        assert (shown["state"], shown["attempt"]) == ("running", 1)
        assert (await api.ask("n2", "GET", "/v1/jobs")).json() == {"jobs": [shown]}
        assert (await api.ask("n2", "GET", "/v1/jobs?state=queued")).json() == {"jobs": []}

    play(scene)


def test_keys() -> None:
    """The same key and payload give the first body again; another payload 422; no key 400, a session that is not there 404 before it."""

    async def scene(cluster: Cluster) -> None:
        client, worker, _, api = await scene_of(cluster, "n1", "n2")
        first = await api.submit("n1", "one", data=1)
        await worker.expect("job")
        again = await api.submit("n2", "one", data=1)
        assert (again.status, again.headers["idempotency-replayed"], again.body) == (202, "true", first.body)
        assert (await api.submit("n2", "one", data=2)).status == 422
        assert (await api.ask("n1", "POST", "/v1/jobs", b'{"kind":"x"}')).json()["errors"][0][
            "field"
        ] == "idempotency-key"
        assert (await api.submit("n1", "two", kind="")).json()["errors"][0]["field"] == "kind"
        assert len((await api.ask("n1", "GET", "/v1/jobs")).json()["jobs"]) == 1
        await client.send({"type": "bye"})
        await client.expect("session_ended")
        assert (await api.ask("n1", "POST", "/v1/jobs", b"no JSON")).status in (400, 404)
        assert (await api.ask("n1", "POST", "/v1/jobs", b'{"kind":"x"}')).status == 404
        assert (await api.submit("n1", "three")).status == 404
        shown = await api.ask("n2", "GET", first.headers["location"])
        assert (shown.status, shown.json()["state"]) == (200, "cancelled")

    play(scene)


def test_refusals() -> None:
    """401 without a credential, 403 for another session's job, 404 for what is none, 413 for a long input, 429 for too many."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", jobs={"in_flight_max": 2}, limits={"message_bytes_max": 5000})
        worker, _ = await cluster.worker("n1", jobs=["*"])
        _, started = await cluster.client("n1", api=True)
        _, other = await cluster.client("n1", api=True)
        await worker.accept()
        api = Api(cluster, started["api_token"])
        assert (await api.ask("n1", "GET", "/v1/jobs", bearer="")).status == 401
        job = (await api.submit("n1", "one")).headers["location"]
        assert (await api.ask("n1", "GET", job, bearer=other["api_token"])).status == 403
        assert (await api.ask("n1", "GET", job[:-1] + "9")).json()["type"] == "urn:signald:problem:unknown-job"
        assert (await api.ask("n1", "GET", "/v1/jobs/j_x_1")).status == 404
        assert (await api.submit("n1", "big", data="x" * 4500)).status == 413
        assert (await api.submit("n1", "bigger", data="x" * 9000)).status == 413
        assert (await api.submit("n1", "one")).status == 202
        assert (await api.submit("n1", "two")).status == 202
        full = await api.submit("n1", "three")
        assert (full.status, full.headers["retry-after"]) == (429, "1")
        assert (await api.ask("n1", "DELETE", "/v1/jobs")).status == 405

    play(scene)


def test_the_query_is_read_beside_json() -> None:
    """A session in the query is held to its bound, also where the JSON of the body names the session."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        body = json.dumps({"kind": "tts", "session": session}).encode()
        for query, status in (("", 202), ("?session=" + "x" * 65, 400), ("?session=a&session=b", 400)):
            headers = {"content_type": "application/json", "idempotency_key": f"key{len(query)}"}
            answer = await api.ask("n1", "POST", "/v1/jobs" + query, body, **headers)
            assert answer.status == status
            assert status == 202 or answer.json()["errors"][0]["field"] == "session"

    play(scene)


def test_store_away() -> None:
    """Without the store 503 with Retry-After, and the same key makes one job once it is back."""

    async def scene(cluster: Cluster) -> None:
        _, worker, _, api = await scene_of(cluster, "n1", "n2")
        cluster.world.outage = "answers lost"
        away = await api.submit("n1", "one")
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        cluster.world.outage = ""
        await trio.sleep(2)
        made = await api.submit("n2", "one")
        assert made.status == 202
        assert (await worker.expect("job"))["job"] == made.json()["job"]
        assert len((await api.ask("n1", "GET", "/v1/jobs")).json()["jobs"]) == 1
        assert [frame for frame in await worker.quiet() if frame["type"] == "job"] == []

    play(scene)


def test_cancelled() -> None:
    """A job that is with its worker is being cancelled (202); one that has ended is shown (200)."""

    async def scene(cluster: Cluster) -> None:
        _, worker, _, api = await scene_of(cluster, "n1", "n2")
        job = (await api.submit("n1", "one")).headers["location"]
        await worker.expect("job")
        await trio.sleep(1)
        assert (await api.ask("n2", "DELETE", job)).status == 202
        assert (await worker.expect("job_cancel"))["reason"] == "requested"
        waited = await api.ask("n1", "GET", job, prefer="wait=30")
        assert (waited.json()["state"], waited.headers["preference-applied"]) == ("cancelled", "wait=30")
        again = await api.ask("n1", "DELETE", job)
        assert (again.status, again.json()["state"]) == (200, "cancelled")

    play(scene)


def test_waiting() -> None:
    """`Prefer: wait` answers when the time is over, with the state as it is; a submission then is 202 with the job as it was stored."""

    async def scene(cluster: Cluster) -> None:
        _, _, _, api = await scene_of(cluster, "n1", "n2")
        began = trio.current_time()
        made = await api.submit("n1", "one", prefer="wait=3")
        assert (made.status, made.json()["state"], made.headers["preference-applied"]) == (202, "queued", "wait=3")
        assert 3 <= trio.current_time() - began < 4
        shown = await api.ask("n2", "GET", made.headers["location"], prefer="respond-async, wait=100")
        assert shown.headers["preference-applied"] == "wait=60"
        expiring = await api.submit("n1", "two", deadline_ms=2000, prefer="wait=10")
        assert (expiring.status, expiring.json()["state"]) == (200, "expired")

    play(scene)


def test_succeeded() -> None:
    """The last piece ends the job: its data is the result, at `GET`, at `/result` and in the events; a waiting submission gets 200."""

    async def scene(cluster: Cluster) -> None:
        client, worker, session, api = await scene_of(cluster, "n1", "n2")
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                answers.append(await api.submit("n1", "one", prefer="wait=30"))

            nursery.start_soon(submit)
            job = (await worker.expect("job"))["job"]
            await end(worker, session, job, 1, {"url": 1}, attempt=1)
        assert (answers[0].status, answers[0].json()["state"], answers[0].json()["result"]) == (
            200,
            "succeeded",
            {"url": 1},
        )
        assert (await client.expect("message"))["data"] == {"url": 1}
        frame = await client.expect("job_state")
        while frame["state"] != "succeeded":
            frame = await client.expect("job_state")
        result = await api.ask("n2", "GET", f"/v1/jobs/{job}/result")
        assert (result.body, result.headers["content-type"]) == (b'{"url": 1}', "application/json")
        replayed = await api.submit("n2", "one", prefer="wait=1")
        assert (replayed.status, replayed.headers["idempotency-replayed"]) == (200, "true")

    play(scene)


def test_result_of_bytes() -> None:
    """Bytes stand at `result_url`, with the content type that the worker gave them."""

    async def scene(cluster: Cluster) -> None:
        _, worker, session, api = await scene_of(cluster, "n1", "n2")
        made = await api.ask(
            "n1", "POST", "/v1/jobs?kind=echo", b"\x00\xff", idempotency_key="k", content_type="audio/ogg"
        )
        assert made.status == 202
        given = await worker.expect("job")
        assert (given["binary"], given["content_type"]) == (b"\x00\xff", "audio/ogg")
        header = {"type": "message", "session": session, "seq": 1, "stream": given["job"], "end": True}
        await worker.send_binary(b"\x01\x02", {**header, "content_type": "audio/ogg"})
        shown = (await api.ask("n1", "GET", made.headers["location"], prefer="wait=5")).json()
        assert shown["state"] == "succeeded"
        result = await api.ask("n2", "GET", shown["result_url"])
        assert (result.body, result.headers["content-type"]) == (b"\x01\x02", "audio/ogg")

    play(scene)


def test_result_in_a_blob() -> None:
    """A last piece that names a blob and has no data: the job shows where the blob is, and its result is the blob, in whole or in part."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, accepted = await cluster.worker("n1", jobs=["*"], api=True)
        _, started = await cluster.client("n1", api=True)
        await worker.accept()
        session, api = started["session"], Api(cluster, started["api_token"])
        job = (await api.submit("n1", "one")).json()["job"]
        await worker.expect("job")
        headers = {"bearer": accepted["api_token"], "content_type": "audio/ogg"}
        kept = await api.ask("n1", "POST", f"/v1/blobs?session={session}", b"a voice", **headers)
        await end(worker, session, job, 1, None, blob=kept.json()["blob"])
        shown = (await api.ask("n1", "GET", f"/v1/jobs/{job}", prefer="wait=5")).json()
        assert shown["state"] == "succeeded"
        assert shown["result_url"] == kept.headers["location"]
        assert "result" not in shown
        for target in (shown["result_url"], f"/v1/jobs/{job}/result"):
            result = await api.ask("n1", "GET", target)
            assert (result.status, result.body, result.headers["content-type"]) == (200, b"a voice", "audio/ogg")
            part = await api.ask("n1", "GET", target, range="bytes=2-")
            assert (part.status, part.body) == (206, b"voice")
        events = await api.ask("n1", "GET", f"/v1/jobs/{job}/events")
        assert f'"blob":"{kept.json()["blob"]}"'.encode() in events.body
        assert (await api.ask("n1", "DELETE", shown["result_url"])).status == 204
        assert (await api.ask("n1", "GET", f"/v1/jobs/{job}/result")).json()[
            "type"
        ] == "urn:signald:problem:unknown-blob"

    play(scene)


def test_no_result() -> None:
    """Unfinished 409; ended otherwise 404 with the error of the job."""

    async def scene(cluster: Cluster) -> None:
        _, worker, session, api = await scene_of(cluster, "n1", "n2")
        made = await api.submit("n1", "one")
        job = (await worker.expect("job"))["job"]
        assert (await api.ask("n1", "GET", f"/v1/jobs/{job}/result")).status == 409
        error = {"code": "no_voice", "message": "no such voice"}
        await end(worker, session, job, 1, None, outcome="failed", error=error)
        shown = (await api.ask("n1", "GET", made.headers["location"], prefer="wait=5")).json()
        assert (shown["state"], shown["error"]) == ("failed", error)
        result = await api.ask("n2", "GET", f"/v1/jobs/{job}/result")
        assert (result.status, result.json()["error"]) == (404, error)

    play(scene)


def events(answer: Answer) -> list[tuple[str, str, Json]]:
    """Return the events of an answer: kind, id, data."""
    found = []
    for block in answer.body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


def test_events() -> None:
    """Each piece is an event, the last is the end; a reader goes on behind the one it names, at any node, and is told when it has all."""

    async def scene(cluster: Cluster) -> None:
        _, worker, session, api = await scene_of(cluster, "n1", "n2")
        await api.submit("n1", "one")
        job = (await worker.expect("job"))["job"]
        followed: list[Answer] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                followed.append(await api.ask("n1", "GET", f"/v1/jobs/{job}/events"))

            nursery.start_soon(follow)
            await trio.sleep(1)
            for seq, text in enumerate(("Once ", "upon"), 1):
                said = {"type": "message", "session": session, "seq": seq, "stream": job, "fold": "text", "data": text}
                await worker.send(said)
                await trio.sleep(1)
            await end(worker, session, job, 3, " a time", fold="text")
        came = events(followed[0])
        assert [(kind, name) for kind, name, _ in came] == [
            ("message", "1"),
            ("message", "2"),
            ("message", "3"),
            ("end", "end"),
        ]
        assert came[0][2] == {"seq": 1, "attempt": 1, "data": "Once "}
        assert came[2][2] == {"seq": 3, "attempt": 1, "data": " a time", "end": True, "outcome": "complete"}
        assert came[3][2]["result"] == "Once upon a time"
        rest = await api.ask("n2", "GET", f"/v1/jobs/{job}/events", last_event_id="2")
        assert [name for _, name, _ in events(rest)] == ["3", "end"]
        assert [
            name for _, name, _ in events(await api.ask("n2", "GET", f"/v1/jobs/{job}/events", last_event_id="3"))
        ] == ["end"]
        assert (await api.ask("n2", "GET", f"/v1/jobs/{job}/events", last_event_id="end")).status == 204

    play(scene)


def test_events_end_with_a_drain() -> None:
    """A node that stops ends its streams after a whole event, and the reader goes on elsewhere."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n0")
        _, worker, session, api = await scene_of(cluster, "n1", "n2")
        await api.submit("n1", "one")
        job = (await worker.expect("job"))["job"]
        await worker.send({"type": "message", "session": session, "seq": 1, "stream": job, "data": 1})
        followed: list[Answer] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                followed.append(await api.ask("n0", "GET", f"/v1/jobs/{job}/events"))

            nursery.start_soon(follow)
            await trio.sleep(2)
            cluster.nodes["n0"].shutdown.signal()
        assert [name for _, name, _ in events(followed[0])] == ["1"]
        assert b"retry: " in followed[0].body
        assert followed[0].status == 200

    play(scene)
