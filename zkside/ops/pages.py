"""The pages of the HTTP server: /metrics, /healthz, /readyz and /statusz."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import make_wsgi_app

from zkside.ops.metrics import DaemonCollector
from zkside.ops.view import View, why_not_ready
from zkside.zk.session import SessionStatistics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOP_TIMEOUT_S = 5.0
"""An event loop that does not answer for so long is dead: /healthz says so."""


class LoopHangs(Exception):
    """The event loop did not answer in time."""


def asker(loop: asyncio.AbstractEventLoop, gather: Callable[[], View]) -> Callable[[], View]:
    """A function for other threads that has `gather` called on the loop. It raises LoopHangs."""

    def ask() -> View:
        answer: Future[View] = Future()

        def fill() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(gather())
            except BaseException as error:
                answer.set_exception(error)

        try:
            loop.call_soon_threadsafe(fill)
            return answer.result(LOOP_TIMEOUT_S)
        except (TimeoutError, RuntimeError) as error:
            answer.cancel()
            raise LoopHangs(f"the event loop did not answer for {LOOP_TIMEOUT_S:g} s") from error

    return ask


def pages(ask: Callable[[], View], *, loopback: bool) -> WSGIApplication:
    """The application. `loopback`: whether it is served there only; then requests that were addressed to
    another name are refused (a web page of somebody else's, with its name pointed at this host)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(ask))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics: WSGIApplication = make_wsgi_app(registry)

    def application(environment: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain(respond, "405 Method Not Allowed", "only GET\n")
        if loopback and not _names_loopback(environment.get("HTTP_HOST", "")):
            return _plain(respond, "421 Misdirected Request", "ask for localhost\n")
        try:
            match environment["PATH_INFO"]:
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
                    if not _is_loopback(environment.get("REMOTE_ADDR", "")):
                        return _plain(respond, "403 Forbidden", "only from this host\n")
                    return _respond(respond, "200 OK", "application/json", _status(ask()))
                case "/":
                    return _plain(respond, "200 OK", "zkside: /metrics /healthz /readyz /statusz\n")
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
