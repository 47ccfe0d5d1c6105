"""kill -9 of a leading process, until the next leader is told; and planned resignations.

Beside Curator's LeaderLatch and kazoo's Election, whose next leader waits for the session timeout of the dead one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bench import curator, stand
from bench.candidates import stand_with_kazoo, stand_with_zkside
from bench.crew import Crew, Worker
from bench.figures import Findings, Goal, Plan, Row, Samples, at_most, percentile
from bench.relay import Relay

PATH = "/election"
GOAL_P99_MS, GOAL_ROUND_TRIPS = 50.0, 3.0
PEER_TIMEOUT_S = 4.0
"""Two ticks, the least that a ZooKeeper grants by default. tests/interop/java asks for the same."""
DELAY_S = 0.005
SETTLE_S = 0.02
SAME_HOST, OTHER_HOST = "zkside, next leader on the same host", "zkside, next leader on another host"
CURATOR, KAZOO = "Curator LeaderLatch", "kazoo Election"
PEERS = (CURATOR, KAZOO)
LOOPBACK, FAR = "ZooKeeper on loopback", f"ZooKeeper {2000 * DELAY_S:.0f} ms away"
SETTING = (
    "Every candidate is a process of its own; the clock runs from before the kill until the next candidate's "
    "process has heard that it leads. A second daemon with its own session stands for another host. "
    f"Curator and kazoo have sessions of {PEER_TIMEOUT_S:.0f} s, the least that ZooKeeper grants by default; they "
    "are killed a few times only, because each takes so long. A resignation runs "
    "from before the leader asks for it until the next one has heard that it leads, in round trips: the median of "
    "stock kazoo's set, in the same run over the same network. That counts round trips only where they are the "
    "network's and not the processors': ten milliseconds away. On loopback the two calls through gRPC cost more than "
    "ZooKeeper's answers."
)


class Candidate(Protocol):
    """A process that stands for election; bench/candidates.py."""

    def hear(self, timeout_s: float) -> int:
        """When it came to lead, or resigned: on the monotonic clock, in nanoseconds."""

    def tell(self, message: object) -> None:
        """Resign."""

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Contest:
    """An election between two candidates at a time."""

    watcher: stand.Kazoo
    path: str
    hires: tuple[Callable[[], Candidate], ...]
    """Each makes a candidate; they take turns."""

    def kills(self, count: int) -> Iterator[float]:
        """How long it took after each kill, in milliseconds."""
        with contextlib.ExitStack() as stack:
            leader = self._hire(stack, 0)
            leader.hear(30)
            for number in range(1, count + 1):
                following = self._hire(stack, number)
                self._wait_for_both()
                start = time.monotonic_ns()
                leader.kill()
                yield (following.hear(30) - start) / 1e6
                leader = following

    def resignations(self, count: int) -> Iterator[float]:
        """How long each took, in milliseconds."""
        with contextlib.ExitStack() as stack:
            leader = self._hire(stack, 0)
            leader.hear(30)
            following = self._hire(stack, 1)
            for _ in range(count):
                self._wait_for_both()
                leader.tell("resign")
                resigned = leader.hear(30)
                yield (following.hear(30) - resigned) / 1e6
                leader, following = following, leader

    def _hire(self, stack: contextlib.ExitStack, number: int) -> Candidate:
        candidate = self.hires[number % len(self.hires)]()
        stack.callback(candidate.kill)
        return candidate

    def _wait_for_both(self) -> None:
        deadline = time.monotonic() + 30
        while len(self.watcher.get_children(self.path)) < 2:
            assert time.monotonic() < deadline, "no second candidate stands"
            time.sleep(0.002)
        time.sleep(SETTLE_S)  # the second one looks for who is ahead of it, and watches that


def run(plan: Plan) -> Findings:
    kills, resignations, peer_kills = plan.scaled(50, 2), plan.scaled(100, 4), plan.scaled(5, 1)
    samples = Samples()
    with stand.zookeeper() as server, stand.kazoo(server.hosts) as watcher, curator.Candidates() as latches:

        def contests(hosts: str, own: str, other: str) -> Iterator[tuple[str, Contest]]:
            def zkside(address: str) -> Callable[[], Candidate]:
                return lambda: Worker(stand_with_zkside, address, f"{PATH}/zkside")

            def of_kazoo() -> Candidate:
                return Worker(stand_with_kazoo, hosts, f"{PATH}/kazoo", PEER_TIMEOUT_S)

            def of_curator() -> Candidate:
                return latches.hire(hosts, f"{PATH}/curator")

            yield SAME_HOST, Contest(watcher, f"{PATH}/zkside", (zkside(own),))
            yield OTHER_HOST, Contest(watcher, f"{PATH}/zkside", (zkside(own), zkside(other)))
            yield CURATOR, Contest(watcher, f"{PATH}/curator", (of_curator,))
            yield KAZOO, Contest(watcher, f"{PATH}/kazoo", (of_kazoo,))

        for name in ("zkside", "curator", "kazoo"):
            watcher.ensure_path(f"{PATH}/{name}")
        for repetition in range(plan.repetitions):
            for network in (LOOPBACK, FAR):
                with Crew() as crew:
                    relay = Relay(crew, server.port, delay_s=DELAY_S) if network == FAR else None
                    hosts = relay.hosts if relay else server.hosts
                    with stand.daemon(hosts) as own, stand.daemon(hosts) as other:
                        round_trip = _round_trip_ms(hosts, resignations)
                        samples.add(network, "round trip", value=round_trip)
                        for variant, contest in contests(hosts, own.address, other.address):
                            took = list(contest.resignations(resignations))
                            samples.add(variant, network, "resigned", value=percentile(took, 50))
                            samples.add(variant, network, "trips", value=percentile(took, 50) / round_trip)
                            if network == FAR or (variant in PEERS and repetition and not plan.thorough):
                                continue
                            took = list(contest.kills(peer_kills if variant in PEERS else kills))
                            for percent in (50, 99, 100):
                                samples.add(variant, percent, value=percentile(took, percent))
    return Findings(rows=tuple(_rows(samples, kills, peer_kills, resignations)), setting=SETTING)


def _round_trip_ms(hosts: str, count: int) -> float:
    with stand.kazoo(hosts) as client:
        took = []
        for _ in range(count):
            start = time.monotonic_ns()
            client.set(PATH, b"")
            took.append((time.monotonic_ns() - start) / 1e6)
    return percentile(took, 50)


def _rows(samples: Samples, kills: int, peer_kills: int, resignations: int) -> Iterator[Row]:
    for variant in (SAME_HOST, OTHER_HOST, *PEERS):
        count = peer_kills if variant in PEERS else kills
        subject = f"{variant}, kill -9 to grant, {count} kills"
        if variant in PEERS:
            subject += f", session timeout {PEER_TIMEOUT_S:.0f} s"
        yield samples.row((variant, 50), subject, "p50", "ms")
        goals: tuple[Goal, ...] = ()
        if variant not in PEERS:
            goals = (at_most("≤ 50 ms at p99", samples.median(variant, 99), GOAL_P99_MS),)
            yield samples.row((variant, 99), subject, "p99", "ms", goals)
        yield samples.row((variant, 100), subject, "longest", "ms")
    for network in (LOOPBACK, FAR):
        yield samples.row((network, "round trip"), f"a round trip, {network}", "p50", "ms")
        for variant in (SAME_HOST, OTHER_HOST, *PEERS):
            subject = f"{variant}, {resignations} resignations, {network}"
            yield samples.row((variant, network, "resigned"), subject, "p50", "ms")
            goals = ()
            if network == FAR and variant not in PEERS:
                trips = samples.median(variant, network, "trips")
                goals = (at_most("≤ 3 round trips at p50", trips, GOAL_ROUND_TRIPS),)
            yield samples.row((variant, network, "trips"), subject, "p50", "round trips", goals)
