"""The metrics, as a function of a view. Nothing writes a metric: a scrape reads what is counted anyway.

No label ever has a path, a client or a session as its value (the number of series must not grow with use).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, product

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from zkside.core.session import TABLE
from zkside.model.hold import HoldState, Reason
from zkside.model.session import SessionState
from zkside.ops import lag
from zkside.ops.view import View
from zkside.recipes.holds import HoldsStatistics
from zkside.zk.dialing import REASONS
from zkside.zk.latency import BUCKETS_S
from zkside.zk.port import ConnectionStatistics

# What is known beforehand is exported from the beginning, as 0: of a series that begins with its first event
# `increase()` and `rate()` do not see that event.
WAYS = list(dict.fromkeys((state, way.state) for (state, _), way in TABLE.items() if way.state is not state))
"""From one state of the session to another."""
KINDS = ("election", "ephemeral", "group", "lock")
"""Of holds: the names of all recipes."""
LIVING = [state.value for state in HoldState if not state.is_over]
ENDINGS = [
    (Reason.NONE.value, "FAILED"),
    *(
        (reason.value, reason.value)
        for reason in (
            Reason.DRAINED,
            Reason.HEARTBEAT_MISSED,
            Reason.NODE_DELETED,
            Reason.RELEASED,
            Reason.SESSION_LOST,
            Reason.STREAM_ENDED,
            Reason.WAIT_TIMEOUT,
        )
    ),
]
"""Reasons for which a hold ends, and what they are called here."""


class DaemonCollector(Collector):
    """Asks for a view at each scrape."""

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        return families(self._view())

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that being registered takes no view."""
        return ()


def families(view: View) -> Iterator[Metric]:
    """All of the daemon's metric families."""
    yield InfoMetricFamily("zkside_build", "Versions of the daemon and of what it runs on.", dict(view.versions))
    yield _gauge("zkside_uptime_seconds", "Time since the daemon started.", view.uptime_s)
    yield from _session(view)
    yield from _zookeeper(view)
    yield from _hub(view)
    yield from _holds(view.holds)
    connection = view.session.connection
    yield _labelled(
        CounterMetricFamily(
            "zkside_internal_errors",
            "Errors of zkside's own, and answers of ZooKeeper that make no sense, by the part that met them.",
            labels=("part",),
        ),
        [
            (("call",), view.incidents),
            (("connection",), connection.errors if connection is not None else 0),
            (("listener",), view.session.listener_errors),
            (("session",), view.session.rebuilds),
        ],
    )
    yield _labelled(
        CounterMetricFamily(
            "zkside_task_restarts",
            "Deaths of the daemon's tasks, each of which is started again, or ends the daemon.",
            labels=("task",),
        ),
        [((task,), count) for task, count in sorted(view.task_deaths.items())],
    )
    yield _labelled(
        CounterMetricFamily("zkside_quota_refusals", "What was refused with QUOTA, by the limit.", labels=("limit",)),
        [((limit,), count) for limit, count in sorted(view.refused.items())],
    )
    yield _histogram(
        "zkside_event_loop_lag_seconds",
        "How late the event loop was, measured ten times a second.",
        lag.BUCKETS_S,
        view.lag.counts,
        view.lag.sum_s,
    )
    yield _gauge("zkside_event_loop_lag_max_seconds", "The worst lag since the start.", view.lag.max_s)
    yield _labelled(
        CounterMetricFamily("zkside_config_reloads", "Readings of the configuration, by result.", labels=("result",)),
        [(("reloaded",), view.reloads.reloaded), (("refused",), view.reloads.refused)],
    )
    yield _gauge(
        "zkside_config_needs_restart",
        "Keys of the configuration whose new value has no effect before a restart.",
        view.reloads.needs_restart,
    )
    yield from view.rpc


def _holds(holds: HoldsStatistics) -> Iterator[Metric]:
    yield _labelled(
        GaugeMetricFamily("zkside_holds", "Holds, by kind and state.", labels=("kind", "state")),
        [((kind, state), holds.holds.get((kind, state), 0)) for kind, state in product(KINDS, LIVING)],
    )
    yield _labelled(
        CounterMetricFamily("zkside_holds_granted", "Holds granted, by kind.", labels=("kind",)),
        [((kind,), holds.granted.get(kind, 0)) for kind in KINDS],
    )
    yield _labelled(
        CounterMetricFamily("zkside_holds_ended", "Holds ended, by kind and reason.", labels=("kind", "reason")),
        [((kind, reason), holds.ended.get((kind, value), 0)) for kind, (value, reason) in product(KINDS, ENDINGS)],
    )
    yield _gauge("zkside_hold_updates_unread", "Updates of holds that wait for their streams.", holds.unread)
    yield _gauge("zkside_holds_not_begun", "Holds that wait for their turn to begin.", holds.not_begun)


def _session(view: View) -> Iterator[Metric]:
    session = view.session
    yield _labelled(
        GaugeMetricFamily(
            "zkside_session_state", "The session's state: 1 for the present one, otherwise 0.", labels=("state",)
        ),
        [((_word(state),), float(state is session.status.state)) for state in SessionState],
    )
    yield _labelled(
        CounterMetricFamily("zkside_session_transitions", "Changes of the state.", labels=("from", "to")),
        [((_word(one), _word(other)), session.transitions.get((one, other), 0)) for one, other in WAYS],
    )
    yield _counter(
        "zkside_history_changes",
        "Times that ZooKeeper's history went back: it was wiped, or restored from an older snapshot.",
        session.history_changes,
    )
    yield _gauge(
        "zkside_history",
        "Counts the histories of ZooKeeper that this daemon has seen, over its restarts where it has a state_dir.",
        session.status.history,
    )
    yield _gauge("zkside_session_epoch", "Counts the ZooKeeper sessions; 0 before the first.", session.status.epoch)
    yield _gauge(
        "zkside_session_timeout_seconds",
        "As negotiated; 0 before the first session.",
        session.status.timeout_s,
    )
    yield _gauge(
        "zkside_lease_remaining_seconds",
        "For how long this host may believe that it owns its ephemerals, if nothing more is heard; 0 while "
        "nothing is proven.",
        session.lease_remaining_s,
    )
    # Without a value rather than with a wrong one while nothing is owned: then nothing proves the lease.
    yield _labelled(
        GaugeMetricFamily(
            "zkside_lease_lowest_seconds",
            "The lowest that the lease fell to in the last one to two minutes, while something was owned.",
            labels=(),
        ),
        [] if session.lease_lowest_s is None else [((), session.lease_lowest_s)],
    )
    yield _counter("zkside_lease_proofs", "Proofs of the session's life asked of ZooKeeper.", session.proofs_sent)
    yield _gauge(
        "zkside_session_ping_late_max_seconds",
        "The longest that a ping left later than a third of the timeout after the traffic before it.",
        session.ping_late_max_s,
    )
    yield _counter("zkside_journal_errors", "Times that the journal could not be written.", session.journal.errors)
    yield _counter(
        "zkside_state_remade",
        "Times that state_dir, or a file in it, was removed while the daemon ran, and was made anew.",
        session.journal.remade,
    )
    yield _labelled(
        CounterMetricFamily(
            "zkside_state_set_aside",
            "Files of state_dir that were not believed at the start (altered, cut short, copied, somebody else's) and "
            "are kept under another name.",
            labels=("file",),
        ),
        [(("journal",), session.journal.set_aside), (("caches",), view.hub.set_aside)],
    )
    yield _gauge("zkside_janitor_pending", "Nodes that wait to be deleted by the janitor.", session.janitor.pending)


def _zookeeper(view: View) -> Iterator[Metric]:
    wire = view.session.connection or ConnectionStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0)
    yield _gauge("zkside_zookeeper_requests_in_flight", "Requests sent and not answered.", wire.in_flight)
    yield _gauge("zkside_zookeeper_requests_queued", "Requests that wait for their turn.", wire.queued)
    yield _counter("zkside_zookeeper_requests", "Requests sent in this session.", wire.sent)
    yield _counter(
        "zkside_zookeeper_received_bytes", "Bytes received from ZooKeeper in this session.", wire.received_bytes
    )
    yield _counter("zkside_zookeeper_sent_bytes", "Bytes sent to ZooKeeper in this session.", wire.sent_bytes)
    yield _counter("zkside_zookeeper_connects", "Connections made to ZooKeeper in this session.", wire.connects)
    yield _labelled(
        CounterMetricFamily(
            "zkside_zookeeper_connect_failures",
            "Servers that could not be reached or did not take the session, names that did not resolve, by reason.",
            labels=("reason",),
        ),
        [((reason,), view.session.connecting.failures.get(reason, 0)) for reason in REASONS],
    )
    latency = HistogramMetricFamily(
        "zkside_zookeeper_request_duration_seconds",
        "From a request's sending to its answer.",
        labels=("operation",),
    )
    for operation, measured in sorted(view.session.latencies.items()):
        latency.add_metric((operation,), _buckets(BUCKETS_S, measured.counts), measured.sum_s)
    yield latency


def _hub(view: View) -> Iterator[Metric]:
    hub = view.hub
    yield _labelled(
        GaugeMetricFamily("zkside_server_watches", "Watches on the ZooKeeper server.", labels=("kind",)),
        [((kind,), count) for kind, count in sorted(hub.server_watches.items())],
    )
    yield _counter("zkside_watch_events", "Watch events received from ZooKeeper.", hub.events_in)
    yield _gauge("zkside_subscribers", "Subscriptions of streams to targets.", hub.subscribers)
    yield _counter("zkside_changes", "Changes delivered to subscribers.", hub.changes_out)
    yield _counter(
        "zkside_changes_conflated",
        "Changes that were replaced by a later one before delivery.",
        hub.conflated,
    )
    yield _labelled(
        CounterMetricFamily(
            "zkside_gaps", "Times that a subscriber was told of missing events, and why.", labels=("reason",)
        ),
        [((reason,), count) for reason, count in hub.gaps.items()],
    )
    yield _labelled(
        CounterMetricFamily("zkside_snapshots", "Snapshots sent to subscribers, and why.", labels=("reason",)),
        [((reason,), count) for reason, count in hub.snapshots_out.items()],
    )
    yield _gauge("zkside_cache_nodes", "Nodes in the caches, absent ones too.", hub.cached_nodes)
    yield _gauge("zkside_cache_bytes", "Bytes of the nodes in the caches.", hub.cached_bytes)
    yield _gauge("zkside_cache_age_seconds", "Age of the oldest stale cache; 0 when all are fresh.", hub.cache_age_s)
    yield _gauge(
        "zkside_cache_unreadable_nodes", "Nodes that cannot be read: what covers them is stale.", hub.unreadable
    )
    yield _labelled(
        CounterMetricFamily(
            "zkside_cache_doubts",
            "Times that something was found that claimed to be current and that nothing kept so: it is stale until it "
            "has been compared. By what was wrong.",
            labels=("what",),
        ),
        [((what,), count) for what, count in sorted(hub.doubted.items())],
    )
    yield _counter("zkside_cache_save_errors", "Times that the caches could not be written to disk.", hub.save_errors)
    yield _gauge(
        "zkside_cache_revalidation_age_seconds",
        "How long ago the last whole look at the caches began, for what no event tells: a change of an ACL.",
        hub.revalidation_age_s,
    )
    yield _counter(
        "zkside_cache_revalidation_found", "Nodes that such a look found to be otherwise.", hub.revalidation_found
    )
    yield _counter(
        "zkside_cache_revalidation_errors", "Parts of such a look that failed and came again.", hub.revalidation_errors
    )
    yield _counter(
        "zkside_cache_forced_cuts",
        "Cuts published before all of their transaction was known, because changes never ceased.",
        hub.forced_cuts,
    )
    yield _counter("zkside_cache_read_rounds", "Batches read from ZooKeeper to keep caches current.", hub.rounds)
    yield _labelled(
        CounterMetricFamily("zkside_reads", "Reads answered, by where the answer came from.", labels=("source",)),
        [(("cache",), hub.reads_cached), (("server",), hub.reads_server)],
    )


def _word(state: SessionState) -> str:
    return state.name.lower()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, text: str, bounds_s: Sequence[float], counts: Sequence[int], sum_s: float) -> Metric:
    return HistogramMetricFamily(name, text, buckets=_buckets(bounds_s, counts), sum_value=sum_s)


def _buckets(bounds_s: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them; `counts` has one more than there are bounds, for those beyond."""
    return list(zip((*map(str, bounds_s), "+Inf"), accumulate(counts), strict=True))
