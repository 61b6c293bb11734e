"""The units in systemd/: every directive is one that systemd knows, and they agree with the configuration and its defaults."""

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from signald.cli import main
from signald.config import Config, load
from signald.config.units import parse_span_s

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
SERVICES = ["signald.service", "signald@.service"]
FILES = sorted(path for path in UNITS.rglob("*") if path.suffix in (".service", ".socket", ".conf"))
KNOWN = {
    section: set(names.split())
    for section, _, names in (
        line.partition(": ") for line in (Path(__file__).parent / "directives.txt").read_text().splitlines()
    )
}
"""What systemd 252 publishes (`systemd --dump-configuration-items`), and [Install], which only systemctl reads."""
LATER = {"RestartSteps": 254, "RestartMaxDelaySec": 254, "RefreshOnReload": 260}
"""Directives of [Service] that came later: only in drop-ins, which say from when on."""
ANALYZE = shutil.which("systemd-analyze")
EXPOSURE_MAX = 15
"""1.5 of 10, as --threshold= counts."""

Setting = tuple[str, str, str]


def settings(text: str) -> Iterator[Setting]:
    """Section, key and value of each line that says something."""
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals, line
            yield section, key, value


def unknown(path: Path, text: str) -> list[str]:
    """Directives of a unit that systemd does not know: it would warn, and go on without them."""
    since = int(path.name.partition("-")[0]) if path.parent.name == "drop-ins" else 0
    return [
        f"[{section}] {key}"
        for section, key, _ in settings(text)
        if key not in KNOWN.get(section, ()) and not (section == "Service" and LATER.get(key, 1000) <= since)
    ]


def values(name: str, key: str) -> list[str]:
    """What a unit says to `key`."""
    return [value for _, one, value in settings((UNITS / name).read_text()) if one == key]


def installed(directory: Path) -> Path:
    """The units as they would be installed, with a program that is there in the place of signald."""
    shutil.copytree(UNITS, directory, ignore=shutil.ignore_patterns("drop-ins"))
    for name in SERVICES:
        file = directory / name
        file.write_text(file.read_text().replace("/usr/bin/signald", shutil.which("true") or "/bin/true"))
    return directory


def analyze(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Run systemd-analyze, where there is one; else nothing is wrong."""
    if ANALYZE is None:
        return 0, ""
    done = subprocess.run([ANALYZE, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(UNITS)))
def test_every_directive_is_known_and_a_misspelt_one_is_found(path: Path) -> None:
    """Each key belongs to its section; misspelling any one of them, or a section, is noticed."""
    text = path.read_text()
    assert unknown(path, text) == []
    assert list(settings(text))
    for section, key, _ in set(settings(text)):
        assert unknown(path, text.replace(f"\n{key}=", f"\n{key[:-1]}=")), key
        assert unknown(path, text.replace(f"[{section}]", f"[{section}s]")), section


def test_systemd_itself_finds_nothing_to_say(tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent on the units as installed, and not on a misspelt one."""
    directory = installed(tmp_path / "units")
    names = ["./signald.service", "./signald.socket", "./signald@blue.service", "./signald@green.socket"]
    assert analyze("verify", "--man=no", *names, cwd=directory) == (0, "")
    file = directory / "signald.service"
    file.write_text(file.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert ANALYZE is None or "WatchdogSecs" in analyze("verify", "--man=no", names[0], cwd=directory)[1]


@pytest.mark.parametrize("name", SERVICES)
def test_the_sandbox_is_tight(tmp_path: Path, name: str) -> None:
    """`systemd-analyze security` gives each service an exposure of at most 1.5, and more when a line is missing."""
    directory = installed(tmp_path / "units")
    security = ("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", f"./{name}")
    assert analyze(*security, cwd=directory)[0] == 0
    file = directory / name
    file.write_text(file.read_text().replace("CapabilityBoundingSet=\n", "").replace("PrivateUsers=yes\n", ""))
    assert ANALYZE is None or analyze(*security, cwd=directory)[0] != 0


@pytest.mark.parametrize("name", SERVICES)
def test_times_agree_with_the_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TimeoutStopSec is what drain.stop_timeout_s counts on, by default and in the sample; `check-config` says so too."""
    (stop,) = values(name, "TimeoutStopSec")
    assert parse_span_s(stop) == Config().drain.stop_timeout_s == sample(monkeypatch, tmp_path).drain.stop_timeout_s
    assert main(["check-config", str(UNITS / "signald.toml"), "--systemd", str(UNITS / name)]) == 0
    short = tmp_path / "short.service"
    short.write_text((UNITS / name).read_text().replace("TimeoutStopSec=105", "TimeoutStopSec=20"))
    assert main(["check-config", str(UNITS / "signald.toml"), "--systemd", str(short)]) == 78
    (watchdog,) = values(name, "WatchdogSec")
    assert parse_span_s(watchdog) >= 10, "a store that is slow for a second is no reason to kill"


def sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """The sample configuration with the credential that the units load."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "jwt-secret").write_text("a shared secret of at least 32 bytes")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    return load(UNITS / "signald.toml", {"CREDENTIALS_DIRECTORY": str(credentials)})


def test_the_sample_is_a_configuration_and_names_what_the_units_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each credential of the sample is one that the units load, and the secret is taken from it."""
    assert sample(monkeypatch, tmp_path).auth.jwt_secret == "a shared secret of at least 32 bytes"
    raw = tomllib.loads((UNITS / "signald.toml").read_text())
    (used,) = [raw["auth"]["jwt_secret_file"].rpartition("/")[2]]
    for name in SERVICES:
        assert [value.partition(":")[0] for value in values(name, "LoadCredential")] == [used]


@pytest.mark.parametrize("name", SERVICES)
def test_reload_asks_the_socket_the_service_makes(name: str) -> None:
    """ExecReload waits, and asks on the socket that the same unit tells signald to make, in its runtime directory."""
    (reload,) = values(name, "ExecReload")
    (made,) = [value for value in values(name, "Environment") if value.startswith("SIGNALD_ADMIN__SOCKET=")]
    path = made.partition("=")[2]
    assert reload == f"/usr/bin/signald ctl reload --wait --node {path}"
    assert path.startswith(f"%t/{values(name, 'RuntimeDirectory')[0]}/")
    assert values(name, "Type") == ["notify"], "Debian 12 does not know notify-reload"


@pytest.mark.parametrize("name", SERVICES)
def test_what_signald_writes_is_in_directories_of_the_service(name: str) -> None:
    """The SQLite file and blobs in the state directory, uploads to S3 on a disk in the cache directory; nothing else can be written."""
    assert values(name, "StateDirectory") == values(name, "CacheDirectory") == ["signald"]
    assert values(name, "WorkingDirectory") == ["%S/signald"]
    assert values(name, "ProtectSystem") == ["strict"]


def test_colours_differ_where_they_must() -> None:
    """Each colour has an address for parties and one for HTTP of its own, and both are loopback: a proxy stands in front."""
    addresses = [values(f"signald@{colour}.socket.d/listen.conf", "ListenStream") for colour in ("blue", "green")]
    configs = []
    for colour in ("blue", "green"):
        env = dict(
            line.split("=", 1) for line in (UNITS / f"{colour}.env").read_text().splitlines() if line and line[0] != "#"
        )
        configs.append(load(None, env))
    used = [*(one for (one,) in addresses), *(one for config in configs for one in config.listen.http)]
    assert len(set(used)) == 4
    assert all(address.startswith("127.0.0.1:") for address in used)


def test_a_stopped_colour_has_no_socket_that_could_start_it() -> None:
    """Only the service needs the socket of a colour, which ends without it; that of a lone node stays."""
    assert values("signald@.socket", "StopWhenUnneeded") == ["yes"]
    assert not [key for section, key, _ in settings((UNITS / "signald@.socket").read_text()) if section == "Install"]
    assert values("signald@.service", "Also") == []
    assert values("signald.socket", "StopWhenUnneeded") == []


@pytest.mark.parametrize("name", SERVICES)
def test_no_core_file_holds_what_parties_said(name: str) -> None:
    """Tokens and messages are in memory: a crash leaves no copy of it on a disk."""
    assert values(name, "LimitCORE") == ["0"]


def test_sockets_have_the_name_that_signald_knows() -> None:
    """FileDescriptorName is one that signald serves, and each service needs its socket."""
    for name, socket in (("signald.service", "signald.socket"), ("signald@.service", "signald@%i.socket")):
        assert values(name, "Requires") == [socket]
        assert values(socket.replace("%i", ""), "FileDescriptorName") == ["ws"]
    assert values("signald.socket", "Backlog") == [str(Config().listen.backlog)]


def test_usage_and_configuration_are_not_tried_again() -> None:
    """The exit statuses that a restart cannot help are those of sysexits for usage and configuration, and serve gives them.

    systemd looks at them for ExecStart= only, so nothing is checked before it; and no limit of starts ends the socket.
    """
    for name in SERVICES:
        assert values(name, "ExecStartPre") == []
        assert values(name, "StartLimitIntervalSec") == ["0"]
        prevented = {int(status) for status in values(name, "RestartPreventExitStatus")[0].split()}
        assert {os.EX_USAGE, os.EX_CONFIG} <= prevented
        assert not prevented & {os.EX_UNAVAILABLE, os.EX_SOFTWARE, os.EX_OSERR}
