"""Is a drain given its time? Units and manifests, as `check-config` compares them with the configuration."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.cli import main
from signald.config import DrainConfig, check_stop_timeouts
from signald.config.checks import drain_needs_s
from signald.config.stop_timeouts import DOCUMENT_BYTES_MAX
from signald.config.units import parse_span_s, read_unit

CONFIG = 78
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge}
spec:
  template:
    spec:
      {grace}
      containers:
        - name: signald
          {hook}
        - {name: sidecar, image: proxy, lifecycle: {preStop: {sleep: {seconds: 80}}}}
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep colours out of what is compared."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose drain needs 65 s and counts on 75 s."""
    path = tmp_path / "signald.toml"
    path.write_text(
        "[admission]\nconnections_max = 6000\n[drain]\ntimeout_s = 60.0\nmargin_s = 5.0\nstop_timeout_s = 75.0\n"
    )
    return path


def unit(folder: Path, name: str, text: str) -> str:
    """Write a unit; returns its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


def manifest(folder: Path, grace: str = "", hook: str = "") -> str:
    """Write a Deployment; returns its path."""
    path = folder / "pod.yaml"
    path.write_text(DEPLOYMENT.replace("{grace}", grace).replace("{hook}", hook))
    return str(path)


# What `systemd-analyze timespan` of systemd 252 says of each.
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1min 30s", 90.0),
        ("1m30", 90.0),
        ("1h30m", 5400.0),
        ("5 min", 300.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1 s 2", 3.0),
        ("20ms", 0.02),
        ("2us", 2e-6),
        ("1M", 2_629_800.0),
        ("1w", 604_800.0),
        (" infinity ", float("inf")),
    ],
)
def test_spans_mean_what_systemd_takes_them_for(text: str, seconds: float) -> None:
    """A span is read as systemd reads it."""
    assert parse_span_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "  ", "1e3", "5.s", "soon", "1 fortnight", "-5", "75s infinity", "1,5s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    """A span that systemd would ignore is not taken for anything."""
    with pytest.raises(ValueError, match="time span"):
        parse_span_s(text)


@given(st.text())
def test_any_text_is_a_span_or_refused(text: str) -> None:
    """Nothing but ValueError comes of a span."""
    try:
        assert parse_span_s(text) >= 0
    except ValueError:
        return


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        (["[Service]\nTimeoutStopSec=75"], 75),
        (["[Service]\nExecStart=/bin/signald"], 90),
        (["[Service]\nTimeoutStopSec=75", "[Service]\nTimeoutStopSec=120"], 120),
        (["[Service]\nTimeoutStopSec=75", "[Service]\nTimeoutStopSec="], 90),
        (["[Service]\nTimeoutStopSec=75", "[Service]\nTimeoutSec=1min"], 60),
        (["[Service]\nTimeoutStopSec=75\nTimeoutStartSec=10"], 75),
        (["[Service]\nTimeoutStopSec=infinity"], float("inf")),
        (["[Service]\nTimeoutStopSec=0"], float("inf")),
        (["[Unit]\nTimeoutStopSec=1\n[Service]\nType=notify\n"], 90),
        (["[Service]\n# TimeoutStopSec=1\n;TimeoutStopSec=2\nTimeoutStopSec = 1min \\\n# between\n  15s\n"], 75),
        (["[Service]\nEnvironment=A=\\\nTimeoutStopSec=1\nTimeoutStopSec=99"], 99),
    ],
)
def test_the_last_setting_of_a_unit_counts(texts: list[str], seconds: float) -> None:
    """Drop-ins override, an empty value resets, comments and other sections say nothing, lines may go on."""
    found = read_unit([(f"{number}.conf", text) for number, text in enumerate(texts)])
    assert (found.stop_s, found.problems) == (seconds, ())


def test_a_unit_is_refused_by_as_much_as_it_is_too_short(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The place, what is granted, what is needed, and the difference; exit 78."""
    short = unit(config.parent, "signald.service", "[Unit]\n[Service]\nTimeoutStopSec=30\n")
    assert main(["check-config", str(config), "--systemd", short]) == CONFIG
    assert capsys.readouterr().err.splitlines() == [
        f"{short}:3: TimeoutStopSec: grants 30 s, the drain needs 65 s (timeout_s 60 and margin_s 5): 35 s too short",
        "signald: the configuration has 1 problem",
    ]


SECRETS = {
    "file": "/run/secrets/of-another-machine",
    "credential": "${CREDENTIALS_DIRECTORY}/jwt-secret",
}


@pytest.mark.parametrize("secret", list(SECRETS.values()), ids=list(SECRETS))
@pytest.mark.parametrize("key", ["jwt_secret_file", "jwt_public_key_file"])
@pytest.mark.parametrize("option", ["--systemd", "--k8s"])
def test_a_secret_that_is_not_here_is_said_and_the_comparison_is_made(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
    key: str,
    option: str,
) -> None:
    """The units and manifests are checked on another machine than the one with the secrets; without them the file alone fails."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    config.write_text(f'{config.read_text()}[auth]\n{key} = "{secret}"\n')

    def granting(seconds: int) -> str:
        if option == "--k8s":
            return manifest(config.parent, f"terminationGracePeriodSeconds: {seconds}")
        return unit(config.parent, "signald.service", f"[Service]\nTimeoutStopSec={seconds}\n")

    assert main(["check-config", str(config), option, granting(80)]) == 0
    said = capsys.readouterr()
    assert f"signald: not checked here: {config}:8: auth.{key}: " in said.err
    assert f"{config}: ok, but for what is not here" in said.out
    assert main(["check-config", str(config), option, granting(30)]) == CONFIG
    said = capsys.readouterr()
    assert f"signald: not checked here: {config}:8: auth.{key}: " in said.err
    assert "the drain needs 65 s (timeout_s 60 and margin_s 5): 35 s too short" in said.err
    assert main(["check-config", str(config)]) == CONFIG


def test_a_mistake_elsewhere_does_not_stop_the_comparison(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every mistake is said at once; only a drain that cannot be known is compared with nothing."""
    short = unit(config.parent, "signald.service", "[Service]\nTimeoutStopSec=30\n")
    good = config.read_text()
    config.write_text(f'{good}[log]\nlevel = "loud"\n')
    assert main(["check-config", str(config), "--systemd", short]) == CONFIG
    err = capsys.readouterr().err
    assert "log.level" in err
    assert "35 s too short" in err
    assert "2 problems" in err
    config.write_text(good.replace("timeout_s = 60.0", "timeout_s = -1.0", 1))
    assert main(["check-config", str(config), "--systemd", short]) == CONFIG
    assert "too short" not in capsys.readouterr().err


def test_a_drop_in_mends_or_spoils_a_unit(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What systemd would do in the end is judged, not each file for itself."""
    short = unit(config.parent, "signald.service", "[Service]\nTimeoutStopSec=30\n")
    longer = unit(config.parent, "long.conf", "[Service]\nTimeoutStopSec=75\n")
    assert main(["check-config", str(config), "--systemd", short, "--systemd", longer]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [f"{path}: ok" for path in (config, short, longer)]
    assert main(["check-config", str(config), "--systemd", longer, "--systemd", short]) == CONFIG
    assert f"{short}:2: TimeoutStopSec: grants 30 s" in capsys.readouterr().err


def test_a_unit_shorter_than_the_configuration_counts_on_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """drain.stop_timeout_s is what the supervisor is said to grant: saying more than is so is a mistake."""
    path = unit(config.parent, "signald.service", "[Service]\nTimeoutStopSec=70\n")
    assert main(["check-config", str(config), "--systemd", path]) == CONFIG
    assert "TimeoutStopSec: grants 70 s, drain.stop_timeout_s counts on 75 s: 5 s too short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Service]\nTimeoutStopSec=soon\n", ":2: TimeoutStopSec: expected a time span"),
        ("[Install]\nWantedBy=multi-user.target\n", "is no unit of a service"),
        (None, "cannot be read: No such file or directory"),
        (b"[Service]\n\xff\n", "is no text file"),
    ],
)
def test_a_unit_that_cannot_be_judged_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], text: str | bytes | None, said: str
) -> None:
    """Nothing is called good that was not understood."""
    path = config.parent / "signald.service"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["check-config", str(config), "--systemd", str(path)]) == CONFIG
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grace", "hook", "said"),
    [
        ("terminationGracePeriodSeconds: 90", "lifecycle: {preStop: {sleep: {seconds: 10}}}", None),
        ("terminationGracePeriodSeconds: 75", "image: signald:1", None),
        (
            "terminationGracePeriodSeconds: 70",
            "lifecycle: {preStop: {sleep: {seconds: 10}}}",
            "grants 60 s (70 s less 10 s of preStop), the drain needs 65 s (timeout_s 60 and margin_s 5): 5 s too short",
        ),
        ("", "image: signald:1", "grants 30 s (30 s, the default of Kubernetes), the drain needs 65 s"),
        (
            "terminationGracePeriodSeconds: 84",
            "lifecycle: {preStop: {exec: {command: [/bin/sleep, '10']}}}",
            "drain.stop_timeout_s counts on 75 s: 1 s too short",
        ),
        ("terminationGracePeriodSeconds: 85", "lifecycle: {preStop: {exec: {command: [sh, -c, sleep 10]}}}", None),
        (
            "terminationGracePeriodSeconds: 85",
            "lifecycle: {preStop: {exec: {command: [sh, -c, sleep 10; sleep 50]}}}",
            "nobody can say how long its preStop hook takes",
        ),
        ("terminationGracePeriodSeconds: 90", "lifecycle: {preStop: {httpGet: {port: 1}}}", "nobody can say how long"),
        ("terminationGracePeriodSeconds: soon", "image: signald:1", "expected a number of seconds, got 'soon'"),
        ("terminationGracePeriodSeconds: -1", "image: signald:1", "expected a number of seconds, got -1"),
    ],
)
def test_a_pod_is_granted_its_grace_less_its_pre_stop(
    config: Path, capsys: pytest.CaptureFixture[str], grace: str, hook: str, said: str | None
) -> None:
    """The grace clock starts before the preStop hook; hooks of other containers run beside it and take nothing."""
    path = manifest(config.parent, grace, hook)
    assert main(["check-config", str(config), "--k8s", path]) == (CONFIG if said else 0)
    err = capsys.readouterr().err
    assert (f"{path}: Deployment/edge" in err and said in err) if said else not err


@pytest.mark.parametrize(
    ("container", "is_signald"),
    [
        ("{name: edge, image: 'registry.example/team/signald:1.2'}", True),
        ("{name: edge, image: base, command: [/usr/bin/signald, serve]}", True),
        ("{name: edge, image: 'signald@sha256:0'}", True),
        ("{name: edge, image: 'signaldish:1'}", False),
    ],
)
def test_signalds_container_is_known_by_its_name_image_or_command(
    config: Path, capsys: pytest.CaptureFixture[str], container: str, is_signald: bool
) -> None:
    """Another container's hook counts only when no container is known to be signald's."""
    path = config.parent / "pod.yaml"
    path.write_text(
        f"kind: Pod\nmetadata: {{name: one}}\nspec:\n  terminationGracePeriodSeconds: 90\n  containers:\n  - {container}\n"
        "  - {name: proxy, lifecycle: {preStop: {sleep: {seconds: 60}}}}\n"
    )
    assert main(["check-config", str(config), "--k8s", str(path)]) == (0 if is_signald else CONFIG)


def test_every_pod_of_every_document_is_judged(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, several documents and standard input, as kustomize writes them."""
    pod = "{kind: Rollout, metadata: {name: %s}, spec: {template: {spec: {containers: [{name: signald}]}}}}"
    text = f"kind: List\nitems: [{pod % 'a'}]\n---\nkind: Service\n---\n{pod % 'b'}\n---\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["check-config", str(config), "--k8s", "-"]) == CONFIG
    err = capsys.readouterr().err
    assert [line.split(": ")[1] for line in err.splitlines()[:-1]] == ["Rollout/a", "Rollout/b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Service\n", "holds no pod"),
        ("a: [\n", "is no YAML"),
        ("", "holds no pod"),
        (" " * (DOCUMENT_BYTES_MAX + 1), "is larger than"),
        ("kind: Deployment\nspec: {template: {spec: {containers: none}}}\n", "holds no pod"),
        ("kind: Deployment\nspec: [1]\n", "holds no pod"),
        ("just words\n", "holds no pod"),
    ],
)
def test_a_manifest_that_cannot_be_judged_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    """A path of the wrong file is noticed."""
    path = config.parent / "pod.yaml"
    path.write_text(text)
    assert main(["check-config", str(config), "--k8s", str(path)]) == CONFIG
    assert f"{path}: {said}" in capsys.readouterr().err


def test_the_need_is_the_larger_of_the_two_sums() -> None:
    """A drain takes up to timeout_s, but the phases with their budgets may be the longer way."""
    assert drain_needs_s(DrainConfig(timeout_s=60, margin_s=5)) == (65, "timeout_s 60 and margin_s 5")
    drain = DrainConfig(timeout_s=20, margin_s=5, unready_s=20)
    assert drain_needs_s(drain)[0] == 20 + 10 + 10 + 10 + 10 + 2 + 2 + 5
    (problem,) = check_stop_timeouts(drain, units=[], manifests=[Path("-")], standard_input=_bare_pod(60))
    assert "the drain needs 69 s (the budgets of the phases and margin_s): 9 s too short" in problem.message


def _bare_pod(grace: int) -> str:
    return f"kind: Pod\nspec: {{terminationGracePeriodSeconds: {grace}, containers: [{{name: signald}}]}}"
