"""The manifests as files, and as kustomize puts them together (as far as ours use it)."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import yaml

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "k8s"
OVERLAYS = ("blue-green", "canary")
SAMPLES = "samples/secret.yaml"


@attrs.define
class Tree:
    """The documents of each file, by the file's path below k8s/."""

    files: dict[str, list[Json]]

    @classmethod
    def read(cls) -> "Tree":
        """All of k8s/."""
        paths = sorted(FOLDER.rglob("*.yaml"))
        return cls({str(path.relative_to(FOLDER)): list(yaml.safe_load_all(path.read_text())) for path in paths})

    def changed(self, file: str, number: int, document: Json) -> "Tree":
        """This tree with one other document."""
        documents = list(self.files[file])
        documents[number] = document
        return Tree({**self.files, file: documents})

    def render(self, folder: str) -> list[Json]:
        """The objects of a kustomization. Raises KeyError when it names a file that is not there."""
        (kustomization,) = self.files[f"{folder}/kustomization.yaml"]
        objects: list[Json] = []
        for name in kustomization["resources"]:
            if name.endswith(".yaml"):
                objects += deepcopy(self.files[f"{folder}/{name}"])
            else:
                objects += self.render(str((FOLDER / folder / name).resolve().relative_to(FOLDER.resolve())))
        for patch in kustomization.get("patches", []):
            for change in self.files[f"{folder}/{patch['path']}"]:
                (meant,) = [one for one in objects if _identity(one) == _identity(change)]
                _merge(meant, change)
        for one in objects:
            for key, value in _fields(one):
                if key == "image":
                    _rename(one, value, kustomization.get("images", []))
        return objects


def _identity(document: Json) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _merge(into: Json, change: Json) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)


def _rename(document: Any, image: str, images: list[Json]) -> None:
    for known in images:
        if image != known["name"]:
            continue
        for holder in _holders(document, image):
            holder["image"] = f"{known['newName']}:{known['newTag']}"


def _holders(value: Any, image: str) -> Iterator[Json]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and value.get("image") == image:
        yield value
    for one in list(inner):
        yield from _holders(one, image)


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key of a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from keys(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from keys(inner, (*path, index))


def misspelt(document: Json, path: tuple[str | int, ...]) -> Json:
    """A copy with the last letter of one key doubled, where it was."""
    copy = deepcopy(document)
    holder: Any = copy
    for step in path[:-1]:
        holder = holder[step]
    last = str(path[-1])
    entries = [(last + last[-1] if key == last else key, value) for key, value in holder.items()]
    holder.clear()
    holder.update(entries)
    return copy
