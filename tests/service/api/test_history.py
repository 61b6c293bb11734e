"""The chat history of a session over HTTP, and requests to end its streams."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from signald.core.callers import ALL, Caller
from signald.core.head import Party
from signald.core.log import Entry
from signald.http.api.times import rfc3339
from signald.ids import job_id
from signald.store.session.jobs.ops import CreateJob, JobRead, ReadJob
from signald.store.session.ops import Append, Appended
from signald.store.session.streams.ops import OpenStreams, Streams
from signald.testing.cluster import Cluster, play
from tests.service.api.asker import Asker
from tests.store.ops import piece

Asking = Callable[[Cluster], Asker]


def text(seq: int, more: str = "", at_ms: int = 0) -> Entry:
    """A message of the chat, as a node stores it."""
    at = f',"at_ms":{at_ms}' if at_ms else ""
    return Entry(seq, f't"seq":{seq}{at}{more},"data":"m{seq}"}}'.encode(), True)


def say(cluster: Cluster, session: str, party: Party, *entries: Entry) -> None:
    """Store entries, as the node of the party does."""
    head = cluster.nodes["n1"].hub.sessions[session].head()
    epoch = head.client_epoch if party == "client" else head.worker_epoch
    now = cluster.world.now_ms()
    append = Append(session, party, "n1", epoch, entries, 0, 100, 1000, 1 << 20, now)
    (result,) = cluster.world.execute([append])
    assert isinstance(result, Appended)


async def page(asker: Asker, session: str, query: str = "", by: Caller | None = None) -> dict[str, Any]:
    """Return a page of the history."""
    told = await asker("GET", f"/{session}/history{query}", by=by)
    assert told.status == 200, told.body
    body: dict[str, Any] = told.json()
    return body


def test_messages_are_shown(asking: Asking) -> None:
    """Each entry says from which party it came, its seq, when it arrived, its kind, and its data with the bytes it was sent with."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, _, session = await cluster.pair("n1")
        now = cluster.world.now_ms()
        say(cluster, session, "client", text(1, at_ms=now), text(2, ',"kind":"chat","blob":"b_1"'))
        say(cluster, session, "worker", text(1, ',"history":true,"trace":"t"', now + 5))
        assert await page(asker, session) == {
            "entries": [
                {"from": "client", "seq": 1, "data": "m1", "at": rfc3339(now)},
                {"from": "client", "seq": 2, "data": "m2", "at": None, "kind": "chat", "blob": "b_1"},
                {"from": "worker", "seq": 1, "data": "m1", "at": rfc3339(now + 5)},
            ]
        }

    play(scene)


def test_the_blob_of_a_message_is_carried_and_shown(asking: Asking) -> None:
    """The peer, the next worker and a reader over HTTP see which blob a message is about, whether or not there is one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        client, _, worker, _, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": None, "blob": "b_voice"})
        assert (await worker.expect("message"))["blob"] == "b_voice"
        await client.send_binary(b"\x01", {"type": "message", "seq": 2, "blob": "b_voice"})
        assert (await worker.expect("message"))["blob"] == "b_voice"
        await worker.send({"type": "message", "session": session, "seq": 1, "data": 2, "blob": "b_answer"})
        assert (await client.expect("message"))["blob"] == "b_answer"
        shown = (await page(asker, session))["entries"]
        assert [(entry["from"], entry["blob"]) for entry in shown] == [("client", "b_voice"), ("worker", "b_answer")]

    play(scene)


def test_a_stream_is_one_entry(asking: Asking) -> None:
    """A text that grows stands where it began, with all that was said of it so far, and says when it is over."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, _, session = await cluster.pair("n1")
        say(cluster, session, "worker", piece(1, 'say "he'), piece(2, "llo\n"))
        (entry,) = (await page(asker, session))["entries"]
        assert entry.pop("at") is not None
        assert entry == {"from": "worker", "seq": 2, "data": 'say "hello\n', "stream": "a", "attempt": 1, "open": True}
        say(cluster, session, "worker", piece(3, '"', end="complete"))
        (entry,) = (await page(asker, session))["entries"]
        assert (entry["data"], entry["outcome"], "open" in entry) == ('say "hello\n"', "complete", False)

    play(scene)


def test_pages_go_back(asking: Asking) -> None:
    """The first page has the last entries, oldest first; `next` leads to those before, and the oldest page has none."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, _, session = await cluster.pair("n1")
        say(cluster, session, "client", *[text(seq) for seq in range(1, 8)])
        seen, query = [], "?limit=3"
        for _ in range(3):
            found = await page(asker, session, query)
            seen.append([entry["seq"] for entry in found["entries"]])
            query = f"?limit=3&before={found.get('next')}"
        assert (seen, "next" in found) == ([[5, 6, 7], [2, 3, 4], [1]], False)
        assert (await page(asker, session, "?before=1"))["entries"] == []
        for wrong in ("?limit=0", "?limit=201", "?before=x", "?before="):
            assert (await asker("GET", f"/{session}/history{wrong}")).status == 400, wrong

    play(scene)


def test_who_may_read_it(asking: Asking) -> None:
    """The client of the session and the worker that has it may; another worker and another client find nothing."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, accepted, session = await cluster.pair("n1")
        say(cluster, session, "client", text(1))
        for by, status in (
            (Caller("client", "", "", session=session), 200),
            (Caller("client", "", "", session="s_" + "b" * 24), 403),
            (Caller("worker", "", "", worker=accepted["worker"]), 200),
            (Caller("worker", "", "", worker="w_other"), 404),
            (Caller("person", "bob", "bob"), 404),
        ):
            assert (await asker("GET", f"/{session}/history", by=by)).status == status, by
        assert (await asker("GET", f"/s_{'a' * 24}/history")).status == 404

    play(scene)


@pytest.mark.parametrize("how", ["bye", "order", "expiry", "worker"])
def test_an_ended_session_is_still_read(asking: Asking, how: str) -> None:
    """However a session ends, at any node its history is shown to whom it was, until an API token of it would have run out."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2"):
            await cluster.start(name, auth={"api_token_ttl_s": 300}, session={"resume_ttl_s": 60})
        asker = asking(cluster)
        client, _, worker, accepted, session = await cluster.pair("n1")
        say(cluster, session, "client", text(1), text(2))
        if how == "bye":
            await client.send({"type": "bye"})
        elif how == "worker":
            await worker.send({"type": "bye", "session": session})
        elif how == "order":
            assert await cluster.nodes["n2"].hub.parts.endings.by_order(session, "enough", "operator")
        else:
            client.cut()
            await trio.sleep(90)
        await trio.sleep(5)
        assert cluster.world.rows.is_empty_of(session)
        own = Caller("client", "", "", session=session)
        for at in ("n1", "n2"):
            assert (await asker("GET", f"/{session}", at=at, by=own)).status == 404
            for by, status in (
                (own, 200),
                (Caller("worker", "", "", worker=accepted["worker"]), 200),
                (Caller("worker", "", "", worker="w_other"), 404),
                (Caller("person", "bob", "bob"), 404),
            ):
                assert (await asker("GET", f"/{session}/history", at=at, by=by)).status == status, by
        assert [entry["seq"] for entry in (await page(asker, session, by=own))["entries"]] == [1, 2]
        assert (await page(asker, session, "?limit=1", by=own))["next"]
        await trio.sleep(300)
        assert (await asker("GET", f"/{session}/history", by=own)).status == 404

    play(scene)


def test_a_damaged_entry_is_left_out(asking: Asking) -> None:
    """What cannot be read of a history spoils no other entry."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, _, session = await cluster.pair("n1")
        say(cluster, session, "client", text(1), Entry(2, b't"seq":2,"data":', True), text(3))
        assert [entry["seq"] for entry in (await page(asker, session))["entries"]] == [1, 3]

    play(scene)


@pytest.mark.parametrize("stream", ["a", "a/b c"])
def test_the_end_of_a_stream_is_asked_for(asking: Asking, stream: str) -> None:
    """The request is kept with the stream and its reason, the same again is harmless, and what is no stream is 404."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, _, _, _, session = await cluster.pair("n1")
        say(cluster, session, "worker", piece(1, "x", stream=stream))
        for body in ({"reason": "enough"}, {"reason": "again"}, None):
            assert (await asker("POST", f"/{session}/streams/{stream}/cancel", body)).status == 202
        (found,) = cluster.world.execute([OpenStreams(session)])
        assert isinstance(found, Streams)
        (view,) = found.streams
        assert (view.cancel, view.reason) == (True, "enough")
        assert (await asker("POST", f"/{session}/streams/none/cancel")).status == 404
        assert (await asker("POST", f"/s_{'a' * 24}/streams/{stream}/cancel")).status == 404
        assert (await asker("POST", f"/{session}/streams/{stream}/cancel", {"reason": "x" * 513})).status == 400
        assert (
            await asker("POST", f"/{session}/streams/{stream}/cancel", by=Caller("person", "bob", "bob"))
        ).status == 404

    play(scene)


def test_on_a_job_it_cancels_the_job(asking: Asking) -> None:
    """The id of a job of the session names its stream: the job is cancelled, at once while no worker has it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        asker = asking(cluster)
        _, started = await cluster.client("n1")
        session, digest, now = started["session"], bytes(32), cluster.world.now_ms()
        made = CreateJob(
            session, "n1", ALL, "once", digest, digest, "tts", b"1", "", "", False, 0, 100, 1000, 60_000, now
        )
        cluster.world.execute([made])
        await trio.sleep(1)
        assert (await asker("POST", f"/{session}/streams/{job_id(session, 1)}/cancel")).status == 202
        (read,) = cluster.world.execute([ReadJob(session, 1, ALL, "n1", now + 2000)])
        assert isinstance(read, JobRead)
        assert read.job.state == "cancelled"
        assert (await asker("POST", f"/{session}/streams/{job_id(session, 2)}/cancel")).status == 404

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_the_worker_hears_that_a_stream_is_to_end(asking: Asking, worker_at: str) -> None:
    """The request reaches the worker at once, also where it is attached to the node that was asked: a store wakes other nodes only."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        asker = asking(cluster)
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        message = {"type": "message", "session": session, "seq": 1, "stream": "a", "fold": "text", "data": "x"}
        await worker.send(message)
        await client.expect("message")
        assert (await asker("POST", f"/{session}/streams/a/cancel", {"reason": "enough"})).status == 202
        with trio.fail_after(1):
            assert (await worker.expect("stream_cancel"))["stream"] == "a"

    play(scene)
