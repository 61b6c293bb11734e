"""Somebody who has got hold of a client's recovery token, and shows it."""

from typing import TYPE_CHECKING

import trio

from signald.sdk.trio import Refused, SessionGone, open_client
from tests.sim.parties import CANARY, ClientParty

if TYPE_CHECKING:
    from tests.sim.scene import Scene

STAYS_S = 8.0


async def steal(scene: "Scene", victim: ClientParty, wait_s: float) -> None:
    """Take the token that `victim` holds now, and resume with it `wait_s` later.

    Nothing is promised to the two from then on but this: once a token is shown that its lineage has left behind, nobody
    resumes with any of them (`token-once`). Whoever is attached stays until it has to resume.
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
                "ws://lb", auth=CANARY, entropy=entropy, recovery_token=token, dial=scene.dial(name)
            ) as thief:
                scene.reached("stolen token taken")
                async for message in thief:
                    scene.trace(name, f"hears {message.seq} {message.data}")
        except (Refused, SessionGone) as gone:
            scene.trace(name, f"is turned away: {gone}")
            scene.reached("stolen token refused")
