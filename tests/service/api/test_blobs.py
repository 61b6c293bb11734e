"""Blobs over HTTP, at whole nodes: what a program that knows the contract alone sees, and what is left of an upload that fails."""

import hashlib
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Any

import pytest
import trio

from signald.blobs.memory import MemoryMedia, MemoryWriting
from signald.core.wants import SEPARATOR
from signald.errors import MediaAway
from signald.ids import shelf_of_owner
from signald.service.api.blobs import REMOVAL_MS
from signald.service.shelves import POLL_S, Shelves
from signald.service.uploads import BYTES_PER_S, LEASE_S, PATIENCE_S
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.http.publicly import HttpPeer
from tests.service.api.blob_asker import AUDIO, Blobs, kept, media_of
from tests.service.test_http_callers import AUTH, jwt

VOICE = hashlib.shake_128(b"voice").digest(200_000)
"""Some pieces long, and without a pattern."""

SWEPT_S = POLL_S * 1.25 + 1
"""By then each node has looked at the agenda."""

LAPSED_S = LEASE_S + 60 + SWEPT_S
"""By then what a killed node has left of an upload is removed."""


async def scene_of(cluster: Cluster, *nodes: str, **sections: Any) -> tuple[Peer, Peer, str, Blobs]:
    """A client at the first node and a worker at the last one, paired: client, worker, session, a program with the client's token."""
    for node in nodes:
        await cluster.start(node, **sections)
    worker, _ = await cluster.worker(nodes[-1])
    client, started = await cluster.client(nodes[0], api=True)
    await worker.accept()
    return client, worker, started["session"], Blobs(cluster, started["api_token"])


def is_empty(cluster: Cluster, session: str) -> bool:
    """Tell whether nothing is left of the blobs of an anonymous session."""
    media = media_of(cluster)
    return (media.objects, media.bytes, kept(cluster, "", session)) == ({}, 0, (0, 0))


# --- what is kept -------------------------------------------------------------------------------------------------


def test_uploaded_and_read() -> None:
    """201 with its digest and end; any node gives all of it, or a part, or says that the reader has it."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        made = await api.upload("n1", VOICE)
        shown = made.json()
        assert (made.status, made.headers["location"]) == (201, f"/v1/blobs/{shown['blob']}")
        digest = hashlib.sha256(VOICE).hexdigest()
        assert {name: shown[name] for name in ("bytes", "content_type", "sha256")} == {
            "bytes": len(VOICE), "content_type": AUDIO, "sha256": digest,
        }  # fmt: skip
        assert shown["expires_at"] == "2023-12-14T22:13:20.000Z"
        told = await api.read("n2", shown["blob"])
        assert (told.status, told.body == VOICE) == (200, True)
        assert (told.headers["etag"], told.headers["content-type"]) == (f'"{digest}"', AUDIO)
        part = await api.read("n2", shown["blob"], range="bytes=70000-199999", if_range=f'"{digest}"')
        assert (part.status, part.body == VOICE[70_000:]) == (206, True)
        assert (await api.read("n1", shown["blob"], if_none_match=f'"{digest}"')).status == 304
        assert kept(cluster, "", session) == (1, len(VOICE))
        assert media_of(cluster).objects == {shown["blob"]: VOICE}

    play(scene)


def test_in_chunks_and_empty() -> None:
    """A body without a length, and one without bytes, are blobs as well."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        lines = f"POST /v1/blobs HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {api.token}\r\ntransfer-encoding: chunked\r\n\r\n"
        async with cluster.plain("n1") as stream:
            told = await HttpPeer(stream).ask(lines.encode() + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert told.json()["bytes"] == 5
        assert (await api.read("n1", told.json()["blob"])).body == b"abcde"
        empty = (await api.upload("n1", b"")).json()["blob"]
        read = await api.read("n1", empty)
        assert (read.status, read.body, read.headers["content-length"]) == (200, b"", "0")
        assert (await api.read("n1", empty, range="bytes=0-")).status == 416
        assert kept(cluster, "", session) == (2, 5)

    play(scene)


def test_removed() -> None:
    """204, and from then on 404 at any node; its bytes and its record go, and a second request is 404."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        blob = (await api.upload("n1", VOICE)).json()["blob"]
        assert await api.remove("n2", blob) == 204
        for node in ("n1", "n2"):
            assert (await api.read(node, blob)).json()["type"] == "urn:signald:problem:unknown-blob"
        assert await api.remove("n1", blob) == 404
        await trio.sleep(1)
        assert is_empty(cluster, session)
        assert sum(node.hub.blobs.shelves.removed for node in cluster.nodes.values()) == 1

    play(scene)


def test_removed_by_a_node_that_is_killed_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node deletes the bytes soon, and not only when the next blob of the shelf is over."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        blob = (await api.upload("n2", VOICE)).json()["blob"]
        stays = (await api.upload("n2", b"stays")).json()["blob"]
        await trio.sleep(LAPSED_S)
        with monkeypatch.context() as patch:
            patch.setattr(Shelves, "poke", lambda *_: cluster.kill("n1"))
            with suppress(EOFError, trio.BrokenResourceError):
                await api.remove("n1", blob)
        await trio.sleep(SWEPT_S + REMOVAL_MS / 1000)
        assert media_of(cluster).objects == {stays: b"stays"}
        assert kept(cluster, "", session) == (1, 5)

    play(scene)


def test_its_time_is_over() -> None:
    """After `blobs.keep_s` it is 404 at once, and removed a little later; the one that came after it stays."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2", blobs={"keep_s": 100.0})
        first = (await api.upload("n1", b"first")).json()["blob"]
        await trio.sleep(60)
        second = (await api.upload("n1", b"second")).json()["blob"]
        await trio.sleep(39)
        assert (await api.read("n1", first)).status == 200
        await trio.sleep(1.1)
        assert (await api.read("n1", first)).status == 404
        assert (await api.read("n1", second)).status == 200
        await trio.sleep(SWEPT_S)
        assert (await api.read("n1", second)).status == 200
        assert media_of(cluster).objects == {second: b"second"}
        assert kept(cluster, "", session) == (1, 6)
        await trio.sleep(100)
        assert is_empty(cluster, session)

    play(scene)


# --- callers ------------------------------------------------------------------------------------------------------


def test_callers() -> None:
    """A blob is its principal's: all sessions of it, their workers, the person and a backend may read it; no other may know of it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", auth=AUTH)
        await cluster.start("n2", auth=AUTH)

        async def client(subject: str, tenant: str = "acme") -> Json:
            _, started = await cluster.client("n1", auth=jwt(node, subject, "client", tenant=tenant), api=True)
            return started

        def asker(role: Any, subject: str, **claims: Any) -> Blobs:
            return Blobs(cluster, jwt(node, subject, role, **claims))

        worker, accepted = await cluster.worker("n2", auth=jwt(node, "wes", "worker", tenant="acme"), api=True)
        first = await client("ann")
        await worker.accept()
        second, stranger = await client("ann"), await client("bob")
        for _ in range(2):
            await worker.accept()
        sessions = [started["session"] for started in (first, second, stranger)]
        ann, again, bob = (Blobs(cluster, started["api_token"]) for started in (first, second, stranger))
        wes = Blobs(cluster, accepted["api_token"])
        blob = (await ann.upload("n1", VOICE)).json()["blob"]
        assert kept(cluster, f"acme{SEPARATOR}ann") == (1, len(VOICE))

        backend = asker("service", "back")
        for api, query in (
            (ann, ""), (again, ""), (wes, f"?session={sessions[0]}"), (wes, f"?session={sessions[1]}"),
            (backend, ""), (asker("service", "back", tenant="acme", scope=["blobs"]), ""), (asker("client", "ann", tenant="acme"), ""),
        ):  # fmt: skip
            assert (await api.read("n2", blob, query)).status == 200
        for api, query, status in (
            (bob, "", 404), (wes, f"?session={sessions[2]}", 404), (wes, "", 400), (wes, "?session=s_" + "z" * 24, 404),
            (ann, f"?session={sessions[1]}", 403), (asker("service", "back", tenant="other"), "", 404),
            (asker("service", "back", scope=["jobs"]), "", 403), (asker("client", "ann"), "", 404), (Blobs(cluster, ""), "", 401),
            (Blobs(cluster, first["recovery_token"]), "", 401),
        ):  # fmt: skip
            assert (await api.read("n2", blob, query)).status == status
            assert await api.remove("n2", blob, query) in (status, 403)
        assert await wes.remove("n2", blob, f"?session={sessions[0]}") == 403
        assert (await ann.read("n1", blob)).status == 200

        of_worker = (await wes.upload("n2", b"answer", f"?session={sessions[0]}")).json()["blob"]
        of_backend = (await backend.upload("n2", b"notice", f"?session={sessions[1]}")).json()["blob"]
        assert kept(cluster, f"acme{SEPARATOR}ann")[0] == 3
        for blob in (of_worker, of_backend):
            assert (await ann.read("n1", blob)).status == 200
        assert (await backend.upload("n1", b"x")).status == 400
        assert (await wes.upload("n1", b"x", "?session=s_" + "z" * 24)).status == 404
        assert await backend.remove("n1", of_worker) == 204
        assert await again.remove("n1", of_backend) == 204

    play(scene)


def test_an_anonymous_session() -> None:
    """Its blobs are its own: no other anonymous session has them, nor its worker in another session. They outlive it for its token."""

    async def scene(cluster: Cluster) -> None:
        client, _, _, api = await scene_of(cluster, "n1")
        worker, accepted = await cluster.worker("n1", "another", labels={"lang": "de"}, api=True)
        _, other = await cluster.client("n1", want={"lang": "de"}, api=True)
        await worker.accept()
        blob = (await api.upload("n1", VOICE)).json()["blob"]
        query = f"?session={other['session']}"
        own = (await Blobs(cluster, other["api_token"]).upload("n1", b"x")).json()["blob"]
        assert (await Blobs(cluster, accepted["api_token"]).read("n1", own, query)).status == 200
        assert (await Blobs(cluster, accepted["api_token"]).read("n1", blob, query)).status == 404
        assert (await Blobs(cluster, other["api_token"]).read("n1", blob)).status == 404
        assert await Blobs(cluster, other["api_token"]).remove("n1", blob) == 404
        assert (await Blobs(cluster, "").read("n1", blob)).status == 401
        await client.send({"type": "bye"})
        await client.expect("session_ended")
        assert (await api.read("n1", blob)).status == 200
        assert (await api.upload("n1", VOICE)).status == 404
        assert await api.remove("n1", blob) == 204

    play(scene)


def test_without_media() -> None:
    """A caller with a credential gets 501, and the rest of the API is there."""

    async def scene(cluster: Cluster) -> None:
        cluster.media = None
        _, _, session, api = await scene_of(cluster, "n1")
        blob = "b_" + "x" * 44
        for told in (
            await api.upload("n1", b"x"),
            await api.read("n1", blob),
            await api.ask("n1", "DELETE", f"/v1/blobs/{blob}"),
        ):
            assert (told.status, told.json()["type"]) == (501, "urn:signald:problem:no-blobs")
        assert (await Blobs(cluster, "").upload("n1", b"x")).status == 401
        assert (await api.ask("n1", "GET", f"/v1/sessions/{session}")).status == 200

    play(scene)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    """The same key and bytes give the first answer again, at any node. Other bytes or another type 422. A session has keys of its own."""

    async def scene(cluster: Cluster) -> None:
        _, worker, session, api = await scene_of(cluster, "n1", "n2")
        first = await api.upload("n1", VOICE, idempotency_key="k")
        again = await api.upload("n2", VOICE, idempotency_key="k")
        assert (again.status, again.headers["idempotency-replayed"], again.body) == (201, "true", first.body)
        assert again.headers["location"] == first.headers["location"]
        for data, headers in ((VOICE + b"x", {}), (VOICE, {"content_type": "audio/mp4"})):
            told = await api.upload("n2", data, idempotency_key="k", **headers)
            assert (told.status, told.json()["type"]) == (422, "urn:signald:problem:key-reused")
        _, other = await cluster.client("n1", api=True)
        await worker.accept()
        assert (await Blobs(cluster, other["api_token"]).upload("n1", b"x", idempotency_key="k")).status == 201
        assert (await api.upload("n1", VOICE, idempotency_key="l")).json()["blob"] != first.json()["blob"]
        assert kept(cluster, "", session) == (2, 2 * len(VOICE))
        assert await api.remove("n1", first.json()["blob"]) == 204
        anew = await api.upload("n1", VOICE, idempotency_key="k")
        assert anew.status == 201
        assert "idempotency-replayed" not in anew.headers

    play(scene)


def test_a_key_under_way() -> None:
    """While the first upload goes on, a second one with its key is 409 at any node, however long it lasts."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        async with api.begun("n1", 200_000, VOICE[:70_000], idempotency_key="k") as peer:
            at = 70_000
            for _ in range(15):
                await trio.sleep(5)
                told = await api.upload("n2", VOICE, idempotency_key="k")
                assert (told.status, told.json()["type"]) == (409, "urn:signald:problem:key-in-use")
                assert 1 <= int(told.headers["retry-after"]) <= 20
                await peer.send(VOICE[at : at + 8000])
                at += 8000
            await peer.send(VOICE[at:])
            made = await peer.answer()
        assert made.status == 201
        assert (await api.upload("n2", VOICE, idempotency_key="k")).body == made.body
        assert kept(cluster, "", session) == (1, len(VOICE))

    play(scene)


# --- what fails leaves nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_upload(tenth: int) -> None:
    """Cut at each tenth of its length, it leaves nothing, and the same key makes one blob at once."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        async with api.begun("n1", len(VOICE), VOICE[: len(VOICE) * tenth // 10], idempotency_key="k"):
            await trio.testing.wait_all_tasks_blocked()
            assert kept(cluster, "", session) == (1, len(VOICE))
        await trio.sleep(2)
        assert is_empty(cluster, session)
        made = await api.upload("n2", VOICE, idempotency_key="k")
        assert (made.status, "idempotency-replayed" in made.headers) == (201, False)
        assert kept(cluster, "", session) == (1, len(VOICE))
        assert (await api.read("n1", made.json()["blob"])).body == VOICE

    play(scene)


def test_a_wrong_digest() -> None:
    """400, and nothing is left; the right one passes."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        told = await api.upload("n1", VOICE, content_digest="sha-256=:" + "A" * 43 + "=:")
        assert (told.status, told.json()["type"]) == (400, "urn:signald:problem:wrong-digest")
        await trio.sleep(1)
        assert is_empty(cluster, session)

    play(scene)


def test_a_killed_node() -> None:
    """Its upload is 409 until its lease is over; then the key makes one blob, and another node removes what is left."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        async with api.begun("n2", len(VOICE), VOICE[:100_000], idempotency_key="k"):
            await trio.sleep(1)
            cluster.kill("n2")
            await trio.sleep(1)
            assert (await api.upload("n1", VOICE, idempotency_key="k")).status == 409
            await trio.sleep(LEASE_S)
            made = await api.upload("n1", VOICE, idempotency_key="k")
            assert made.status == 201
            assert kept(cluster, "", session)[0] == 2
            await trio.sleep(LAPSED_S)
        assert kept(cluster, "", session) == (1, len(VOICE))
        assert list(media_of(cluster).objects) == [made.json()["blob"]]
        assert (await api.upload("n1", VOICE, idempotency_key="k")).body == made.body

    play(scene)


def test_killed_between_the_bytes_and_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is killed when the bytes lie in the media, and the record does not say so: the bytes go."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        finish = MemoryWriting.finish

        async def finish_and_die(self: MemoryWriting) -> None:
            await finish(self)
            cluster.kill("n2")
            await trio.sleep_forever()

        with monkeypatch.context() as patch:
            patch.setattr(MemoryWriting, "finish", finish_and_die)
            async with api.begun("n2", 3, b"abc"):
                await trio.sleep(1)
        assert len(media_of(cluster).objects) == 1
        await trio.sleep(LAPSED_S)
        assert is_empty(cluster, session)

    play(scene)


@pytest.mark.parametrize("outage", ["answers lost", "down"])
@pytest.mark.parametrize("key", ["k", ""])
def test_the_answer_to_its_end_is_lost(monkeypatch: pytest.MonkeyPatch, outage: Any, key: str) -> None:
    """503. With a key its repetition is answered with one whole blob, which nothing removes; without, nothing is left."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        finish = MemoryWriting.finish

        async def finish_and_lose(self: MemoryWriting) -> None:
            await finish(self)
            cluster.world.outage = outage

        headers = {"idempotency_key": key} if key else {}
        with monkeypatch.context() as patch:
            patch.setattr(MemoryWriting, "finish", finish_and_lose)
            told = await api.upload("n1", VOICE, **headers)
        assert (told.status, told.headers["retry-after"]) == (503, "1")
        cluster.world.outage = ""
        await trio.sleep(3)
        if not key:
            await trio.sleep(LAPSED_S)
            assert is_empty(cluster, session)
            return
        again = await api.upload("n2", VOICE, **headers)
        assert (again.status, again.headers["idempotency-replayed"]) == (201, "true")
        await trio.sleep(LAPSED_S)
        assert (await api.read("n2", again.json()["blob"])).body == VOICE
        assert kept(cluster, "", session) == (1, len(VOICE))

    play(scene)


@pytest.mark.parametrize("outage", ["answers lost", "down"])
def test_the_store_is_away_as_it_begins(outage: Any) -> None:
    """503, and the same key makes one blob as soon as the store is back, or its lease is over."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        async with api.begun("n1", 3, b"") as peer:
            await trio.testing.wait_all_tasks_blocked()
            cluster.world.outage = outage
            told = await api.upload("n1", VOICE, idempotency_key="k")
            assert (told.status, told.headers["retry-after"]) == (503, "1")
            cluster.world.outage = ""
            await trio.sleep(2)
            await peer.send(b"abc")
            assert (await peer.answer()).status == 201
        await trio.sleep(LAPSED_S)
        made = await api.upload("n2", VOICE, idempotency_key="k")
        assert made.status == 201
        assert kept(cluster, "", session) == (2, 3 + len(VOICE))

    play(scene)


def test_the_store_is_away_for_longer_than_the_lease() -> None:
    """An upload that no node can vouch for ends with 503 and leaves nothing; a short outage costs none."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        for away_s, status in ((8, 201), (30, 503)):
            async with api.begun("n1", 50) as peer:
                for second in range(50):
                    if second in (4, 4 + away_s):
                        cluster.world.outage = "down" if second == 4 else ""
                    with suppress(trio.BrokenResourceError):  # behind an answer that came early
                        await peer.send(b"x")
                    await trio.sleep(1)
                assert (await peer.answer()).status == status
        await trio.sleep(LAPSED_S)
        assert kept(cluster, "", session) == (1, 50)
        assert len(media_of(cluster).objects) == 1

    play(scene, seed=2)


def test_a_store_that_lost_everything() -> None:
    """What was kept is unknown, an upload under way is refused with 503 as soon as its node notices, and its key makes one blob anew."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2")
        blob = (await api.upload("n1", b"before")).json()["blob"]
        async with api.begun("n1", 100, idempotency_key="k") as peer:
            await trio.sleep(1)
            cluster.world.lose_everything()
            for _ in range(8):
                await peer.send(b"x")
                await trio.sleep(1)
            assert (await peer.answer()).status == 503
        assert (await api.read("n2", blob)).status == 404
        made = await api.upload("n2", VOICE, idempotency_key="k")
        assert made.status == 201
        assert kept(cluster, "", session) == (1, len(VOICE))
        assert (await api.read("n1", made.json()["blob"])).body == VOICE

    play(scene)


@pytest.mark.parametrize("step", ["send", "finish"])
def test_the_media_are_away(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """503 with Retry-After, nothing is left, and the key makes one blob later."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")

        async def fail(self: MemoryWriting, *_: object) -> None:
            raise MediaAway("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryWriting, step, fail)
            told = await api.upload("n1", VOICE, idempotency_key="k")
        assert (told.status, told.json()["type"]) == (503, "urn:signald:problem:media-unavailable")
        assert told.headers["retry-after"] == "1"
        await trio.sleep(LAPSED_S)
        assert is_empty(cluster, session)
        assert (await api.upload("n1", VOICE, idempotency_key="k")).status == 201

    play(scene)


def test_bytes_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Media without an answer are 503; bytes that are not there are 404, and counted."""

    async def scene(cluster: Cluster) -> None:
        _, _, _, api = await scene_of(cluster, "n1")
        blob = (await api.upload("n1", VOICE)).json()["blob"]

        async def fail(*_: object, size: int) -> Any:
            if size:
                raise MediaAway("no answer")
            yield b""

        with monkeypatch.context() as patch:
            patch.setattr(MemoryMedia, "read", fail)
            assert (await api.read("n1", blob)).json()["type"] == "urn:signald:problem:media-unavailable"
        media_of(cluster).objects.clear()
        assert (await api.read("n1", blob)).status == 404
        assert cluster.nodes["n1"].hub.blobs.missing == 1
        assert cluster.nodes["n1"].hub.blobs.downloading.taken == 0

    play(scene)


def test_bytes_that_cannot_be_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record stays until the media answer; the pause between two attempts grows, and they go in the end."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        asked: list[float] = []
        blobs = sorted([(await api.upload("n1", b"abc")).json()["blob"] for _ in range(3)])
        delete = MemoryMedia.delete

        async def fail(self: MemoryMedia, key: str) -> None:
            if key == blobs[0]:
                await delete(self, key)
                return
            asked.append(trio.current_time())
            raise MediaAway("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryMedia, "delete", fail)
            for blob in (*blobs[1:], blobs[0]):  # so that a sweep deletes one before it fails
                assert await api.remove("n1", blob) == 204
            await trio.sleep(200)
        assert kept(cluster, "", session) == (2, 6)
        assert sorted(media_of(cluster).objects) == blobs[1:]
        assert 5 <= len(asked) <= 9
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        assert pauses[0] < 10 < pauses[-1]
        assert cluster.nodes["n1"].hub.blobs.shelves.failed == len(asked)
        await trio.sleep(300)
        assert is_empty(cluster, session)

    play(scene)


# --- bounds -------------------------------------------------------------------------------------------------------


def test_uploads_at_once() -> None:
    """Beyond the share of a principal 429, beyond the places of the node 503; a place is free when its upload has ended."""

    async def scene(cluster: Cluster) -> None:
        bounds = {"uploads_in_progress_max": 6, "uploads_of_principal_max": 2}
        _, worker, _, api = await scene_of(cluster, "n1", blobs=bounds)
        desk = cluster.nodes["n1"].hub.blobs
        others = []
        for _ in range(3):
            _, started = await cluster.client("n1", api=True)
            await worker.accept()
            others.append(Blobs(cluster, started["api_token"]))
        async with trio.open_nursery() as nursery:
            go = trio.Event()

            async def hold(one: Blobs, remote: str) -> None:
                async with one.begun("n1", 10, b"abc", remote=remote) as peer:
                    await go.wait()
                    await peer.send(b"defghij")
                    assert (await peer.answer()).status == 201

            for count in range(2):
                nursery.start_soon(hold, api, f"192.0.2.{count}")
            await trio.testing.wait_all_tasks_blocked()
            told = await api.upload("n1", b"x")
            assert (told.status, told.json()["type"], told.headers["retry-after"]) == (
                429,
                "urn:signald:problem:busy",
                "1",
            )
            nursery.start_soon(hold, others[0], "192.0.2.3")
            nursery.start_soon(hold, others[0], "192.0.2.3")
            nursery.start_soon(hold, others[1], "192.0.2.3")
            await trio.testing.wait_all_tasks_blocked()
            async with others[1].begun("n1", 3, b"abc", remote="192.0.2.3") as peer:
                assert (await peer.answer()).status == 429  # anonymous sessions of one address share half of the places
            nursery.start_soon(hold, others[1], "192.0.2.4")
            await trio.testing.wait_all_tasks_blocked()
            assert desk.uploading.taken == 6
            assert (await others[2].upload("n1", b"x")).status == 503
            go.set()
        assert (desk.uploading.taken, len(desk.uploading)) == (0, 0)
        assert (await api.upload("n1", b"x")).status == 201

    play(scene)


def test_downloads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the share of a principal 429, beyond the places of the node 503; a place is free when its download has ended."""

    async def scene(cluster: Cluster) -> None:
        _, worker, _, api = await scene_of(cluster, "n1", blobs={"downloads_in_progress_max": 4})
        desk = cluster.nodes["n1"].hub.blobs
        _, started = await cluster.client("n1", api=True)
        await worker.accept()
        other = Blobs(cluster, started["api_token"])
        blobs = [(one, (await one.upload("n1", VOICE)).json()["blob"]) for one in (api, other)]
        go, read = trio.Event(), MemoryMedia.read

        async def wait(*asked: Any, size: int) -> Any:
            async with aclosing(read(*asked, size=size)) as pieces:
                async for piece in pieces:
                    await go.wait()
                    yield piece

        async def hold(one: Blobs, blob: str, remote: str) -> None:
            async with cluster.plain("n1", remote=remote) as stream:
                head = f"GET /v1/blobs/{blob} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {one.token}\r\n\r\n"
                assert (await HttpPeer(stream).ask(head.encode())).body == VOICE

        with monkeypatch.context() as patch:
            patch.setattr(MemoryMedia, "read", wait)
            async with trio.open_nursery() as nursery:
                for count, (one, blob) in enumerate((*blobs, *blobs)):
                    nursery.start_soon(hold, one, blob, f"192.0.2.{count}")
                    await trio.testing.wait_all_tasks_blocked()
                    assert desk.downloading.taken == count + 1
                    if count == 2:
                        assert (await api.read("n1", blobs[0][1])).json()["type"] == "urn:signald:problem:busy"
                        assert (await api.read("n1", blobs[0][1])).status == 429
                _, started = await cluster.client("n1", api=True)
                await worker.accept()
                late = Blobs(cluster, started["api_token"])
                blob = (await late.upload("n1", b"abc")).json()["blob"]
                assert (await late.read("n1", blob)).status == 503
                go.set()
        assert (desk.downloading.taken, len(desk.downloading)) == (0, 0)
        assert (await late.read("n1", blob)).body == b"abc"

    play(scene)


def test_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `blobs.redirect` a reader is sent to the URL that the media sign; media without such URLs, or without an answer, send none."""

    async def scene(cluster: Cluster) -> None:
        _, _, _, api = await scene_of(cluster, "n1", "n2")
        await cluster.start("n3", blobs={"redirect": True})
        blob = (await api.upload("n1", VOICE)).json()["blob"]
        assert (await api.read("n3", blob)).body == VOICE
        away = False

        async def sign(self: MemoryMedia, key: str, *, ttl_s: float) -> str | None:
            if away:
                raise MediaAway("no answer")
            return f"https://s3.example/bucket/{key}?ttl={ttl_s:g}"

        with monkeypatch.context() as patch:
            patch.setattr(MemoryMedia, "signed_url", sign)
            told = await api.read("n3", blob)
            assert (told.status, told.headers["location"]) == (307, f"https://s3.example/bucket/{blob}?ttl=60")
            assert (await api.read("n1", blob)).status == 200
            away = True
            assert (await api.read("n3", blob)).body == VOICE

    play(scene)


def test_a_full_shelf() -> None:
    """Beyond `blobs.principal_bytes_max` 429, reserved bytes included, also of an upload without a length; a removal makes room."""

    async def scene(cluster: Cluster) -> None:
        bounds = {"principal_bytes_max": 500_000, "bytes_max": 250_000}
        _, _, _, api = await scene_of(cluster, "n1", blobs=bounds)
        first = (await api.upload("n1", VOICE)).json()["blob"]
        async with api.begun("n1", len(VOICE), VOICE[:10]):
            await trio.testing.wait_all_tasks_blocked()
            told = await api.upload("n1", VOICE)
            assert (told.status, told.json()["type"]) == (429, "urn:signald:problem:blobs-full")
            assert int(told.headers["retry-after"]) >= 1
        await trio.sleep(1)
        assert (await api.upload("n1", VOICE)).status == 201
        assert (await api.upload("n1", VOICE)).status == 429
        assert await api.remove("n1", first) == 204
        await trio.sleep(1)
        assert (await api.upload("n1", VOICE)).status == 201
        assert (await api.upload("n1", bytes(250_001))).status == 413

    play(scene)


def test_a_sender_that_is_too_slow() -> None:
    """Bytes that drip take a place for a minute, and no longer: 408, and nothing is left."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        began = trio.current_time()
        async with api.begun("n1", len(VOICE)) as peer:
            with trio.move_on_after(PATIENCE_S - 1):
                while True:
                    await peer.send(b"x")
                    await trio.sleep(5)
            told = await peer.answer()
            assert (told.status, told.json()["type"]) == (408, "urn:signald:problem:too-slow")
        assert PATIENCE_S <= trio.current_time() - began < PATIENCE_S + 2
        await trio.sleep(2)
        assert is_empty(cluster, session)
        async with api.begun("n1", len(VOICE)) as peer:
            for at in range(0, len(VOICE), BYTES_PER_S * 2):
                await peer.send(VOICE[at : at + BYTES_PER_S * 2])
                await trio.sleep(2)
            assert (await peer.answer()).status == 201

    play(scene)


# --- drain --------------------------------------------------------------------------------------------------------


def test_a_drain_finishes_uploads() -> None:
    """An upload that has begun is carried to its end, and so is one that comes while the node still listens."""

    async def scene(cluster: Cluster) -> None:
        _, _, _, api = await scene_of(cluster, "n1", "n2")
        async with api.begun("n1", len(VOICE), VOICE[:50_000]) as peer:
            await trio.sleep(1)
            cluster.nodes["n1"].shutdown.signal()
            await trio.sleep(0.5)
            late = await api.upload("n1", b"late")
            assert (late.status, late.headers["connection"]) == (201, "close")
            for at in range(50_000, len(VOICE), 50_000):
                await trio.sleep(1)
                await peer.send(VOICE[at : at + 50_000])
            made = await peer.answer()
        assert (made.status, made.headers["connection"]) == (201, "close")
        assert (await api.read("n2", made.json()["blob"])).body == VOICE
        assert (await api.read("n2", late.json()["blob"])).body == b"late"

    play(scene)


def test_a_drain_has_an_end() -> None:
    """An upload that outlasts the deadline is cut and leaves nothing: the same key makes one blob at the successor, at once."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1", "n2", drain={"timeout_s": 10.0})
        async with api.begun("n1", len(VOICE), VOICE[:50_000], idempotency_key="k") as peer:
            cluster.nodes["n1"].shutdown.signal()
            for at in range(50_000, 65_000, 1000):
                await trio.sleep(1)
                with suppress(trio.BrokenResourceError):  # once it is cut
                    await peer.send(VOICE[at : at + 1000])
            assert await peer.ended() == b""
        await cluster.wait_exit("n1")
        made = await api.upload("n2", VOICE, idempotency_key="k")
        assert made.status == 201
        await trio.sleep(SWEPT_S)
        assert kept(cluster, "", session) == (1, len(VOICE))
        assert list(media_of(cluster).objects) == [made.json()["blob"]]

    play(scene)


def test_each_shelf_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of its first upload, a shelf stands in the agenda before it, and leaves it when it is empty."""

    async def scene(cluster: Cluster) -> None:
        _, _, session, api = await scene_of(cluster, "n1")
        rows = cluster.world.rows
        assert rows.items("b") == 0
        async with api.begun("n1", 10, b"abc"):
            await trio.testing.wait_all_tasks_blocked()
            assert rows.item("b", shelf_of_owner("", session)) is not None
        await trio.sleep(LAPSED_S)
        assert rows.items("b") == 0
        blob = (await api.upload("n1", b"abc")).json()["blob"]
        await trio.sleep(200)
        assert rows.items("b") == 1
        await api.remove("n1", blob)
        await trio.sleep(1)
        assert rows.items("b") == 0

    play(scene)
