"""What the manifests allow a container to do: next to nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s.rendered import (
    CLASSIC,
    DAEMONSET,
    ON_HOST,
    SIDECAR,
    UID,
    Document,
    container,
    containers,
    environment,
    one,
    pod,
    rendered,
    zkside,
)

pytestmark = pytest.mark.k8s

WORKLOADS = {SIDECAR: "Deployment", CLASSIC: "Deployment", ON_HOST: "Deployment", DAEMONSET: "DaemonSet"}
DAEMONS = (SIDECAR, CLASSIC, DAEMONSET)

PREPARES_THE_NODE = (DAEMONSET, "directories")
"""The only container that is root: it gives two directories of the node to the daemon."""


def spec_of(name: str) -> Document:
    return pod(one(rendered(name), WORKLOADS[name]))


def effective(spec: Document, of: Document, key: str) -> Any:
    """A setting of the container, or else of its pod."""
    return of.get("securityContext", {}).get(key, spec.get("securityContext", {}).get(key))


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_container_can_gain_anything(name: str) -> None:
    spec = spec_of(name)
    for of in containers(spec):
        context = of["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert not context.get("privileged", False)
        assert context["capabilities"]["drop"] == ["ALL"]
        assert effective(spec, of, "seccompProfile") == {"type": "RuntimeDefault"}
        assert "memory" in of["resources"]["limits"]
        assert {"cpu", "memory"} <= of["resources"]["requests"].keys()
        if (name, of["name"]) == PREPARES_THE_NODE:
            assert context["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
            assert of["command"] == ["chown", f"{UID}:{UID}", "/run/zkside", "/var/lib/zkside"]
        else:
            assert "add" not in context["capabilities"]
            assert effective(spec, of, "runAsNonRoot") is True
            assert effective(spec, of, "runAsUser") > 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_shares_nothing_with_its_node_but_what_it_has_to(name: str) -> None:
    spec = spec_of(name)
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
    assert spec["automountServiceAccountToken"] is False
    on_host = [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume]
    assert on_host == {DAEMONSET: ["/run/zkside", "/var/lib/zkside"], ON_HOST: ["/run/zkside"]}.get(name, [])


@pytest.mark.parametrize("name", DAEMONS)
def test_the_daemon_has_its_own_user_and_no_limit_of_cpu(name: str) -> None:
    of = zkside(name)
    context = of["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (UID, UID)
    assert "cpu" not in of["resources"]["limits"]


@pytest.mark.parametrize("name", DAEMONS)
def test_the_volumes_that_are_written_are_the_only_ones(name: str) -> None:
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in zkside(name)["volumeMounts"]}
    assert mounts == {"/run/zkside": False, "/var/lib/zkside": False, "/etc/zkside": True}


@pytest.mark.parametrize("name", [SIDECAR, CLASSIC])
def test_the_journal_is_in_memory_and_bounded_below_the_container_s_limit(name: str) -> None:
    """It has the session's password in it; and what it takes counts as the container's memory."""
    volumes = {volume["name"]: volume for volume in spec_of(name)["volumes"]}
    state, socket = volumes["zkside-state"]["emptyDir"], volumes["zkside-socket"]["emptyDir"]
    assert state["medium"] == socket["medium"] == "Memory"
    limit = zkside(name)["resources"]["limits"]["memory"]
    assert int(state["sizeLimit"].removesuffix("Mi")) * 2 <= int(limit.removesuffix("Mi"))


@pytest.mark.parametrize("name", DAEMONS)
def test_callers_need_the_socket_s_group(name: str) -> None:
    """O2: nothing but probes and metrics listens beyond the pod."""
    variables = environment(zkside(name))
    assert variables["ZKSIDE_LISTEN"] == "unix:/run/zkside/zkside.sock"
    assert variables["ZKSIDE_SOCKET_MODE"] == "0660"
    if name != DAEMONSET:
        assert spec_of(name)["securityContext"]["fsGroup"] == UID
    assert UID in spec_of(ON_HOST)["securityContext"]["supplementalGroups"]


@pytest.mark.parametrize("name", [SIDECAR, ON_HOST])
def test_the_application_cannot_remove_the_socket(name: str) -> None:
    mount = next(each for each in container(spec_of(name), "application")["volumeMounts"])
    assert mount == {"name": "zkside-socket", "mountPath": "/run/zkside", "readOnly": True}


def test_only_prometheus_may_come_to_the_daemon_s_pods() -> None:
    for name, labels in ((SIDECAR, {"zkside": "sidecar"}), (DAEMONSET, {"zkside": "host"})):
        policy = one(rendered(name), "NetworkPolicy")["spec"]
        workload = one(rendered(name), WORKLOADS[name])
        assert (
            policy["podSelector"]["matchLabels"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        )
        assert policy["podSelector"]["matchLabels"] == labels
        assert [(rule["ports"], len(rule["from"])) for rule in policy["ingress"]] == [
            ([{"protocol": "TCP", "port": 9464}], 1)
        ]


def test_the_daemonset_reaches_zookeeper_and_names_and_nothing_else() -> None:
    policy = one(rendered(DAEMONSET), "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {2181, 2281, 53}


def test_only_the_daemonset_s_namespace_is_privileged() -> None:
    for name in WORKLOADS:
        namespaces = [each for each in rendered(name) if each["kind"] == "Namespace"]
        assert bool(namespaces) == (name == DAEMONSET)
