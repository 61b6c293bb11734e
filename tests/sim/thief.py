"""A thief that holds a copy of a client's recovery token, and shows it."""

import json
from typing import TYPE_CHECKING

import trio

from signald.sdk.dialing import DialFailed
from signald.sdk.network import CarrierClosed
from signald.sdk.trio import Refused, SessionGone, open_client
from tests.sim.parties import ClientParty, WorkerParty, dial_through

if TYPE_CHECKING:
    from tests.sim.scene import Scene

STAYS_S = 8.0


async def steal(scene: "Scene", victim: ClientParty, wait_s: float) -> None:
    """Take the token that `victim` holds now, and resume with it `wait_s` later.

    One promise is left to the two from then on: once a retired token of a lineage is shown, no token of that lineage
    resumes (`token-once`). A party that is attached stays until it has to resume.
    """
    if victim.client is None or victim.is_over():
        return
    token = victim.client.recovery_token
    await trio.sleep(wait_s)
    if victim.is_over():
        return
    name = f"t{len(scene.stolen)}"
    scene.stolen.add(victim.session)
    scene.trace(name, f"has stolen a token of {victim.name}")
    entropy = scene.chance.entropy(name)
    with trio.move_on_after(STAYS_S):
        try:
            async with open_client(
                "ws://lb",
                auth=scene.credential(victim.name, "client"),
                entropy=entropy,
                recovery_token=token,
                dial=scene.dial(name),
            ) as thief:
                scene.reached("stolen token taken")
                async for message in thief:
                    scene.trace(name, f"hears {message.seq} {message.data}")
        except (Refused, SessionGone) as gone:
            scene.trace(name, f"is turned away: {gone}")
            scene.reached("stolen token refused")


async def show(scene: "Scene", victim: ClientParty | WorkerParty, wait_s: float) -> None:
    """Show a token of `victim`, current or left behind by then, with a credential that is good and another's.

    All is promised to the victim as before: the stranger changes nothing, and learns nothing (`token-once`).
    """
    if isinstance(victim, ClientParty):
        token = victim.client.recovery_token if victim.client is not None else None
    else:
        token = victim.worker._core.token if victim.worker is not None else None
    if token is None:
        return
    await trio.sleep(wait_s)
    role = "client" if isinstance(victim, ClientParty) else "worker"
    name = f"stranger of {victim.name}"
    openings: dict[str, dict[str, object]] = {
        "client": {"type": "restore_session"},
        "worker": {"type": "app_ready", "instance_id": "stranger", "reconnection": True, "sessions": []},
    }
    opening = {**openings[role], "recovery_token": token, "auth": scene.credential("stranger", role)}
    answer: dict[str, str] = {}
    try:
        with trio.fail_after(STAYS_S):
            async with dial_through(scene, name)(f"ws://lb/v1/{role}") as carrier:
                await carrier.send([(True, json.dumps(opening).encode())])
                answer = json.loads(await carrier.receive())
    except* (CarrierClosed, DialFailed, trio.TooSlowError) as why:
        scene.trace(name, f"is cut off: {why!r}")
    if not answer:
        return
    scene.trace(name, f"hears {answer.get('code')}")
    if answer["type"] != "error" or answer["code"] not in STRANGER_HEARS:
        scene.violate("token-once", f"{name} hears {answer['type']} {answer.get('code')}")
    if answer.get("code") == "forbidden":
        scene.reached("stranger with a token turned away")


STRANGER_HEARS = ("forbidden", "nothing_to_resume", "store_unavailable", "busy", "draining", "unauthenticated")
"""`forbidden` while there is a session or a worker to resume, and otherwise what all hear."""
