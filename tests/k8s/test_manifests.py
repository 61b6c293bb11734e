"""Kubernetes takes every manifest, they fit each other and the daemon, and no misspelt field goes unnoticed."""

import re
import tomllib
from pathlib import Path

import pytest

from signald.cli import main
from signald.core.jobs import ENDS
from tests.k8s import checks
from tests.k8s.tree import FOLDER, OVERLAYS, ROOT, SAMPLES, Json, Tree, keys, misspelt

TREE = Tree.read()
FILES = sorted(TREE.files)


def test_the_manifests_hold() -> None:
    """By the schemas of Kubernetes and of the custom kinds, and together."""
    assert checks.problems(TREE) == []


def test_each_section_of_the_runbook_has_its_alert() -> None:
    """A section that no alert leads to is of an alert that was renamed or dropped."""
    (rules,) = [one for one in TREE.files["base/prometheusrule.yaml"] if one["kind"] == "PrometheusRule"]
    alerts = {rule["alert"]: rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    titles = re.findall(r"^## (Signald\w+)$", (ROOT / "docs/runbooks/signald.md").read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(alerts)
    (outcomes,) = re.findall(r'outcome=~"([a-z|]+)"', alerts["SignaldJobsFail"])
    assert set(outcomes.split("|")) == ENDS - {"succeeded", "cancelled"}


def test_every_file_is_used() -> None:
    """A manifest that no kustomization names is neither applied nor checked."""
    named = {SAMPLES}
    for file, documents in TREE.files.items():
        if not file.endswith("kustomization.yaml"):
            continue
        named.add(file)
        folder = Path(file).parent
        listed = [*documents[0]["resources"], *(patch["path"] for patch in documents[0].get("patches", []))]
        named |= {str(folder / name) for name in listed if name.endswith(".yaml")}
    assert named == set(FILES)


@pytest.mark.long
@pytest.mark.parametrize("file", FILES)
def test_a_misspelt_field_is_noticed(file: str) -> None:
    """Each key of the file, one at a time, with its last letter doubled."""
    unnoticed = [
        path
        for number, document in enumerate(TREE.files[file])
        for path in keys(document)
        if not checks.problems(TREE.changed(file, number, misspelt(document, path)))
    ]
    assert unnoticed == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_is_taken_and_fits_the_pods(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """signald check-config --k8s on the ConfigMap, the sample Secret and the Rollout, as an operator would run it."""
    monkeypatch.setenv("SIGNALD_NODE__RELEASE", "6d4f")
    objects = TREE.render(overlay)
    for name, value in TREE.files[SAMPLES][0]["stringData"].items():
        (tmp_path / name).write_text(value)
    text = checks.of_kind(objects, "ConfigMap")["signald"]["data"]["signald.toml"]
    file = tmp_path / "signald.toml"
    file.write_text(text.replace("/etc/signald/secrets", str(tmp_path)))
    manifest = str(FOLDER / "base/rollout.yaml")
    assert main(["check-config", str(file), "--k8s", manifest]) == 0, capsys.readouterr().err
    file.write_text(file.read_text().replace("timeout_s = 90.0", "timeout_s = 91.0"))
    assert main(["check-config", str(file), "--k8s", manifest]) == 78


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_lines_about_blobs_are_taken_as_they_stand(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator removes the signs in front, names the bucket and makes the second Secret."""
    for document in TREE.files[SAMPLES]:
        for name, value in document["stringData"].items():
            (tmp_path / name).write_text(value)
    text = checks.with_blobs(TREE.render(overlay)).replace("BUCKET", "voice")
    for folder in ("/etc/signald/secrets", "/etc/signald/s3"):
        text = text.replace(folder, str(tmp_path))
    file = tmp_path / "signald.toml"
    file.write_text(text)
    arguments = ["check-config", str(file), "--k8s", str(FOLDER / "base/rollout.yaml")]
    assert main(arguments) == 0, capsys.readouterr().err
    file.write_text(re.sub(r"^secret_key_file.*$", "", text, flags=re.MULTILINE))
    assert main(arguments) == 78


@pytest.mark.parametrize("name", ["signald-handover", "signald-receipt"])
def test_the_gates_run_commands_that_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argo's arguments filled in, the command gets as far as looking for the nodes."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    template = checks.of_kind(TREE.render("blue-green"), "AnalysisTemplate")[name]
    (metric,) = template["spec"]["metrics"]
    arguments = metric["provider"]["job"]["spec"]["template"]["spec"]["containers"][0]["args"]
    filled = [re.sub(r"\{\{args\.([a-z-]+)\}\}", r"\1", one) for one in arguments]
    filled = [one for one in filled if not one.startswith("--token-file=")]
    here = [one.replace("signald-admin:8081", "signald-admin.invalid:8081") for one in filled]
    assert main(here) == 69


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(signald_conections)", "no metric signald_conections"),
        ('signald_connections{rol="client"} > 0', "signald_connections has no label rol"),
        ("rate(signald_handover_seconds[5m])", "no metric signald_handover_seconds"),
        ("signald_draining_bucket", "no metric signald_draining_bucket"),
    ],
)
def test_a_query_for_what_is_not_exported_is_noticed(query: str, problem: str) -> None:
    """Prometheus would answer it with nothing, for ever."""
    assert list(checks.query_problems(query)) == [problem]


def test_numbers_that_do_not_fit_are_noticed() -> None:
    """The formula of the grace period, the delays of Argo, the time of the gates."""

    def with_value(file: str, path: tuple[str, ...], value: object) -> list[str]:
        (document,) = TREE.files[file]
        changed = misspelt(document, path)  # a copy
        holder: Json = changed
        for step in path[:-1]:
            holder = holder[step]
        holder.pop(path[-1] + path[-1][-1])
        holder[path[-1]] = value
        return checks.problems(TREE.changed(file, 0, changed))

    grace = ("spec", "template", "spec", "terminationGracePeriodSeconds")
    assert with_value("base/rollout.yaml", grace, 105) == []
    assert with_value("base/rollout.yaml", grace, 104)
    strategy = ("spec", "strategy", "blueGreen")
    assert with_value("blue-green/strategy.yaml", (*strategy, "abortScaleDownDelaySeconds"), 0)
    assert with_value("blue-green/strategy.yaml", (*strategy, "scaleDownDelaySeconds"), 30)
    assert with_value("blue-green/strategy.yaml", (*strategy, "previewService"), "signald-admin")


def test_the_image_starts_what_the_manifests_pass_arguments_to() -> None:
    """A number as user, as runAsNonRoot needs and the manifests say; signald as entry; every file that the package needs."""
    recipe = checks.containerfile()
    assert "USER 10001:10001" in recipe
    assert 'ENTRYPOINT ["signald"]' in recipe
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = re.findall(r"^COPY ([^-].*) \S+$", recipe, re.MULTILINE)
    assert {"pyproject.toml", project["readme"], "LICENSE", "signald"} <= set(" ".join(copied).split())
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
