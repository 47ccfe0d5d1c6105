"""The manifests as the cluster would get them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy/k8s"

Document = dict[str, Any]

SIDECAR, CLASSIC, ON_HOST = "examples/app", "examples/app-classic", "examples/app-on-host"
DAEMONSET, BASE, MONITORING = "daemonset", "base", "monitoring"

UID = 65532
PORTS = {"zkside-metrics": 9464, "zkside-health": 9465}


def kustomizations() -> list[str]:
    """Every directory below deploy/k8s that can be applied."""
    return sorted(
        str(file.parent.relative_to(DEPLOY))
        for file in DEPLOY.rglob("kustomization.yaml")
        if yaml.safe_load(file.read_text())["kind"] == "Kustomization"
    )


def render(directory: Path) -> list[Document]:
    """What `kubectl apply -k` would apply."""
    own = ROOT / ".zkside/kustomize/kustomize"
    command = next(
        command
        for command in ([str(own), "build"], ["kustomize", "build"], ["kubectl", "kustomize"])
        if shutil.which(command[0])
    )
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def rendered(name: str) -> tuple[Document, ...]:
    """One of ours, by its directory; not to be changed."""
    return tuple(render(DEPLOY / name))


def one(documents: Iterator[Document] | tuple[Document, ...] | list[Document], kind: str, name: str = "") -> Document:
    """The only document of this kind (and name)."""
    found = [each for each in documents if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, [(each["kind"], each["metadata"]["name"]) for each in found]
    return found[0]


def pod(workload: Document) -> Document:
    """A workload's pod spec."""
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def containers(spec: Document) -> list[Document]:
    """All of a pod's containers, in the order in which the kubelet starts them."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def container(spec: Document, name: str) -> Document:
    """A pod's container by its name."""
    return next(each for each in containers(spec) if each["name"] == name)


def zkside(name: str) -> Document:
    """The daemon's container in one of our kustomizations."""
    workload = next(each for each in rendered(name) if each["kind"] in ("Deployment", "DaemonSet"))
    return container(pod(workload), "zkside")


def environment(of: Document) -> dict[str, str]:
    """A container's environment variables."""
    return {item["name"]: item["value"] for item in of.get("env", [])}
