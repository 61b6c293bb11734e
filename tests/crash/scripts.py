"""The scripts in which processes die, and the possible victims of each."""

from collections.abc import Callable

import attrs
import trio

from tests.crash import posting
from tests.crash.scene import CrashScene, Script, there
from tests.crash.steps import Kind
from tests.sim.core_server import Core, core_section
from tests.sim.nodes import SimNode
from tests.sim.plan import ClientPlan, Plan, WorkerPlan
from tests.sim.stores import SlowStore
from tests.sim.uploading import Blobs, UploadPlan

OLD, NEW = "n1", "n2"


async def handover(scene: CrashScene) -> None:
    """A deploy as it should be: a successor, SIGTERM, workers claim, clients follow, exit."""
    (old,) = scene.nodes
    await scene.all_hear(1)
    await there(scene.start_node())
    if not old.killed:
        scene.operator.stop(old)
    await old.gone.wait()


async def rollback(scene: CrashScene) -> None:
    """An operator's drain, called off when the first worker has moved."""
    (old,) = scene.nodes
    await scene.all_hear(1)
    await there(scene.start_node())
    if old.node is None or old.killed:
        return
    old.node.shutdown.begin("rollout")
    scene.learn(old, up=False)
    await trio.sleep(0.01)
    await scene.moving()
    if not old.killed:
        assert old.node.shutdown.abort()
        scene.learn(old, up=True)
    await scene.all_hear(3)


async def suspend(scene: CrashScene) -> None:
    """SIGTERM without a successor; another node is started when the old one is gone."""
    (old,) = scene.nodes
    await scene.all_hear(1)
    if not old.killed:
        scene.operator.stop(old)
    await old.gone.wait()
    await trio.sleep(0.3)
    fresh: SimNode = scene.start_node()
    await there(fresh)


async def submit(scene: CrashScene) -> None:
    """Jobs submitted at two nodes: at that of their worker, and at the other one."""
    scene.steps.counting = False
    await scene.all_hear(1)
    await there(scene.start_node())
    await scene.posted()


async def submit_leaving(scene: CrashScene) -> None:
    """The same, while the node of the worker is told to go."""
    (old,) = scene.nodes
    scene.steps.counting = False
    await scene.all_hear(1)
    await there(scene.start_node())
    scene.operator.stop(old)
    await scene.posted()


async def tell(scene: CrashScene) -> None:
    """The life of two sessions and of their workers, told to a core server; at the end the first node is told to go.

    One client and one worker lose their processes, so that a session is away and resumed, and another worker gets it. The first client
    says bye.
    """
    (old,) = scene.nodes
    await scene.all_hear(1)
    await there(scene.start_node())
    scene.lose("c1")
    scene.lose("w0")
    await scene.all_said()
    if not old.killed:
        scene.operator.stop(old)
    await old.gone.wait()
    await scene.told()


async def upload(scene: CrashScene) -> None:
    """Uploads at two nodes: one that is made again, one that is cut, and one that is removed and swept."""
    await scene.all_hear(1)
    await there(scene.start_node())
    await scene.uploaded()


@attrs.frozen
class Scenario:
    """A script, its victims, and the plan of the parties."""

    script: Script
    victims: dict[str, frozenset[str]]
    plan: Callable[[], Plan]
    kinds: tuple[Kind, ...] = ("store", "frame", "await")
    """Of the steps that nodes have in it."""


def plan() -> Plan:
    """Two clients and two workers, all talking, on one node."""
    return Plan(
        seed=1,
        planned_only=False,
        nodes=1,
        sections={
            "session": {"resume_ttl_s": 120.0},
            "worker": {"resume_timeout_s": 3.0},
            "drain": {
                "timeout_s": 20.0,
                "stop_timeout_s": 30.0,
                "margin_s": 2.0,
                "successor_timeout_s": 0.5,
                "worker_timeout_s": 4.0,
                "client_timeout_s": 3.0,
                "terminate_timeout_s": 2.0,
            },
        },
        lag_s=0.0,
        clients=tuple(ClientPlan(f"c{number}", 0.0, 7, 0.12, number == 0, says_bye=False) for number in range(2)),
        workers=tuple(WorkerPlan(f"w{number}", 0.0, 2, 0.02, 0.2) for number in range(2)),
        net=(),
        # Slow enough for frames to come and go while the store is at work.
        store=(SlowStore(1.0, 0.03),),
        steps=(),
    )


def plan_of_jobs() -> Plan:
    """The same parties with less to say, and workers that do jobs."""
    return attrs.evolve(
        plan(), clients=tuple(attrs.evolve(one, messages=3) for one in plan().clients), speech=posting.NOTHING_ELSE
    )


def plan_of_events() -> Plan:
    """The same parties, one of which ends its session, and a core server."""
    plain, core = plan(), Core()
    clients = (attrs.evolve(plain.clients[0], says_bye=True), *plain.clients[1:])
    return attrs.evolve(plain, clients=clients, core=core, sections=plain.sections | {"core": core_section(core)})


def plan_of_blobs() -> Plan:
    """The same parties with less to say, and programs that upload for them."""
    uploads = (
        UploadPlan(1.5, 0, 2, 0.05, keyed=True, again=True),
        UploadPlan(1.6, 0, 1, 0.05, keyed=True, removed=True),
        UploadPlan(1.7, 1, 2, 0.05, keyed=True, cut_at=1),
    )
    clients = tuple(attrs.evolve(one, messages=3) for one in plan().clients)
    return attrs.evolve(plan(), clients=clients, blobs=Blobs(uploads))


PARTIES = {name: frozenset({name}) for name in ("w0", "w1", "c0", "c1")}
NODES = {"old": frozenset({OLD}), "new": frozenset({NEW}), "both": frozenset({OLD, NEW})}
POSTER = {posting.NAME: frozenset({posting.NAME})}

SCENARIOS = {
    "handover": Scenario(handover, NODES | PARTIES, plan),
    "rollback": Scenario(rollback, NODES, plan),
    "suspend": Scenario(suspend, {"old": NODES["old"], "new": NODES["new"]}, plan),
    "submit": Scenario(submit, NODES | {name: PARTIES[name] for name in ("w0", "c0")} | POSTER, plan_of_jobs),
    "submit_leaving": Scenario(submit_leaving, NODES | POSTER, plan_of_jobs),
    "tell": Scenario(tell, NODES, plan_of_events, ("store", "frame", "await", "post")),
    "upload": Scenario(upload, NODES, plan_of_blobs, ("store", "frame", "await", "media")),
}
