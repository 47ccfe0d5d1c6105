"""What a process may do with gRPC: a child that was forked owns nothing of its parent's, nor does it keep it alive.

A fork copies the sockets of the parent's connections. While the child has them the kernel does not close them when the
parent dies, and the daemon goes on believing in a parent that is dead. So the child gives its copies up at once.
Threads are not copied, and gRPC cannot be used without those that it had: such a child is told so at its first call,
which would wait for ever.

gRPC has handlers of fork() of its own, on by default, which start such threads again. They do not know of its asyncio
side: with a channel of that open they end one child in six by a segmentation fault. So they are off where this module
is loaded before gRPC and GRPC_ENABLE_FORK_SUPPORT does not say otherwise (ADR 22).
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from zkside.errors import ZksideError

REASON = "FORKED"
"""Why nothing is held in a child."""

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
ENDING_S = 1.0
"""How long after a client was closed a fork waits for gRPC's threads to end; it takes them 0.2 s."""
_POLLER = "(_poll_wrapper)"
"""How the name of grpc.aio's own thread ends. Where it is, a fork leaves a gRPC that no longer works."""
_CORE = ("event_engine", "grpc_global_tim")
"""The threads of gRPC's core, as the kernel has them. Without handlers of fork() the same holds of them."""


class Inheritable(Protocol):
    """What a fork ends, in the child."""

    def forked(self) -> None:
        """The child's part; nothing may wait, nor rely on the threads and loops of the parent."""


class _State:
    """Of this process. `kept`: what must not be freed any more, as gRPC would wait for a thread that is not here."""

    def __init__(self) -> None:
        self.inheritables: weakref.WeakSet[Any] = weakref.WeakSet()
        self.kept: list[object] = []
        self.closed_s = float("-inf")
        self.had_grpc = False
        self.is_without_grpc = False


def _load_grpc() -> bool:
    """Whether gRPC's own handlers of fork() are on. It looks at the variable when it is loaded, and never again."""
    said = os.environ.get(_VARIABLE)
    if said is not None:
        return said.lower() in ("1", "true", "t", "yes", "y")
    if "grpc" in sys.modules:
        return True
    os.environ[_VARIABLE] = "false"
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ[_VARIABLE]  # not for the programs that this process starts
    return False


_state = _State()
_has_handlers = _load_grpc()


def track(inheritable: Inheritable) -> None:
    """Call its `forked` in each child of this process, for as long as it is there."""
    _state.inheritables.add(inheritable)


def closed() -> None:
    """A connection was closed: gRPC's threads end soon, if it was the last."""
    _state.closed_s = time.monotonic()


def keep(thing: object) -> None:
    """Never free it in this process."""
    _state.kept.append(thing)


def error() -> ZksideError:
    """The error that the parent's client raises in a child."""
    what_to_do = _WITHOUT_GRPC if _state.is_without_grpc else "make a new Client in the child"
    return ZksideError(
        f"this client was made before a fork: it belongs to the parent process, and so does what it holds; {what_to_do}"
    )


_WITHOUT_GRPC = (
    "gRPC was at work in the parent when it forked, and does not work in such a child. Fork first and make a new "
    "Client then, in each process its own (gunicorn: in post_fork), or close the parent's before it forks, or start "
    "the child with multiprocessing's 'spawn' or 'forkserver'"
)


def check_process() -> None:
    """Raises ZksideError where a call would hang: after a fork under gRPC, and under gevent or eventlet."""
    if _state.is_without_grpc:
        raise ZksideError(f"zkside's client cannot be used in this process: {_WITHOUT_GRPC}")
    patched = _patched_by()
    if patched:
        raise ZksideError(
            f"{patched} has patched threads or select in this process: gRPC, on which zkside's client runs, needs "
            f"the real ones and would hang. Use the client in a process that is not patched (the commands of `zkside` "
            f"can be run from any), or do without monkey patching"
        )


def _patched_by() -> str:
    """The name of what has taken threads away; "" if nothing has. Looks only at what is loaded."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(monkey.is_module_patched(name) for name in ("thread", "threading", "select")):
        return "gevent"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return ""


# The fork


def _before() -> None:
    until_s = _state.closed_s + ENDING_S
    while (had_grpc := _is_at_work()) and time.monotonic() < until_s:
        time.sleep(0.01)  # nothing tells when its threads have ended
    _state.had_grpc = had_grpc


def _is_at_work() -> bool:
    return any(thread.name.endswith(_POLLER) for thread in threading.enumerate()) or (
        not _has_handlers and any(name.startswith(_CORE) for name in _thread_names())
    )


def _thread_names() -> Iterator[str]:
    """Of this process, as the kernel has them; none where it does not tell."""
    with suppress(OSError):
        for task in os.scandir("/proc/self/task"):
            with suppress(OSError), open(f"{task.path}/comm") as comm:  # it has ended meanwhile
                yield comm.read()


def _in_child() -> None:
    _state.is_without_grpc |= _state.had_grpc
    for inheritable in [*_state.inheritables]:
        inheritable.forked()


def give_up_connections(address: str) -> None:
    """Close this process's copies of all connections to the daemon at this address.

    `close`, never `shutdown`: the parent goes on with its own. Their numbers stay taken, by /dev/null, so that a gRPC
    that is left over can do no harm with them.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
            number = int(name)
            if number != null and _leads_to(number, address):
                os.dup2(null, number, inheritable=False)
    except OSError:
        pass  # no such folder, or no descriptor left: then the daemon finds out by its pings, in seconds
    finally:
        os.close(null)


def _leads_to(number: int, address: str) -> bool:
    """Whether this descriptor is a connection to that address."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        connection = socket.socket(fileno=number)
    except OSError:
        return False  # the listing's own, closed meanwhile
    try:
        return _is_peer(connection, address)
    except OSError:
        return False  # it listens, or is not connected
    finally:
        connection.detach()


def _is_peer(connection: socket.socket, address: str) -> bool:
    peer = connection.getpeername()
    if address.startswith("unix:"):
        return connection.family == socket.AF_UNIX and _is_same_socket(peer, address.removeprefix("unix:"))
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host, _, port = address.rpartition(":")
    # A name is not resolved here: what it stands for is this host.
    is_there = _plain(peer[0]) in (host.strip("[]"), _plain(connection.getsockname()[0]))
    return is_there and peer[1] == int(port)


def _is_same_socket(bound: str | bytes, path: str) -> bool:
    """Whether the daemon bound that socket for this path, perhaps in another file system (a volume of two containers).

    The daemon binds it beside its place, under a name whose last character is another, and moves it there
    (rpc/socket_file.py); the kernel tells the name of before.
    """
    name = os.path.basename(os.fsdecode(bound))
    return bool(name) and name[:-1] == os.path.basename(path)[:-1]


def _plain(host: str) -> str:
    """Without what says that an IPv4 address is used by an IPv6 socket."""
    return host.removeprefix("::ffff:")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
