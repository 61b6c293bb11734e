"""What the image installs is pinned by hash, and stays within the ranges of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(?P<version>[^ ;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE
)


def pins(lock: str) -> dict[str, tuple[str, int]]:
    """Each package of a lock file → its version, and how many hashes it may have."""
    text = (ROOT / "k8s" / lock).read_text()
    return {
        canonicalize_name(found["name"]): (found["version"], found["rest"].count("--hash=sha256:"))
        for found in PIN.finditer(text)
    }


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_each_package_is_pinned_by_hash(lock: str) -> None:
    """A package without a hash would make pip refuse the file, or take whatever a registry serves."""
    found = pins(lock)
    assert found
    assert all(hashes > 0 for _, hashes in found.values()), found
    assert "://" not in "".join(line for line in (ROOT / "k8s" / lock).read_text().splitlines() if "--" in line)


def test_the_lock_fits_the_project() -> None:
    """Each dependency of a server, in pyproject.toml, is locked, at a version that its range allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = pins("requirements.lock")
    extras = project["project"]["optional-dependencies"]
    for line in [*project["project"]["dependencies"], *extras["server"], *extras["trio"]]:
        wanted = Requirement(line)
        if wanted.name == "signald":
            continue  # another extra, which is in the list itself
        version, _ = locked[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), line
    (build,) = project["build-system"]["requires"]
    assert canonicalize_name(build) in pins("requirements-build.lock")


def test_the_image_takes_nothing_else() -> None:
    """Each pip call of the Containerfile installs by hash, or from files alone."""
    said = (ROOT / "k8s/Containerfile").read_text()
    for call in re.findall(r"pip (?:install|wheel)[^&\n]*", said):
        assert "--require-hashes" in call or "--no-deps" in call, call
