"""Several real ZooKeeper servers that form one ensemble on 127.0.0.1."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from zkside.cli.zookeeper import Installation, ZooKeeperServer, find, free_port
from zkside.errors import StartError


class Ensemble:
    """`size` servers; any of them can be killed, paused and started again by itself."""

    def __init__(
        self,
        size: int = 3,
        *,
        installation: Installation | None = None,
        tick_ms: int = 500,
        properties: Mapping[str, object] | None = None,
        jvm_flags: Sequence[str] = (),
    ) -> None:
        installation = installation or find()
        ports = {number: (free_port(), free_port()) for number in range(1, size + 1)}
        members = {f"server.{number}": f"127.0.0.1:{quorum}:{election}" for number, (quorum, election) in ports.items()}
        self.servers = tuple(
            ZooKeeperServer(
                installation,
                tick_ms=tick_ms,
                heap_mb=128,
                properties={**members, **(properties or {})},
                jvm_flags=jvm_flags,
                server_id=number,
            )
            for number in ports
        )

    @classmethod
    def of(cls, servers: Iterable[ZooKeeperServer]) -> Self:
        """The ensemble that these servers were configured to form, wherever they run."""
        ensemble = cls.__new__(cls)
        ensemble.servers = tuple(servers)
        return ensemble

    @property
    def hosts(self) -> str:
        """The connection string with all servers."""
        return ",".join(server.hosts for server in self.servers)

    @property
    def leader(self) -> ZooKeeperServer:
        """Raises: StartError if no server leads at the moment."""
        for server in self.servers:
            if role(server) == "leader":
                return server
        raise StartError("the ensemble has no leader at the moment")

    @property
    def followers(self) -> list[ZooKeeperServer]:
        return [server for server in self.servers if role(server) == "follower"]

    def start(self, *, within_s: float = 60.0) -> Self:
        """Start all servers and wait until every one serves."""
        try:
            for server in self.servers:
                server.launch()
            deadline = time.monotonic() + within_s
            for server in self.servers:
                server.wait_serving(within_s=max(deadline - time.monotonic(), 1.0))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def role(server: ZooKeeperServer) -> str:
    """'leader', 'follower', 'standalone', or '' while it does not serve."""
    try:
        return server.mntr().get("server_state", "")
    except OSError:
        return ""
