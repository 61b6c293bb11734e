"""Transcripts of the SDK: `python -m tests.vectors record` writes them from the cores, `check` replays them."""

import argparse
import sys

from tests.vectors.replay import BYTES_MAX, FOLDER, differences, files, recorded, text_of
from tests.vectors.scenarios import TOPICS


def record() -> int:
    """Play the scenarios, and write what came of them."""
    for topic, vectors in TOPICS.items():
        (FOLDER / f"{topic}.json").write_text(text_of(topic, [recorded(vector) for vector in vectors]))
    for path in FOLDER.glob("*.json"):
        if path.stem not in TOPICS:
            path.unlink()
    size = sum(path.stat().st_size for path in FOLDER.glob("*.json"))
    print(f"{sum(map(len, TOPICS.values()))} vectors, {size} bytes")
    return 0 if size <= BYTES_MAX else 1


def check() -> int:
    """Replay the transcripts; print what is otherwise."""
    found = [line for vectors in files().values() for vector in vectors for line in differences(vector)]
    print("\n".join(found) or "all vectors are as recorded")
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.vectors", description=__doc__)
    parser.add_argument("what", choices=("record", "check"))
    sys.exit(record() if parser.parse_args().what == "record" else check())
