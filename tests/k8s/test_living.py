"""A daemon that was given the manifests' own configuration, asked what the kubelet asks, and ended as it ends one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.k8s.rendered import CLASSIC, DAEMONSET, SIDECAR, Document, environment, one, rendered, zkside
from tests.ops.process import DaemonProcess
from tests.parts.proxy import Proxy
from zkside.cli.zookeeper import free_port
from zkside.client import Client, SessionState

pytestmark = pytest.mark.k8s

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

NOBODY = "127.0.0.1:1"
"""Hosts where no ZooKeeper is."""


class Daemon(DaemonProcess):
    """The daemon of one of the kustomizations, in directories and on ports of the test's own."""

    def __init__(self, name: str, directory: Path, hosts: str, **keys: str) -> None:
        file = directory / "zkside.toml"
        file.write_text(one(rendered(name), "ConfigMap")["data"]["zkside.toml"])
        self.health_port = free_port()
        theirs = {key.removeprefix("ZKSIDE_"): value for key, value in environment(zkside(name)).items()}
        here = {
            "CONFIG": str(file),
            "LISTEN": f"unix:{directory}/zkside.sock",
            "STATE_DIR": str(directory / "state"),
            "HTTP_LISTEN": "127.0.0.1:0",
            "HEALTH_LISTEN": f"127.0.0.1:{self.health_port}",
            "ZOOKEEPER_HOSTS": hosts,
        }
        del theirs["ADDRESS"]
        super().__init__(directory, **(theirs | here | keys))


@asynccontextmanager
async def kubelet(daemon: Daemon) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    """Who probes: over TCP, in plaintext."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{daemon.health_port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]


async def ask(stub: health_pb2_grpc.HealthStub, probe: Document) -> int:
    """One probe, within its own time."""
    request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
    answer = await stub.Check(request, timeout=probe["timeoutSeconds"])
    return int(answer.status)


async def wait_until(stub: health_pb2_grpc.HealthStub, probe: Document, status: int) -> None:
    request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
    async for answer in stub.Watch(request, timeout=30):
        if answer.status == status:
            return


@pytest.mark.parametrize("name", [SIDECAR, CLASSIC, DAEMONSET])
async def test_without_zookeeper_a_daemon_is_started_and_alive_and_not_ready(tmp_path: Path, name: str) -> None:
    of = zkside(name)
    with Daemon(name, tmp_path, NOBODY) as daemon:
        async with kubelet(daemon) as stub:
            assert await ask(stub, of["startupProbe"]) == SERVING
            assert await ask(stub, of["livenessProbe"]) == SERVING
            assert await ask(stub, of["readinessProbe"]) == NOT_SERVING


def test_the_hook_that_holds_the_application_back_ends_when_the_daemon_serves(tmp_path: Path) -> None:
    """Before 1.29: as the kubelet runs it, which is beside a daemon that has only begun to start."""
    command = zkside(CLASSIC)["lifecycle"]["postStart"]["exec"]["command"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = os.environ | {"PATH": path, "ZKSIDE_ADDRESS": f"unix:{tmp_path}/zkside.sock"}
    hook = subprocess.Popen(command, env=here, stderr=subprocess.PIPE, text=True)
    try:
        assert hook.stderr is not None
        assert "no daemon answers" in hook.stderr.readline()
        with Daemon(CLASSIC, tmp_path, NOBODY):
            assert hook.wait(30) == 0
    finally:
        hook.kill()
        hook.communicate()


async def test_a_session_that_is_lost_ends_readiness_and_never_life(
    tmp_path: Path, proxy: Proxy, proxy_hosts: str
) -> None:
    of = zkside(SIDECAR)
    with Daemon(SIDECAR, tmp_path, proxy_hosts, ZOOKEEPER_SESSION_TIMEOUT="2s", LEASE_TICK="200ms") as daemon:
        async with kubelet(daemon) as stub:
            await wait_until(stub, of["readinessProbe"], SERVING)
            proxy.refuse()
            proxy.cut()
            daemon.wait_for("session suspended")
            assert await ask(stub, of["readinessProbe"]) == SERVING
            await wait_until(stub, of["readinessProbe"], NOT_SERVING)
            assert await ask(stub, of["livenessProbe"]) == SERVING
            proxy.accept()
            await wait_until(stub, of["readinessProbe"], SERVING)
            assert await ask(stub, of["livenessProbe"]) == SERVING


@pytest.mark.parametrize(
    ("name", "signum", "same"),
    [
        (SIDECAR, signal.SIGKILL, True),
        (SIDECAR, signal.SIGTERM, False),
        (DAEMONSET, signal.SIGKILL, True),
        (DAEMONSET, signal.SIGTERM, True),
    ],
)
async def test_a_restart_with_the_state_volume_kept_takes_the_session_up(
    tmp_path: Path, hosts: str, name: str, signum: signal.Signals, same: bool
) -> None:
    """A killed container of a sidecar, an upgrade of the DaemonSet; but a pod that goes lets go of its session."""
    sessions = []
    for _ in range(2):
        with Daemon(name, tmp_path, hosts) as daemon:
            async with Client(daemon.address) as client:
                async for session in client.watch_session(wait_for_ready=True):
                    if session.state is SessionState.CONNECTED:
                        sessions.append(session.session_id)
                        break
            daemon.signal(signum)
            daemon.wait_ended()
    assert (sessions[0] == sessions[1]) == same
