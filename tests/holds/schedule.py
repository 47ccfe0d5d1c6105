"""One schedule of bids and faults, from its seed: `run(seed)`, or from the command line

    PYTHONHASHSEED=0 python -m tests.holds.schedule 17          that one
    PYTHONHASHSEED=0 python -m tests.holds.schedule 0 1000      from 0 to 999

Without PYTHONHASHSEED a schedule is as good, but not the same every time: sets have another order.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from tests.holds.clients import Client, Manners
from tests.holds.detector import Grant, disorder, overlaps
from tests.holds.hosts import DELAY_S, TICK_S, Daemon, Flow, in_order
from tests.parts.virtual_loop import ProcessClock, VirtualLoop
from zkside.core.queueing import contenders
from zkside.model import path as paths
from zkside.model.operation import Delete
from zkside.zk.journal import Journal
from zkside.zk.memory import MemoryZooKeeper

WATCHDOG_S = 2.0
"""How long a process is silent before the daemon breaks its streams: not sooner."""
PATIENCE_S = 60.0
"""Once nothing fails any more everybody has had its turn by then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed does not decide."""

    hosts: int = 3
    clients: int = 8
    """Of all hosts together."""
    lasts_s: float = 15.0
    """Then all faults are healed, and everybody who waits is waited for."""
    calm_s: float = 2.0
    """At most between two faults of one host; 0: no faults at all."""
    manners: Manners = field(default_factory=Manners)
    flow: Flow = in_order


@dataclass(slots=True)
class Outcome:
    """What a schedule came to."""

    seed: int
    grants: list[tuple[float, Grant]]
    """With the instant at which each was asked for."""
    wrong: list[str]
    """Whatever was not as promised."""
    faults: list[str]

    def verdict(self) -> str:
        """'' if all is well."""
        if not self.wrong:
            return ""
        again = f"schedule {self.seed}, again with: PYTHONHASHSEED=0 python -m tests.holds.schedule {self.seed}"
        return "\n".join([again, *self.wrong, "after these faults:", *self.faults])


def run(seed: int, plan: Plan | None = None) -> Outcome:
    """The schedule of this seed; always the same."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    # The session's and the janitor's own dice, and what names are made of.
    dice = random.getstate()
    random.seed(seed)
    schedule = _Schedule(loop, seed, plan or Plan())
    errors = _Errors(schedule.wrong)
    logging.getLogger("zkside").addHandler(errors)
    loop.set_exception_handler(schedule.on_exception)
    try:
        with mock.patch("uuid.uuid4", _uuid4):
            loop.run_until_complete(schedule.play())
        loop.set_exception_handler(lambda *_: None)
    finally:
        logging.getLogger("zkside").removeHandler(errors)
        loop.shut_down()
        asyncio.set_event_loop(None)
        random.setstate(dice)
    return schedule.outcome()


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=random.getrandbits(128), version=4)


class _Errors(logging.Handler):
    """What zkside logs as an error is one, but for sessions that end: faults see to that."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        said = getattr(record, "said", None)
        if said is None or said.event.name != "session.lost":
            self._wrong.append(f"logged: {self.format(record)}")


class _Host:
    """A host with its journal, its present daemon, and its clients."""

    def __init__(self, name: str, make: Callable[[Journal], Daemon]) -> None:
        self.name = name
        self.clients: list[Client] = []
        self._make = make
        self.journal = Journal()
        self.daemon = self._started()

    def restart(self) -> None:
        """The next daemon, with the journal of the one before."""
        self.daemon = self._started()

    def _started(self) -> Daemon:
        daemon = self._make(self.journal)
        daemon.before_answering = self._note
        return daemon

    def _note(self) -> None:
        for client in self.clients:
            client.note()


class _Schedule:
    def __init__(self, loop: VirtualLoop, seed: int, plan: Plan) -> None:
        self._loop = loop
        self._seed = seed
        self._plan = plan
        self._rng = random.Random(seed)
        self._zookeeper = MemoryZooKeeper(clock=ProcessClock(loop), tick_s=TICK_S, container_check_s=3.0)
        self.wrong: list[str] = []
        self._faults: list[str] = []
        self._hosts = [_Host(f"host{number}", self._daemon) for number in range(plan.hosts)]
        # The fewer things are wanted, the more they are contended for.
        wanted = sorted({wish.path for wish in plan.manners.wishes})
        wanted = self._rng.sample(wanted, min(len(wanted), self._rng.choice((1, 2, len(wanted)))))
        wishes = tuple(wish for wish in plan.manners.wishes if wish.path in wanted)
        self._manners = replace(plan.manners, wishes=wishes)
        self._clients: list[Client] = []
        for number in range(plan.clients):
            host = self._hosts[number % plan.hosts]
            client = self._client(f"client{number}@{host.name}", host)
            host.clients.append(client)
            self._clients.append(client)

    def _daemon(self, journal: Journal) -> Daemon:
        return Daemon(self._loop, self._zookeeper, journal, self._rng, self._plan.flow)

    def _client(self, name: str, host: _Host) -> Client:
        return Client(self._loop, name, lambda: host.daemon, self._rng, self._manners)

    def on_exception(self, loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.wrong.append("".join([f"raised: {context['message']}\n", *traceback.format_exception(error)]))

    def outcome(self) -> Outcome:
        return Outcome(
            self._seed, [grant for client in self._clients for grant in client.grants], self.wrong, self._faults
        )

    async def play(self) -> None:
        try:
            async with asyncio.timeout(self._plan.lasts_s):
                if self._plan.calm_s:
                    async with asyncio.TaskGroup() as group:
                        for host in self._hosts:
                            group.create_task(self._trouble(host))
                        group.create_task(self._trouble_all())
                await asyncio.sleep(self._plan.lasts_s)
        except TimeoutError:
            pass
        self._heal()
        await self._come_to_rest()
        self._judge()

    # Faults

    async def _trouble(self, host: _Host) -> None:
        rng = self._rng
        faults: tuple[tuple[int, Callable[[_Host], Awaitable[None]]], ...] = (
            (3, self._drop),
            (2, self._refuse),
            (2, self._half_open),
            (1, self._expire),
            (2, self._slow_down),
            (3, self._lose),
            (3, self._stop_daemon),
            (2, self._kill_daemon),
            (1, self._terminate_daemon),
            (4, self._stop_client),
            (3, self._break_stream),
            (1, self._drain_daemon),
        )
        weights, choices = zip(*faults, strict=True)
        while True:
            await asyncio.sleep(rng.uniform(0.0, self._plan.calm_s))
            if rng.random() < 0.6 and not self._believers(host):
                continue  # where nobody holds anything little is to be found
            (fault,) = rng.choices(choices, weights)
            self._note(f"{fault.__name__.strip('_')} {host.name}")
            await fault(host)

    async def _trouble_all(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(1.0, 15.0))
            if self._rng.random() < 0.5:
                self._note("no quorum")
                self._zookeeper.set_read_only(True)
                await asyncio.sleep(self._rng.uniform(0.1, 5.0))
                self._zookeeper.set_read_only(False)
            else:
                self._delete_last(self._rng.choice(("/lock", "/election")))

    def _believers(self, host: _Host) -> list[Client]:
        return [client for client in host.clients if client.believes()]

    def _note(self, what: str) -> None:
        self._faults.append(f"{self._loop.time() - 1000:.6f} {what}")

    async def _drop(self, host: _Host) -> None:
        host.daemon.process.post(0.0, host.daemon.network.drop_connections)

    async def _refuse(self, host: _Host) -> None:
        network = host.daemon.network
        network.refuse_connections(True)
        host.daemon.process.post(0.0, network.drop_connections)
        await asyncio.sleep(self._rng.uniform(0.05, 6.0))
        network.refuse_connections(False)

    async def _half_open(self, host: _Host) -> None:
        daemon = host.daemon
        daemon.network.half_open(True)
        await asyncio.sleep(self._rng.choice((self._rng.uniform(0.05, 3.0), self._rng.uniform(3.0, 8.0))))
        daemon.process.post(0.0, daemon.network.half_open, False)

    async def _expire(self, host: _Host) -> None:
        """Silent until the servers have given the session up, and not a moment longer."""
        daemon = host.daemon
        daemon.network.half_open(True)
        ticket = host.journal.ticket
        while ticket is not None and ticket.session_id in self._zookeeper.session_ids:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        daemon.process.post(0.0, daemon.network.half_open, False)

    async def _slow_down(self, host: _Host) -> None:
        network = host.daemon.network
        network.delay(self._rng.uniform(0.01, 0.4))
        await asyncio.sleep(self._rng.uniform(0.2, 3.0))
        network.delay(DELAY_S)

    async def _lose(self, host: _Host) -> None:
        network = host.daemon.network
        if self._rng.random() < 0.5:
            network.lose_next_request()
        else:
            network.lose_next_reply()

    async def _stop_daemon(self, host: _Host) -> None:
        daemon, stopped_s = host.daemon, self._rng.choice((self._rng.uniform(0.01, 1.0), self._rng.uniform(1.0, 7.0)))
        daemon.stop()
        await asyncio.sleep(stopped_s)
        daemon.go_on(watchdog=stopped_s > WATCHDOG_S and self._rng.random() < 0.5)

    async def _kill_daemon(self, host: _Host) -> None:
        host.daemon.kill()
        await asyncio.sleep(self._rng.choice((self._rng.uniform(0.01, 1.0), self._rng.uniform(1.0, 6.0))))
        host.restart()
        if self._rng.random() < 0.3:
            # Soon enough to meet clients that have not come back yet.
            await asyncio.sleep(self._rng.uniform(0.0, 0.5))
            await self._terminate_daemon(host)

    async def _terminate_daemon(self, host: _Host) -> None:
        await host.daemon.terminate(keep=self._rng.random() < 0.5)
        await asyncio.sleep(self._rng.uniform(0.01, 1.0))
        host.restart()

    async def _drain_daemon(self, host: _Host) -> None:
        """As an operator asks for it; then killed, or terminated."""
        draining = self._loop.create_task(host.daemon.holds.drain(), context=host.daemon.process.context)
        await asyncio.wait([draining], timeout=self._rng.uniform(0.0, 4.0))
        if self._rng.random() < 0.5:
            await self._kill_daemon(host)
        else:
            await self._terminate_daemon(host)

    async def _stop_client(self, host: _Host) -> None:
        client, daemon = self._rng.choice(self._believers(host) or host.clients), host.daemon
        client.stop()
        self._loop.call_later(WATCHDOG_S + self._rng.uniform(0.01, 0.6), self._find_silent, client, daemon)
        await asyncio.sleep(self._rng.uniform(0.2, 6.0))
        client.go_on()

    def _find_silent(self, client: Client, daemon: Daemon) -> None:
        def look() -> None:
            since_ns = client.stopped_since_ns
            if since_ns is not None and self._loop.now_ns - since_ns >= WATCHDOG_S * 1e9:
                for stream in list(daemon.streams):
                    if stream.client is client.process:
                        daemon.break_stream(stream)

        daemon.process.post(0.0, look)

    async def _break_stream(self, host: _Host) -> None:
        daemon = host.daemon
        if daemon.streams:
            daemon.process.post(0.0, daemon.break_stream, self._rng.choice(list(daemon.streams)))

    def _delete_last(self, path: str) -> None:
        """A stranger deletes the node of one who waits."""
        parent = self._zookeeper.tree.nodes.get(path)
        queue = contenders(parent.children) if parent is not None else []
        if len(queue) > 1:
            self._note(f"delete {queue[-1].name}")
            self._zookeeper.apply(Delete(paths.join(path, queue[-1].name)))

    # The end

    def _heal(self) -> None:
        self._note("healed")
        self._zookeeper.set_read_only(False)
        for host in self._hosts:
            daemon = host.daemon
            if daemon.holds.draining:
                daemon.kill()
            if not daemon.process.is_alive:
                host.restart()
                continue
            network = daemon.network
            network.refuse_connections(False)
            network.delay(DELAY_S)
            network.requests_to_lose = network.replies_to_lose = 0
            daemon.process.post(0.0, network.half_open, False)
            if daemon.process.is_stopped:
                daemon.go_on(watchdog=False)
        for client in self._clients:
            client.go_on()
            client.is_wanting = False

    async def _come_to_rest(self) -> None:
        """Everybody gets its turn, and nothing is left (H6, H7)."""
        until_s = self._loop.time() + PATIENCE_S
        while self._loop.time() < until_s:
            if not any(client.bid for client in self._clients) and not self._left():
                return
            await asyncio.sleep(0.25)
        self.wrong += [f"{client.name} still has {client.bid}" for client in self._clients if client.bid]
        self.wrong += [f"left: {each}" for each in self._left()]

    def _left(self) -> list[str]:
        nodes = [path for owned in self._zookeeper.tree.ephemerals.values() for path in owned]
        return nodes + [f"{len(host.daemon.holds)} holds of {host.name}" for host in self._hosts if host.daemon.holds]

    def _judge(self) -> None:
        grants = [grant for client in self._clients for _, grant in client.grants]
        self.wrong += [wrong for client in self._clients for wrong in client.wrong]
        self.wrong += overlaps(grants) + disorder(grants)


def main(first: int, end: int) -> int:
    """Play the schedules from `first` to before `end`, and say what was not as promised."""
    believed, failed = 0, 0
    for seed in range(first, end):
        outcome = run(seed)
        believed += sum(bool(grant.segments) for _, grant in outcome.grants)
        if outcome.wrong:
            failed += 1
            print(outcome.verdict())
    print(f"{end - first} schedules, {believed} grants believed in, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    sys.exit(main(numbers[0], numbers[-1] + 1 if len(numbers) == 1 else numbers[-1]))
