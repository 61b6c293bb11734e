"""Streams: what clients are shown of them, what the store takes, and that each of them ends."""

from typing import TYPE_CHECKING, Any

import attrs

from signald.store.base import Op, Result
from signald.store.session.ops import Append, Appended, StreamRefused
from signald.store.session.streams.ops import OpenStreams, Streams
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.parties import ClientParty
    from tests.sim.scene import Scene


@attrs.define
class _Stored:
    """One stream as the store has taken it."""

    attempt: int = 0
    pieces: dict[int, tuple[int, str]] = attrs.field(factory=dict)
    """seq → attempt, text."""
    end: int = 0
    """The seq of its last piece; 0: it has said none that ends it."""

    def text(self, attempt: int, up_to: int) -> str:
        """Return what was said in `attempt` up to a seq."""
        return "".join([text for seq, (of, text) in sorted(self.pieces.items()) if of == attempt and seq <= up_to])


@attrs.define
class _Shown:
    """One stream as a client is shown it."""

    attempt: int
    text: str
    last: int
    whole: bool
    """False: something is missing in front."""
    over: bool = False


class StreamPrefix(Checker):
    """What a client is shown of an attempt is a prefix of what its worker said, all of it after the end; nothing comes behind an end."""

    name = "stream-prefix"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._said: dict[tuple[str, str, int], dict[int, str]] = {}
        self._stored: dict[tuple[str, str], _Stored] = {}
        self._shown: dict[tuple[str, str], _Shown] = {}
        self._lasts: dict[str, int] = {}

    def _promised(self, session: str) -> bool:
        scene = self.scene
        return not scene.plan.store_may_lose and session not in scene.stolen and session not in scene.liars

    def said(self, session: str, seq: int, stream: str, attempt: int, text: str) -> None:
        """A worker says a piece, perhaps again."""
        self._said.setdefault((session, stream, attempt), {})[seq] = text

    def applied(self, op: Op, result: Result) -> None:
        """The store takes messages."""
        if isinstance(op, Append) and op.party == "worker" and isinstance(result, Appended | StreamRefused):
            for entry in op.entries:
                if self._lasts.get(op.session, 0) < entry.seq <= result.last:
                    self._lasts[op.session] = entry.seq
                    if entry.mark is not None and self._promised(op.session):
                        self._take(op.session, entry.seq, entry.mark)

    def _take(self, session: str, seq: int, mark: Any) -> None:
        stored = self._stored.setdefault((session, mark.stream), _Stored())
        where = f"{session} {mark.stream}: piece {seq} of attempt {mark.attempt}"
        if stored.end:
            self.broken(f"{where} is stored behind the end, {stored.end}")
        if mark.attempt < stored.attempt:
            self.broken(f"{where} is stored after attempt {stored.attempt}")
        if mark.attempt > stored.attempt > 0:
            self.scene.reached("stream begun anew")
        stored.attempt = mark.attempt
        text = self._said.get((session, mark.stream, mark.attempt), {}).get(seq)
        if text is None:
            self.broken(f"{where} was said by no worker")
            return
        stored.pieces[seq] = mark.attempt, text
        if mark.end:
            stored.end = seq

    def found(self, session: str, streams: list[dict[str, Any]]) -> None:
        """A worker is told of open streams."""
        for one in streams:
            stored = self._stored.get((session, one["stream"]))
            if stored is None or not self._promised(session):
                continue
            self.scene.reached("stream found open")
            if one["attempt"] > stored.attempt or (
                "data" in one and not stored.text(one["attempt"], 1 << 60).endswith(one["data"])
            ):
                self.broken(f"{session}: {one} was found open, and {stored} is stored")

    # --- what clients are shown -------------------------------------------------------------------------------------

    def restored(self, client: "ClientParty", said: dict[str, Any]) -> None:
        """A client has come back. What it is shown begins with the history, if it has asked for that."""
        if "next_received" not in said or not self._promised(client.session):
            return
        self._shown = {key: value for key, value in self._shown.items() if key[0] != client.session}
        for entry in said.get("chat_history", ()):
            if "stream" not in entry:
                continue
            stream, attempt = entry["stream"], entry["attempt"]
            stored = self._stored.get((client.session, stream), _Stored())
            so_far, whole = stored.text(attempt, entry["seq"]), not entry.get("truncated")
            if not (entry["data"] == so_far if whole else so_far.endswith(entry["data"])):
                self.broken(f"{client.name} finds {entry['data']!r} of {stream}/{attempt}, and {so_far!r} was said")
            self.scene.reached("stream shown after a reload")
            over = not entry.get("open", False)
            self._shown[client.session, stream] = _Shown(attempt, entry["data"], entry["seq"], whole, over)

    def shown(self, client: "ClientParty", said: dict[str, Any]) -> None:
        """A client is shown a piece."""
        session, stream, seq, attempt = client.session, said["stream"], said["seq"], said.get("attempt", 1)
        stored = self._stored.get((session, stream))
        if not self._promised(session) or not session:
            return
        where = f"{client.name} is shown piece {seq} of {stream}/{attempt}"
        if stored is None or stored.pieces.get(seq) != (attempt, said["data"]):
            self.broken(f"{where}, {said['data']!r}, and {stored} is stored")
            return
        shown = self._shown.get((session, stream))
        if shown is None:
            shown = self._shown[session, stream] = _Shown(attempt, "", 0, seq == min(stored.pieces))
        if seq <= shown.last:
            return  # it stands in the entry already, or was read from the connection before
        if shown.over:
            self.broken(f"{where} behind its end")
        if attempt < shown.attempt:
            self.broken(f"{where} after attempt {shown.attempt}")
        if attempt > shown.attempt:
            shown.attempt, shown.text, shown.whole = attempt, "", True
        shown.text, shown.last, shown.over = shown.text + said["data"], seq, bool(said.get("end"))
        self._compare(client, stream, shown, stored.text(attempt, seq))

    def _compare(self, client: "ClientParty", stream: str, shown: _Shown, so_far: str) -> None:
        if not (so_far == shown.text if shown.whole else so_far.endswith(shown.text)):
            self.broken(f"{client.name} is shown {shown.text!r} of {stream}/{shown.attempt}, and {so_far!r} was said")

    def ended(self, client: "ClientParty", said: dict[str, Any]) -> None:
        """A client is told that signald has ended a stream."""
        self.scene.reached("stream interrupted")
        stored = self._stored.get((client.session, said["stream"]))
        if stored is None or not self._promised(client.session):
            return
        if stored.end:
            self.broken(f"{client.name} is told {said}, and the worker has ended it with {stored.end}")
        shown = self._shown.get((client.session, said["stream"]))
        if shown is None:
            return
        shown.over = True
        if shown.last < max(stored.pieces):
            self.broken(f"{client.name} is told {said} behind {shown.last}, and {max(stored.pieces)} is its last piece")

    def result(self, session: str, job: str, attempt: int, shown: Any) -> None:
        """The result of a job is shown to its creator."""
        stored = self._stored.get((session, job), _Stored())
        if self._promised(session) and shown != stored.text(attempt, 1 << 60):
            self.broken(f"{shown!r} is shown as the result of {job}/{attempt}, and {stored} is stored")

    # --- the end ----------------------------------------------------------------------------------------------------

    def waiting(self) -> list[str]:
        """Each stream that is open, and each client that has not seen the end of one."""
        texts = []
        for client in self.scene.clients:
            if client.gone is None and self._promised(client.session) and not client.byed:
                [found] = self.scene.world.execute([OpenStreams(client.session)])
                assert isinstance(found, Streams)
                texts += [
                    f"{client.session}: {view} is open" for view in found.streams if not view.outcome and not view.job
                ]
        return [*texts, *self._behind()]

    def _behind(self) -> list[str]:
        """Each client that was not shown all of a stream. One that has reloaded is shown what its history still has."""
        texts = []
        for (session, stream), shown in self._shown.items():
            client = self.scene.sessions.get(session)
            if client is None or client.gone is not None or client.byed or not self._promised(session):
                continue
            stored = self._stored[session, stream]
            if shown.last < max(stored.pieces):
                texts.append(f"{client.name} was shown {stream} up to {shown.last} only: {stored}")
            elif not shown.over and not stream.startswith("j_"):
                texts.append(f"{client.name} was not told of the end of {stream}")
        return texts
