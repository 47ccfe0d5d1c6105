"""Servers that are away as hosts go away: nothing comes back from their addresses."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.parts.namespaces import CLIENT_PORT, Network, ensemble_on, why_not
from zkside.cli.zookeeper import Installation

pytestmark = [pytest.mark.faults, pytest.mark.skipif(bool(why_not()), reason=why_not())]

ROOT = Path(__file__).resolve().parents[2]
CUTS = 10


@pytest.mark.parametrize("timeout_s", [4.0, 10.0])
def test_a_session_outlives_that_its_server_s_host_dies_ten_times(
    zookeeper_installation: Installation, timeout_s: float
) -> None:
    """S7, O5: the name has five addresses; two are dead for good, and each time the one that worked last is too.
    Another name's lookup hangs. Never LOST."""
    with Network("client", "one", "other", "zk1", "zk2", "zk3") as network:
        client, one, other, *servers = network.hosts.values()
        with ensemble_on(servers, installation=zookeeper_installation, tick_ms=500):
            network.cut([client], [one, other])
            addresses = [host.address for host in (one, other, *servers)]
            command = [sys.executable, "-m", "tests.zk.dead_child", str(timeout_s), str(CLIENT_PORT), *addresses]
            child = subprocess.Popen([*client.launcher, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            try:
                passed, gaps_s = drive(child, network)
            finally:
                child.kill()
                child.communicate()
    assert "LOST" not in passed
    print(f"session of {timeout_s:g} s, back after {' '.join(f'{gap_s:.2f}' for gap_s in gaps_s)} s")
    assert max(gaps_s) < timeout_s / 2


def drive(child: subprocess.Popen[str], network: Network) -> tuple[list[str], list[float]]:
    """Let the host of the server in use die, and the one before come back, again and again."""
    assert child.stdout is not None
    by_address = {host.address: host for host in network.hosts.values()}
    client = network.hosts["client"]
    passed: list[str] = []
    gaps_s: list[float] = []
    dead = None
    cut_s = 0.0
    for line in child.stdout:
        state, *details = line.split()
        passed.append(state)
        if state != "CONNECTED":
            continue
        if cut_s:
            gaps_s.append(time.monotonic() - cut_s)
        if len(gaps_s) == CUTS:
            break
        if dead is not None:
            network.heal([client], [dead])
        dead = by_address[details[0]]
        cut_s = time.monotonic()
        network.reset([client], [dead])
    return passed, gaps_s
