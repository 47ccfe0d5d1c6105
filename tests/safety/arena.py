"""Three servers, three hosts with a daemon and three clients each, and the faults that befall them.

Two clients of each host contend for one lock, the third for one election. What they believed is in their logs,
which nothing here but the checker reads (tests/safety/belief.py); of the daemons' own view nothing is used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ops.process import DaemonProcess
from tests.parts.ensemble import Ensemble, role
from tests.parts.namespaces import Host, Network, ensemble_on
from tests.safety.belief import STILL, Belief, Sample, beliefs_of
from tests.safety.faults import Event, Fault
from tests.safety.stand import now_ns, wait_for
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.errors import StartError

SESSION_TIMEOUT_S = 3.0
TICK_S = 0.5
SYNC_LIMIT_TICKS = 10
"""A server that is cut off notices after 5 s: later than a session ends, as with ZooKeeper's defaults."""
RECIPES = ("lock", "election")
WORKERS = ("lock", "lock", "election")
GAP_NS = 20_000_000

Heal = Callable[[], None]


class WorkerProcess:
    """A client process with a log, on a host."""

    def __init__(self, name: str, host: Host, recipe: str, seed: int, address: str, path: str, log: Path) -> None:
        self.name = name
        self.recipe = recipe
        self._log = log
        self.ended_ns = STILL
        self._process = subprocess.Popen(
            [*host.launcher, sys.executable, "-m", "tests.safety.worker", recipe, str(seed), address, path, str(log)],
            stdin=subprocess.PIPE,
            stderr=open(log.with_suffix(".err"), "ab"),  # noqa: SIM115 - the child's from here on
            env={name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")},
        )

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def kill(self) -> None:
        """It believes nothing from here on."""
        if self.ended_ns == STILL:
            self.ended_ns = now_ns()
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def end(self) -> None:
        """It lets go of everything in order. Raises: StartError if it had ended by itself."""
        if self.ended_ns != STILL:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(30)
        self.ended_ns = now_ns()
        if status:
            raise StartError(f"{self.name} ended with {status}: {self._log.with_suffix('.err').read_text()[-3000:]}")

    def samples(self) -> list[Sample]:
        found = []
        for line in self._log.read_text().splitlines() if self._log.exists() else ():
            _, *numbers = line.split(" ")
            if len(numbers) == 3:  # it may have been killed in the middle of a line
                found.append(Sample(*map(int, numbers)))
        return found

    def beliefs(self) -> list[Belief]:
        """Cut off at its death: the dead do not act."""
        return [
            Belief(each.from_ns, min(each.until_ns, max(self.ended_ns, each.from_ns + 1)), each.who, each.token)
            for each in beliefs_of(self.name, self.samples(), gap_ns=GAP_NS)
        ]


class Post:
    """A host with its daemon and its clients."""

    def __init__(self, host: Host, ensemble: str, path: str, directory: Path, seed: int, settings: Mapping[str, str]):
        self.host = host
        self._path = path
        self._directory = directory / host.name
        self._directory.mkdir(parents=True)
        self._settings = {
            "ZOOKEEPER_HOSTS": ensemble,
            "ZOOKEEPER_SESSION_TIMEOUT": f"{SESSION_TIMEOUT_S}s",
            "LEASE_TICK": f"{TICK_S}s",
            "STATE_DIR": str(self._directory / "state"),
            **settings,
        }
        self._seed = seed
        self._count = 0
        self.daemon = self._start_daemon()
        self.workers: list[WorkerProcess] = []
        self.all_workers: list[WorkerProcess] = []

    def _start_daemon(self) -> DaemonProcess:
        return DaemonProcess(self._directory, launcher=self.host.launcher, **self._settings)

    def restart_daemon(self) -> None:
        self.daemon = self._start_daemon()

    def end_daemon(self) -> None:
        """At once, and without a word."""
        self.daemon.signal(signal.SIGCONT)
        self.daemon.__exit__(None, None, None)

    def hire(self, recipe: str) -> None:
        """One more worker."""
        self._count += 1
        name = f"{self.host.name}{self._count}"
        log = self._directory / f"{name}.log"
        worker = WorkerProcess(name, self.host, recipe, self._seed + self._count, self.daemon.address, self._path, log)
        self.workers.append(worker)
        self.all_workers.append(worker)


class Arena:
    """Everything, torn down with the block. `settings` are the daemons', as in tests/ops/process.py."""

    def __init__(self, installation: Installation, directory: Path, seed: int, **settings: str) -> None:
        self._installation = installation
        self._directory = directory
        self._seed = seed
        self._settings = settings
        self.path = "/arena"
        self.network = Network("z1", "z2", "z3", "a", "b", "c")
        self.posts: list[Post] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            self.servers: Sequence[Host] = [self.network.hosts[name] for name in ("z1", "z2", "z3")]
            self.ensemble: Ensemble = stack.enter_context(
                ensemble_on(
                    self.servers,
                    installation=self._installation,
                    tick_ms=round(TICK_S * 1000),
                    properties={"syncLimit": SYNC_LIMIT_TICKS},
                )
            )
            stack.callback(self._end)
            for number, name in enumerate(("a", "b", "c")):
                host, seed = self.network.hosts[name], self._seed + 1000 * number
                post = Post(host, self.ensemble.hosts, self.path, self._directory, seed, self._settings)
                self.posts.append(post)
            for post in self.posts:
                post.daemon.wait_serving()
                for recipe in WORKERS:
                    post.hire(recipe)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        for post in self.posts:
            for worker in post.workers:
                worker.kill()
            post.end_daemon()

    # Faults

    def strike(self, event: Event) -> Heal:
        """Let it happen; what is returned makes it good again."""
        match event.fault:
            case Fault.KILL_SERVER | Fault.KILL_LEADER:
                return self._kill_server(self._server(event))
            case Fault.STOP_SERVER:
                server = self._server(event)
                server.pause()
                return server.resume
            case Fault.CUT_FOLLOWER | Fault.CUT_LEADER | Fault.RESET_LEADER:
                return self._cut(*self._cut_off(event), reset=event.fault is Fault.RESET_LEADER)
            case Fault.HALF_OPEN:
                host = self._post(event).host
                self.network.cut([host], self.servers)
                return lambda: self.network.heal([host], self.servers)
            case Fault.STOP_DAEMON:
                daemon = self._post(event).daemon
                daemon.signal(signal.SIGSTOP)
                return lambda: daemon.signal(signal.SIGCONT)
            case Fault.KILL_DAEMON:
                post = self._post(event)
                post.end_daemon()
                return post.restart_daemon
            case Fault.STOP_WORKER:
                worker = self._worker(event)
                worker.signal(signal.SIGSTOP)
                return lambda: worker.signal(signal.SIGCONT)
            case Fault.KILL_WORKER:
                return self._kill_worker(self._post(event), self._worker(event))

    def _kill_server(self, server: ZooKeeperServer) -> Heal:
        server.kill()
        return server.launch

    def _cut(self, server: ZooKeeperServer, post: Post, *, reset: bool) -> Heal:
        lonely = next(host for host in self.servers if host.address == server.address)
        others = [host for host in self.servers if host is not lonely]
        self.network.cut([post.host], others)
        (self.network.reset if reset else self.network.cut)(others, [lonely])
        return lambda: self.network.heal(others, [lonely, post.host])

    def _kill_worker(self, post: Post, worker: WorkerProcess) -> Heal:
        worker.kill()
        post.workers.remove(worker)
        return lambda: post.hire(worker.recipe)

    def _post(self, event: Event) -> Post:
        leading = self._leading() if event.pick % 2 else None
        return next((post for post in self.posts if leading in post.workers), self.posts[event.pick % len(self.posts)])

    def _worker(self, event: Event) -> WorkerProcess:
        leading = self._leading() if event.pick % 2 else None
        if leading is not None:
            return leading
        post = self._post(event)
        return post.workers[event.pick // 7 % len(post.workers)]

    def _leading(self) -> WorkerProcess | None:
        """Who leads the election now, by the logs."""
        at_ns = now_ns()
        for post in self.posts:
            for worker in post.workers:
                last = worker.samples()[-1:] if worker.recipe == "election" else []
                if last and last[0].until_ns > at_ns:
                    return worker
        return None

    def _cut_off(self, event: Event) -> tuple[ZooKeeperServer, Post]:
        """A server, and a host that uses it: the leader's, if it uses a server of that role."""
        wanted = self._server(event)
        post = self._post(event)
        used = next((server for server in self.ensemble.servers if post.host.address in _clients(server)), wanted)
        if role(used) == role(wanted):
            return used, post
        return wanted, next((each for each in self.posts if each.host.address in _clients(wanted)), post)

    def _server(self, event: Event) -> ZooKeeperServer:
        """Who the event means; without a leader, whoever was picked."""
        roles = [role(server) for server in self.ensemble.servers]
        wanted = {
            Fault.KILL_LEADER: "leader",
            Fault.CUT_LEADER: "leader",
            Fault.RESET_LEADER: "leader",
            Fault.CUT_FOLLOWER: "follower",
        }.get(event.fault, roles[event.pick % len(roles)])
        fitting = [server for server, its in zip(self.ensemble.servers, roles, strict=True) if its == wanted]
        candidates = fitting or self.ensemble.servers
        return candidates[event.pick % len(candidates)]

    # What came of it

    def wait_everybody_again(self, *, within_s: float) -> None:
        """Everybody who is there is granted what it asks for once more from now on.

        Raises: TimeoutError.
        """
        since_ns = now_ns()
        for post in self.posts:
            for worker in post.workers:
                wait_for(lambda: any(each.at_ns > since_ns for each in worker.samples()[-1:]), within_s)  # noqa: B023

    def beliefs(self, recipe: str) -> list[Belief]:
        workers = [each for post in self.posts for each in post.all_workers if each.recipe == recipe]
        return [belief for worker in workers for belief in worker.beliefs()]


def _clients(server: ZooKeeperServer) -> str:
    """Whose connections it has, with their addresses."""
    try:
        return server.four_letter("cons", timeout_s=1.0)
    except OSError:
        return ""
