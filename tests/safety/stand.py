"""Three servers and two hosts, and on each host everybody who wants to lead.

Host `a` reaches only the server that will be cut off, host `b` only the other two: the partition goes between
racks, not between processes. Every kind of candidate runs on both hosts, on a path of its own kind.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ops.process import DaemonProcess
from tests.parts.ensemble import Ensemble, role
from tests.parts.namespaces import Host, Network, ensemble_on
from tests.safety.belief import STILL, Belief
from zkside.cli.zookeeper import Installation
from zkside.errors import StartError

SESSION_TIMEOUT_S = 6.0
TICK_S = 2.0
SERVERS = ("z1", "z2", "z3")

PROOFS = ("sync", "write")
ZKSIDE = tuple(f"zkside-{proof}" for proof in PROOFS)
KAZOO = ("kazoo-suspended", "kazoo-lost", "kazoo-plain")
CURATOR = ("curator-standard", "curator-session")
WITHOUT_END = ("kazoo-lost", "kazoo-plain")
"""What is believed for as long as the partition lasts: kazoo says LOST when a server has told it so."""


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Word:
    """A candidate said so."""

    rule: str
    believes: bool
    at_ns: int

    @staticmethod
    def of(rule: str, *, believes: bool) -> Callable[[list[Word]], bool]:
        """The condition that this is the last word on it."""
        return lambda words: [word.believes for word in words if word.rule == rule][-1:] == [believes]


class Candidate:
    """A process on a host that prints what it believes."""

    def __init__(self, host: Host, rules: Sequence[str], command: Sequence[str], *, offset_ns: int = 0) -> None:
        """It speaks of these rules. `offset_ns` is added to its clock to make it CLOCK_BOOTTIME."""
        self.rules = tuple(rules)
        self._offset_ns = offset_ns
        self.words: list[Word] = []
        self._process = subprocess.Popen(
            [*host.launcher, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")},
        )
        self._heard: queue.Queue[Word | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            rule, believes, at = line.split()
            self._heard.put(Word(rule, believes == "true", int(at) + self._offset_ns))
        self._heard.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def wait_until(self, condition: Callable[[list[Word]], bool], *, deadline_s: float) -> bool:
        """Whether the condition came to hold for its words before that instant of time.monotonic().

        Raises: StartError if it ends.
        """
        while not condition(self.words):
            try:
                word = self._heard.get(timeout=max(deadline_s - time.monotonic(), 0.0))
            except queue.Empty:
                return False
            if word is None:
                raise StartError(f"a candidate ended: {self._process.args!r}\n{''.join(self._errors)[-3000:]}")
            self.words.append(word)
        return True

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def beliefs_in(who: str, words: Sequence[Word], rule: str) -> list[Belief]:
    """The stretches in which a candidate believed by that rule."""
    found: list[Belief] = []
    for word in words:
        if word.rule != rule:
            continue
        if word.believes and not (found and found[-1].until_ns == STILL):
            found.append(Belief(word.at_ns, STILL, who))
        elif not word.believes and found and found[-1].until_ns == STILL:
            found[-1] = Belief(found[-1].from_ns, word.at_ns, who)
    return found


class Stand:
    """The servers and the hosts; torn down with the block."""

    def __init__(self, installation: Installation | None = None) -> None:
        self._installation = installation
        self._stack = ExitStack()
        self.network = Network(*SERVERS, "a", "b")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            self.servers = [self.network.hosts[name] for name in SERVERS]
            self.a, self.b = self.network.hosts["a"], self.network.hosts["b"]
            self.ensemble: Ensemble = stack.enter_context(
                ensemble_on(self.servers, installation=self._installation, tick_ms=round(TICK_S * 1000))
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def host_with(self, wanted: str) -> Host:
        """A server's host by its role: "leader" or "follower"."""
        for host, server in zip(self.servers, self.ensemble.servers, strict=True):
            if role(server) == wanted:
                return host
        raise StartError(f"no server is {wanted} at the moment")

    def wait_whole(self, *, within_s: float = 60.0) -> None:
        """All three servers serve, one as the leader."""
        wait_for(lambda: sorted(map(role, self.ensemble.servers)) == ["follower", "follower", "leader"], within_s)

    def wait_ephemerals(self, below: str, count: int, *, within_s: float = 30.0) -> None:
        """Below that path there are so many ephemeral nodes."""
        leader = self.ensemble.leader
        wait_for(lambda: leader.four_letter("dump").count(f"\t{below}/") >= count, within_s)

    @property
    def everybody(self) -> str:
        """The connection string."""
        return self.ensemble.hosts


def wait_for(condition: Callable[[], bool], within_s: float) -> None:
    """For what no event tells of: another program's state. Raises: TimeoutError."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass  # the server does not answer at the moment
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {within_s} s")
        time.sleep(0.05)


class Contest:
    """The candidates of one host: a daemon for each kind of proof with a program, Curator's and kazoo's."""

    def __init__(self, stand: Stand, host: Host, path: str, directory: Path, java: Sequence[str]) -> None:
        """`java` is the command of Curator's candidates; empty for none of them."""
        self.host = host
        self.candidates: list[Candidate] = []
        with ExitStack() as stack:
            daemons = {proof: self._daemon(stand, proof, directory / f"{host.name}-{proof}") for proof in PROOFS}
            for daemon in daemons.values():
                stack.push(daemon)
            kazoo = ("tests.safety.kazoo_candidate", stand.everybody, f"{path}/kazoo", str(SESSION_TIMEOUT_S))
            self._stand_for(stack, KAZOO, (sys.executable, "-m", *kazoo))
            if java:
                curator = (stand.everybody, f"{path}/curator", str(round(SESSION_TIMEOUT_S * 1000)))
                self._stand_for(stack, CURATOR, (*java, *curator), offset_ns=now_ns() - time.monotonic_ns())
            for proof, daemon in daemons.items():
                daemon.wait_serving()
                rule = f"zkside-{proof}"
                command = ("tests.safety.candidate", rule, daemon.address, f"{path}/{rule}")
                self._stand_for(stack, (rule,), (sys.executable, "-m", *command))
            self._stack = stack.pop_all()

    def _daemon(self, stand: Stand, proof: str, directory: Path) -> DaemonProcess:
        directory.mkdir(parents=True)
        return DaemonProcess(
            directory,
            launcher=self.host.launcher,
            ZOOKEEPER_HOSTS=stand.everybody,
            ZOOKEEPER_SESSION_TIMEOUT=f"{SESSION_TIMEOUT_S}s",
            LEASE_TICK=f"{TICK_S}s",
            LEASE_PROOF=proof,
        )

    def _stand_for(self, stack: ExitStack, rules: Sequence[str], command: Sequence[str], offset_ns: int = 0) -> None:
        candidate = Candidate(self.host, rules, command, offset_ns=offset_ns)
        stack.callback(candidate.end)
        self.candidates.append(candidate)

    @property
    def rules(self) -> list[str]:
        return [rule for candidate in self.candidates for rule in candidate.rules]

    @property
    def nodes(self) -> list[str]:
        """One for each session that stands: a kazoo candidate has several rules and one node."""
        return [rule for rule in self.rules if rule not in KAZOO[1:]]

    def wait_for(self, *, believes: bool, without: Sequence[str] = (), deadline_s: float) -> bool:
        """Whether by every rule but these it came to be believed (or not) before that instant."""
        return all(
            candidate.wait_until(Word.of(rule, believes=believes), deadline_s=deadline_s)
            for candidate in self.candidates
            for rule in candidate.rules
            if rule not in without
        )

    def beliefs(self) -> dict[str, list[Belief]]:
        """By rule."""
        return {
            rule: beliefs_in(self.host.name, candidate.words, rule)
            for candidate in self.candidates
            for rule in candidate.rules
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
