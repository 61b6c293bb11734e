"""What has to hold of the manifests: each object by its schema, and all of them together. Returns what does not, in words."""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from signald.config import BlobsConfig
from signald.config.manifests import read_pods
from signald.config.problems import Problem
from signald.service.meters import METRICS
from tests.k8s.schemas import SCHEMAS
from tests.k8s.tree import FOLDER, OVERLAYS, ROOT, SAMPLES, Json, Tree

# It reads its schemas, megabytes of them, anew for each object.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

KUBERNETES = ("1.37", "1.30")
"""The newest that the schemas know, and the oldest with preStop.sleep switched on."""

LABEL_KEYS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "k8s-app",  # of the cluster's DNS
    "pod-security.kubernetes.io/enforce",
    "pod-security.kubernetes.io/enforce-version",
    # Ours, told to operators in docs/kubernetes.md.
    "signald.dev/ingress",
    "signald.dev/monitoring",
    "signald.dev/party",
    "signald.dev/role",
}
WRITTEN = ("run", "spool")
"""Volumes that signald writes to."""
RUNBOOK = "https://example.com/signald/"
JOB_NAME_MAX = 63 - len("01234567-0123-0123-0123-0123456789ab") - len("..1")
"""Argo calls a gate's job UID.METRIC.N, and Kubernetes makes it a label's value."""


def problems(tree: Tree) -> list[str]:
    """Everything that is wrong."""
    found = [f"{file}: {problem}" for file, documents in tree.files.items() for problem in _of_file(file, documents)]
    for overlay in OVERLAYS:
        try:
            objects = tree.render(overlay)
            found += [f"{overlay}: {problem}" for problem in _of_overlay(objects, *tree.files[SAMPLES])]
        except (KeyError, ValueError, TypeError, AttributeError, StopIteration, OSError) as error:
            found.append(f"{overlay}: cannot be put together: {error!r}")
    return found


# --- by schema ----------------------------------------------------------------------------------------------------


def _of_file(file: str, documents: list[Json]) -> Iterator[str]:
    for document in documents:
        # A patch is checked as a part of what it changes.
        if Path(file).name == "kustomization.yaml" or file == SAMPLES:
            yield from _by_schema(json.dumps(document))


@cache
def _by_schema(text: str) -> tuple[str, ...]:
    document = json.loads(text)
    kind = document.get("kind")
    if kind in SCHEMAS:
        errors = jsonschema.Draft202012Validator(SCHEMAS[kind]).iter_errors(document)
        return (*(f"{kind}: {error.json_path}: {error.message[:200]}" for error in errors), *_inner(document))
    return tuple(_built_in(document))


def _built_in(document: Json) -> Iterator[str]:
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{document.get('kind')}: {'.'.join(map(str, error.path))}: {error.message[:200]}"
        except (kubernetes_validate.SchemaNotFoundError, KeyError) as error:
            yield f"{document.get('kind')}: {error!r}"


def _inner(document: Json) -> Iterator[str]:
    """Those parts of a custom kind that are built-in kinds."""
    metadata, spec = {"name": "inner"}, document.get("spec", {})
    if document["kind"] == "Rollout" and "template" in spec:
        part = {"selector": spec.get("selector"), "template": spec["template"]}
        yield from _built_in({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": part})
    for metric in spec.get("metrics", []) if document["kind"] == "AnalysisTemplate" else []:
        job = metric.get("provider", {}).get("job", {})
        yield from _built_in({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job.get("spec")})


# --- all together -------------------------------------------------------------------------------------------------


def _of_overlay(objects: list[Json], secret: Json, s3: Json) -> Iterator[str]:
    for one in objects:
        yield from _by_schema(json.dumps(one))
    for check in CHECKS:
        yield from check(objects)
    yield from _secrets(objects, secret)
    yield from _blobs(objects, s3)


def of_kind(objects: list[Json], kind: str) -> dict[str, Json]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pod_templates(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Every pod template, with the name of what has it."""
    for name, one in of_kind(objects, "Rollout").items():
        yield name, one["spec"]["template"]
    for name, one in of_kind(objects, "AnalysisTemplate").items():
        for metric in one["spec"]["metrics"]:
            yield name, metric["provider"]["job"]["spec"]["template"]


def containers(objects: list[Json]) -> Iterator[tuple[Json, Json]]:
    """Every container, with its pod's spec."""
    for _, template in pod_templates(objects):
        for one in template["spec"]["containers"]:
            yield template["spec"], one


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def _labels(objects: list[Json]) -> Iterator[str]:
    """Only known labels, so that none is misspelt; those that operators must set are told to them."""
    told = (ROOT / "docs/kubernetes.md").read_text()
    for one in objects:
        if one["kind"] != "Namespace" and one["metadata"]["labels"]["app.kubernetes.io/name"] != "signald":
            yield f"{one['kind']}: is not labelled"
        for holder, labels in walk(one):
            if holder not in ("labels", "matchLabels") or "severity" in labels:
                continue
            for key in labels:
                if key == "role" and one["kind"] == "HorizontalPodAutoscaler":
                    continue  # a label of the metric
                if key not in LABEL_KEYS:
                    yield f"{one['kind']}: unknown label {key}"
                if key.startswith("signald.dev/") and key not in told:
                    yield f"{key} is not told in docs/kubernetes.md"
    (namespace,) = of_kind(objects, "Namespace").values()
    if namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] != "restricted":
        yield "the namespace does not enforce the restricted pod security"
    if namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce-version"] != "latest":
        yield "the namespace holds on to an old pod security"


def _node_labels(objects: list[Json]) -> dict[str, str]:
    (rollout,) = of_kind(objects, "Rollout").values()
    labels: dict[str, str] = rollout["spec"]["template"]["metadata"]["labels"]
    return labels


def _fits(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def _selectors(objects: list[Json]) -> Iterator[str]:
    """A selector of our pods finds them, and not the gates' pods as well."""
    node = _node_labels(objects)
    for name, service in of_kind(objects, "Service").items():
        if not _fits(service["spec"]["selector"], node):
            yield f"Service/{name} selects no node"
    for kind in ("PodDisruptionBudget", "Rollout"):
        for name, one in of_kind(objects, kind).items():
            if not _fits(one["spec"]["selector"]["matchLabels"], node):
                yield f"{kind}/{name} selects no node"
    (rollout,) = of_kind(objects, "Rollout").values()
    for constraint in rollout["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        if not _fits(constraint["labelSelector"]["matchLabels"], node):
            yield "the topology spread counts no node"
    for name, template in pod_templates(objects):
        gate = name != rollout["metadata"]["name"]
        if gate and _fits(rollout["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]):
            yield f"{name}: the pods of a gate would count as nodes"
    (monitor,) = of_kind(objects, "ServiceMonitor").values()
    watched = [
        one
        for one in of_kind(objects, "Service").values()
        if _fits(monitor["spec"]["selector"]["matchLabels"], one["metadata"]["labels"])
    ]
    if [one["metadata"]["name"] for one in watched] != ["signald-admin"]:
        yield "the ServiceMonitor does not watch signald-admin alone"
    for endpoint in monitor["spec"]["endpoints"]:
        if endpoint["port"] not in {port["name"] for one in watched for port in one["spec"]["ports"]}:
            yield "the ServiceMonitor names no port"
        if endpoint["path"] != "/metrics" or endpoint["interval"] < endpoint["scrapeTimeout"]:
            yield "the ServiceMonitor scrapes wrongly"


def _services(objects: list[Json]) -> Iterator[str]:
    (rollout,) = of_kind(objects, "Rollout").values()
    ports = {port["name"]: port["containerPort"] for port in _signald(rollout)["ports"]}
    services = of_kind(objects, "Service")
    for name, service in services.items():
        for port in service["spec"]["ports"]:
            if port["targetPort"] != port["name"] or port["port"] != ports.get(port["targetPort"]):
                yield f"Service/{name}: port {port['port']} leads nowhere"
            if port["name"] == "ws" and port["appProtocol"] != "kubernetes.io/ws":
                yield f"Service/{name}: not told to be WebSocket"
    admin = services["signald-admin"]["spec"]
    if admin["clusterIP"] != "None" or not admin["publishNotReadyAddresses"]:
        yield "signald-admin does not name every pod"
    strategy = rollout["spec"]["strategy"]
    named = {value for key, value in walk(strategy) if key.endswith("Service")}
    if named | {"signald-admin"} != set(services) or len(named) != 2:
        yield f"the strategy names {sorted(named)}, there are {sorted(services)}"
    for name, route in of_kind(objects, "HTTPRoute").items():
        backends = {(one["name"], one["port"]) for rule in route["spec"]["rules"] for one in rule["backendRefs"]}
        if backends != {(one, ports["ws"]) for one in named}:
            yield f"HTTPRoute/{name} leads to {sorted(backends)}"
        if sum(one["weight"] for rule in route["spec"]["rules"] for one in rule["backendRefs"]) != 100:
            yield f"HTTPRoute/{name}: the weights are no per cents"
        plugin = strategy["canary"]["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]
        if plugin != {"httpRoute": name, "namespace": route["metadata"].get("namespace", "signald")}:
            yield f"HTTPRoute/{name} is not the one that Argo turns"
        for rule in route["spec"]["rules"]:
            if rule["timeouts"]["request"] != "0s" or rule["matches"][0]["path"]["value"] != "/v1/":
                yield f"HTTPRoute/{name} cuts WebSockets off, or misses them"
        if not route["spec"]["hostnames"] or not route["spec"]["parentRefs"][0]["namespace"]:
            yield f"HTTPRoute/{name} hangs on no gateway"


def _signald(rollout: Json) -> Json:
    (container,) = [one for one in rollout["spec"]["template"]["spec"]["containers"] if one["name"] == "signald"]
    found: Json = container
    return found


def _pods(objects: list[Json]) -> Iterator[str]:
    """Restricted pod security, no rights, everything that is mounted is there, and written paths can be written."""
    accounts = of_kind(objects, "ServiceAccount")
    for name, template in pod_templates(objects):
        spec = template["spec"]
        security = spec["securityContext"]
        if not (security["runAsNonRoot"] and security["runAsUser"] == security["runAsGroup"] == security["fsGroup"]):
            yield f"{name}: runs as nobody in particular"
        if security["seccompProfile"]["type"] != "RuntimeDefault":
            yield f"{name}: no seccomp profile"
        if spec["serviceAccountName"] not in accounts or spec["automountServiceAccountToken"]:
            yield f"{name}: has a token of the Kubernetes API"
        if spec["enableServiceLinks"]:
            yield f"{name}: gets variables of services"
    for account in accounts.values():
        if account["automountServiceAccountToken"]:
            yield "the account hands out its token"


def _containers(objects: list[Json]) -> Iterator[str]:
    for spec, container in containers(objects):
        inner = container["securityContext"]
        if inner["allowPrivilegeEscalation"] or not inner["readOnlyRootFilesystem"]:
            yield f"{container['name']}: may write or rise"
        if inner["capabilities"]["drop"] != ["ALL"]:
            yield f"{container['name']}: keeps capabilities"
        if {mount["name"] for mount in container["volumeMounts"]} != {volume["name"] for volume in spec["volumes"]}:
            yield f"{container['name']}: mounts and volumes differ"
        if not all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] not in WRITTEN):
            yield f"{container['name']}: may write what it only reads"
        resources = container["resources"]
        if set(resources["requests"]) != {"cpu", "memory"} or set(resources["limits"]) != {"memory"}:
            yield f"{container['name']}: resources are not known by these names"
        if not container["image"].startswith("registry.example.com/signald:"):
            yield f"{container['name']}: its image is not the one that is rolled out"


def _volumes(objects: list[Json]) -> Iterator[str]:
    for _, template in pod_templates(objects):
        for volume in template["spec"]["volumes"]:
            mode = volume.get("secret", {}).get("defaultMode", 0o440)
            if mode != 0o440:
                yield f"{volume['name']}: readable by everybody"
            if volume.get("emptyDir", {"medium": "Memory", "sizeLimit": ""}).keys() != {"medium", "sizeLimit"}:
                yield f"{volume['name']}: no bound"


def _grace(objects: list[Json]) -> Iterator[str]:
    """The formula."""
    (rollout,) = of_kind(objects, "Rollout").values()
    drain = config_of(objects)["drain"]
    reported: list[Problem] = []
    (pod,) = list(read_pods("", json.dumps(rollout), reported))
    if reported or pod.note or not pod.pre_stop_s:
        yield "the stop timeouts are not said"
    if pod.grace_s != pod.pre_stop_s + drain["timeout_s"] + drain["margin_s"]:
        yield "terminationGracePeriodSeconds is not preStop + timeout_s + margin_s"
    if pod.grace_s - pod.pre_stop_s != drain["stop_timeout_s"]:
        yield "drain.stop_timeout_s is not what Kubernetes grants"


def _probes(objects: list[Json]) -> Iterator[str]:
    """Startup and liveness ask whether the loop turns, readiness whether parties should come."""
    (rollout,) = of_kind(objects, "Rollout").values()
    container = _signald(rollout)
    probes = {
        "startupProbe": ("/livez", 60, {"periodSeconds", "failureThreshold", "httpGet"}),
        "livenessProbe": ("/livez", 60, {"periodSeconds", "timeoutSeconds", "failureThreshold", "httpGet"}),
        "readinessProbe": ("/readyz", 10, {"periodSeconds", "timeoutSeconds", "failureThreshold", "httpGet"}),
    }
    for name, (path, seconds, fields) in probes.items():
        probe = container[name]
        if probe["httpGet"] != {"path": path, "port": "http"} or set(probe) != fields:
            yield f"{name}: asks for something else"
        if probe["periodSeconds"] * probe["failureThreshold"] != seconds:
            yield f"{name}: not {seconds} s"


def _strategy(objects: list[Json]) -> Iterator[str]:
    """Argo's traps."""
    (rollout,) = of_kind(objects, "Rollout").values()
    spec, drain = rollout["spec"], config_of(objects)["drain"]
    strategy = next(iter(spec["strategy"].values()))
    if "rollbackWindow" in spec or "autoPromotionSeconds" in strategy:
        yield "the gate would be passed by"
    if strategy["scaleDownDelayRevisionLimit"] < 2:
        yield "old pods would die at the switch"
    if strategy["abortScaleDownDelaySeconds"] < drain["timeout_s"] + 60:
        yield "after an abort the new pods have no time"
    if strategy.get("autoPromotionEnabled", True) and "blueGreen" in spec["strategy"]:
        yield "nobody promotes"
    for key in ("activeMetadata", "previewMetadata"):
        if strategy.get(key, {"labels": {"signald.dev/role": ""}})["labels"].keys() != {"signald.dev/role"}:
            yield f"{key} says nothing"
    if not {"minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"} <= spec.keys():
        yield "the Rollout has no patience"


def _identity(objects: list[Json]) -> Iterator[str]:
    """What the pods are told of themselves."""
    (rollout,) = of_kind(objects, "Rollout").values()
    spec, container = rollout["spec"], _signald(rollout)
    variables = {one["name"]: one.get("value") or one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]}
    if variables != {
        "SIGNALD_NODE__ID": "metadata.name",
        "SIGNALD_NODE__RELEASE": "metadata.labels['rollouts-pod-template-hash']",
        "RUNTIME_DIRECTORY": "/run/signald",
        "CACHE_DIRECTORY": "/var/cache/signald",
    }:
        yield "a node does not know who it is"
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    if spread["matchLabelKeys"] != ["rollouts-pod-template-hash"]:
        yield "the pods of both releases are spread as one"


def _scaling(objects: list[Json]) -> Iterator[str]:
    """The autoscaler decides, and takes pods away slowly; one pod at a time may be evicted."""
    (rollout,) = of_kind(objects, "Rollout").values()
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]
    if target != {key: rollout[key] for key in ("apiVersion", "kind")} | {"name": rollout["metadata"]["name"]}:
        yield "the autoscaler scales something else"
    if "replicas" in rollout["spec"] or not 2 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]:
        yield "the autoscaler does not decide"
    if scaler["spec"]["behavior"].keys() != {"scaleUp", "scaleDown"}:
        yield "the autoscaler is hasty"
    for name, window in (("scaleUp", 0), ("scaleDown", 600)):
        if scaler["spec"]["behavior"][name]["stabilizationWindowSeconds"] != window:
            yield "the autoscaler is hasty"
    budget = of_kind(objects, "PodDisruptionBudget")["signald"]["spec"]
    if (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) != (1, "AlwaysAllow"):
        yield "the budget does not let one pod go at a time"


def _gates(objects: list[Json]) -> Iterator[str]:
    """Templates are there, their arguments are given and used."""
    (rollout,) = of_kind(objects, "Rollout").values()
    templates = of_kind(objects, "AnalysisTemplate")
    strategy = next(iter(rollout["spec"]["strategy"].values()))
    used: dict[str, dict[str, Any]] = {}
    for key, analysis in walk(strategy):
        if key in ("prePromotionAnalysis", "postPromotionAnalysis", "analysis"):
            for template in analysis["templates"]:
                used[template["templateName"]] = {one["name"]: one["valueFrom"] for one in analysis["args"]}
    if set(used) != set(templates):
        yield f"used are {sorted(used)}, there are {sorted(templates)}"
    for name, given in used.items():
        wanted = {one["name"] for one in templates[name]["spec"]["args"]}
        asked = set(re.findall(r"\{\{args\.([a-z-]+)\}\}", json.dumps(templates[name])))
        if not set(given) == wanted == asked:
            yield f"{name}: given {sorted(given)}, declared {sorted(wanted)}, used {sorted(asked)}"
        for argument, value in given.items():
            hash_of = {"old-release": "Stable", "new-release": "Latest"}[argument]
            if value != {"podTemplateHashValue": hash_of}:
                yield f"{name}: {argument} is another release"


def _jobs(objects: list[Json]) -> Iterator[str]:
    """The jobs of the gates: their names, labels and times."""
    (rollout,) = of_kind(objects, "Rollout").values()
    strategy = next(iter(rollout["spec"]["strategy"].values()))
    for name, template in of_kind(objects, "AnalysisTemplate").items():
        for metric in template["spec"]["metrics"]:
            job = metric["provider"]["job"]
            if len(metric["name"]) > JOB_NAME_MAX or metric["failureLimit"] != 0:
                yield f"{name}: {metric['name']} cannot be run, or fails too late"
            if job["metadata"]["labels"] != job["spec"]["template"]["metadata"]["labels"]:
                yield f"{name}: the job and its pods are labelled differently"
            if job["spec"]["backoffLimit"] != 1:
                yield f"{name}: is not tried twice"
            limit = job["spec"]["activeDeadlineSeconds"]
            if name == "signald-receipt" and limit >= strategy["scaleDownDelaySeconds"]:
                yield f"{name}: is cut off by scaleDownDelaySeconds"
            (container,) = job["spec"]["template"]["spec"]["containers"]
            waits = [float(one.partition("=")[2]) for one in container["args"] if one.startswith("--timeout-s=")]
            if name == "signald-handover" and (len(waits) != 1 or 2 * waits[0] >= limit):
                yield f"{name}: its two tries do not fit"
            if name == "signald-handover" and job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] < 30:
                yield f"{name}: has no time to call the drains off"


def _metrics(objects: list[Json]) -> Iterator[str]:
    """What alerts and the autoscaler ask for is exported; every runbook link leads to a section."""
    (rules,) = of_kind(objects, "PrometheusRule").values()
    for rule in [rule for group in rules["spec"]["groups"] for rule in group["rules"]]:
        yield from (f"{rule['alert']}: {problem}" for problem in query_problems(rule["expr"]))
        link = rule["annotations"]["runbook_url"]
        path, _, section = link.removeprefix(RUNBOOK).partition("#")
        if not link.startswith(RUNBOOK) or section != rule["alert"].lower() or section not in _sections(path):
            yield f"{rule['alert']}: {link} leads nowhere"
        if "for" not in rule and "[10m]" not in rule["expr"]:
            yield f"{rule['alert']}: fires at once"
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler").values()
    for metric in scaler["spec"]["metrics"]:
        asked = metric["pods"]["metric"]
        selector = ",".join(f'{key}="{value}"' for key, value in asked["selector"]["matchLabels"].items())
        yield from query_problems(f"{asked['name']}{{{selector}}}")
        if int(metric["pods"]["target"]["averageValue"]) > 20_000 / 2:
            yield "a pod is to have more connections than another could take over"
    (monitor,) = of_kind(objects, "ServiceMonitor").values()
    if monitor["spec"]["podTargetLabels"] != ["rollouts-pod-template-hash"]:
        yield "the releases are not told apart"


@cache
def _sections(path: str) -> frozenset[str]:
    text = (ROOT / path).read_text()
    return frozenset(title.lower() for title in re.findall(r"^#+ (\w+)$", text, re.MULTILINE))


def query_problems(query: str) -> Iterator[str]:
    """Names of metrics and labels in a query that signald does not export."""
    known = {metric.name: metric for metric in METRICS}
    for name, labels in re.findall(r"(signald_[a-z_]+)(?:\{([^}]*)\})?", query):
        metric = known.get(name) or known.get(re.sub(r"_(bucket|sum|count)$", "", name))
        if metric is None or (metric.name != name) != (metric.kind == "histogram"):
            yield f"no metric {name}"
            continue
        for label in re.findall(r"([a-z_]+)\s*(?:=|!=|=~|!~)\s*\"", labels):
            if label not in metric.labels:
                yield f"{name} has no label {label}"


def _network(objects: list[Json]) -> Iterator[str]:
    """Proxies and workers reach the WebSocket port, monitoring and gates the other; nodes reach DNS and Redis."""
    policies = of_kind(objects, "NetworkPolicy")
    gates = {name: template["metadata"]["labels"] for name, template in pod_templates(objects) if name != "signald"}
    node, gate = policies["signald"]["spec"], policies["signald-gate"]["spec"]
    if not _fits(node["podSelector"]["matchLabels"], _node_labels(objects)):
        yield "the policy of the nodes is for nobody"
    if not all(_fits(gate["podSelector"]["matchLabels"], labels) for labels in gates.values()):
        yield "the policy of the gates is for nobody"
    for policy in (node, gate):
        if policy["policyTypes"] != ["Ingress", "Egress"]:
            yield "a policy is open to one side"
    rules = {rule["ports"][0]["port"]: rule["from"] for rule in node["ingress"]}
    ws = [{"namespaceSelector": {"matchLabels": {"signald.dev/ingress": "true"}}}]
    ws.append({"podSelector": {"matchLabels": {"signald.dev/party": "worker"}}})
    if rules["ws"] != ws:
        yield "others than proxies and workers reach the WebSocket port"
    monitoring, jobs = rules["http"]
    if monitoring != {"namespaceSelector": {"matchLabels": {"signald.dev/monitoring": "true"}}}:
        yield "others than Prometheus reach the HTTP port"
    if not all(_fits(jobs["podSelector"]["matchLabels"], labels) for labels in gates.values()):
        yield "the gates do not reach the nodes"
    dns = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    both = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    for policy in (node, gate):
        if policy["egress"][0] != {"to": [dns], "ports": both}:
            yield "names cannot be resolved"
    if node["egress"][1:] != [{"ports": [{"port": 6379}]}]:
        yield "the nodes do not reach Redis"
    (reach,) = gate["egress"][1:]
    if not _fits(reach["to"][0]["podSelector"]["matchLabels"], _node_labels(objects)) or reach["ports"] != [
        {"port": "http"}
    ]:
        yield "the gates may not ask the nodes"


def config_of(objects: list[Json]) -> Json:
    """The configuration in the ConfigMap. Raises KeyError, ValueError."""
    return tomllib.loads(of_kind(objects, "ConfigMap")["signald"]["data"]["signald.toml"])


def _config(objects: list[Json]) -> Iterator[str]:
    """The pods read the ConfigMap where it is mounted, on the ports that they name."""
    (rollout,) = of_kind(objects, "Rollout").values()
    container, config = _signald(rollout), config_of(objects)
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    if container["args"] != ["serve", "--config", f"{mounts['config']}/signald.toml"]:
        yield "the configuration is read from somewhere else"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listens = config["listen"]
    if ports != {"ws": int(listens["websocket"].split(":")[1]), "http": int(listens["http"].split(":")[1])}:
        yield "the ports differ from those that are listened on"
    for volume in rollout["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume and volume["configMap"]["name"] not in of_kind(objects, "ConfigMap"):
            yield "the ConfigMap is not there"


def _workers(objects: list[Json]) -> Iterator[str]:
    """Workers dial the new release first, and always know the old one as well."""
    (rollout,) = of_kind(objects, "Rollout").values()
    strategy = next(iter(rollout["spec"]["strategy"].values()))
    new = strategy.get("previewService") or strategy["canaryService"]
    old = strategy.get("activeService") or strategy["stableService"]
    urls = of_kind(objects, "ConfigMap")["signald-worker-urls"]["data"]["SIGNALD_URLS"].split()
    if urls != [f"ws://{name}.signald:8080" for name in (new, old)]:
        yield f"workers dial {urls}"


def with_blobs(objects: list[Json]) -> str:
    """The text of the configuration, with the lines about blobs as an operator would take them into use."""
    text = of_kind(objects, "ConfigMap")["signald"]["data"]["signald.toml"]
    before, mark, after = text.partition("# [blobs]\n")
    lines, blank, rest = after.partition("\n\n")
    taken = "".join(f"{line.removeprefix('# ')}\n" for line in lines.split("\n"))
    return f"{before}{mark.removeprefix('# ')}{taken}{blank}{rest}"


def _blobs(objects: list[Json], s3: Json) -> Iterator[str]:
    """The keys of S3 are read where their Secret is mounted, if there is one, and the spool holds all uploads."""
    (rollout,) = of_kind(objects, "Rollout").values()
    container, spec = _signald(rollout), rollout["spec"]["template"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in spec["volumes"]}
    blobs = tomllib.loads(with_blobs(objects))["blobs"]
    if {blobs["access_key_file"], blobs["secret_key_file"]} != {f"{mounts['s3']}/{key}" for key in s3["stringData"]}:
        yield "the sample has other keys of S3 than are read"
    named = s3["metadata"]["name"], s3["metadata"]["namespace"], s3["type"], volumes["s3"]["secret"]["optional"]
    if named != (volumes["s3"]["secret"]["secretName"], "signald", "Opaque", True):
        yield "the Secret of S3 is another one, or pods without it would not start"
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if variables["CACHE_DIRECTORY"] != mounts["spool"]:
        yield "uploads wait on a disk that cannot be written"
    spool, most = volumes["spool"]["emptyDir"], BlobsConfig().uploads_in_progress_max * BlobsConfig().bytes_max
    if (
        spool["medium"]
        or not re.fullmatch(r"[0-9]+Gi", spool["sizeLimit"])
        or int(spool["sizeLimit"][:-2]) << 30 < most
    ):
        yield "the spool does not hold all uploads, or is in memory"


def _secrets(objects: list[Json], secret: Json) -> Iterator[str]:
    """Every file that is read from the Secret is a key of the sample."""
    root = "/etc/signald/secrets"
    held = set(secret["stringData"])
    read = {value for key, value in walk(config_of(objects)) if key.endswith("_file")}
    if read != {f"{root}/{key}" for key in held}:
        yield f"read are {sorted(read)}, the sample has {sorted(held)}"
    if secret["type"] != "Opaque" or secret["metadata"]["namespace"] != "signald":
        yield "the sample is another secret"
    for spec, container in containers(objects):
        for volume in spec["volumes"]:
            if "secret" not in volume or volume["secret"].get("optional"):
                continue
            if volume["secret"]["secretName"] != secret["metadata"]["name"]:
                yield f"{volume['name']}: is another secret"
            for item in volume["secret"].get("items", []):
                if not item["key"] == item["path"] == "admin-token":
                    yield f"{volume['name']}: gates see more than they need"
        for mount in container["volumeMounts"]:
            if mount["name"] == "secrets" and mount["mountPath"] != root:
                yield f"{container['name']}: the secrets are elsewhere"
        if container["name"] == "ctl" and f"--token-file={root}/admin-token" not in container["args"]:
            yield "a gate has no token"


CHECKS = (
    _labels,
    _services,
    _selectors,
    _pods,
    _containers,
    _volumes,
    _grace,
    _probes,
    _strategy,
    _identity,
    _scaling,
    _gates,
    _jobs,
    _metrics,
    _network,
    _config,
    _workers,
)


def containerfile() -> str:
    """The recipe of the image."""
    return (FOLDER / "Containerfile").read_text()
