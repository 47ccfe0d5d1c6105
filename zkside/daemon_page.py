"""From the parts of the daemon to the status page that looks at them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Generator

import zkside
from zkside.config import Config
from zkside.hub.hub import Hub
from zkside.ops.history import History
from zkside.ops.lag import LagProbe
from zkside.ops.status_page import Pulse, StatusPage
from zkside.ops.survey import Sources, Survey, survey
from zkside.ops.turns import InTurns, asker
from zkside.recipes.holds import Holds
from zkside.rpc.server import RpcServer
from zkside.zk.session import Session


def status_page(
    config: Config, backend: str, session: Session, hub: Hub, holds: Holds, rpc: RpcServer, lag: LagProbe
) -> StatusPage:
    """Made before the session starts, on the running loop; follows the session from now on."""
    loop = asyncio.get_running_loop()
    started_s = time.time()
    history = History(session, (hub.recent, holds.recent))
    history.start()

    def pulse() -> Pulse:
        measured = session.statistics()
        timeout_s = measured.status.timeout_s
        return Pulse(
            name=socket.gethostname(),
            version=zkside.__version__,
            backend=backend,
            ensemble=config.zookeeper.hosts,
            started_s=started_s,
            draining=rpc.is_draining,
            session=measured,
            since_s=history.since_s,
            lost_s=history.lost_s,
            lease_span_s=timeout_s - session.settings.lease_rules().lease_margin_s(timeout_s),
            lag=lag.statistics(),
            holds=len(holds),
            streams=len(rpc.streams),
            server_watches=len(hub.keeper.watches),
            cached_nodes=len(hub.table.records),
            cached_bytes=hub.table.bytes,
            events=tuple(history.list()),
        )

    def look() -> Generator[None, None, Survey]:
        return survey(
            Sources(
                holds=holds.each,
                roots=hub.each_root,
                nodes=lambda place: hub.table.walk(place.path, place.scope.value),
                streams=rpc.streams.each,
            )
        )

    return StatusPage(asker(loop, pulse), InTurns(loop, look))
