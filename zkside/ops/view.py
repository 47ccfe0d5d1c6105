"""What the whole daemon is at one moment: the value from which metrics, health and status are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Metric

from zkside.hub.hub import HubStatistics
from zkside.model.admin import ReloadStatistics
from zkside.model.session import SessionState
from zkside.ops.lag import LagStatistics
from zkside.recipes.holds import HoldsStatistics
from zkside.zk.session import SessionStatistics


@dataclass(frozen=True, slots=True)
class View:
    """Gathered on the event loop in one go, so that its parts belong together."""

    versions: Mapping[str, str]
    """Of zkside, Python, grpc and so on."""
    backend: str
    """"kazoo" or "memory"."""
    uptime_s: float
    draining: bool
    session: SessionStatistics
    hub: HubStatistics
    holds: HoldsStatistics
    lag: LagStatistics
    refused: Mapping[str, int]
    """What was refused because a limit was reached, counted by limit."""
    incidents: int
    """Calls that ended in an error of zkside's own, counted."""
    reloads: ReloadStatistics
    task_deaths: Mapping[str, int]
    """Of the daemon's tasks, by name, counted."""
    rpc: tuple[Metric, ...]
    """The families of the gRPC server and its streams."""
    shut: str = ""
    """Why a listener cannot be reached any more; '' if all can."""


def why_not_ready(view: View) -> str:
    """Why no new work should come here; '' when it may.

    Caches that are not kept current though there is a connection are not ready: another daemon may do better. A
    suspended session is ready: it is mostly back in a moment, caches answer meanwhile, and a fleet that all
    leaves its load balancers because of one ZooKeeper election makes an outage of a hiccup.
    """
    if view.draining:
        return "draining"
    if view.shut:
        return f"a listener is shut: {view.shut}"
    if view.hub.not_kept:
        return f"the caches are not kept current: {view.hub.not_kept}"
    status = view.session.status
    if status.state.is_connected or status.state is SessionState.SUSPENDED:
        return ""
    reason = why_so(view.session)
    return f"the ZooKeeper session is {status.state.value}" + (f": {reason}" if reason else "")


def why_so(session: SessionStatistics) -> str:
    """Why the session's state is what it is; without a connection with what stands in the way of one."""
    status, connecting = session.status, session.connecting
    error = connecting.last_error
    if not connecting.stands:
        return status.reason
    return error if not status.reason or status.reason in error else f"{status.reason}; {error}"
