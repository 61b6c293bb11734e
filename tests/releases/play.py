"""Rolling deploys forth and back between two releases, under load, with some clients away during each of them.

The load, the switch and the judge are those of `signald demo`. Besides, a few clients leave before each deploy, with an answer
outstanding, and come back after it: their sessions lie in the store while the release changes.
"""

from pathlib import Path

import trio
from attrs import evolve, frozen

from signald.demo.cluster import Cluster
from signald.demo.judge import Judge, Ledger, Verdict
from signald.demo.main import Demo, Stage
from signald.demo.options import DemoOptions
from signald.demo.parties import Parties
from signald.sdk.client_core import ClientState
from signald.sdk.trio import Client, open_client
from tests.real.harness import Settings
from tests.store.redis_servers import Server, servers

ANSWER_S = 30.0
"""Far above what an answer takes on a busy machine: an answer that does not come by then is lost."""


class Away:
    """One client that is away during each deploy."""

    def __init__(self, name: str, judge: Judge) -> None:
        self.name = name
        self.state: ClientState | None = None
        self._judge = judge
        self._ledger = judge.open_ledger(name)

    @property
    def ledger(self) -> Ledger:
        """What the workers write their side into."""
        return self._ledger

    async def visit(self, url: str, want: dict[str, str]) -> None:
        """Come back, hear what is outstanding, ask one more question and leave before it is answered."""
        async with open_client(url, want=want, meta={"name": self.name}, state=self.state) as client:
            self._ledger.session = client.session
            if self._judge.waiting:
                await self._hear(client)
            await client.send({"n": self._judge.asked(self._ledger, trio.current_time())})
            await client.flush()
            self.state = client.state()

    async def end(self, url: str) -> None:
        """Come back a last time, and end the session."""
        async with open_client(url, state=self.state) as client:
            await self._hear(client)
            await client.bye("done")

    async def _hear(self, client: Client) -> None:
        with trio.fail_after(ANSWER_S):
            async for message in client:
                answer = message.data
                client.ack(message)  # else it is replayed to the next process, as it should be
                self._judge.answered(
                    self._ledger,
                    question=answer["to"],
                    reply=answer["n"],
                    worker=answer["from"],
                    now=trio.current_time(),
                )
                if not self._judge.waiting:
                    return


class Releases(Demo):
    """The demo, each of whose deploys brings the next of `codes`, in a circle."""

    def __init__(
        self, options: DemoOptions, directory: Path, codes: list[Path | None], away: int, settings: Settings
    ) -> None:
        """`codes`: where the code of each release lies, None for the present one; the first node runs the first.

        `settings` are sections for nodes of the present one.
        """
        super().__init__(options, directory)
        self._codes = codes
        self._settings = settings
        self._turn = 0
        # A judge each: whether an answer is outstanding is asked for one client.
        self._judges = [Judge() for _ in range(away)]
        self._away = [Away(f"away {number}", judge) for number, judge in enumerate(self._judges)]
        self.verdicts: list[Verdict] = []
        """Of those that are away during deploys."""

    async def _open_stages(self, cluster: Cluster) -> list[Stage]:
        self._take_code(cluster)
        return await super()._open_stages(cluster)

    async def _deploy(self, cluster: Cluster, stage: Stage, parties: Parties, kill: bool) -> None:
        self._take_code(cluster)
        url, want = stage.entrance.url, parties.labels
        for away in self._away:
            parties.ledgers[away.name] = away.ledger
            await away.visit(url, want)
        await super()._deploy(cluster, stage, parties, kill)
        if self._turn == len(self.plan) + 1:
            for away, judge in zip(self._away, self._judges, strict=True):
                await away.end(url)
                self.verdicts.append(judge.verdict(trio.current_time()))

    def _take_code(self, cluster: Cluster) -> None:
        cluster.code = self._codes[self._turn % len(self._codes)]
        cluster.further = {} if cluster.code is not None else self._settings
        self._turn += 1


@frozen
class Outcome:
    """What a run found, at the clients that stayed and at those that were away during each deploy."""

    stayed: Verdict
    away: list[Verdict]

    @property
    def ok(self) -> bool:
        """Nothing lost, doubled or reordered, and no session lost."""
        return self.stayed.ok and all(verdict.ok for verdict in self.away)

    def as_json(self) -> dict[str, object]:
        """Return the figures of both."""
        names = ("sessions", "sessions_lost", "messages", "lost", "duplicated", "reordered")
        return {
            "stayed": self.stayed.as_json(),
            "away": {name: sum(getattr(verdict, name) for verdict in self.away) for name in names},
        }


async def play(
    options: DemoOptions,
    directory: Path,
    codes: list[Path | None],
    away: int,
    store: str,
    settings: Settings | None = None,
) -> Outcome:
    """Deploy `options.deploys` times, each time to the next of `codes`; `store` is `sqlite` or `redis`, a server of its own."""
    if store != "redis":
        return await _play(options, directory, codes, away, settings or {})
    server = Server(directory)
    async with servers(server):
        return await _play(evolve(options, store=server.url), directory, codes, away, settings or {})


async def _play(
    options: DemoOptions, directory: Path, codes: list[Path | None], away: int, settings: Settings
) -> Outcome:
    releases = Releases(options, directory, codes, away, settings)
    return Outcome(await releases._play(), releases.verdicts)
