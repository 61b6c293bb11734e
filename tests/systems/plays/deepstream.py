"""D1 to D7: apps in C and in Python, written from the fleet's guide, go through deploys, a rollback and a kill.

Three moods of each: `prompt` ends its stream at once, `busy` takes its time and says so, and `slow` is never done in time. The
connection of the fourth one, `late`, is lost whenever it is asked to terminate: it comes back to the node that shuts down. Beside
them runs the same source as a worker on the SDK.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import trio

from signald.sdk.trio import open_client
from tests.real.harness import QUICK, Settings, until
from tests.systems.app_states import judge_states, states_by_app, times_terminating
from tests.systems.devices import SCALE, Device, build_c_app
from tests.systems.play import Play
from tests.systems.prober import Prober, arrive, ask
from tests.systems.recorder import Address, Recorder, Seen
from tests.systems.service import credential

LANGUAGES = ("c", "python")
SDK = "camera-sdk"
MOODS: dict[str, dict[str, object]] = {
    "prompt": {},
    "busy": {"busy_s": 1, "eos_s": 0.5},
    "slow": {"eos_s": 600},
    "late": {},
}
WAITS = {1001: 5.0, 1013: 10.0}
"""Of the guide; every other code has one second at first."""
MORE = 3
WITHIN_S = 40.0


def profile(on_drain: str) -> Settings:
    """Return the sections of the operator of such a fleet. An app has two seconds in the place of ten."""
    return {"profiles": {"deepstream": True}, "deepstream": {"on_drain": on_drain, "terminate_timeout_s": 2.0}}


class Detour:
    """Where the connections of one app go; that of a `late` one back to where it was lost, until it is told 1013."""

    def __init__(self, play: "DeepStream", *, late: bool) -> None:
        self.recorder = Recorder(self._target, lambda: play.service.doing)
        self._play = play
        self._last: Address = ("", 0)
        self._back = False
        self._lost_at = 0
        self._late = late
        self.recorder.swallows = self._swallows

    def _target(self, path: str) -> Address:
        if path.endswith("/health"):
            return self._play.service.node.websocket
        if not self._back or any(seen.code == 1013 for seen in self.recorder.seen[self._lost_at :]):
            self._back = False
            self._last = self._play.service.node.websocket
        return self._last

    def _swallows(self, seen: Seen) -> bool:
        if seen.type != "terminate_app":
            return False
        self._play.probe(self._last)
        if self._late:
            self._back = True
            self._lost_at = len(self.recorder.seen)
        return self._late


class DeepStream(Play):
    """Four apps in each language."""

    name = "deepstream"
    alone = True

    def __init__(self, on_drain: str = "terminate") -> None:
        """`on_drain` is the operator's."""
        super().__init__()
        self._on_drain = on_drain
        self.settings: Settings = profile(on_drain)
        self.devices: dict[str, Device] = {}
        self._secrets: list[str] = []
        self.viewed: list[int] = []
        self.moves: list[str] = []
        self.probed: dict[Address, list[tuple[int, int]]] = {}
        """Of each node that has asked an app to terminate: the status of its health, and how it met a newcomer."""

    async def start(self) -> None:
        """Start all, each behind a recorder of its own."""
        await trio.to_thread.run_sync(build_c_app)
        self.prober = Prober(self.service)
        self.cast.play(self.prober.run)
        async with trio.open_nursery() as opening:
            for language in LANGUAGES:
                for mood, app in MOODS.items():
                    opening.start_soon(self._open, f"{mood}-{language}", language, mood == "late", app)
        self.worker_of_sdk = await self._device(SDK, "sdk", late=False, app={})
        self.cast.play(self.worker_of_sdk.supervise)
        self.cast.play(self._view)
        await self._play_on()

    async def _view(self) -> None:
        """Be a client of the worker on the SDK, and note the frames that it is shown."""
        shown = credential("client", "viewer")
        async with open_client(self.service.url, auth=shown, want={"instance": SDK}, backoff=QUICK) as client:
            async for message in client:
                self.viewed.append(message.data["frame"])

    async def _open(self, name: str, language: str, late: bool, app: dict[str, object]) -> None:
        device = await self._device(name, language, late=late, app=app)
        self.devices[name] = device
        self.cast.play(device.supervise)

    async def _device(self, name: str, language: str, *, late: bool, app: dict[str, object]) -> Device:
        recorder = Detour(self, late=late).recorder
        await self.cast.run(recorder.serve)
        shown = credential("worker", f"fleet-{language}")
        self._secrets.append(shown)
        device = Device(name, language, recorder, self.cast.directory, **app)
        device.configure(shown)
        return device

    def probe(self, address: Address) -> None:
        """One app was just asked to terminate by the node at `address`: look whether that admits another one."""
        self.cast.play(self._probe, address)

    async def _probe(self, address: Address) -> None:
        health = await ask(address)
        code = await arrive(address, credential("worker", "newcomer"))
        if health is not None and code is not None:
            self.probed.setdefault(address, []).append((health.status, code))

    async def goes_on(self) -> None:
        """Wait until each has sent more."""
        await self._play_on()

    async def _play_on(self) -> None:
        async with trio.open_nursery() as nursery:
            for device in self.devices.values():
                nursery.start_soon(self._plays_on, device)
            seen = len(self.viewed)
            await self._until(self.worker_of_sdk, lambda: len(self.viewed) >= seen + MORE)

    async def _plays_on(self, device: Device) -> None:
        before = device.recorder.count("detections")
        await self._until(device, lambda: device.recorder.count("detections") >= before + MORE)

    async def _until(self, device: Device, holds: Callable[[], bool]) -> None:
        try:
            await until(holds, WITHIN_S)
        except AssertionError:
            raise AssertionError(f"{device.name} does not go on: {device.account()}") from None

    async def during_move(self) -> None:
        """Note that the operator moves."""
        self.moves.append(self.service.doing)

    async def finish(self) -> None:
        """Let all leave."""
        for device in (*self.devices.values(), self.worker_of_sdk):
            device.retire()
        await trio.sleep(1.0)
        for name, device in self.devices.items():
            if name.startswith("slow"):
                device.retire()  # its stream would not end for minutes: the second signal ends it at once
        for device in self.devices.values():
            await self._until(device, partial(has_ended, device))

    # --- the judge ---

    def judge(self) -> None:
        """Hold what was on the wire to D1 to D7, one after the other."""
        self.prober.judge()
        planned = sum(move != "kill" for move in self.moves)
        for device in self.devices.values():
            try:
                self._judge_device(device, planned)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{device.account()}") from error
        if self._on_drain == "terminate":
            self._judge_order()
        self._judge_log()
        # The worker on the SDK was never asked to terminate, and each of its frames was shown once and in order.
        assert self.viewed == list(range(1, len(self.viewed) + 1)), self.worker_of_sdk.account()
        assert len(self.worker_of_sdk.runs) == 1, self.worker_of_sdk.account()
        assert not self.worker_of_sdk.saw("terminate")
        assert not any(secret in self.worker_of_sdk.said for secret in self._secrets)

    def _judge_device(self, device: Device, planned: int) -> None:
        mood = device.name.partition("-")[0]
        assert all(run.process.returncode == 0 for run in device.runs)
        assert not any(secret in device.said for secret in self._secrets)
        links = list(links_of(device.recorder.seen))
        closes = [link.code for link in links]
        if self._on_drain == "reconnect":
            assert not any(link.asked for link in links)
            assert closes.count(1001) >= planned
            assert len(device.runs) == 1
        elif mood == "slow":
            assert closes.count(1001) >= planned
        elif mood == "late":
            assert closes.count(1013) >= planned
        else:
            assert closes.count(1000) >= planned
            assert len(device.runs) > planned
        for link in links:
            judge_terminate(link)
        judge_returns(links, device.recorder.seen)

    def _judge_order(self) -> None:
        """D4: a node's health says so before the first of its apps is asked, and it takes none from then on."""
        for health in self.prober.leaving():
            probed = self.probed.get(health.node.websocket, [])
            assert set(probed) <= {(503, 1013)}, (health.node.name, probed)
        assert len(self.probed) >= sum(move != "kill" for move in self.moves)

    def _judge_log(self) -> None:
        """D7: the states of each app, in order, as the nodes have logged them."""
        logged = states_by_app(self.cast.directory)
        planned = sum(move != "kill" for move in self.moves)
        for name in self.devices:
            judge_states(logged[name], cut=len(self.moves) - planned)
            if self._on_drain == "terminate":
                assert times_terminating(logged[name]) >= planned, (name, logged[name])
            else:
                assert not times_terminating(logged[name]), (name, logged[name])


class Reconnecting(DeepStream):
    """The same apps where the operator wants none of them to end."""

    name = "deepstream-reconnect"

    def __init__(self) -> None:
        super().__init__("reconnect")


class Link:
    """One WebSocket connection of an app."""

    def __init__(self, seen: list[Seen]) -> None:
        self.seen = seen

    def of(self, sender: str, kind: str) -> list[Seen]:
        """Return the messages of one type."""
        return [seen for seen in self.seen if (seen.sender, seen.type) == (sender, kind)]

    @property
    def asked(self) -> list[Seen]:
        """Requests to terminate."""
        return self.of("node", "terminate_app")

    @property
    def opening(self) -> dict[str, Any]:
        """The app's `app_ready`."""
        return next((seen.fields for seen in self.of("app", "app_ready")), {})

    @property
    def code(self) -> int:
        """The code of the node's Close; 1006 without one."""
        return next((seen.code for seen in self.seen if (seen.sender, seen.kind) == ("node", "close")), 1006)

    @property
    def ended_at(self) -> float:
        """When the node's Close was seen, or the end."""
        return next((seen.at for seen in self.seen if seen.kind in ("close", "gone")), self.seen[-1].at)

    def index(self, seen: Seen) -> int:
        """Return the place of something in the order of the wire."""
        return self.seen.index(seen)


def links_of(seen: list[Seen]) -> Iterator[Link]:
    """The connections of an app that were opened as WebSockets, in their order."""
    for number in dict.fromkeys(one.link for one in seen):
        own = [one for one in seen if one.link == number]
        if own[0].path == "/deepstream/ws" and any(one.status == 101 for one in own):
            yield Link(own)


def judge_terminate(link: Link) -> None:
    """D2: a request is answered with its own id and an upper-case OK behind the last frame; then comes 1000, or 1001 for the late."""
    assert len(link.asked) <= 1
    answers = link.of("app", "app_terminated")
    if not link.asked:
        assert not answers
        return
    asked = link.asked[0]
    assert {"type", "request_id", "reason"} <= asked.fields.keys()
    assert isinstance(asked.fields["request_id"], str)
    assert asked.fields["request_id"]
    for said in (*answers, *link.of("app", "app_busy")):
        assert said.fields["request_id"] == asked.fields["request_id"]
        assert said.at >= asked.at
    if answers:
        assert answers[0].fields["status"] == "OK"
        assert not [seen for seen in link.of("app", "detections") if seen.at > answers[0].at]
        (last,) = link.of("app", "end_of_stream")
        assert asked.at <= last.at <= answers[0].at
        assert link.code == 1000, link.code
        close = next(seen for seen in link.seen if (seen.sender, seen.kind) == ("node", "close"))
        assert close.raw[:2] == b"\x03\xe8"
        assert close.at >= answers[0].at
    else:
        assert link.code in (1001, 1006), link.code


def judge_returns(links: list[Link], seen: list[Seen]) -> None:
    """D5, D6: the wait of its code, then health, then the opening; the session is there again behind 1001 and 1013."""
    for before, after in pairwise(links):
        opening = after.opening
        if not opening.get("reconnection"):
            continue
        health = [one for one in seen if one.path.endswith("/health") and before.ended_at < one.at <= after.seen[0].at]
        assert health
        assert health[0].at - before.ended_at >= SCALE * WAITS.get(before.code, 1.0) - 0.01, before.code
        assert opening["last_close_code"] == before.code
        acks = after.of("node", "reconnection_ack")
        if not acks:
            assert after.code != 1000  # it was refused, or lost before
            continue
        said = acks[0].fields
        assert (said["type"], said["status"], said["server_status"]) == ("reconnection_ack", "ok", "running")
        assert isinstance(said["session_restored"], bool)
        if before.code in WAITS:
            assert said["session_restored"] is True, before.code
        # New messages wait until the server is ready.
        assert not [one for one in after.of("app", "detections") if one.at < acks[0].at]


def has_ended(device: Device) -> bool:
    """Tell whether no process of an app runs."""
    return all(run.process.poll() is not None for run in device.runs)
