"""kazoo's recipes as a process: `python -m tests.interop.kazoo_contender RECIPE HOSTS PATH REFEREE-PORT NAME...`.

Every name is a contender with a session, a thread and a line to the referee of its own. Ends with 0 when all
went as it should.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.recipe.lock import Lock, ReadLock, WriteLock


class CuratorLock(Lock):
    """kazoo's Lock under the names of Curator's InterProcessMutex (docs/interop.md)."""

    _NODE_NAME = "-lock-"
    _EXCLUDE_NAMES = ["-lock-"]  # noqa: RUF012  # as in kazoo's own


class Line:
    """One contender's line to the referee."""

    def __init__(self, port: int, name: str, *, shared: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("r")
        self._ask(f"join {name} {'shared' if shared else 'exclusive'}")

    def turn(self, node: Any) -> bool:
        """Call it only while holding: it enters and leaves. Whether to take another turn."""
        self._ask(f"enter {int(node[-10:])}")
        return self._ask("leave") == "on"

    def _ask(self, line: str) -> str:
        self._socket.sendall(f"{line}\n".encode())
        answer = self._answers.readline().strip()
        if not answer:
            raise EOFError("the referee is gone")
        return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def take_turns(lock: Any, line: Line) -> None:
    on = True
    while on:
        with lock:
            on = line.turn(lock.node)


def be_elected(client: Any, path: str, name: str, line: Line) -> None:
    """As kazoo's Election is used: a function that runs while it leads."""
    over = False

    def lead() -> None:
        nonlocal over
        over = not line.turn(election.lock.node)

    election = client.Election(path, name)
    while not over:
        election.run(lead)


LOCKS: Final[dict[str, Callable[..., Any]]] = {
    "lock": Lock,
    "read": ReadLock,
    "write": WriteLock,
    "curator-lock": CuratorLock,
}


def contend(recipe: str, hosts: str, path: str, referee_port: int, name: str) -> None:
    client = KazooClient(hosts, timeout=4.0)
    client.start(timeout=30)
    line = Line(referee_port, name, shared=recipe == "read")
    try:
        if recipe == "election":
            be_elected(client, path, name, line)
        else:
            take_turns(LOCKS[recipe](client, path, name), line)
    finally:
        line.close()
        client.stop()
        client.close()


def main(arguments: Sequence[str]) -> None:
    recipe, hosts, path, referee_port, *names = arguments
    with ThreadPoolExecutor(len(names)) as threads:
        for running in [threads.submit(contend, recipe, hosts, path, int(referee_port), name) for name in names]:
            running.result()


if __name__ == "__main__":
    main(sys.argv[1:])
