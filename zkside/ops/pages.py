"""The pages of the HTTP server: /metrics, /healthz, /readyz, /statusz, and the status page at /."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import make_wsgi_app

from zkside.ops.metrics import DaemonCollector
from zkside.ops.status_page import StatusPage
from zkside.ops.turns import LoopHangs
from zkside.ops.view import View, why_not_ready
from zkside.zk.session import SessionStatistics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def pages(ask: Callable[[], View], page: StatusPage | None, *, loopback: bool) -> WSGIApplication:
    """The application; without a `page` /statusz is not served either.

    `loopback`: whether it is served there only; then requests that were addressed to another name are refused (a web
    page of somebody else's, with its name pointed at this host). The details are for this host alone in any case.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(ask))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics: WSGIApplication = make_wsgi_app(registry)

    def application(environment: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain(respond, "405 Method Not Allowed", "only GET\n")
        is_ours = _names_loopback(environment.get("HTTP_HOST", ""))
        if loopback and not is_ours:
            return _plain(respond, "421 Misdirected Request", "ask for localhost\n")
        is_here = is_ours and _is_loopback(environment.get("REMOTE_ADDR", ""))
        details = page if is_here else None
        path = environment["PATH_INFO"]
        try:
            match path:
                case "/metrics":
                    return metrics(environment, respond)
                case "/healthz":
                    # An answer at all is what liveness needs. A session that is gone heals by itself, and a
                    # restart would only make everybody's caches cold.
                    ask()
                    return _plain(respond, "200 OK", "alive\n")
                case "/readyz":
                    why = why_not_ready(ask())
                    return _plain(respond, "503 Service Unavailable" if why else "200 OK", (why or "ready") + "\n")
                case "/statusz":
                    if details is None:
                        return _plain(respond, "403 Forbidden", "only from this host, at localhost\n")
                    return _respond(respond, "200 OK", "application/json", _status(ask()))
                case "/" if details is None:
                    return _plain(respond, "200 OK", "zkside: /metrics /healthz /readyz /statusz\n")
            if details is not None and (found := details.respond(path, respond)) is not None:
                return found
        except LoopHangs as error:
            return _plain(respond, "503 Service Unavailable", f"{error}\n")
        return _plain(respond, "404 Not Found", "no such page\n")

    return application


def _status(view: View) -> str:
    document = {
        "versions": dict(view.versions),
        "backend": view.backend,
        "uptime_s": round(view.uptime_s, 3),
        "draining": view.draining,
        "ready": not why_not_ready(view),
        "why_not_ready": why_not_ready(view),
        "session": _session(view.session),
        "hub": asdict(view.hub),
        "holds": [{"kind": kind, "state": state, "count": count} for (kind, state), count in view.holds.holds.items()],
        "event_loop_lag_max_s": view.lag.max_s,
    }
    return json.dumps(_plain_values(document), indent=2) + "\n"


def _session(session: SessionStatistics) -> dict[str, Any]:
    document = asdict(session)
    document["status"]["session_id"] = session.status.session_id_hex
    # The histogram is for /metrics; a person wants the number and the mean.
    document["latencies"] = {
        operation: {"count": latency.count, "mean_s": latency.sum_s / max(1, latency.count)}
        for operation, latency in session.latencies.items()
    }
    document["transitions"] = [
        {"from": before.name, "to": after.name, "count": count}
        for (before, after), count in session.transitions.items()
    ]
    return document


def _plain_values(value: Any) -> Any:
    """Enumerations become their names."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_values(item) for item in value]
    return value


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name == "localhost" or _is_loopback(name.removeprefix("[").removesuffix("]"))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _plain(respond: StartResponse, status: str, text: str) -> Iterable[bytes]:
    return _respond(respond, status, "text/plain; charset=utf-8", text)


def _respond(respond: StartResponse, status: str, content_type: str, text: str) -> Iterable[bytes]:
    body = text.encode()
    respond(
        status,
        [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [body]
