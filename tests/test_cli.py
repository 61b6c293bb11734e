"""The command line, as a person or a supervisor calls it: what it prints where, and its exit code."""

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jwt
import pytest
from jsonschema import Draft202012Validator

import signald
from signald.cli import main
from signald.config import Config, ConfigError, Problem, load, render_toml
from signald.config.changes import Source
from signald.demo.options import DemoOptions
from signald.exit_codes import ExitCode
from signald.service.auth import Authenticator, Principal

USAGE, CONFIG = 64, 78
SECRET = "correct horse battery staple, said twice"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's SIGNALD_ variables and colours out of the tests."""
    for name in ("SIGNALD_AUTH__JWT_SECRET", "CREDENTIALS_DIRECTORY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stand in for the daemon: collect the configurations it would run, and return 5."""
    configs: list[Config] = []
    daemon = ModuleType("signald.daemon")

    def run(
        config: Config, source: Source | None = None, announce: Callable[[int, int], None] = lambda _ws, _http: None
    ) -> int:
        configs.append(config)
        announce(1080, 1081)
        return 5

    monkeypatch.setattr(daemon, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "signald.daemon", daemon)
    return configs


Output = pytest.CaptureFixture[str]


def test_default_config_prints_the_reference_which_check_config_accepts(tmp_path: Path, capsys: Output) -> None:
    """What signald prints as its configuration is one it takes."""
    assert main(["default-config"]) == 0
    file = tmp_path / "signald.toml"
    file.write_text(capsys.readouterr().out)
    assert tomllib.loads(file.read_text()) == tomllib.loads(render_toml())
    assert main(["check-config", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{file}: ok"
    assert [line.partition(" sessions")[0] for line in said[1:]] == ["a drain moves 11220"]


def test_check_config_prints_every_problem_and_exits_78(tmp_path: Path, capsys: Output) -> None:
    """All problems stand on standard error, each on its line with its place."""
    file = tmp_path / "signald.toml"
    file.write_text("[limits]\nmesage_bytes_max = 5\nfragments_max = 0\n")
    assert main(["check-config", str(file)]) == CONFIG
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f'{file}:2: limits.mesage_bytes_max: unknown key; did you mean "message_bytes_max"?',
        f"{file}:3: limits.fragments_max: must be greater than 0, got 0",
        "signald: the configuration has 2 problems",
    ]


def test_check_config_looks_into_the_public_key(tmp_path: Path, capsys: Output) -> None:
    """A key that cannot be used is found before a deploy, not by it."""
    (tmp_path / "key.pem").write_text("not a key")
    file = tmp_path / "signald.toml"
    file.write_text('[auth]\njwt_public_key_file = "key.pem"\n')
    assert main(["check-config", str(file)]) == CONFIG
    assert f"{file}: auth.jwt_public_key_file: " in capsys.readouterr().err


def test_check_config_of_a_missing_file_says_so(tmp_path: Path, capsys: Output) -> None:
    """No traceback for a mistyped path."""
    assert main(["check-config", str(tmp_path / "none.toml")]) == CONFIG
    assert "none.toml: cannot be read: No such file or directory" in capsys.readouterr().err


def test_serve_runs_the_daemon_with_file_and_environment(
    tmp_path: Path, served: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon gets the loaded configuration, and its result is the exit code."""
    file = tmp_path / "signald.toml"
    file.write_text('[listen]\nwebsocket = "127.0.0.1:9000"\n[node]\nid = "from-file"\n')
    monkeypatch.setenv("SIGNALD_NODE__ID", "from-environment")
    assert main(["serve", "--config", str(file)]) == 5
    assert [(c.listen.websocket, c.node.id) for c in served] == [(("127.0.0.1:9000",), "from-environment")]


def test_serve_without_a_file_runs_on_the_defaults(served: list[Config]) -> None:
    """A newcomer types `signald serve`."""
    assert main(["serve"]) == 5
    assert served[0].listen == Config().listen


def test_serve_with_a_broken_configuration_starts_nothing(tmp_path: Path, served: list[Config], capsys: Output) -> None:
    """Exit code 78, on which a supervisor does not restart."""
    file = tmp_path / "signald.toml"
    file.write_text("[limit]\n")
    assert main(["serve", "--config", str(file)]) == CONFIG
    assert served == []
    assert 'did you mean "limits"?' in capsys.readouterr().err


def test_a_configuration_the_daemon_refuses_is_reported_alike(
    monkeypatch: pytest.MonkeyPatch, served: list[Config], capsys: Output
) -> None:
    """What only the running daemon can find out is said in the same words."""

    def refuse(_: Config, __: Source | None) -> int:
        raise ConfigError([Problem("", "store.url", "evicts keys")])

    monkeypatch.setattr(sys.modules["signald.daemon"], "run", refuse)
    assert main(["serve"]) == CONFIG
    assert capsys.readouterr().err.splitlines()[0] == "store.url: evicts keys"


def test_version_in_words_and_as_json(capsys: Output) -> None:
    """Both name the release."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"signald {signald.__version__}\n"
    assert main(["version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["signald"] == signald.__version__
    assert {"python", "platform", "libraries"} <= facts.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["serv"],
        ["serve", "--confg", "x"],
        ["check-config"],
        ["version", "--yaml"],
        ["token", "mint", "--role", "admin", "--subject", "a"],
        ["token", "mint", "--role", "client"],
        ["token", "mint", "--role", "client", "--subject", "a", "--config", "x", "--secret-file", "y"],
        ["demo", "--sessions", "many"],
    ],
)
def test_wrong_usage_exits_64_and_says_why(arguments: list[str], capsys: Output) -> None:
    """One line on standard error, nothing on standard output."""
    assert main(arguments) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("signald: ")
    assert len(captured.err.splitlines()) == 1


def test_a_minted_token_opens_the_endpoint_of_its_role(tmp_path: Path, capsys: Output) -> None:
    """token mint works from a configuration file and from a secret file alike."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    file = tmp_path / "signald.toml"
    file.write_text('[auth]\njwt_secret_file = "secret"\n')
    authenticator = Authenticator.from_config(load(file, {}).auth)
    for source in (["--config", str(file)], ["--secret-file", str(secret)]):
        assert main(["token", "mint", "--role", "worker", "--subject", "w1", *source]) == 0
        bearer = capsys.readouterr().out.strip()
        claims = jwt.decode(bearer, SECRET, algorithms=["HS256"])
        assert claims["exp"] - claims["iat"] in (3600, 3601)
        assert authenticator.authenticate(bearer, "worker", claims["iat"]) == Principal("w1", "worker")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], CONFIG, "there is no shared secret"),
        (["--secret-file", "none"], CONFIG, "none cannot be read"),
        (["--secret-file", "short"], CONFIG, "at least 32 bytes"),
        (["--secret-file", "secret", "--ttl-s", "0"], USAGE, "time to live"),
        (["--secret-file", "secret", "--subject", ""], USAGE, "subject"),
    ],
)
def test_a_token_that_cannot_be_minted_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: list[str], code: int, message: str
) -> None:
    """The reason is one line, and the secret is not in it."""
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text(SECRET)
    Path("short").write_text("too-short")
    subject = [] if "--subject" in arguments else ["--subject", "a"]
    assert main(["token", "mint", "--role", "client", *subject, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "too-short" not in captured.err
    assert "SIGNALD_" not in captured.err


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of the command reaches the demo, and the defaults are those of DemoOptions."""
    seen: list[DemoOptions] = []
    module = ModuleType("signald.demo.main")

    def run(options: DemoOptions) -> int:
        seen.append(options)
        return 3

    monkeypatch.setattr(module, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "signald.demo.main", module)
    assert main(["demo"]) == 3
    every = "--sessions 7 --workers 2 --rate 1.5 --deploys 4 --store redis://h --kill 1 --cross --json"
    assert main(["demo", *every.split()]) == 3
    assert main(["demo", *["--web", "--port", "0", "--every", "7.5"]]) == 3
    assert seen == [
        DemoOptions(),
        DemoOptions(sessions=7, workers=2, rate=1.5, deploys=4, store="redis://h", kill=1, cross=True, json=True),
        DemoOptions(web=True, port=0, every=7.5),
    ]


@pytest.mark.parametrize("command", [[], ["--help"], ["serve", "--help"], ["token", "mint", "--help"]])
def test_help_is_printed_on_standard_output(command: list[str], capsys: Output) -> None:
    """Asking for help is no mistake."""
    assert main(command) == 0
    assert "Usage: signald" in capsys.readouterr().out


@pytest.mark.real
def test_the_module_runs_as_a_process_and_survives_a_closed_pipe() -> None:
    """The exit code reaches the shell, and `| head` makes no traceback."""
    command = [sys.executable, "-m", "signald.cli"]
    result = subprocess.run([*command, "check-config", "/nonexistent"], capture_output=True, text=True)
    assert result.returncode == CONFIG
    assert "Traceback" not in result.stderr
    # Buffered, as it is by default: the error then shows only when the interpreter ends.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run([*command, "version"], env=env, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_schema_is_as_strict_about_names_and_ranges_as_the_loader(capsys: Output) -> None:
    """An editor that has the schema flags what the loader refuses: a typo, a wrong type, a value out of range."""
    assert main(["config-schema"]) == 0
    validator = Draft202012Validator(json.loads(capsys.readouterr().out))
    assert validator.is_valid(tomllib.loads(render_toml()))
    assert not validator.is_valid({"pase": {}})
    assert not validator.is_valid({"pace": {"sessions_per_ss": 1}})
    assert not validator.is_valid({"pace": {"sessions_per_s": "fast"}})
    assert not validator.is_valid({"pace": {"sessions_per_s": 0}})
    assert not validator.is_valid({"worker": {"on_loss": "forget"}})
    assert not validator.is_valid({"node": {"lease_ttl_s": 0.5}})


def test_config_show_says_where_each_value_comes_from(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Default, file and line, or variable; secrets are named and not shown."""
    file = tmp_path / "signald.toml"
    file.write_text(f'[pace]\nsessions_per_s = 7\n[auth]\njwt_secret = "{SECRET}"\n')
    monkeypatch.setenv("SIGNALD_LOG__LEVEL", "debug")
    assert main(["config", "show", str(file), "--origin"]) == 0
    shown = capsys.readouterr().out
    assert f"sessions_per_s = 7.0  # {file}:2\n" in shown
    assert 'level = "debug"  # SIGNALD_LOG__LEVEL\n' in shown
    assert "gap_max_s = 1.0  # default\n" in shown
    assert SECRET not in shown
    assert tomllib.loads(shown)["auth"]["jwt_secret"] == "(set, not shown)"
    assert main(["config", "show", str(file), "--origin", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["pace"]["sessions_per_s"]
    assert found == {"value": 7.0, "origin": f"{file}:2"}


def test_serve_dev_is_closed_to_others_and_leaves_nothing(served: list[Config], capsys: Output) -> None:
    """Loopback, a key of its own that the printed tokens are signed with, and a store that is gone afterwards."""
    assert main(["serve", "--dev"]) == 5
    (config,) = served
    assert config.listen.websocket[0].startswith("127.0.0.1:")
    directory = Path(config.store.url.removeprefix("sqlite:")).parent
    assert directory.name.startswith("signald-dev-")
    assert not directory.exists()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "client: ws://127.0.0.1:1080/v1/client"
    assert "health: http://127.0.0.1:1081/readyz" in printed
    tokens = [line.split()[1] for line in printed if line.startswith("  auth ")]
    authenticator = Authenticator.from_config(config.auth)
    for token, role in zip(tokens, ("client", "worker"), strict=True):
        verified = authenticator.identify(token, role, time.time())  # type: ignore[arg-type]
        assert verified.principal.name
        assert verified.rooms == {"*": ("join", "publish", "state")}
    assert config.auth.jwt_secret not in "".join(printed)
    assert main(["serve", "--dev", "--config", "x"]) == USAGE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: Output) -> None:
    """Each shell gets a script that knows the commands."""
    assert main(["completion", shell]) == 0
    assert "check-config" in capsys.readouterr().out


@pytest.mark.real
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (">/dev/full", ExitCode.OUTPUT, "signald: the output cannot be written: No space left on device\n"),
        (">&-", ExitCode.OK, ""),
        (">/dev/full 2>/dev/full", ExitCode.OUTPUT, ""),
        (">&- 2>&-", ExitCode.OK, ""),
    ],
)
def test_standard_files_that_take_nothing(redirection: str, status: int, said: str) -> None:
    """A full disk is said with its own code; a closed file cannot be written to. Neither makes a traceback."""
    command = f'exec "$0" -m signald.cli version {redirection}'
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)
