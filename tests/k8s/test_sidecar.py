"""What the components do to a workload that knows nothing of zkside, and what the variants have in common."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.k8s.rendered import (
    CLASSIC,
    DAEMONSET,
    DEPLOY,
    ON_HOST,
    PORTS,
    SIDECAR,
    Document,
    container,
    containers,
    environment,
    one,
    pod,
    render,
    rendered,
    zkside,
)
from zkside.cli.root import zkside as command_line
from zkside.config import AtShutdown, Config
from zkside.config_kinds import Duration
from zkside.config_source import read

pytestmark = pytest.mark.k8s

DAEMONS = (SIDECAR, CLASSIC, DAEMONSET)
ADDRESS = "unix:/run/zkside/zkside.sock"


def workload(kind: str, name: str, **labels: str) -> Document:
    """Somebody's, with two containers, an init container, a volume and a group of its own."""
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "securityContext": {"fsGroup": 1000},
                    "initContainers": [{"name": "migrate", "image": "migrate"}],
                    "containers": [
                        {"name": "first", "image": "first"},
                        {
                            "name": "second",
                            "image": "second",
                            "env": [{"name": "MINE", "value": "1"}],
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        },
                    ],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            }
        },
    }


def with_component(directory: Path, component: str, *documents: Document, **more: Any) -> list[Document]:
    """These workloads, and a component, in a kustomization of somebody else's."""
    (directory / "workloads.yaml").write_text(yaml.safe_dump_all(documents))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["workloads.yaml"],
        "components": [os.path.relpath(DEPLOY / "components" / component, directory)],
        **more,
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(directory)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job"])
def test_any_workload_gets_a_sidecar_that_starts_first(tmp_path: Path, kind: str) -> None:
    documents = with_component(tmp_path, "sidecar", workload(kind, "one"), workload(kind, "two"))
    assert sorted(each["kind"] for each in documents) == [kind, kind]
    for document in documents:
        spec = pod(document)
        assert [each["name"] for each in containers(spec)] == ["zkside", "migrate", "first", "second"]
        assert container(spec, "zkside")["restartPolicy"] == "Always"
        for name in ("first", "second"):
            mounts = {mount["mountPath"] for mount in container(spec, name)["volumeMounts"]}
            assert "/run/zkside" in mounts
            assert environment(container(spec, name))["ZKSIDE_ADDRESS"] == ADDRESS
        assert environment(container(spec, "second"))["MINE"] == "1"
        assert {"data", "zkside-socket", "zkside-state", "zkside-config"} == {each["name"] for each in spec["volumes"]}
        assert document["spec"]["template"]["metadata"]["labels"]["zkside"] == "sidecar"


@pytest.mark.parametrize("component", ["sidecar", "sidecar-classic", "host-socket"])
def test_a_workload_that_says_so_is_left_as_it_is(tmp_path: Path, component: str) -> None:
    alone = workload("Deployment", "alone", zkside="none")
    documents = with_component(tmp_path, component, alone, workload("Deployment", "other"))
    assert one(documents, "Deployment", "alone") == alone
    assert one(documents, "Deployment", "other") != workload("Deployment", "other")


def test_an_application_can_keep_its_own_group(tmp_path: Path) -> None:
    """Patches of a kustomization come after its components."""
    mine = [{"op": "replace", "path": "/spec/template/spec/securityContext/fsGroup", "value": 1000}]
    patch = {"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(mine)}
    documents = with_component(tmp_path, "sidecar", workload("Deployment", "one"), patches=[patch])
    assert pod(one(documents, "Deployment"))["securityContext"]["fsGroup"] == 1000


def test_the_classic_sidecar_is_the_same_container_with_hooks() -> None:
    native, classic = zkside(SIDECAR), zkside(CLASSIC)
    assert {key: value for key, value in classic.items() if key != "lifecycle"} == {
        key: value for key, value in native.items() if key != "restartPolicy"
    }


def test_the_classic_sidecar_starts_first_and_its_hooks_hold_the_others_back_and_wait_for_them() -> None:
    spec = pod(one(rendered(CLASSIC), "Deployment"))
    assert [each["name"] for each in spec["containers"]] == ["zkside", "application"]
    hooks = container(spec, "zkside")["lifecycle"]
    assert "zkside --timeout 2s health" in hooks["postStart"]["exec"]["command"][-1]
    sleep, waits = hooks["preStop"]["exec"]["command"]
    grace = Duration(0, 600).parse(environment(container(spec, "zkside"))["ZKSIDE_SHUTDOWN_GRACE"])
    assert sleep == "sleep"
    assert grace is not None
    assert int(waits) + grace <= min(30, spec["terminationGracePeriodSeconds"])


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_has_time_to_stop_before_it_is_killed(tmp_path: Path, name: str) -> None:
    """O3."""
    spec = pod(next(each for each in rendered(name) if each["kind"] in ("Deployment", "DaemonSet")))
    assert spec["terminationGracePeriodSeconds"] > configuration(name, tmp_path).shutdown.grace_s


def configuration(name: str, directory: Path) -> Config:
    """What the daemon makes of its ConfigMap and its environment; raises if it would refuse them."""
    file = directory / "zkside.toml"
    file.write_text(one(rendered(name), "ConfigMap")["data"]["zkside.toml"])
    return read(file=file, environment=environment(zkside(name))).config


@pytest.mark.parametrize(
    ("name", "at_shutdown"),
    [(SIDECAR, AtShutdown.RELEASE), (CLASSIC, AtShutdown.RELEASE), (DAEMONSET, AtShutdown.KEEP_SESSION)],
)
def test_the_daemon_accepts_its_configuration_and_serves_where_it_is_looked_for(
    tmp_path: Path, name: str, at_shutdown: AtShutdown
) -> None:
    config, of = configuration(name, tmp_path), zkside(name)
    assert [str(address) for address in config.addresses] == [ADDRESS]
    assert config.http.listen is not None
    assert config.health.listen is not None
    assert config.shutdown.session is at_shutdown
    ports = {port["name"]: port["containerPort"] for port in of["ports"]}
    assert ports == PORTS == {"zkside-metrics": config.http.listen.port, "zkside-health": config.health.listen.port}
    probes = [of["startupProbe"], of["livenessProbe"], of["readinessProbe"]]
    assert {probe["grpc"]["port"] for probe in probes} == {config.health.listen.port}
    writable = {mount["mountPath"] for mount in of["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/run/zkside", str(config.state_dir)}


def test_an_upgrade_of_the_daemonset_fits_in_the_session_timeout(tmp_path: Path) -> None:
    config = configuration(DAEMONSET, tmp_path)
    daemonset = one(rendered(DAEMONSET), "DaemonSet")
    stops_within_s = pod(daemonset)["terminationGracePeriodSeconds"]
    assert config.zookeeper.session_timeout_s > stops_within_s + 20
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_the_application_on_a_host_finds_the_daemonset_s_socket() -> None:
    volumes = {volume["name"]: volume for volume in pod(one(rendered(ON_HOST), "Deployment"))["volumes"]}
    theirs = {volume["name"]: volume for volume in pod(one(rendered(DAEMONSET), "DaemonSet"))["volumes"]}
    assert volumes["zkside-socket"]["hostPath"]["path"] == theirs["zkside-socket"]["hostPath"]["path"]
    assert environment(container(pod(one(rendered(ON_HOST), "Deployment")), "application"))["ZKSIDE_ADDRESS"] == ADDRESS


@pytest.mark.parametrize("name", [*DAEMONS, ON_HOST])
def test_all_containers_run_one_version_a_released_one(name: str) -> None:
    """Which one that has to be says tests/release."""
    workload = next(each for each in rendered(name) if each["kind"] in ("Deployment", "DaemonSet"))
    images = {each["image"].rpartition(":")[2] for each in containers(pod(workload))}
    assert len(images) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", images.pop())


def test_the_commands_in_the_manifests_are_commands_of_the_image() -> None:
    """The command line accepts them; nothing is run."""
    application = container(pod(one(rendered(SIDECAR), "Deployment")), "application")["command"]
    hook = container(pod(one(rendered(CLASSIC), "Deployment")), "zkside")["lifecycle"]["postStart"]
    in_hook = re.search(r"zkside [^&;]+", hook["exec"]["command"][-1])
    assert in_hook is not None
    for words in (application, in_hook[0].split(), ["zkside", *zkside(SIDECAR)["args"]]):
        assert CliRunner().invoke(command_line, [*words[1:], "--help"]).exit_code == 0, words
    assert CliRunner().invoke(command_line, ["watch", "--waits", "/", "--help"]).exit_code != 0
