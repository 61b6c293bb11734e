"""The effective configuration as text: TOML or JSON, with the origin of each value, and without secrets."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from signald.config.keys import key_info
from signald.config.sections import SECTIONS, Config

HIDDEN = "(set, not shown)"


def as_toml(config: Config, places: Mapping[str, str], *, origin: bool) -> str:
    """Return every section and key as TOML; with `origin` each line ends in a comment that names the origin of the value."""
    lines: list[str] = []
    section = ""
    for name, field, value in _keys(config):
        if name != section:
            lines += ["", f"[{name}]"] if lines else [f"[{name}]"]
            section = name
        text = f"{field} = {json.dumps(value, ensure_ascii=False)}"
        lines.append(f"{text}  # {_origin(places, name, field)}" if origin else text)
    return "\n".join(lines) + "\n"


def as_json(config: Config, places: Mapping[str, str], *, origin: bool) -> str:
    """Return the same as one JSON object."""
    shown: dict[str, dict[str, Any]] = {}
    for name, field, value in _keys(config):
        one = {"value": value, "origin": _origin(places, name, field)} if origin else value
        shown.setdefault(name, {})[field] = one
    return json.dumps(shown, indent=2) + "\n"


def _origin(places: Mapping[str, str], section: str, field: str) -> str:
    return places.get(f"{section}.{field}", "default")


def _keys(config: Config) -> Iterator[tuple[str, str, Any]]:
    for name, cls in SECTIONS.items():
        for field in attrs.fields(cls):
            value = getattr(getattr(config, name), field.name)
            if key_info(field).secret and value != field.default:
                value = HIDDEN
            yield name, field.name, list(value) if isinstance(value, tuple) else value
