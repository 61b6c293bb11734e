"""The bounds of a room follow the configuration."""

from typing import Any

import attrs

from signald.config import RoomsConfig
from signald.core.rooms import Bounds
from signald.service.rooms.bounds import bounds_of

NOT_OF_ONE = ("keep_s", "owned_max", "rooms_max", "default_rights")
"""Keys that bound no single room."""


def test_each_bound_is_a_key() -> None:
    names = [field.name for field in attrs.fields(RoomsConfig) if field.name not in NOT_OF_ONE]
    values: dict[str, Any] = {name: 70_000 + number for number, name in enumerate(names)}
    config = RoomsConfig(keep_s=1.5, **values)
    bounds = bounds_of(config)
    assert {name: getattr(bounds, name) for name in names} == {name: getattr(config, name) for name in names}
    assert bounds.keep_ms == 1500
    assert set(Bounds.__struct_fields__) == {*names, "keep_ms"}
