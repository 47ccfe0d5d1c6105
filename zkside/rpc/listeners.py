"""Where the daemon listens, and what is refused: a socket in use, a port in use, a port that other hosts can reach
and that lacks TLS or a way to tell who calls."""

from __future__ import annotations

import fcntl
import grp
import ipaddress
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from zkside.errors import StartError
from zkside.model.identity import Auth

MAX_SOCKET_PATH_BYTES = 107
"""Of sockaddr_un, without its closing zero."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A Unix socket; who may write to it may call."""

    path: Path
    mode: int = 0o660
    group: str | int | None = None
    """Name or number; None: the process's."""
    identity: str = ""
    """Of everybody who calls here; '' if the socket gives none."""
    auth: Auth = Auth.NONE

    @property
    def address(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP port; 0 chooses a free one."""

    host: str
    port: int
    identity: str = ""
    """Of everybody who calls here; '' if the port gives none."""
    auth: Auth = Auth.NONE
    tls: bool = False

    @property
    def address(self) -> str:
        host = self.host.strip("[]")
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. A chain stands in `cert` behind the daemon's own certificate."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    """Who signs client certificates; None: clients are not asked for one."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.cert, self.key, *([self.client_ca] if self.client_ca is not None else []))


Listener = UnixListener | TcpListener
Credentials = Callable[[TcpListener], grpc.ServerCredentials]
"""Those with which a listener that has `tls` is opened."""


class Listening:
    """The open listeners of a daemon; what they took is given back by `close`."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._held = ExitStack()

    def open(self, server: grpc.aio.Server, listener: Listener, *, for_all: bool = False) -> str:
        """Bind; returns the address as a client writes it. Before the server is started.

        With `for_all` the server has nothing to protect, and any address will do.
        Raises: StartError, and nothing is left behind.
        """
        if isinstance(listener, UnixListener):
            return self._open_unix(server, listener)
        if not for_all:
            refuse_unsafe(listener)
        credentials = None
        if listener.tls:
            assert self._credentials is not None, "a listener with tls comes with credentials"
            credentials = self._credentials(listener)
        port = _bind(server, listener.address, credentials)
        return f"{listener.address.rpartition(':')[0]}:{port}"

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


def refuse_unsafe(listener: TcpListener) -> None:
    """Raises: StartError for a port that other hosts can reach, and on which callers could be anybody, or be read."""
    if _is_loopback(listener.host.strip("[]")):
        return
    lacking = [] if listener.tls else ["no TLS (tls.cert, tls.key)"]
    if listener.auth is Auth.NONE:
        lacking.append("no check of who calls (tls.client_ca or tokens.files)")
    if lacking:
        raise StartError(
            f"{listener.address} can be reached from other hosts, and there is {' and '.join(lacking)} on it: "
            "configure that, or listen on 127.0.0.1, ::1 or a Unix socket"
        )


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
    try:
        if credentials is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
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
