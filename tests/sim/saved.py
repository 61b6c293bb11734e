"""Plans as JSON: to keep what a seed has shown when seeds come to mean other plans, and to replay a plan by hand."""

import json
from pathlib import Path
from typing import Any, get_args

import attrs

from tests.sim.canvases import Canvases, SocketPlan
from tests.sim.core_server import Core, Spell
from tests.sim.fleets import AppPlan, Fleet
from tests.sim.habits import Habit
from tests.sim.net import NetFault
from tests.sim.plan import ClientPlan, Plan, Step, WorkerPlan
from tests.sim.poison import Poison
from tests.sim.recalls import CallerPlan, Recalls
from tests.sim.rooms import MemberPlan, PostPlan, Rooms
from tests.sim.scene import Kept, Outcome, Transport, play
from tests.sim.speech import JobPlan, Speech
from tests.sim.stores import StoreFault
from tests.sim.uploading import Blobs, MediaSpell, UploadPlan

PARTS = (
    Plan,
    Step,
    Poison,
    Speech,
    JobPlan,
    Recalls,
    CallerPlan,
    Core,
    Blobs,
    MediaSpell,
    UploadPlan,
    Spell,
    Rooms,
    MemberPlan,
    PostPlan,
    Canvases,
    SocketPlan,
    Fleet,
    AppPlan,
    ClientPlan,
    WorkerPlan,
    *get_args(NetFault),
    *get_args(StoreFault),
    *get_args(Habit),
)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in PARTS}


@attrs.frozen
class Saved:
    """A plan, how it is played, and what it once showed."""

    plan: Plan
    transport: Transport
    shows: str

    def play(self, *, keep: bool = False, store: Kept = "memory") -> Outcome:
        """Play it."""
        return play(self.plan, keep=keep, transport=self.transport, store=store)


def pack(value: Any) -> Any:
    """Return a plan, or a part of one, as JSON knows it: an object names its class in `is`."""
    if attrs.has(type(value)):
        fields = {field.name: pack(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [pack(one) for one in value]
    if isinstance(value, dict):
        return {key: pack(one) for key, one in value.items()}
    return value


def unpack(value: Any) -> Any:
    """The reverse of `pack`. A field that is missing has its default."""
    if isinstance(value, list):
        return tuple(unpack(one) for one in value)
    if isinstance(value, dict):
        fields = {key: unpack(one) for key, one in value.items() if key != "is"}
        return KINDS[value["is"]](**fields) if "is" in value else fields
    return value


def save(saved: Saved, path: Path) -> None:
    """Write to `path`."""
    content = {"shows": saved.shows, "transport": saved.transport, "plan": pack(saved.plan)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path) -> Saved:
    """Read what `save` has written."""
    content = json.loads(path.read_text())
    return Saved(unpack(content["plan"]), content["transport"], content["shows"])


def load_all(folder: Path = Path(__file__).parent / "found") -> dict[str, Saved]:
    """Everything the search has found so far, by name."""
    return {path.stem: load(path) for path in sorted(folder.glob("*.json"))}
