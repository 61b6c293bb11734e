"""The example for an AWS balancer: its syntax, the names in it, and its scripts, with commands that only note how they were called."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

from signald.config import TimeoutsConfig
from tests.docs.code import ROOT

FOLDER = ROOT / "docs/examples/alb-blue-green"
FILES = sorted(FOLDER.glob("*.tf"))
PAGE = (ROOT / "docs/blue-green.md").read_text()

# Arguments and blocks that the example may use, as the provider's reference publishes them.
META = {"for_each", "lifecycle", "dynamic"}
KNOWN = {
    "aws_security_group": "name vpc_id",
    "aws_vpc_security_group_ingress_rule": """
        security_group_id description cidr_ipv4 referenced_security_group_id ip_protocol from_port to_port
    """,
    "aws_vpc_security_group_egress_rule": """
        security_group_id description cidr_ipv4 referenced_security_group_id ip_protocol from_port to_port
    """,
    "aws_lb": "name load_balancer_type subnets security_groups idle_timeout drop_invalid_header_fields",
    "aws_lb_target_group": "name vpc_id target_type protocol port deregistration_delay health_check stickiness",
    "aws_lb_target_group.health_check": "port path matcher interval timeout healthy_threshold unhealthy_threshold",
    "aws_lb_target_group.stickiness": "type enabled",
    "aws_lb_target_group.lifecycle": "precondition",
    "aws_lb_target_group.lifecycle.precondition": "condition error_message",
    "aws_lb_listener": "load_balancer_arn port protocol ssl_policy certificate_arn default_action",
    "aws_lb_listener.default_action": "type forward",
    "aws_lb_listener.default_action.forward": "target_group stickiness",
    "aws_lb_listener.default_action.forward.target_group": "arn weight",
    "aws_lb_listener.default_action.forward.stickiness": "enabled duration",
    "aws_lb_listener.lifecycle": "ignore_changes",
    "aws_elasticache_subnet_group": "name subnet_ids",
    "aws_elasticache_parameter_group": "name family parameter",
    "aws_elasticache_parameter_group.parameter": "name value",
    "aws_elasticache_replication_group": """
        replication_group_id description engine engine_version node_type parameter_group_name subnet_group_name
        security_group_ids num_cache_clusters automatic_failover_enabled multi_az_enabled transit_encryption_enabled
        at_rest_encryption_enabled auth_token auth_token_update_strategy
    """,
    "aws_cloudwatch_metric_alarm": """
        alarm_name alarm_description alarm_actions comparison_operator threshold evaluation_periods treat_missing_data
        metric_query namespace metric_name dimensions statistic period
    """,
    "aws_cloudwatch_metric_alarm.metric_query": "id expression label return_data metric",
    "aws_cloudwatch_metric_alarm.metric_query.metric": "namespace metric_name dimensions period stat",
}
Body = dict[str, Any]


def plain(value: Any) -> Any:
    """Return what the parser gives without its quotes and marks."""
    if isinstance(value, dict):
        return {key.strip('"'): plain(inner) for key, inner in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value


def blocks(text: str, kind: str) -> Iterator[tuple[str, str, Body]]:
    """Yield type, name and body of each resource."""
    for block in plain(hcl2.loads(text)).get(kind, []):
        for of_type, named in block.items():
            for name, body in named.items():
                yield of_type, name, body


def unknown(path: str, body: Body) -> Iterator[str]:
    """Yield each argument and block that the provider does not have there."""
    known = set(KNOWN.get(path, "").split())
    for key, value in body.items():
        if key == "dynamic":
            for block in value:
                yield from unknown(path, {name: [inner["content"][0]] for name, inner in block.items()})
        elif key not in known | META:
            yield f"{path}.{key}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for inner in value:
                yield from unknown(f"{path}.{key}", inner)


def resources() -> dict[str, Body]:
    """All resources, by type and name."""
    return {f"{kind}.{name}": body for path in FILES for kind, name, body in blocks(path.read_text(), "resource")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_argument_is_misspelt(path: Path) -> None:
    """Each file is HCL, and has no argument that its provider does not know."""
    found = [odd for kind, _, body in blocks(path.read_text(), "resource") for odd in unknown(kind, body)]
    assert not found


def test_a_misspelt_argument_is_noticed() -> None:
    """Whichever it is, at any depth; so is a brace too few."""
    text = (FOLDER / "main.tf").read_text()
    for right in ("deregistration_delay", "healthy_threshold ", "weight", "idle_timeout", "ignore_changes"):
        wrong = text.replace(right, f"z{right}")
        assert [odd for kind, _, body in blocks(wrong, "resource") for odd in unknown(kind, body)], right
    with pytest.raises(Exception, match=r"."):
        hcl2.loads(text.rstrip().removesuffix("}"))


def test_names_that_are_used_exist() -> None:
    """Each variable, local and resource that an expression names is declared."""
    texts = "\n".join(path.read_text() for path in FILES)
    code = re.sub(r"^\s*#.*$", "", texts, flags=re.MULTILINE)
    declared = set(re.findall(r'^variable "(\w+)"', texts, re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", code)) == declared
    assert set(re.findall(r"\b(aws_\w+\.\w+)", code)) <= resources().keys()
    local = {name for path in FILES for one in plain(hcl2.loads(path.read_text())).get("locals", []) for name in one}
    assert set(re.findall(r"\blocal\.(\w+)", code)) <= local


def test_a_drain_fits_the_balancers_times() -> None:
    """A drain ends before the target is cut, silence is left to signald, and readiness decides."""
    main = resources()
    group = main["aws_lb_target_group.colour"]
    toml = next(text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[drain]" in text)
    drain = tomllib.loads(toml)["drain"]
    assert group["deregistration_delay"] == 300
    assert drain["timeout_s"] + drain["margin_s"] <= drain["stop_timeout_s"] < group["deregistration_delay"]
    (named,) = re.findall(r"drain_max_s += (\d+)", (FOLDER / "main.tf").read_text())
    assert int(named) == drain["stop_timeout_s"]
    timeouts = TimeoutsConfig()
    assert main["aws_lb.signald"]["idle_timeout"] >= 2 * (timeouts.ping_interval_s + timeouts.pong_timeout_s)
    (check,) = group["health_check"]
    assert (check["path"], check["matcher"]) == ("/readyz", "200")
    # As docs/blue-green.md promises of a rollback: the balancer sees within 10 s that a node is ready again.
    assert check["interval"] * check["healthy_threshold"] <= 10


def test_redis_is_reached_by_nodes_alone() -> None:
    """One rule leads in, from the nodes; a password and TLS are asked for, and nothing is evicted."""
    found = resources()
    rules = [
        name for name, body in found.items() if "aws_security_group.redis.id" in str(body.get("security_group_id"))
    ]
    assert rules == ["aws_vpc_security_group_ingress_rule.redis"]
    rule = found[rules[0]]
    assert "cidr_ipv4" not in rule
    assert "aws_security_group.node.id" in rule["referenced_security_group_id"]
    redis = found["aws_elasticache_replication_group.redis"]
    assert redis["transit_encryption_enabled"] is redis["at_rest_encryption_enabled"] is True
    assert "var.redis_auth_token" in redis["auth_token"]
    (parameter,) = found["aws_elasticache_parameter_group.redis"]["parameter"]
    assert (parameter["name"], parameter["value"]) == ("maxmemory-policy", "noeviction")


# --- the scripts ----------------------------------------------------------------------------------------------------------

STUB = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >>"$NOTES"
[ -z "${FAILS-}" ] || case "$*" in *$FAILS*) exit 1 ;; esac
case "$*" in
*describe-target-health*) echo "${READY:-1}" ;;
*describe-alarms*) echo "${RINGING:-0}" ;;
esac
"""


def script(tmp_path: Path, name: str, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """Run a script of the example with commands that note their arguments; returns its status and the notes."""
    for command in ("aws", "signald"):
        stub = tmp_path / command
        stub.write_text(STUB)
        stub.chmod(0o755)
    notes = tmp_path / "notes"
    notes.unlink(missing_ok=True)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(notes), "LISTENER": "arn:listener",
        "TARGETS_BLUE": "arn:blue", "TARGETS_GREEN": "arn:green", "ADMIN": "http://signald-admin:8081",
        "ALARMS": "signald-5xx signald-no-node", "WATCH_S": "0", "POLL_S": "0",
    }  # fmt: skip
    done = subprocess.run(
        [str(FOLDER / name), *arguments], env=environment | variables, capture_output=True, timeout=20, check=False
    )
    return done.returncode, notes.read_text().splitlines() if notes.exists() else []


def steps(notes: list[str]) -> list[str]:
    """What was done, without what was only looked at; a change of weights is `BLUE/GREEN`."""
    found = []
    for note in notes:
        if "modify-listener" in note:
            (action,) = json.loads(note.partition("--default-actions ")[2])
            groups = action["ForwardConfig"]["TargetGroups"]
            assert [group["TargetGroupArn"] for group in groups] == ["arn:blue", "arn:green"]
            found.append("/".join(str(group["Weight"]) for group in groups))
        elif note.startswith("signald ctl"):
            assert note.endswith("--all-of=http://signald-admin:8081")
            found.append(note.split()[2])
    return found


def test_weights_are_set_where_a_node_is_ready(tmp_path: Path) -> None:
    """Both target groups are named in one call; a colour without a ready node gets no weight, and nothing is changed."""
    status, notes = script(tmp_path, "weigh.sh", "90", "10")
    assert (status, steps(notes)) == (0, ["90/10"])
    status, notes = script(tmp_path, "weigh.sh", "0", "100", READY="0")
    assert (status, steps(notes)) == (1, [])
    assert "arn:green" in notes[0]
    assert "arn:blue" not in notes[0]
    for wrong in (("90",), ("a", "10"), ("", "100")):
        assert script(tmp_path, "weigh.sh", *wrong) == (64, [])


@pytest.mark.parametrize("old", ["blue", "green"])
def test_a_deploy_goes_by_weights_and_gates(tmp_path: Path, old: str) -> None:
    """10, 50, the workers, 100, the drain, the receipts."""
    new = "green" if old == "blue" else "blue"
    status, notes = script(tmp_path, "deploy.sh", old, new)
    shares = ["90/10", "50/50", "0/100"] if old == "blue" else ["10/90", "50/50", "100/0"]
    assert status == 0
    assert steps(notes) == [*shares[:2], "handover", shares[2], "drain", "receipt"]
    assert all(f"--release={old}" in note for note in notes if note.startswith("signald"))


@pytest.mark.parametrize(
    ("variables", "before"),
    [
        ({"RINGING": "1"}, ["90/10"]),
        ({"FAILS": "ctl handover"}, ["90/10", "50/50", "handover"]),
        ({"FAILS": "ctl drain"}, ["90/10", "50/50", "handover", "0/100", "drain"]),
        ({"FAILS": "ctl receipt"}, ["90/10", "50/50", "handover", "0/100", "drain", "receipt"]),
    ],
    ids=["an alarm", "workers", "a drain", "a receipt"],
)
def test_what_is_wrong_rolls_back(tmp_path: Path, variables: dict[str, str], before: list[str]) -> None:
    """The drains are called off first, because nodes that drain refuse newcomers; then the old colour gets all."""
    status, notes = script(tmp_path, "deploy.sh", "blue", "green", **variables)
    assert status == 1
    assert steps(notes) == [*before, "abort", "100/0"]
