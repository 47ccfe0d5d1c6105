"""What every benchmark stands on: a private real ZooKeeper, and a daemon as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient

from zkside.cli.zookeeper import ZooKeeperServer, find, free_port

KAZOO_SESSION_TIMEOUT_S = 30.0
Kazoo = Any
"""A KazooClient; kazoo has no types."""


@contextlib.contextmanager
def zookeeper(*, properties: Mapping[str, object] | None = None) -> Iterator[ZooKeeperServer]:
    """A ZooKeeper without fsync (forceSync=no): the disk would hide what is compared.

    $ZOOKEEPER names another release than Debian's.
    """
    installation = find(os.environ.get("ZOOKEEPER") or None)
    server = ZooKeeperServer(installation, heap_mb=1536, properties=properties)
    with server:
        yield server


@contextlib.contextmanager
def kazoo(hosts: str) -> Iterator[Kazoo]:
    """A started kazoo client, closed at the end."""
    client: Kazoo = KazooClient(hosts, timeout=KAZOO_SESSION_TIMEOUT_S)
    client.start(timeout=30)
    try:
        yield client
    finally:
        client.stop()
        client.close()


@contextlib.contextmanager
def socket_address() -> Iterator[str]:
    """An address on a Unix socket in a directory that goes away."""
    with tempfile.TemporaryDirectory(prefix="zkside-bench-") as directory:
        yield f"unix:{directory}/s"


class Daemon:
    """A running daemon: `python -m zkside serve`."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, http_port: int, log: Path) -> None:
        self._process = process
        self.address = address
        self._http = f"http://127.0.0.1:{http_port}"
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the daemon ended at its start:\n{self._log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(f"{self._http}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, by its name with its labels."""
        with urllib.request.urlopen(f"{self._http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = {}
        for line in text.splitlines():
            if match := re.fullmatch(r"([^#\s][^\s{]*(?:\{.*\})?) (\S+)", line):
                samples[match[1]] = float(match[2])
        return samples

    def kill(self) -> None:
        """As a crash would: nothing is released."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def daemon(hosts: str, **settings: str) -> Iterator[Daemon]:
    """A daemon on `hosts`, ready to answer; `settings` are further ZKSIDE_… variables (ZKSIDE_LISTEN: its address).

    Raises: RuntimeError with the end of its log if it does not become ready.
    """
    port = free_port()
    with socket_address() as address, tempfile.TemporaryDirectory(prefix="zkside-bench-") as directory:
        log = Path(directory, "log")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")}
        environment = inherited | {
            "ZKSIDE_ZOOKEEPER_HOSTS": hosts,
            "ZKSIDE_LISTEN": address,
            "ZKSIDE_HTTP_LISTEN": f"127.0.0.1:{port}",
            "ZKSIDE_LOG_LEVEL": "warning",
            # A process of a benchmark has one connection for all of its streams.
            "ZKSIDE_QUOTAS_MAX_CONCURRENT_STREAMS": "2000",
            **settings,
        }
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "zkside", "serve"], env=environment, stdout=output, stderr=output
            )
        running = Daemon(process, environment["ZKSIDE_LISTEN"], port, log)
        try:
            deadline = time.monotonic() + 30
            while not running.is_ready():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the daemon is not ready:\n{log.read_text()[-4000:]}")
                time.sleep(0.05)
            yield running
        finally:
            running.stop()


@dataclass(frozen=True, slots=True)
class Load:
    """What a ZooKeeper server has on its hands."""

    sessions: int
    watches: int
    """Pairs of path and session."""
    packets: int
    """Received and sent since it started."""
    events: int
    """Packets sent that answer nothing: what watches reported."""


def load_of(server: ZooKeeperServer) -> Load:
    """The present load. The packets of asking are in it: ask twice in a row to know how many."""
    sessions = len(re.findall(r"\bsid=0x", server.four_letter("cons")))
    counts = server.mntr()
    # A persistent watch stands in two of the server's tables, so `mntr` counts it twice.
    watches: set[tuple[str, str]] = set()
    path = ""
    for line in server.four_letter("wchp").splitlines():
        if line.startswith("\t"):
            watches.add((path, line.strip()))
        else:
            path = line
    received, sent = int(counts["packets_received"]), int(counts["packets_sent"])
    return Load(sessions, len(watches), received + sent, sent - received)
