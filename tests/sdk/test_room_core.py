"""Members of a room against a model of it: however it goes, all end alike, and each publication is shown once, in order."""

import random
from collections import Counter
from typing import Any

import pytest

from tests.sdk.room_model import Member, Model

IDS = ("a", "b", "c", "d")


def publish(rng: random.Random, member: Member, token: int) -> None:
    """Publish something that has `token` in it."""
    core, rooms = member.room, member.rooms
    if not core.out.room:
        return
    match rng.randint(0, 3):
        case 0:
            number = rooms.publish(core, {"token": token}, None)
        case 1:
            number = rooms.change(core, {rng.choice(IDS): {"x": token, "token": token}}, {}, ())
        case 2:
            patch: dict[str, Any] = {rng.choice(IDS): {rng.choice("xyz"): rng.choice((token, None)), "token": token}}
            number = rooms.change(core, {}, patch, (rng.choice(IDS),) if rng.random() < 0.3 else ())
        case _:
            number = rooms.change(core, {f"t{token}": {"token": token}}, {}, (rng.choice(IDS),))
    member.made[number] = token


def tokens(content: dict[str, Any]) -> set[int]:
    """Return the tokens of a stored publication."""
    parts = [content.get("data"), *content.get("put", {}).values(), *content.get("patch", {}).values()]
    return {part["token"] for part in parts if part}


@pytest.mark.parametrize("seed", range(150))
def test_all_end_alike(seed: int) -> None:
    """Through cuts, moves, refusals, a log that forgets and a room that is lost."""
    rng = random.Random(seed)
    model = Model(rng, "pqr")
    harsh = seed % 3
    for token in range(1, 400):
        member = rng.choice(model.members)
        model.now += rng.random() * 0.2
        match rng.randint(0, 19):
            case 0:
                model.dial(member)
            case 1 | 2 | 3 | 4 as blow if harsh:
                strike(model, member, blow, harsh == 2)
            case 5 | 6 | 7:
                publish(rng, member, token)
            case 8 | 9 | 10:
                model.write(member)
            case 11 | 12:
                model.tell(member, upto=rng.randint(0, len(model.log)))
            case _:
                for wire in list(member.wires):
                    for _ in range(rng.randint(0, 4)):
                        if wire.up:
                            model.serve(member, wire)
                    for _ in range(rng.randint(0, 4)):
                        if wire.down and wire in member.wires:
                            model.receive(member, wire)
    model.settle()
    check(model, seed)


def strike(model: Model, member: Member, blow: int, harsh: bool) -> None:
    """Do something bad; with `harsh` to the room as well."""
    if blow == 1:
        model.cut(member)
    elif blow == 2 and model.rng.random() < 0.3:
        model.drop_slow(member)
    elif blow == 3 and harsh and model.rng.random() < 0.3:
        model.trim()
    elif blow == 4 and harsh and model.rng.random() < 0.1:
        model.lose_the_room()


def check(model: Model, seed: int) -> None:
    """Compare what the members have with the room."""
    truth = model.truth()
    for member in model.members:
        assert (len(member.room.out), member.room.at, member.room.is_in) == (0, len(model.log), True), seed
        if member.room.wants_records:
            assert {name: dict(record) for name, record in member.room.records.items()} == truth, (seed, member.name)
            assert len(member.room.records) == len(truth)
        others = [at for at, (name, _, _) in enumerate(model.log, 1) if name != member.name]
        assert member.begins_at is not None
        assert member.seen == [at for at in others if at > member.begins_at], (seed, member.name)
        stored = Counter(token for log in model.logs for _, _, content in log for token in tokens(content))
        for token in member.made.values():
            assert stored[token] + (token in member.refused) == 1 or len(model.logs) > 1, (seed, token)
            assert stored[token] + (token in member.refused) >= 1, (seed, token)
