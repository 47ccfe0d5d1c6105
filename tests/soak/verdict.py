"""What a run has shown: a table by the minute, and whether it is good. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tests.soak.gauges import Gauge

P99_MS, RSS_MB = 250.0, 400.0
SETTLING_S = 2.0
"""After ZooKeeper goes on: what has queued up is answered, the session is proved again."""
MOST_FAILED = 0.01
"""Of the calls of a kind, outside ZooKeeper's pauses."""
BY_GRPC = frozenset(
    f"{code} without a reason" for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNIMPLEMENTED")
)
"""The ends that gRPC gives by itself (docs/errors.md). CANCELLED is not among them: this client cancels nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    kind: str
    began_s: float
    took_s: float
    end: str


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of call in one minute, or in all."""

    minute: int | None
    kind: str
    calls: int
    failed: int
    min_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class Run:
    """All that was noted."""

    began_s: float
    samples: list[Sample] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    gauges: Sequence[Gauge] = ()
    peak_mb: float = 0.0
    is_daemon_alive: bool = True
    is_client_whole: bool = True
    """Whether the well-behaved client ended in order."""

    def judged(self, kind: str) -> list[Sample]:
        """The samples of a kind on which the daemon is judged: while ZooKeeper stands still it can do no more than
        answer from its cache."""
        found = deliveries(self) if kind == "watch" else [one for one in self.samples if one.kind == kind]
        if kind == "get cached":
            return found
        return [one for one in found if not self._is_paused(one)]

    def _is_paused(self, sample: Sample) -> bool:
        ended_s = sample.began_s + sample.took_s
        return any(begin < ended_s and sample.began_s < end + SETTLING_S for begin, end in self.pauses)


def deliveries(run: Run) -> list[Sample]:
    """For each Set that was answered: how long after its sending the watch told of it, or of a later one."""
    told = sorted((one.began_s, one.began_s + one.took_s) for one in run.samples if one.kind == "watch")
    sent_s = [sent for sent, _ in told]
    # What is told first of this one and all later ones.
    first_s = [*accumulate((told_s for _, told_s in reversed(told)), min)][::-1]
    ended_s = max((one.began_s + one.took_s for one in run.samples), default=0.0)
    found: list[Sample] = []
    for one in run.samples:
        if one.kind == "set" and not one.end and one.began_s + one.took_s < ended_s - SETTLING_S:
            index = bisect_left(sent_s, one.began_s)
            is_told = index < len(first_s)
            until_s = first_s[index] if is_told else ended_s
            found.append(Sample("watch", one.began_s, until_s - one.began_s, "" if is_told else "never told"))
    return found


def row(minute: int | None, kind: str, samples: Iterable[Sample]) -> Row:
    took: list[float] = []
    failed = 0
    for sample in samples:
        # One that failed has made its caller wait all the same.
        took.append(sample.took_s * 1000)
        failed += bool(sample.end)
    took.sort()
    if not took:
        return Row(minute, kind, 0, 0, 0.0, 0.0, 0.0, 0.0)
    return Row(minute, kind, len(took), failed, took[0], _quantile(took, 0.5), _quantile(took, 0.99), took[-1])


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def minutes(run: Run, kind: str) -> list[Row]:
    of: dict[int, list[Sample]] = {}
    for sample in run.judged(kind):
        of.setdefault(int((sample.began_s - run.began_s) // 60), []).append(sample)
    return [row(minute, kind, samples) for minute, samples in sorted(of.items())]


def faults(run: Run, kinds: Sequence[str], reasons: frozenset[str]) -> list[str]:
    """What is not as it must be; none: the run is good. `reasons`: those of docs/errors.md, without INTERNAL."""
    found: list[str] = []
    if not run.is_daemon_alive:
        found.append("the daemon has ended")
    if not run.is_client_whole:
        found.append("the well-behaved client has not ended in order")
    for kind in kinds:
        whole = row(None, kind, run.judged(kind))
        if not whole.calls:
            found.append(f"{kind}: nothing was measured")
        each = minutes(run, kind)
        slow = [one for one in each if one.p99_ms > P99_MS]
        if slow:
            worst_ms = max(one.p99_ms for one in slow)
            found.append(
                f"{kind}: p99 over {P99_MS:g} ms in {len(slow)} of {len(each)} minutes, {worst_ms:.0f} ms in the worst"
            )
        if whole.failed > MOST_FAILED * whole.calls:
            found.append(f"{kind}: {whole.failed} of {whole.calls} calls failed, over {MOST_FAILED:.0%}")
    ends = Counter(sample.end for sample in run.samples if sample.kind in kinds and sample.end)
    for end, count in ends.most_common():
        if end not in reasons and end not in BY_GRPC:
            found.append(f"{count} calls ended with {end}, which docs/errors.md does not have")
    lock = Counter(sample.end for sample in run.samples if sample.kind == "lock" and sample.end)
    found += [f"the lock: {end} ({count} times)" for end, count in lock.most_common()]
    if run.peak_mb > RSS_MB:
        found.append(f"resident memory: {run.peak_mb:.0f} MB, over {RSS_MB:g} MB")
    if run.gauges and run.gauges[-1].epoch > 1:
        found.append(f"{run.gauges[-1].epoch - 1} sessions were lost")
    return found


def table(run: Run, kinds: Sequence[str]) -> str:
    lines = [f"{'minute':>6}  {'what':<12}{'calls':>7}{'failed':>8}{'min':>9}{'p50':>9}{'p99':>9}{'max':>9}  ms"]
    rows = sorted((one for kind in kinds for one in minutes(run, kind)), key=lambda one: (one.minute, one.kind))
    for one in [*rows, *(row(None, kind, run.judged(kind)) for kind in kinds)]:
        when = "all" if one.minute is None else str(one.minute)
        lines.append(
            f"{when:>6}  {one.kind:<12}{one.calls:>7}{one.failed:>8}{one.min_ms:>9.1f}{one.p50_ms:>9.1f}"
            f"{one.p99_ms:>9.1f}{one.max_ms:>9.1f}"
        )
    lines += ["", f"{'minute':>6}  {'RSS MB, most':>14}{'processor':>11}{'worst lag so far, ms':>22}{'epoch':>7}"]
    of: dict[int, list[Gauge]] = {}
    for gauge in run.gauges:
        of.setdefault(int((gauge.at_s - run.began_s) // 60), []).append(gauge)
    for minute, gauges in sorted(of.items()):
        first, last = gauges[0], gauges[-1]
        share = (last.cpu_s - first.cpu_s) / max(0.001, last.at_s - first.at_s)
        most_mb = max(gauge.rss_mb for gauge in gauges)
        lines.append(f"{minute:>6}  {most_mb:>14.0f}{share:>11.0%}{last.lag_max_s * 1000:>22.0f}{last.epoch:>7}")
    return "\n".join(lines)
