"""`python -m tests.thin.sizes`: packages and MiB of each kind of installation, as docs/sdk.md shows them."""

import tempfile
from pathlib import Path

from tests.thin.wheel import build, environment, packages

EXTRAS = ("", "trio", "server")


def size(folder: Path) -> int:
    """The bytes of the files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def main() -> None:
    """Print a row of the table for each extra, and the size of signald itself."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wheel = build(directory)
        for number, extra in enumerate(EXTRAS):
            folder = packages(environment(directory / str(number), wheel, extra))
            count = len(list(folder.glob("*.dist-info")))
            shown = f"signald[{extra}]" if extra else "signald"
            print(f"{shown:16} {count:3} packages {size(folder) / 2**20:5.1f} MiB")
        print(f"signald itself: {size(folder / 'signald') / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
