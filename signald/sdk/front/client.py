"""The client's front."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from signald.ids import Entropy, SystemEntropy, job_of
from signald.sdk.backoff import DEFAULT_BACKOFF, Backoff
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.client_core import ClientCore, ClientState
from signald.sdk.front.api import Api
from signald.sdk.front.blobs import Blobs
from signald.sdk.front.client_jobs import Job, Jobs
from signald.sdk.front.conversation import Conversation, Events
from signald.sdk.front.party import Auth, FrontParty, Urls, running, url_list
from signald.sdk.front.rooms import Room
from signald.sdk.front.waiting import Lot
from signald.sdk.network import Dial, OpenStream
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.streams_core import StreamText
from signald.sdk.values import check_text, readable
from signald.wire.fields import REASON_MAX


class Client(FrontParty, Conversation):
    """A client's session; made by `open_client`."""

    _core: ClientCore

    def __init__(
        self,
        core: ClientCore,
        *,
        ssl_context: SSLContext | None,
        dial: Dial | None,
        open_stream: OpenStream | None = None,
    ) -> None:
        FrontParty.__init__(self, core, ssl_context=ssl_context, dial=dial)
        self._api = Api(core, ssl_context, open_stream)
        Conversation.__init__(self, core.session, self._room, Blobs(self._api), core.rooms)
        self._events = Events()
        self._texts = Lot()
        self._jobs = Jobs(core, self._api)

    def __repr__(self) -> str:
        return f"Client(session={self.session!r}, peer={self.peer_state}, connections={self.connections})"

    @property
    def session(self) -> str:
        """The session's id."""
        return self._core.session_id or ""

    @property
    def settings(self) -> Any:
        """What the core server says for this session; None for nothing.

        Raises:
            Unreadable: it cannot be read here.
        """
        return readable(self._core.settings)

    @property
    def peer_state(self) -> str:
        """The last known state of the worker: waiting, paired, away, replaced, gone, or none (`pair=False`)."""
        return self._core.peer.state

    @property
    def worker(self) -> str | None:
        """The id of the worker, the last one if there is none now."""
        return self._core.peer.id

    @property
    def recovery_token(self) -> str:
        """The newest token; a secret."""
        return self._core.token or ""

    @property
    def api_token(self) -> str:
        """The newest API token, a secret; "" unless `api` asked for one. Read it for each request: it is replaced before it runs out."""
        return self._core.credentials.api_token or ""

    @property
    def connections(self) -> int:
        """How many connections were opened so far."""
        return self._core.opened_count

    @property
    def chat_history(self) -> list[Any]:
        """The chat history that the last resume brought, when `history` asked for it."""
        return self._core.chat_history

    @property
    def ended(self) -> str | None:
        """Why the session is over, or None."""
        return self._core.over.reason if self._core.over is not None else None

    @property
    def events(self) -> Events:
        """Lifecycle events and realtime data; bounded, the oldest are dropped."""
        return self._events

    @property
    def user_room(self) -> Room | None:
        """The room of the client's subject, in which only services publish: what a backend tells a user wherever he is.

        None unless `api` asked for API tokens and the credential names a subject; and before signald has told of it, which it does
        behind the answer that begins the session.
        """
        return self._hall.of_the_user

    @property
    def streams(self) -> dict[str, StreamText]:
        """The streams of the worker by name, as they are now: each text is a prefix of what the worker has said under its attempt."""
        return self._core.streams.all()

    async def stream_news(self) -> AsyncIterator[StreamText]:
        """Yield each stream whenever it has changed, until the session is over. One reader; what it does not take in time is left out,
        and each text is whole by itself."""
        news = self._core.stream_news
        while True:
            while news:
                yield news.popleft()
            if self._core.over is not None:
                return
            await self._texts.park()

    def cancel(self, stream: str, reason: str = "") -> None:
        """Ask the worker to end `stream`. It may be asked again, as after a move in between.

        Raises:
            ValueError: a text that signald does not take.
        """
        self._core.cancel(stream, reason)

    async def submit(
        self,
        kind: str,
        data: Any = None,
        *,
        key: str | None = None,
        deadline_s: float | None = None,
        content_type: str | None = None,
    ) -> Job:
        """Submit a job for the session's worker; return when signald has stored it, whatever nodes come and go meanwhile.

        `data` is any JSON, or bytes with their `content_type`. The job is expired `deadline_s` seconds from now. With a `key` of its own
        a program that starts again finds the job that it has submitted; else the SDK makes one.

        Raises:
            ApiRefused: signald does not take it: the input is too long, too many jobs are unfinished, or the key was used for another job.
            SessionGone: the session is over.
            ValueError: the client was opened without `jobs`; or an argument that signald would refuse.
        """
        return await self._with_jobs().submit(kind, data, key, deadline_s, content_type)

    def job(self, job: str) -> Job:
        """Return a job of the session by its id, as after a start of this program with the session's `state`.

        Raises:
            ValueError: the client was opened without `jobs`; or it is no id of a job of this session.
        """
        jobs = self._with_jobs()
        if not job_of(self.session, job):
            raise ValueError("this is no id of a job of the session")
        return Job(jobs, job)

    def _with_jobs(self) -> Jobs:
        if not self._core.reads_jobs:
            raise ValueError("open the client with jobs=True")
        return self._jobs

    def state(self) -> ClientState:
        """Return what another process needs to go on with this session: a secret."""
        return self._core.state()

    def realtime(self, data: Any) -> bool:
        """Send something that is carried now or not at all; False when it was dropped here.

        Raises:
            ValueError: as `send`.
        """
        return self._core.realtime(data)

    async def bye(self, reason: str = "") -> None:
        """End the session, after everything sent was stored; return when it is over. The caller bounds the wait.

        Raises:
            ValueError: `reason` is longer than 512 characters, or half of a surrogate pair is in it.
        """
        check_text("reason", reason, REASON_MAX)
        self._core.session.bye = reason
        self._touched()
        await self._wait(lambda: self._core.over is not None)

    def _member(self) -> str:
        return self.session

    async def _boundary(self) -> None:
        """A client hands nothing over."""

    def _touched(self) -> None:
        self._core.changed()

    def _failure(self) -> Exception | None:
        return self._core.failure()

    def _drain(self) -> None:
        self._jobs.news.unpark_all()
        while self._core.events:
            self._events.put(self._core.events.popleft())
        if self._core.stream_news or self._core.over is not None:
            self._texts.unpark_all()


@asynccontextmanager
async def open_client(
    urls: Urls,
    *,
    auth: Auth = None,
    api: bool = False,
    jobs: bool = False,
    want: Mapping[str, str] | None = None,
    meta: Any = None,
    receipts: bool = False,
    pair: bool = True,
    history: int = 0,
    backoff: Backoff = DEFAULT_BACKOFF,
    timing: Timing = DEFAULT_TIMING,
    bounds: Bounds = DEFAULT_BOUNDS,
    ssl_context: SSLContext | None = None,
    entropy: Entropy | None = None,
    recovery_token: str | None = None,
    state: ClientState | None = None,
    dial: Dial | None = None,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Client]:
    """Start a session, or resume one (`recovery_token` or, better, `state`), and keep it alive for the block.

    `urls` are tried in order. `want` names the labels the worker must have; `meta` is shown to it. `auth` is a
    credential, or a function that returns a fresh one. `history` asks for so many messages of the chat history with
    every resume. `api` asks for API tokens (`Client.api_token`), which blobs need, and so does `jobs`, which `Client.submit`
    needs. The messages of jobs then come by their `Job`, and not by the client. The block begins when the session is established.

    With `pair` false the session has no worker: `send` and `realtime` raise ValueError. A node of release 0.1.0 does not know of
    this, and gives it one.

    Raises:
        Refused: signald does not take this client.
        SessionGone: there is nothing to resume.
        ValueError: an option is what signald would refuse.
    """
    core = ClientCore(
        url_list(urls),
        entropy=entropy or SystemEntropy(),
        backoff=backoff,
        timing=timing,
        bounds=bounds,
        auth=auth,
        api=api,
        jobs=jobs,
        want=want,
        meta=meta,
        receipts=receipts,
        pair=pair,
        history=history,
        state=state,
        recovery_token=recovery_token,
    )
    client = Client(core, ssl_context=ssl_context, dial=dial, open_stream=open_stream)
    async with running(client, lambda: core.established):
        yield client
