"""The field names of the custom kinds, as their projects publish them, as far as our manifests use these parts.

Everything else is refused: a new field is looked up in its project's documentation and entered here first.

Rollout, AnalysisTemplate   argo-rollouts, docs/features/specification.md and manifests/crds
ServiceMonitor, PrometheusRule   prometheus-operator, Documentation/api-reference
HTTPRoute                   gateway-api, v1, standard channel (`timeouts` since 1.2)
Kustomization               kustomize, api/types/kustomization.go
"""

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
BOOLEAN: Json = {"type": "boolean"}
STRINGS: Json = {"type": "array", "items": STRING}
LABELS: Json = {"type": "object", "additionalProperties": STRING}
ELSEWHERE: Json = {"type": "object"}
"""Checked as the built-in kind that it is a part of."""


def record(required: tuple[str, ...] = (), /, **fields: Json) -> Json:
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def array(items: Json) -> Json:
    """A list."""
    return {"type": "array", "items": items}


def one_of(*words: str) -> Json:
    """One of these words."""
    return {"enum": list(words)}


def kind(api: str, name: str, **fields: Json) -> Json:
    """A whole object."""
    metadata = record(("name",), name=STRING, namespace=STRING, labels=LABELS, annotations=LABELS)
    required = ("apiVersion", "kind", "metadata", *fields)
    return record(required, apiVersion={"const": api}, kind={"const": name}, metadata=metadata, **fields)


SELECTOR = record(matchLabels=LABELS)
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}

# --- argoproj.io/v1alpha1 -----------------------------------------------------------------------------------------

_analysis = record(
    ("templates",),
    templates=array(record(("templateName",), templateName=STRING, clusterScope=BOOLEAN)),
    args=array(
        record(
            ("name",),
            name=STRING,
            value=STRING,
            valueFrom=record(
                podTemplateHashValue=one_of("Stable", "Latest"), fieldRef=record(("fieldPath",), fieldPath=STRING)
            ),
        )
    ),
)
_metadata = record(labels=LABELS, annotations=LABELS)
_blue_green = record(
    ("activeService",),
    activeService=STRING,
    previewService=STRING,
    autoPromotionEnabled=BOOLEAN,
    autoPromotionSeconds=INTEGER,
    prePromotionAnalysis=_analysis,
    postPromotionAnalysis=_analysis,
    scaleDownDelaySeconds=INTEGER,
    scaleDownDelayRevisionLimit=INTEGER,
    abortScaleDownDelaySeconds=INTEGER,
    activeMetadata=_metadata,
    previewMetadata=_metadata,
)
_step = {
    **record(setWeight=INTEGER, pause=record(duration={"type": ["string", "integer"]}), analysis=_analysis),
    "minProperties": 1,
    "maxProperties": 1,
}
_canary = record(
    stableService=STRING,
    canaryService=STRING,
    trafficRouting=record(
        ("plugins",),
        plugins=record(
            ("argoproj-labs/gatewayAPI",),
            **{"argoproj-labs/gatewayAPI": record(("httpRoute", "namespace"), httpRoute=STRING, namespace=STRING)},
        ),
    ),
    steps=array(_step),
    scaleDownDelaySeconds=INTEGER,
    scaleDownDelayRevisionLimit=INTEGER,
    abortScaleDownDelaySeconds=INTEGER,
)
ROLLOUT = kind(
    "argoproj.io/v1alpha1",
    "Rollout",
    spec=record(
        ("selector", "template", "strategy"),
        replicas=INTEGER,
        minReadySeconds=INTEGER,
        revisionHistoryLimit=INTEGER,
        progressDeadlineSeconds=INTEGER,
        progressDeadlineAbort=BOOLEAN,
        selector=SELECTOR,
        template=ELSEWHERE,
        strategy={**record(blueGreen=_blue_green, canary=_canary), "minProperties": 1, "maxProperties": 1},
    ),
)
ANALYSIS_TEMPLATE = kind(
    "argoproj.io/v1alpha1",
    "AnalysisTemplate",
    spec=record(
        ("metrics",),
        args=array(record(("name",), name=STRING, value=STRING)),
        metrics=array(
            record(
                ("name", "provider"),
                name=STRING,
                failureLimit=INTEGER,
                consecutiveErrorLimit=INTEGER,
                count=INTEGER,
                interval=DURATION,
                initialDelay=DURATION,
                provider=record(("job",), job=record(("spec",), metadata=_metadata, spec=ELSEWHERE)),
            )
        ),
    ),
)

# --- monitoring.coreos.com/v1 -------------------------------------------------------------------------------------

SERVICE_MONITOR = kind(
    "monitoring.coreos.com/v1",
    "ServiceMonitor",
    spec=record(
        ("selector", "endpoints"),
        selector=SELECTOR,
        jobLabel=STRING,
        podTargetLabels=STRINGS,
        targetLabels=STRINGS,
        endpoints=array(
            record(("port",), port=STRING, path=STRING, scheme=STRING, interval=DURATION, scrapeTimeout=DURATION)
        ),
    ),
)
PROMETHEUS_RULE = kind(
    "monitoring.coreos.com/v1",
    "PrometheusRule",
    spec=record(
        ("groups",),
        groups=array(
            record(
                ("name", "rules"),
                name=STRING,
                interval=DURATION,
                rules=array(
                    record(
                        ("alert", "expr", "labels", "annotations"),
                        alert=STRING,
                        expr=STRING,
                        labels=record(("severity",), severity=one_of("critical", "warning")),
                        annotations=record(("summary", "runbook_url"), summary=STRING, runbook_url=STRING),
                        **{"for": DURATION, "keep_firing_for": DURATION},
                    )
                ),
            )
        ),
    ),
)

# --- gateway.networking.k8s.io/v1, kustomize ----------------------------------------------------------------------

HTTP_ROUTE = kind(
    "gateway.networking.k8s.io/v1",
    "HTTPRoute",
    spec=record(
        ("parentRefs", "rules"),
        parentRefs=array(record(("name",), name=STRING, namespace=STRING, sectionName=STRING, port=INTEGER)),
        hostnames=STRINGS,
        rules=array(
            record(
                ("backendRefs",),
                matches=array(record(path=record(("type", "value"), type=one_of("Exact", "PathPrefix"), value=STRING))),
                timeouts=record(request=DURATION, backendRequest=DURATION),
                backendRefs=array(record(("name", "port"), name=STRING, port=INTEGER, weight=INTEGER)),
            )
        ),
    ),
)
KUSTOMIZATION = record(
    ("apiVersion", "kind", "resources", "namespace"),
    apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
    kind={"const": "Kustomization"},
    namespace=STRING,
    resources=STRINGS,
    patches=array(record(("path",), path=STRING)),
    images=array(record(("name", "newName", "newTag"), name=STRING, newName=STRING, newTag=STRING, digest=STRING)),
)

SCHEMAS = {
    "Rollout": ROLLOUT,
    "AnalysisTemplate": ANALYSIS_TEMPLATE,
    "ServiceMonitor": SERVICE_MONITOR,
    "PrometheusRule": PROMETHEUS_RULE,
    "HTTPRoute": HTTP_ROUTE,
    "Kustomization": KUSTOMIZATION,
}
