"""Containers that are run as the Kubernetes manifests say, and asked what the kubelet asks.

Of the manifests all but the host's network, where ports are taken that are free, and which ZooKeeper it is. That the
rest of them is right is for tests/k8s.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2_grpc

from tests.image.container import ALONE, ROOT, UID, Container, done
from tests.k8s.test_living import SERVING, ask, wait_until
from zkside.cli.zookeeper import free_port

pytestmark = pytest.mark.image

K8S = ROOT / "deploy/k8s"
SIDECAR, CLASSIC, DAEMONSET = (
    "components/sidecar/container.yaml",
    "components/sidecar-classic/container.yaml",
    "daemonset/daemonset.yaml",
)
CONFIGURATION = {SIDECAR: "base/zkside.toml", CLASSIC: "base/zkside.toml", DAEMONSET: "daemonset/zkside.toml"}


def containers(name: str) -> dict[str, Any]:
    """The containers of a manifest, by their names."""
    pod = yaml.safe_load((K8S / name).read_text())["spec"]["template"]["spec"]
    return {each["name"]: each for each in [*pod.get("initContainers", []), *pod.get("containers", [])]}


def as_in(name: str, image: str, place: Path, hosts: str, health_port: int) -> Container:
    """The daemon's container of a manifest."""
    of = containers(name)["zkside"]
    file = place / "zkside.toml"
    shutil.copy(K8S / CONFIGURATION[name], file)
    theirs = {each["name"].removeprefix("ZKSIDE_"): each["value"] for each in of["env"]}
    here = {
        "ZOOKEEPER_HOSTS": hosts,
        "HTTP_LISTEN": "127.0.0.1:0",
        "HEALTH_LISTEN": f"127.0.0.1:{health_port}",
    }
    mounts = [f"{file}:/etc/zkside/zkside.toml:ro"]
    return Container(image, place, hosts, arguments=of["args"], mounts=mounts, keys=theirs | here)


@pytest.mark.parametrize("name", [SIDECAR, CLASSIC, DAEMONSET])
async def test_all_three_probes_succeed_and_told_to_stop_it_ends_with_0(
    name: str, image: str, place: Path, hosts: str
) -> None:
    """O3"""
    probes, port = containers(name)["zkside"], free_port()
    with as_in(name, image, place, hosts, port) as container:
        await asyncio.to_thread(container.wait_connected)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            kubelet = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            await wait_until(kubelet, probes["readinessProbe"], SERVING)
            assert await ask(kubelet, probes["startupProbe"]) == SERVING
            assert await ask(kubelet, probes["livenessProbe"]) == SERVING
        await asyncio.to_thread(container.signal, signal.SIGTERM)
        assert await asyncio.to_thread(container.wait_ended, within_s=10.0) == 0


def test_the_hook_before_1_29_ends_when_the_daemon_serves(image: str, place: Path, hosts: str) -> None:
    """As the kubelet runs it: in the container, from its start on."""
    hook = containers(CLASSIC)["zkside"]["lifecycle"]["postStart"]["exec"]["command"]
    with as_in(CLASSIC, image, place, hosts, free_port()) as container:
        container.wait_serving()
        assert container.run(*hook).returncode == 0


def test_a_node_s_directories_are_given_to_the_daemon_by_one_who_can_do_nothing_else(image: str, place: Path) -> None:
    """The DaemonSet's init container: the kubelet makes them for root."""
    of = containers(DAEMONSET)["directories"]
    for name in ("run", "state"):
        os.chown(place / name, 0, 0)
    context = of["securityContext"]
    done(
        "run", *ALONE, "--read-only", "--security-opt=no-new-privileges",
        f"--user={context['runAsUser']}:{context['runAsGroup']}",
        *(f"--cap-drop={each}" for each in context["capabilities"]["drop"]),
        *(f"--cap-add={each}" for each in context["capabilities"]["add"]),
        f"--volume={place}/run:/run/zkside", f"--volume={place}/state:/var/lib/zkside",
        f"--entrypoint={of['command'][0]}", image, *of["command"][1:],
    )  # fmt: skip
    for name in ("run", "state"):
        status = (place / name).stat()
        assert (status.st_uid, status.st_gid) == (UID, UID)
