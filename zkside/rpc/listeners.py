"""Where the daemon listens, and what is refused: a socket in use, a port in use, an address beyond loopback."""

from __future__ import annotations

import fcntl
import grp
import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from zkside.errors import StartError

MAX_SOCKET_PATH_BYTES = 107
"""Of sockaddr_un, without its closing zero."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A Unix socket; who may write to it may call."""

    path: Path
    mode: int = 0o660
    group: str | int | None = None
    """Name or number; None: the process's."""


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP port of a loopback address; 0 chooses a free one."""

    host: str
    port: int


Listener = UnixListener | TcpListener


class Listening:
    """The open listeners of one gRPC server; what they took is given back by `close`."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def open(self, server: grpc.aio.Server, listener: Listener, *, loopback_only: bool = True) -> str:
        """Bind; returns the address as a client writes it. Before the server is started.

        Raises: StartError, and nothing is left behind.
        """
        if isinstance(listener, UnixListener):
            return self._open_unix(server, listener)
        return _open_tcp(server, listener, loopback_only=loopback_only)

    def close(self) -> None:
        """Remove the socket files and unlock them. After the server was stopped."""
        self._held.close()

    def _open_unix(self, server: grpc.aio.Server, listener: UnixListener) -> str:
        path = listener.path.absolute()
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise StartError(f"the socket's path is longer than {MAX_SOCKET_PATH_BYTES} bytes: {path}")
        with ExitStack() as taken:
            try:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                taken.enter_context(_locked(path))
                _remove_stale(path)
                taken.callback(path.unlink, missing_ok=True)
                # Nobody may connect in the moment before the mode is set.
                with _umask(0o777):
                    _bind(server, f"unix:{path}")
                if listener.group is not None:
                    os.chown(path, -1, _group(listener.group))
                path.chmod(listener.mode)
            except OSError as error:
                raise StartError(f"the socket {path} cannot be made: {error}") from error
            self._held.enter_context(taken.pop_all())
        return f"unix:{path}"


def _open_tcp(server: grpc.aio.Server, listener: TcpListener, *, loopback_only: bool) -> str:
    host = listener.host.strip("[]")
    if loopback_only and not _is_loopback(host):
        raise StartError(
            f"{listener.host}:{listener.port} can be reached from other hosts, and there is neither TLS nor a check of "
            "identity on it: listen on 127.0.0.1, ::1 or a Unix socket"
        )
    shown = f"[{host}]" if ":" in host else host
    port = _bind(server, f"{shown}:{listener.port}")
    return f"{shown}:{port}"


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}; is another daemon there? ({error})") from error
    if port == 0:
        raise StartError(f"cannot listen on {address}; is another daemon there?")
    return port


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock beside a socket: gRPC would take over a socket in use without a word.

    The lock file stays. (Were it removed, two daemons could hold locks on two files of that name.)
    """
    lock_path = path.with_name(path.name + ".lock")
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            raise StartError(
                f"another daemon (pid {owner}) listens on {path}: stop it, or choose another socket"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _remove_stale(path: Path) -> None:
    """The lock is ours, so a socket that is there belongs to nobody."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} is there and is not a socket: it is left alone, choose another path")
    path.unlink()


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _group(group: str | int) -> int:
    if isinstance(group, int) or group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartError(f"there is no group {group!r}") from None
