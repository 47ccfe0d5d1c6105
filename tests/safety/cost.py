"""What the proofs of many hosts cost an ensemble: `python -m tests.safety.cost`, for docs/safety.md.

Every host is one session of zkside's own with something held, in this process: what it sends is what a daemon
sends. The servers write to disk as in production (forceSync). Beside them a client reads and writes, and its
latency is what others feel.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.parts.ensemble import Ensemble
from tests.session.conftest import running
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.core.lease import Proof
from zkside.model.operation import Create, GetData, SetData
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.port import Connector
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 10.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    hosts: int
    proof: Proof | None
    """None: nothing is held."""
    proofs_per_s: float
    cpu: Sequence[float]
    """Of each server, the leader first: seconds of processor time a second."""
    written_bytes_per_s: float
    """By the leader's process, to disk."""
    read_s: Sequence[float]
    write_s: Sequence[float]

    @property
    def row(self) -> str:
        cpu = " / ".join(f"{100 * each:.1f}" for each in self.cpu)
        proof = f"`{self.proof.name.lower()}`" if self.proof else "nothing held"
        return (
            f"| {self.hosts} | {proof} | {self.proofs_per_s:.1f} | {cpu} % | "
            f"{self.written_bytes_per_s / 1000:.1f} kB/s | {_latency(self.read_s)} | {_latency(self.write_s)} |"
        )


HEAD = """\
| hosts | proof | proofs/s | CPU of leader / follower / follower | the leader writes | read p50, p99 | write p50, p99 |
|---|---|---|---|---|---|---|"""


def _latency(values_s: Sequence[float]) -> str:
    percentiles = statistics.quantiles(values_s, n=100)
    return f"{1000 * percentiles[49]:.2f}, {1000 * percentiles[98]:.2f} ms"


def connector(ensemble: Ensemble) -> Connector:
    return kazoo_connector(KazooSettings(hosts=ensemble.hosts, session_timeout_s=TIMEOUT_S))


def cpu_s(server: ZooKeeperServer) -> float:
    with open(f"/proc/{server.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def written_bytes(server: ZooKeeperServer) -> int:
    with open(f"/proc/{server.pid}/io") as file:
        return int(dict(line.split(": ") for line in file.read().splitlines())["wchar"])


async def measure(ensemble: Ensemble, hosts: int, proof: Proof | None, *, for_s: float) -> Cost:
    """With so many hosts, for so long; then as long again with a client beside them."""
    leader = ensemble.leader
    servers = [leader, *ensemble.followers]
    settings = SessionSettings(timeout_s=TIMEOUT_S, proof=proof or Proof.SYNC)
    async with AsyncExitStack() as stack:
        sessions: list[Session] = []
        for _ in range(hosts):
            session, _ = await stack.enter_async_context(running(connector(ensemble), settings))
            await session.wait_connected()
            if proof:
                session.need_proofs()
            sessions.append(session)
            await asyncio.sleep(random.uniform(0.0, 0.02))  # hosts are not in step with each other
        client, _ = await stack.enter_async_context(running(connector(ensemble), SessionSettings(timeout_s=TIMEOUT_S)))
        await client.wait_connected()
        await asyncio.sleep(2.0)  # what starting them cost is not asked for
        before = [cpu_s(each) for each in servers], written_bytes(leader), _proofs(sessions)
        began = time.monotonic()
        await asyncio.sleep(for_s)
        after = [cpu_s(each) for each in servers], written_bytes(leader), _proofs(sessions)
        took_s = time.monotonic() - began
        return Cost(
            hosts,
            proof,
            (after[2] - before[2]) / took_s,
            [(now - was) / took_s for now, was in zip(after[0], before[0], strict=True)],
            (after[1] - before[1]) / took_s,
            *await _ask(client, for_s),
        )


def _proofs(sessions: Sequence[Session]) -> int:
    return sum(session.statistics().proofs_sent for session in sessions)


async def _ask(client: Session, for_s: float) -> tuple[list[float], list[float]]:
    read_s: list[float] = []
    write_s: list[float] = []
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        for operation, took_s in ((GetData("/asked"), read_s), (SetData("/asked", b"x" * 100), write_s)):
            began = time.perf_counter()
            await client.call(operation)
            took_s.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    return read_s, write_s


async def main(hosts: Sequence[int], for_s: float) -> None:
    properties = {"forceSync": "yes", "minSessionTimeout": 4000}
    with Ensemble(3, tick_ms=2000, properties=properties) as ensemble:
        async with running(connector(ensemble), SessionSettings(timeout_s=TIMEOUT_S)) as (client, _):
            await client.wait_connected()
            await client.call(Create("/asked"))
        print(HEAD)
        for count, proof in ((count, proof) for count in hosts for proof in (None, Proof.SYNC, Proof.WRITE)):
            print((await measure(ensemble, count, proof, for_s=for_s)).row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--for", type=float, default=15.0, dest="for_s")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.hosts, given.for_s)))
