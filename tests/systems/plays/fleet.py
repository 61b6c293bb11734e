"""D4, D5, D7: a whole fleet of apps and one deploy. All are asked at once; the mute are closed, the busy have longer, all come back."""

from collections import defaultdict

from signald.sdk.backoff import Backoff
from tests.real.harness import DEADLINE_S, until
from tests.systems.app_states import judge_states, states_by_app, times_terminating
from tests.systems.devices import PYTHON_APP, SCALE
from tests.systems.play import Play
from tests.systems.plays.deepstream import profile
from tests.systems.prober import Prober
from tests.systems.program import Line, Program
from tests.systems.service import credential

FRAMES_PER_S = 0.5
BUSY_S = 3.0
"""For the end of a busy app: longer than the two seconds that others have."""
SPREAD_S = 2.0
"""Within which the requests to all apps go out. On a quiet machine it is a tenth."""
WAIT_MAX_S = SCALE * Backoff.device().going_away_s * 1.25
BACK_S = 30.0


class Fleet(Play):
    """So many apps in one process."""

    name = "fleet"
    alone = True

    def __init__(self, count: int = 20, mute: int = 2, busy: int = 2, on_drain: str = "terminate") -> None:
        """`mute` of them never answer, and `busy` ask for more time."""
        super().__init__()
        self._count, self._mute, self._busy = count, mute, busy
        self._on_drain = on_drain
        self.settings = profile(on_drain)
        self.apps: Program
        self._moves = 0

    async def start(self) -> None:
        """Start all."""
        self.prober = Prober(self.service)
        self.cast.play(self.prober.run)
        self.apps = await self.cast.start(
            "apps.py",
            self.service.url,
            *map(str, (self._count, self._mute, self._busy)),
            credential=credential("worker", self.name),
            APP=str(PYTHON_APP.parent),
            SCALE=str(SCALE),
            FRAMES_PER_S=str(FRAMES_PER_S),
            BUSY_S=str(BUSY_S),
        )
        await self._all_connected()

    async def _all_connected(self) -> None:
        await until(lambda: len(self.connected) == self._count or self.apps.over, BACK_S)
        assert not self.apps.over, self.apps.account()

    @property
    def connected(self) -> set[str]:
        """The apps that are connected now."""
        last = {line["app"]: line["state"] for line in self.apps.saw("state")}
        return {app for app, state in last.items() if state == "connected"}

    async def during_move(self) -> None:
        """Count."""
        self._moves += 1

    async def goes_on(self) -> None:
        """Wait until all are back."""
        await self._all_connected()

    async def finish(self) -> None:
        """Let them leave."""
        await until(lambda: self._known_to_node() == self._count, BACK_S, "the node knows all")
        await self.apps.tell()
        await self.apps.end(within_s=BACK_S)

    def _known_to_node(self) -> int:
        answers = self.prober.nodes[self.service.node.name].answers
        return len(answers[-1].body["connected_instances"])

    def judge(self) -> None:
        """Each app had what its mood brings, and each node ended in time."""
        self.prober.judge()
        for health in self.prober.leaving():
            assert health.ended_at is not None
            assert health.leaving_at is not None
            assert health.ended_at - health.leaving_at < DEADLINE_S
        by_app: dict[str, list[Line]] = defaultdict(list)
        for line in self.apps.lines:
            by_app[line["app"]].append(line)
        assert len(by_app) == self._count
        for app, lines in by_app.items():
            number = int(app.partition("-")[2])
            try:
                self._judge_app(number, lines)
            except AssertionError as error:
                raise AssertionError(f"{app}: {error}\n{lines}") from error
        self._judge_order()
        self._judge_log()

    def _judge_app(self, number: int, lines: list[Line]) -> None:
        """Look at one app until the first time that it was connected again."""
        saw = [line["saw"] for line in lines]
        codes = [line["code"] for line in lines if line["saw"] == "closed"]
        if self._on_drain == "reconnect":
            assert "terminate" not in saw
            assert codes[: self._moves] == [1001] * self._moves
        elif number < self._mute:
            assert saw.count("terminate") == self._moves
            assert codes[: self._moves] == [1001] * self._moves
        else:
            assert saw.count("terminated") == self._moves
            assert codes[: self._moves] == [1000] * self._moves
            return
        back = [line for line in lines if line["saw"] == "reconnected"]
        assert len(back) == self._moves
        assert all(line["restored"] is True for line in back)
        waits = [line["seconds"] for line in lines if line["saw"] == "waiting"]
        assert waits
        assert waits[0] <= WAIT_MAX_S

    def _judge_log(self) -> None:
        """D7: each connection of each app went through its states in order, and was asked to terminate once for each deploy."""
        logged = states_by_app(self.cast.directory)
        assert len(logged) == self._count
        asked = self._moves if self._on_drain == "terminate" else 0
        for app, connections in logged.items():
            judge_states(connections, cut=0)
            assert times_terminating(connections) == asked, (app, connections)

    def _judge_order(self) -> None:
        """D4: health, then the requests, all of them before the first app is closed for being late."""
        asked = [line["clock"] for line in self.apps.saw("terminate")]
        if self._on_drain == "reconnect":
            assert not asked
            return
        assert len(asked) == self._count * self._moves
        late = [line["clock"] for line in self.apps.saw("closed") if line["code"] == 1001]
        if self._moves == 1:
            assert max(asked) - min(asked) < SPREAD_S
            assert not late or max(asked) < min(late)

    def figures(self) -> str:
        """Return what was seen, counted."""
        asked = [line["clock"] for line in self.apps.saw("terminate")]
        codes = [line["code"] for line in self.apps.saw("closed")]
        ended = [
            f"{health.ended_at - health.leaving_at:.1f}"
            for health in self.prober.leaving()
            if health.ended_at and health.leaving_at
        ]
        return (
            f"{self._count} apps, {len(asked)} asked to terminate within {max(asked, default=0) - min(asked, default=0):.2f} s, "
            f"{len(self.apps.saw('terminated'))} answered, closes { ({code: codes.count(code) for code in sorted(set(codes))}) }; "
            f"{len(self.apps.saw('reconnected'))} restored; nodes ended after {', '.join(ended)} s"
        )
