"""Run Autobahn's fuzzing client against the production listener: python -m tests.conformance.autobahn

An echo handler stands where the daemon's stands; the listener, the handshake, the frames and the connection are those of the daemon. The
outcome is compared with `expected.json`; any difference is exit code 1, a suite that cannot be had is exit code 69. With `--compression`
the listener deflates, and the file is `expected-compressed.json`.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import attrs
import trio

from signald.net.compression import Mode
from tests.conformance import suite, verdict
from tests.net.clients import listening
from tests.net.settings import settings_of
from tests.net.test_real import contexts

EX_UNAVAILABLE = 69

SETTINGS = settings_of(
    message_bytes_max=16 * 1024 * 1024,  # cases 9.1 and 9.2 go up to this
    fragments_max=2 * 65536,  # case 9.3.1: 4 MiB in fragments of 64 bytes, and an empty one
    send_queue_bytes_max=32 * 1024 * 1024,
    send_queue_messages_max=10_000,
)
"""The limits of the daemon would refuse what the suite sends to measure; all else is as in production."""

RUN_S = 3600.0


async def judge(found: suite.Suite, work: Path, *, tls: bool, compression: Mode, cases: list[str]) -> dict[str, str]:
    """Run `cases` in the folder `work`; return the outcomes. At the end no task and no descriptor may be left."""
    settings = attrs.evolve(SETTINGS, compression=compression)
    context = None
    if tls:
        context, _ = contexts(work)
    async with listening(settings=settings, tls=context, within_s=RUN_S) as port:
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port.number}/v1/client"
        return verdict.outcomes(await found.run(url, work, cases))


def main() -> int:
    """Run the suite as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, metavar="DIR", help="keep the suite's own report (HTML and JSON) here")
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.add_argument("--compression", choices=["off", "messages", "context"], default="off", help="default: off")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="CASE", help="only these, such as 7.* 6.2.3")
    parser.add_argument("--freeze", action="store_true", help="write what was seen to the file: look at the diff")
    options = parser.parse_args()
    try:
        found = suite.find()
    except suite.SuiteMissing as missing:
        print(f"no suite: {missing}", file=sys.stderr)
        return EX_UNAVAILABLE
    print(f"suite: {found.name}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        got = trio.run(
            lambda: judge(found, work, tls=options.tls, compression=options.compression, cases=options.cases)
        )
        if options.report is not None:
            shutil.copytree(work / "report", options.report, dirs_exist_ok=True)
    print(verdict.summary(got))
    frozen = verdict.FROZEN if options.compression == "off" else verdict.FROZEN_COMPRESSED
    expected, reasons = verdict.load(frozen)
    if options.freeze:
        frozen.write_text(verdict.freeze(got, reasons))
        return 0
    if options.cases != ["*"]:
        expected = {case: outcome for case, outcome in expected.items() if case in got}
    wrong = verdict.faults(got, expected, reasons)
    print("\n".join(wrong) or "as frozen")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
