"""The dashboard: each panel asks for what the daemon exports."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signald.service.meters import METRICS
from tests.metrics.promql import problems

DASHBOARD = json.loads((Path(__file__).resolve().parents[2] / "conf/grafana/signald.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]

PROCESS = ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds")


def exported() -> dict[str, set[str]]:
    """Every sample a node exports, with its labels."""
    samples: dict[str, set[str]] = {name: set() for name in PROCESS}
    for metric in METRICS:
        if metric.kind == "histogram":
            samples[f"{metric.name}_bucket"] = {*metric.labels, "le"}
            samples[f"{metric.name}_count"] = samples[f"{metric.name}_sum"] = set(metric.labels)
        else:
            samples[metric.name] = set(metric.labels)
    return samples


SAMPLES = exported()


def queries() -> Iterator[tuple[str, str]]:
    """Each query with the title of its panel."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


@pytest.mark.parametrize(("title", "query"), [*queries()])
def test_each_panel_asks_for_what_is_exported(title: str, query: str) -> None:
    """Metrics, labels and functions exist, and the query can be read."""
    assert problems(query, SAMPLES) == [], title


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(signald_conections)", "there is no metric signald_conections"),
        ('signald_connections{rôle="client"}', "cannot be read"),
        ('signald_connections{party="client"}', "signald_connections has no label party"),
        ("sum by (code) (signald_connections)", "no metric of it has the label code"),
        ("sum(rate(signald_hops_total[5m])", ") is missing"),
        ("sum(signald_sessions))", ") closes nothing"),
        ("rte(signald_hops_total[5m])", "there is no function rte"),
        ("rate(signald_hops_total[5 minutes])", "[5 minutes] is no range"),
        ("signald_message_seconds", "there is no metric signald_message_seconds"),
        ("sum(1)", "names no metric"),
    ],
)
def test_a_misspelt_query_is_found(query: str, problem: str) -> None:
    """What people mistype does not pass: a name, a label, a function, a range, a bracket."""
    assert any(found.startswith(problem) for found in problems(query, SAMPLES)), problems(query, SAMPLES)


def test_every_metric_is_on_the_dashboard() -> None:
    """Every exported metric is on a board."""
    asked = " ".join(query for _, query in queries())
    assert [metric.name for metric in METRICS if metric.name not in asked] == []


def test_panels_have_ids_and_places_of_their_own() -> None:
    """Ids are unique, no panel covers another, none leaves the grid of 24 columns, and each says what it shows."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or (panel["description"] and panel["fieldConfig"]["defaults"]["unit"])


def test_variables_are_those_that_the_queries_use() -> None:
    """A query asks by `$job` and `$instance` only, and both can be chosen."""
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "job", "instance"}
    for panel in PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
