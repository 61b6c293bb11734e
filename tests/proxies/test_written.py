"""The recipes that are written and not run: their syntax, and every field in them is one that the proxy knows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from signald.config import TimeoutsConfig
from tests.proxies.proxy import CONF

# The fields of each product that the recipes may use, as its reference publishes them.
_NAMES = {
    "envoy": """
        node id cluster admin address socket_address port_value static_resources listeners name filter_chains filters
        typed_config @type stat_prefix codec_type use_remote_address upgrade_configs upgrade_type stream_idle_timeout
        request_headers_timeout http_filters route_config virtual_hosts domains routes match safe_regex regex route timeout
        idle_timeout retry_policy retry_on retriable_status_codes num_retries retry_host_predicate
        host_selection_retry_max_attempts clusters type eds_cluster_config eds_config resource_api_version
        path_config_source path connect_timeout lb_policy common_lb_config healthy_panic_threshold value circuit_breakers
        thresholds max_connections max_requests max_pending_requests health_checks interval no_traffic_interval
        unhealthy_threshold healthy_threshold http_health_check resources cluster_name endpoints lb_endpoints endpoint
        hostname health_check_config load_balancing_weight health_status
    """,
    "traefik": """
        entryPoints address transport lifeCycle graceTimeOut providers file directory watch http routers rule middlewares
        service retry attempts initialInterval services weighted healthCheck name weight loadBalancer servers url
        serversTransport path port interval timeout serversTransports forwardingTimeouts dialTimeout responseHeaderTimeout
    """,
    "gateway-api": """
        apiVersion kind metadata name spec parentRefs sectionName hostnames rules matches path type value timeouts request
        backendRefs port weight
    """,
    "alb": """
        apiVersion kind metadata name annotations spec ingressClassName rules host http paths path pathType backend service
        port type forwardConfig targetGroups serviceName servicePort weight
    """
    + " ".join(
        f"alb.ingress.kubernetes.io/{name}"
        for name in (
            "scheme", "target-type", "listen-ports", "healthcheck-port", "healthcheck-path", "healthcheck-interval-seconds",
            "healthcheck-timeout-seconds", "healthy-threshold-count", "unhealthy-threshold-count", "success-codes",
            "load-balancer-attributes", "target-group-attributes",
        )
    ),
}  # fmt: skip
_ENVOY_TYPES = {
    f"type.googleapis.com/envoy.{name}"
    for name in (
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "extensions.filters.http.router.v3.Router",
        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "config.endpoint.v3.ClusterLoadAssignment",
    )
}
# What the files call things themselves; what an action is called is part of its annotation's name.
_OURS = {
    "envoy": set[str](),
    "traefik": {"parties", "api", "signald", "blue", "green", "other-colour"},
    "gateway-api": set[str](),
    "alb": {"alb.ingress.kubernetes.io/actions.signald"},
}
FILES = sorted(path for product in _NAMES for path in (CONF / product).iterdir())


def keys(value: Any) -> Iterator[str]:
    """Every field in a document, with those of JSON in its annotations."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            if key == "@type":
                assert inner in _ENVOY_TYPES, inner
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)
    elif isinstance(value, str) and value.startswith("{"):
        yield from keys(json.loads(value))


def unknown(product: str, text: str) -> set[str]:
    """Fields in a recipe that its proxy does not have."""
    known = set(_NAMES[product].split()) | _OURS[product]
    return {key for document in yaml.safe_load_all(text) for key in keys(document)} - known


def name_of(path: Path) -> str:
    """The file, below `conf/`."""
    return str(path.relative_to(CONF))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_recipe_has_no_field_that_its_proxy_does_not_know(path: Path) -> None:
    """And says that it was not run."""
    text = path.read_text()
    assert unknown(path.parent.name, text) == set()
    assert "not run" in text


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_misspelt_field_is_noticed(path: Path) -> None:
    """Whichever it is, except a name of our own."""
    product, text = path.parent.name, path.read_text()
    for key in {key for document in yaml.safe_load_all(text) for key in keys(document)} - _OURS[product]:
        spellings = [f"{quote}{key}{quote}:" for quote in ("", '"')]
        wrong = text
        for spelling in spellings:
            wrong = wrong.replace(spelling, spelling.replace(key, f"{key}z"))
        assert f"{key}z" in unknown(product, wrong), key


def test_silence_is_left_to_signald() -> None:
    """No balancer cuts a party that signald still waits for."""
    timeouts = TimeoutsConfig()
    silence_s = 2 * (timeouts.ping_interval_s + timeouts.pong_timeout_s)
    (envoy,) = yaml.safe_load_all((CONF / "envoy/envoy.yaml").read_text())
    (listener,) = envoy["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["route"]["timeout"] for route in routes] == ["0s", "0s"]
    for idle in (manager["stream_idle_timeout"], *(route["route"]["idle_timeout"] for route in routes)):
        assert float(idle.removesuffix("s")) >= silence_s
    (ingress,) = yaml.safe_load_all((CONF / "alb/ingress.yaml").read_text())
    idle = ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]
    assert float(idle.removeprefix("idle_timeout.timeout_seconds=")) >= silence_s
