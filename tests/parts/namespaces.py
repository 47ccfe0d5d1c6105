"""Hosts in network namespaces of their own, on one switch: any two of them can be cut apart.

Nothing is left behind: a namespace has no name and lives as long as the process that holds it open, and that one
ends when this process ends, in whatever way. The machine's own network is not touched.

Takes root, iproute2 and nftables (`tools/provide namespaces`); `why_not` says what is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from types import TracebackType
from typing import Self

from tests.parts.ensemble import Ensemble
from zkside.cli.zookeeper import Installation, ZooKeeperServer, find
from zkside.errors import StartError

TOOLS = ("ip", "ss", "nft", "nsenter", "setpriv", "unshare")
CLIENT_PORT, QUORUM_PORT, ELECTION_PORT = 2181, 2888, 3888

_CLONE_NEWNET = 0x40000000
# Packets are dropped where they arrive: the sender is told nothing, as when a cable is pulled.
_FILTER = """\
table ip cut {
  set away { type ipv4_addr; }
  chain arriving { type filter hook input priority 0; ip saddr @away drop; }
}
"""


def why_not() -> str:
    """Why namespaces cannot be made here, and what to do about it; "" if they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing. As root: apt-get install iproute2 nftables util-linux"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    done = subprocess.run(["unshare", "--net", "nft", "-f", "-"], input=_FILTER, capture_output=True, text=True)
    return f"this kernel or container does not allow it: {done.stderr.strip()}" if done.returncode else ""


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str
    namespace: str
    """Where the namespace can be entered."""

    @property
    def launcher(self) -> tuple[str, ...]:
        """Put in front of a command, it becomes that command on this host.

        It is killed when the thread that started it ends: start it in one that stays.
        """
        return ("setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={self.namespace}", "--")

    def connect(self, address: str, port: int, *, timeout_s: float = 5.0) -> socket.socket:
        """A TCP connection from this host. Raises: OSError."""
        # Only a thread can change its namespace, and a socket stays in the one where it was made.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._connect, address, port, timeout_s).result()

    def _connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(self.namespace, "rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the network of {self.name}")
        return socket.create_connection((address, port), timeout=timeout_s)


class Network:
    """The hosts with these names, all connected until they are cut apart.

    Raises (on entering): StartError if namespaces cannot be made here.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._holders: list[subprocess.Popen[bytes]] = []
        self.hosts: Mapping[str, Host] = {}

    def __enter__(self) -> Self:
        reason = why_not()
        if reason:
            raise StartError(f"no network namespaces: {reason}")
        try:
            self._make()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def cut(self, ones: Iterable[Host], others: Iterable[Host]) -> None:
        """Nothing passes any more between any of `ones` and any of `others`, and nobody is told."""
        self._each("add", [each for pair in product(ones, others) for each in (pair, pair[::-1])])

    def reset(self, ones: Sequence[Host], others: Sequence[Host]) -> None:
        """As `cut`; and the connections between them end with an error at the ends of `ones` alone."""
        self.cut(ones, others)
        for one, other in product(ones, others):
            # Its RST to the other end is dropped there.
            told = _run(one, "ss", "-H", "-K", "-t", "-n", "dst", other.address)
            left = _run(one, "ss", "-H", "-t", "-n", "state", "established", "dst", other.address)
            if left.strip():
                raise StartError(f"this kernel does not end connections (INET_DIAG_DESTROY): {told}{left}")

    def heal(self, ones: Iterable[Host] | None = None, others: Iterable[Host] | None = None) -> None:
        """Everything passes again, everywhere or between these."""
        if ones is None or others is None:
            for host in self.hosts.values():
                _run(host, "nft", "flush set ip cut away")
            return
        self._each("delete", [each for pair in product(ones, others) for each in (pair, pair[::-1])])

    def _each(self, verb: str, pairs: list[tuple[Host, Host]]) -> None:
        """All at the same time, as far as that can be had: a process each takes some ms."""
        commands = [[*at.launcher, "nft", f"{verb} element ip cut away {{ {other.address} }}"] for at, other in pairs]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
        for process in running:
            _, said = process.communicate(timeout=30)
            # What was not cut need not be healed.
            if process.returncode and verb == "add":
                raise StartError(said.decode())

    def _make(self) -> None:
        switch, *hosts = (self._hold(name) for name in ("switch", *self._names))
        _run(switch, "ip", "link", "add", "switch", "type", "bridge")
        _run(switch, "ip", "link", "set", "switch", "up")
        for number, host in enumerate(hosts):
            pid = host.namespace.split("/")[2]
            port = f"port{number}"
            _run(switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pid)
            _run(switch, "ip", "link", "set", port, "master", "switch", "up")
            _run(host, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            _run(host, "ip", "link", "set", "eth0", "up")
            _run(host, "ip", "link", "set", "lo", "up")
            _run(host, "nft", "-f", "-", feed=_FILTER)
        self.hosts = {host.name: host for host in hosts}

    def _hold(self, name: str) -> Host:
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; read _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._holders.append(holder)
        assert holder.stdout is not None
        holder.stdout.readline()
        return Host(name, f"198.18.0.{len(self._holders)}", f"/proc/{holder.pid}/ns/net")

    def _end(self) -> None:
        self.hosts = {}
        while self._holders:
            holder = self._holders.pop()
            holder.communicate(timeout=10)


class _Server(ZooKeeperServer):
    """A server on a host, asked from there."""

    def __init__(self, host: Host, installation: Installation, **settings: object) -> None:
        super().__init__(
            installation,
            port=CLIENT_PORT,
            address=host.address,
            launcher=host.launcher,
            **settings,  # type: ignore[arg-type]
        )
        self._host = host

    def _connect(self, timeout_s: float) -> socket.socket:
        return self._host.connect(self.address, self.port, timeout_s=timeout_s)


def ensemble_on(
    hosts: Sequence[Host],
    *,
    installation: Installation | None = None,
    tick_ms: int = 2000,
    properties: Mapping[str, object] | None = None,
) -> Ensemble:
    """One ZooKeeper server on each host, to be entered with `with`."""
    members = {
        f"server.{number}": f"{host.address}:{QUORUM_PORT}:{ELECTION_PORT}" for number, host in enumerate(hosts, 1)
    }
    found = installation or find()
    return Ensemble.of(
        _Server(
            host,
            found,
            tick_ms=tick_ms,
            heap_mb=128,
            properties={**members, **(properties or {})},
            server_id=number,
        )
        for number, host in enumerate(hosts, 1)
    )


def _run(host: Host, *command: str, feed: str | None = None) -> str:
    done = subprocess.run([*host.launcher, *command], input=feed, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise StartError(f"{' '.join(command)} on {host.name}: {done.stderr.strip()}")
    return done.stdout
