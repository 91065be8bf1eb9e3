"""The manifests in examples/kubernetes/ are valid for Kubernetes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.paths import ROOT

FOLDER = ROOT / "examples" / "kubernetes"
VERSION = "1.31"

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed"
)
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check(document: Any) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_triton() -> None:
    found = documents("triton.yaml")
    for document in found:
        check(document)
    deployment, service, scaler = found
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    exit_timeout = re.search(r"--exit-timeout-secs=(\d+)", " ".join(container["args"]))
    assert exit_timeout is not None
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(exit_timeout[1]) < grace


def test_kserve() -> None:
    """The schema of KServe's own fields comes with no package; the rest of a predictor is a pod."""
    (service,) = documents("kserve.yaml")
    predictor = service["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
    pod = {name: value for name, value in predictor.items() if name not in own}
    check({"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": pod})


def test_a_misspelt_field_is_noticed() -> None:
    deployment = documents("triton.yaml")[0]
    deployment["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)
