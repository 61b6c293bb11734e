"""The root file system of a Debian that systemd boots, with the signald of this tree in it.

The Debian comes from the apt sources of this machine and is kept, packed, under the temporary directory: it is made once. The
interpreter and the libraries are those that run the tests, so that the container needs no network.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

TREE = Path(__file__).resolve().parents[3]
SUITES = {"bookworm": "libssl3", "trixie": "libssl3t64"}
"""The releases of Debian, and how each calls its OpenSSL."""
PACKAGES = ("usr-is-merged", "systemd-sysv", "openssl", "libsqlite3-0", "libexpat1", "libffi8")
"""What signald and the page need beside the base: an init, openssl(1), and the libraries of Python's own modules."""
NEEDED = ("systemd-nspawn", "mmdebstrap", "nsenter", "setpriv", "apt-get")
MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")
MAKE_S = 400.0
"""Half a minute on an idle machine, most of it unpacking; a slow mirror takes longer."""
MEMORY_BYTES_MIN = 1 << 30
PREFIX = Path("opt/python")
PROGRAM = """#!/opt/python/bin/python3 -I
import sys
from signald.entry import main
sys.exit(main())
"""
LEFT_OUT = (
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "site-packages",
    "dist-packages",
    "config-*",
    "ensurepip",
    "lib2to3",
)


def missing() -> str:
    """Why no container can be made on this machine; "" when it can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, for systemd-nspawn"
    if lacking := [name for name in NEEDED if shutil.which(name) is None]:
        return f"needs {', '.join(lacking)}: apt-get install systemd-container mmdebstrap"
    if not mirror():
        return "needs apt sources of a Debian, to make a root file system from"
    allowed = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if allowed.returncode == 0 else f"may not make namespaces: {allowed.stderr.decode().strip()}"


def mirror() -> str:
    """The first archive of Debian among the apt sources of this machine, as a URL; "" without any."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in asked.stdout.splitlines():
        uri, suite, component = line.split()
        # Updates and security fixes are no archives to make a system from.
        if component == "main" and re.fullmatch(r"[a-z]+", suite) and "debian" in uri:
            return uri
    return ""


def packed(suite: str) -> Path:
    """The base system, as a tar file; it is made when there is none."""
    packages = (*PACKAGES, SUITES[suite])
    directory = Path(tempfile.gettempdir()) / f"signald-systemd-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = directory.lstat()
    assert owner.st_uid == os.getuid(), f"{directory} belongs to another user"
    assert not owner.st_mode & 0o077, f"{directory} is open to other users"
    recipe = hashlib.sha256(" ".join((suite, *packages)).encode()).hexdigest()[:12]
    kept = directory / f"{suite}-{recipe}.tar"
    if not kept.exists():
        unfinished = directory / f"{suite}-{os.getpid()}.unfinished"
        try:
            _make(suite, packages, unfinished)
            unfinished.rename(kept)
        finally:
            unfinished.unlink(missing_ok=True)
    return kept


def _make(suite: str, packages: tuple[str, ...], to: Path) -> None:
    done = subprocess.run(
        [
            "mmdebstrap",
            "--variant=minbase",
            "--format=tar",
            f"--include={','.join(packages)}",
            f"--hook-dir={MERGED_USR}",
            "--dpkgopt=force-unsafe-io",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            '--aptopt=Acquire::Languages "none"',
            *_apt_options(),
            suite,
            str(to),
            f"deb {mirror()} {suite} main",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": roomy()},
        timeout=MAKE_S,
        check=False,
    )
    assert done.returncode == 0, f"mmdebstrap {suite}: {done.stdout.decode(errors='replace')[-4000:]}"


def _apt_options() -> list[str]:
    """How this machine's apt is told to fetch: by a proxy, through a snapshot, with a certificate of its own."""
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    wanted = re.compile(r'Acquire::(Check-|http|https|ForceIPv|Retries)\S* ".+";')
    return [f"--aptopt={line.rstrip(';')}" for line in dumped.stdout.splitlines() if wanted.match(line)]


def roomy() -> str:
    """Where to unpack: memory, if there is enough of it. On a busy disk ten thousand small files take a minute to remove."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES_MIN:
        return str(memory)
    return tempfile.gettempdir()


def furnish(root: Path, suite: str) -> None:
    """Unpack the base system into `root` and install the signald of this tree, as /usr/bin/signald."""
    subprocess.run(["tar", "--extract", "--numeric-owner", "--file", packed(suite), "--directory", root], check=True)
    _install_python(root)
    libraries = root / PREFIX / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    _install_libraries(libraries)
    _install_wheel(root, libraries)
    program = root / "usr/bin/signald"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    shutil.copytree(TREE / "systemd", root / "src/systemd")
    # Compiled once, as a package manager does: the service may not write there.
    subprocess.run(
        ["chroot", root, "/opt/python/bin/python3", "-I", "-c", "import signald.cli, signald.daemon, encodings.idna"],
        env={"PATH": os.environ["PATH"]},
        check=True,
    )


def _install_python(root: Path) -> None:
    name = f"python{sysconfig.get_python_version()}"
    standard = root / PREFIX / "lib" / name
    shutil.copytree(sysconfig.get_path("stdlib"), standard, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    programs = root / PREFIX / "bin"
    programs.mkdir()
    shutil.copy2(Path(sys.base_prefix) / "bin" / name, programs / name, follow_symlinks=True)
    (programs / "python3").symlink_to(name)
    shared = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        shutil.copy2(shared, root / "usr/local/lib")
        subprocess.run(["ldconfig", "-r", root], check=True)


def _install_libraries(to: Path) -> None:
    """Copy what a server of signald requires, and what that requires."""
    to.mkdir()
    waiting, seen = [Requirement("signald[server]")], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in seen:
                continue
            seen.add((wanted.name, extra))
            found = importlib.metadata.distribution(wanted.name)
            needs = [Requirement(line) for line in found.requires or []]
            waiting += [one for one in needs if one.marker is None or one.marker.evaluate({"extra": extra})]
            if wanted.name != "signald" and not extra:
                _copy(found, to)


def _copy(found: importlib.metadata.Distribution, to: Path) -> None:
    for file in found.files or []:
        source = Path(str(file.locate()))
        # Programs stand beside; they are not needed.
        if ".." not in file.parts and file.suffix != ".pyc" and source.is_file():
            target = to / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o644)


def _install_wheel(root: Path, libraries: Path) -> None:
    """Build the wheel of this tree and unpack it, which is what installing means where it has no programs of its own."""
    directory = root / "tmp/wheel"
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps", "-w", directory, TREE],
        check=True,
        capture_output=True,
    )
    (wheel,) = directory.glob("signald-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(libraries)
    shutil.rmtree(directory)
