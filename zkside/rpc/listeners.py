"""Where the daemon listens, and what is refused: a socket in use, a port in use, a port that other hosts can reach
and that lacks TLS or a way to tell who calls."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
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


def open_port(
    server: grpc.aio.Server, listener: TcpListener, credentials: Credentials | None = None, *, for_all: bool = False
) -> str:
    """Bind; returns the address as a client writes it. Before the server is started.

    With `for_all` the server has nothing to protect, and any address will do.
    Raises: StartError, and nothing is left behind.
    """
    if not for_all:
        refuse_unsafe(listener)
    used = None
    if listener.tls:
        assert credentials is not None, "a listener with tls comes with credentials"
        used = credentials(listener)
    port = bind(server, listener.address, used)
    return f"{listener.address.rpartition(':')[0]}:{port}"


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


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Returns the port. Raises: StartError."""
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
