"""What is rendered is what the API servers of many versions accept, with nothing that they would drop."""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.rendered import CLASSIC, DEPLOY, MONITORING, kustomizations, rendered

pytestmark = pytest.mark.k8s

NATIVE = ("1.29", "1.31", "1.34", kubernetes_validate.latest_version())
BEFORE_1_29 = ("1.25", "1.26", "1.27", "1.28")

DURATION = {"type": "string", "pattern": r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2}
WORDS = {"type": "object", "additionalProperties": {"type": "string"}}


def exactly(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


METADATA = exactly({"name": {"type": "string"}, "namespace": {"type": "string"}}, {"labels": WORDS})

# What the Prometheus operator's resources may have, as far as we use them.
CUSTOM = {
    "PodMonitor": exactly(
        {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": "PodMonitor"},
            "metadata": METADATA,
            "spec": exactly(
                {
                    "selector": exactly(
                        {},
                        {
                            "matchLabels": WORDS,
                            "matchExpressions": {
                                "type": "array",
                                "items": exactly(
                                    {
                                        "key": {"type": "string"},
                                        "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                                    },
                                    {"values": {"type": "array", "items": {"type": "string"}}},
                                ),
                            },
                        },
                    ),
                    "podMetricsEndpoints": {
                        "type": "array",
                        "minItems": 1,
                        "items": exactly(
                            {"port": {"type": "string", "maxLength": 15}},
                            {"path": {"type": "string"}, "interval": DURATION, "scrapeTimeout": DURATION},
                        ),
                    },
                },
                {"namespaceSelector": exactly({}, {"any": {"type": "boolean"}, "matchNames": {"type": "array"}})},
            ),
        }
    ),
    "PrometheusRule": exactly(
        {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": "PrometheusRule"},
            "metadata": METADATA,
            "spec": exactly(
                {
                    "groups": {
                        "type": "array",
                        "minItems": 1,
                        "items": exactly(
                            {
                                "name": {"type": "string", "minLength": 1},
                                "rules": {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": exactly(
                                        {
                                            "alert": {"type": "string", "pattern": "^Zkside[A-Za-z]+$"},
                                            "expr": {"type": "string", "minLength": 1},
                                            "labels": exactly({"severity": {"enum": ["critical", "warning"]}}),
                                            "annotations": exactly(
                                                {
                                                    "summary": {"type": "string"},
                                                    "description": {"type": "string"},
                                                    "runbook": {"type": "string", "pattern": "^docs/runbook.md#"},
                                                }
                                            ),
                                        },
                                        {"for": DURATION},
                                    ),
                                },
                            },
                            {"interval": DURATION},
                        ),
                    }
                }
            ),
        }
    ),
}


def test_no_kustomization_is_left_out() -> None:
    assert {"base", "daemonset", "monitoring", "examples/app", "examples/app-classic"} <= set(kustomizations())
    assert not list(DEPLOY.glob("*.yaml")), "each variant has a directory of its own"


@pytest.mark.parametrize("name", kustomizations())
def test_the_schemas_know_every_field(name: str) -> None:
    versions = BEFORE_1_29 + NATIVE if name == CLASSIC else NATIVE
    for document in rendered(name):
        if document["kind"] in CUSTOM:
            jsonschema.validate(document, CUSTOM[document["kind"]])
        else:
            for version in versions:
                kubernetes_validate.validate(document, version, strict=True)


def test_the_check_can_fail() -> None:
    """A misspelt field is found in the cluster's own resources and in the operator's."""
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "wrong"},
        "spec": {
            "selector": {},
            "template": {"spec": {"containers": [{"name": "one", "livenesProbe": {}}]}},
        },
    }
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(deployment, NATIVE[0], strict=True)
    monitor = next(document for document in rendered(MONITORING) if document["kind"] == "PodMonitor")
    wrong = monitor | {"spec": monitor["spec"] | {"podMetricEndpoints": []}}
    with pytest.raises(jsonschema.ValidationError, match="podMetricEndpoints"):
        jsonschema.validate(wrong, CUSTOM["PodMonitor"])
