"""The status page: static files, and one document of JSON that they ask for every second.

The document has two halves. The pulse (the session, its lease, a few counts) is read in one go and costs the same
whatever the daemon has to do; the lists are a survey that is made in turns (ops/turns.py), and is older the larger
the daemon. In neither is a secret: no resume token, no data of a node, no credential, no id that lets go of a hold.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zkside.core.recent import Happening
from zkside.model.hold import HoldStatus
from zkside.model.watch import Place
from zkside.ops import lag
from zkside.ops.lag import LagStatistics
from zkside.ops.survey import Cached, Held, Slow, Survey
from zkside.ops.turns import InTurns
from zkside.ops.view import why_so
from zkside.zk import latency
from zkside.zk.session import SessionStatistics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

FILES = Path(__file__).with_name("page")
"""Read when they are asked for: a daemon whose page nobody looks at has nothing of it in memory."""
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = (
    # Names of nodes and owners are chosen by others. The page makes text nodes of them, nothing else can become
    # code here, and with trusted types the browser refuses to parse a string as HTML at all.
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)

LONGEST = 256
"""Characters of a path or an owner that travel; what is longer is cut in the middle."""
MOST_EVENTS = 120


@dataclass(frozen=True, slots=True)
class Pulse:
    """What costs the same however large the daemon is; gathered in one go."""

    name: str
    """Of the host."""
    version: str
    backend: str
    ensemble: str
    started_s: float
    """Seconds since 1970."""
    draining: bool
    session: SessionStatistics
    since_s: float
    """When the session came into its present state."""
    lost_s: float | None
    """When it was lost, if no other has begun since."""
    lease_span_s: float
    """How long a lease is when it has just been proven."""
    lag: LagStatistics
    holds: int
    streams: int
    server_watches: int
    cached_nodes: int
    cached_bytes: int
    events: tuple[Happening, ...]


class StatusPage:
    """Answers "/" and all below "/page/"."""

    def __init__(self, pulse: Callable[[], Pulse], lists: InTurns[Survey]) -> None:
        """`pulse` is for threads; see ops/turns.py."""
        self._pulse = pulse
        self._lists = lists

    def respond(self, path: str, respond: StartResponse) -> Iterable[bytes] | None:
        """None if there is no such page. Raises: LoopHangs."""
        if path == "/page/live.json":
            pulse = self._pulse()
            survey, age_s = self._lists.ask()
            told = document(pulse, survey, age_s)
            told["lists"] |= {"cost_s": round(self._lists.cost_s, 4), "slice_max_s": round(self._lists.longest_s, 4)}
            body = json.dumps(told, separators=(",", ":")).encode()
            return _respond(respond, "application/json", body)
        name = "index.html" if path == "/" else path.removeprefix("/page/")
        file = FILES / name
        if name not in _names() or file.suffix not in TYPES:
            return None
        return _respond(respond, f"{TYPES[file.suffix]}; charset=utf-8", file.read_bytes())


def document(pulse: Pulse, survey: Survey, lists_age_s: float) -> dict[str, Any]:
    """What the page draws, as JSON has it. Times are seconds since 1970, by this host's clock."""
    session = pulse.session
    wire = session.connection
    return {
        "now": round(time.time(), 3),
        "daemon": {
            "name": pulse.name,
            "version": pulse.version,
            "backend": pulse.backend,
            "ensemble": _clip(pulse.ensemble),
            "started": round(pulse.started_s, 3),
            "draining": pulse.draining,
        },
        "session": {
            "state": session.status.state.value,
            "since": round(pulse.since_s, 3),
            "lost": pulse.lost_s,
            "reason": _clip(why_so(session)),
            "server": session.status.server,
            "id": session.status.session_id_hex,
            "epoch": session.status.epoch,
            "timeout_s": session.status.timeout_s,
            "lease_s": round(session.lease_remaining_s, 3),
            "lease_span_s": round(pulse.lease_span_s, 3),
            "lease_lowest_s": session.lease_lowest_s,
            "lease_needed": session.proofs_needed > 0,
        },
        "zookeeper": {
            "in_flight": wire.in_flight if wire is not None else 0,
            "queued": wire.queued if wire is not None else 0,
            "seconds": round(sum(each.sum_s for each in session.latencies.values()), 6),
            "bounds_s": latency.BUCKETS_S,
            "counts": [
                sum(counts) for counts in zip(*(each.counts for each in session.latencies.values()), strict=True)
            ],
        },
        "loop": {"bounds_s": lag.BUCKETS_S, "counts": pulse.lag.counts, "max_s": round(pulse.lag.max_s, 4)},
        "counts": {
            "holds": pulse.holds,
            "streams": pulse.streams,
            "server_watches": pulse.server_watches,
            "cached_nodes": pulse.cached_nodes,
            "cached_bytes": pulse.cached_bytes,
        },
        "lists": lists(survey, lists_age_s),
        "events": [
            {
                "at": round(each.at_s, 3),
                "name": each.name,
                "reason": each.reason,
                "subject": _clip(each.subject),
                "count": each.count,
            }
            for each in pulse.events[:MOST_EVENTS]
        ],
    }


def lists(survey: Survey, age_s: float) -> dict[str, Any]:
    """The half of the document that may be some seconds old."""
    return {
        "age_s": round(age_s, 3),
        "held": [_held(each) for each in survey.held],
        "held_paths": survey.held_paths,
        "owned": survey.counts.owned,
        "led": survey.counts.led,
        "waiting": survey.counts.waiting,
        "in_jeopardy": survey.counts.in_jeopardy,
        "unattended": survey.counts.unattended,
        "caches": [_cached(each) for each in survey.caches],
        "cached": survey.cached,
        "of_holds": survey.of_holds,
        "stale": survey.stale,
        "loading": survey.loading,
        "slow": [_slow(each) for each in survey.slow],
        "slow_streams": survey.slow_streams,
        "streams": survey.streams,
    }


def _held(held: Held) -> dict[str, Any]:
    return {
        "kind": held.recipe,
        "path": _clip(held.path),
        "owned": held.counts.owned,
        "waiting": held.counts.waiting,
        "in_jeopardy": held.counts.in_jeopardy,
        "unattended": held.counts.unattended,
        "longest_wait_s": round(held.longest_wait_s, 1),
        "owners": [_hold(each) for each in held.owners],
        "waiters": [_hold(each) for each in held.waiters],
    }


def _hold(hold: HoldStatus) -> dict[str, Any]:
    update = hold.update
    return {
        "state": update.state.value,
        "reason": update.reason.value,
        "owner": _clip(hold.owner),
        "node": _clip(update.path.rpartition("/")[2]),
        # Beyond what JavaScript's numbers can hold.
        "token": str(update.fencing_token) if update.fencing_token else "",
        "epoch": update.epoch,
        "position": update.position,
        "age_s": round(hold.age_s, 1),
        "attached": hold.attached,
        "ends_in_s": None if hold.ends_in_s is None else round(hold.ends_in_s, 1),
    }


def _cached(cached: Cached) -> dict[str, Any]:
    root = cached.root
    return {
        "path": _clip(root.path),
        "scope": root.scope.name.lower(),
        "watch": _clip(root.watch),
        "recursive": root.recursive,
        "subscribers": root.users - root.holds,
        "holds": root.holds,
        "live": root.live,
        "stale_s": round(root.stale_s, 1),
        "nodes": cached.nodes,
        "is_all": cached.is_all,
        "streams": [
            {"peer": each.peer, "age_s": round(each.age_s, 1), "unread_s": round(each.unread_s, 1)}
            for each in cached.subscribers
        ],
    }


def _slow(slow: Slow) -> dict[str, Any]:
    return {
        "method": slow.method.rpartition(".")[2],
        "peer": slow.peer,
        "age_s": round(slow.age_s, 1),
        "unread_s": round(slow.unread_s, 1),
        "sent": slow.sent,
        "pending": slow.pending,
        "watches": [_place(each) for each in slow.watches[:3]],
        "watched": slow.watched,
    }


def _place(place: Place) -> dict[str, str]:
    return {"path": _clip(place.path), "scope": place.scope.name.lower()}


def _clip(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2 - 1
    return f"{text[:half]}…{text[-half:]}"


def _names() -> set[str]:
    return {file.name for file in FILES.iterdir()}


def _respond(respond: StartResponse, content_type: str, body: bytes) -> Iterable[bytes]:
    respond("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body))), *HEADERS])
    return [body]
