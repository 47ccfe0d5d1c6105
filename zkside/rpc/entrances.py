"""The ways into a daemon: its listeners, and what it takes to tell apart who comes by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside import log
from zkside.errors import StartError
from zkside.model.identity import Auth
from zkside.rpc.files import FileWatch, Kept
from zkside.rpc.identity import Door
from zkside.rpc.listeners import Listener, TcpListener, TlsFiles, UnixListener, bind, open_port
from zkside.rpc.settings import RpcSettings
from zkside.rpc.socket_file import SocketFile
from zkside.rpc.tokens import Tokens, read_tokens

if TYPE_CHECKING:
    from zkside.rpc.tls import Certificates


Servers = Callable[["Door | None"], grpc.aio.Server]
"""Makes a server that is not started yet, and belongs to its maker."""
Retire = Callable[[grpc.aio.Server], Coroutine[Any, Any, None]]
"""Lets a server take no more connections and end with its last stream."""


@dataclass(slots=True)
class _Place:
    """A Unix socket, and the server that listens there now."""

    file: SocketFile
    door: Door | None
    server: grpc.aio.Server
    is_alone: bool
    """Whether the server has no other listener."""
    restores: int = 0
    is_starting: bool = False
    """The server is not serving yet."""
    shut: str = ""
    """Why nobody can connect; '' while all is well, and while it is being made again."""


class Entrances:
    """Opened, kept open, and closed."""

    def __init__(self, settings: RpcSettings, files: FileWatch) -> None:
        self._settings = settings
        self._files = files
        self._tokens: Kept[Tokens] | None = None
        self._certificates: Kept[Certificates] | None = None
        self._places: list[_Place] = []
        self._servers: Servers | None = None
        self._retire: Retire | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._look_no_more: Callable[[], None] = lambda: None
        self.on_shut: Callable[[str], None] = lambda why: None
        """Called with why a listener cannot be reached any more and cannot be made again; with '' when all can be."""

    def open(self, servers: Servers, retire: Retire | None = None) -> tuple[str, ...]:
        """Bind all listeners; returns the addresses as clients write them.

        Without anything that tells callers apart one server has all listeners, and no door. Otherwise each has its
        own, for gRPC does not tell by which of a server's listeners a call came.
        With `retire` the files of Unix sockets are looked at from now on, and made again with a server of their own
        when they are gone. Raises: StartError; `close` undoes what was done.
        """
        self._read_files()
        apart = self._settings.tells_callers_apart
        made: grpc.aio.Server | None = None
        addresses = []
        listeners = self._settings.listeners
        for listener in listeners:
            door = self._door(listener) if apart else None
            if made is None or apart:
                made = servers(door)
            if isinstance(listener, TcpListener):
                addresses.append(open_port(made, listener, self._credentials))
            else:
                addresses.append(self._open_socket(made, listener, door, is_alone=apart or len(listeners) == 1))
        if retire is not None and self._places:
            self._servers, self._retire = servers, retire
            self._look_no_more = self._files.also(self.look)
        return tuple(addresses)

    def _open_socket(
        self, server: grpc.aio.Server, listener: UnixListener, door: Door | None, *, is_alone: bool
    ) -> str:
        file = SocketFile(listener)
        self._places.append(_Place(file, door, server, is_alone))
        file.take()
        file.bind(partial(bind, server))
        return f"unix:{file.path}"

    def look(self) -> None:
        """Make again what has gone. Streams of before go on, on the server of before."""
        for place in self._places:
            if place.is_starting:
                continue
            if place.file.is_there():
                self._found(place, "")
                continue
            if not place.shut:
                log.listener_lost(address=place.file.listener.address)
            try:
                place.file.take()
                if not place.file.is_there():
                    self._succeed(place)
            except StartError as error:
                self._found(place, str(error))

    def _succeed(self, place: _Place) -> None:
        """Raises: StartError."""
        assert self._servers is not None
        server = self._servers(place.door)
        try:
            place.file.bind(partial(bind, server))
        except StartError:
            self._let_retire(server)
            raise
        before, place.server = place.server if place.is_alone else None, server
        place.is_starting = place.is_alone = True
        task = asyncio.get_running_loop().create_task(self._start(place, before), name="listener made again")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, place: _Place, before: grpc.aio.Server | None) -> None:
        try:
            await place.server.start()
        except BaseException:
            # The next look tries again.
            place.file.forget()
            raise
        finally:
            place.is_starting = False
        place.restores += 1
        self._found(place, "")
        log.listener_opened(address=place.file.listener.address)
        if before is not None:
            self._let_retire(before)

    def _let_retire(self, server: grpc.aio.Server) -> None:
        assert self._retire is not None
        task = asyncio.get_running_loop().create_task(self._retire(server), name="listener of before")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def settle(self) -> None:
        """Look at nothing any more. When this returns no server is being started: one that is stopped meanwhile takes
        the process down with it (grpcio 1.85)."""
        self._look_no_more()
        self._look_no_more = lambda: None
        if self._starting:
            await asyncio.wait(self._starting)

    def _found(self, place: _Place, shut: str) -> None:
        if shut != place.shut:
            place.shut = shut
            if shut:
                log.listener_shut(address=place.file.listener.address, error=shut)
            self.on_shut(self.shut)

    @property
    def shut(self) -> str:
        """Why a listener cannot be reached any more; '' if all can."""
        return "; ".join(place.shut for place in self._places if place.shut)

    def on_tokens_changed(self, changed: Callable[[Tokens], None]) -> None:
        """Call this whenever other tokens are known than before. After `open`."""
        if self._tokens is not None:
            self._tokens.on_change(changed)

    def open_health(self, server: grpc.aio.Server, listener: TcpListener) -> str:
        """As `open`, for a server that has nothing to protect."""
        return open_port(server, listener, for_all=True)

    def close(self) -> None:
        """After `settle`, and after the servers were stopped. Idempotent."""
        places, self._places = self._places, []
        for place in places:
            place.file.close()
        for kept in (self._tokens, self._certificates):
            if kept is not None:
                self._files.forget(kept)
        self._tokens = self._certificates = None

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_listener_*`; `zkside_files_*` and `zkside_tls_*` where there are files."""
        is_open = GaugeMetricFamily(
            "zkside_listener_open", "Whether clients can connect to this Unix socket.", labels=("address",)
        )
        restores = CounterMetricFamily(
            "zkside_listener_restores", "Times that the file of this Unix socket was made again.", labels=("address",)
        )
        for place in self._places:
            is_open.add_metric((place.file.listener.address,), 0 if place.shut else 1)
            restores.add_metric((place.file.listener.address,), place.restores)
        yield from (is_open, restores)
        yield from _of_files(self._files)

    def _read_files(self) -> None:
        settings = self._settings
        if settings.token_files:
            self._tokens = self._files.keep("tokens", settings.token_files, lambda: read_tokens(settings.token_files))
        tls = settings.tls
        if tls is not None:
            self._certificates = _kept_certificates(self._files, tls)

    def _door(self, listener: Listener) -> Door:
        tokens = self._tokens
        if tokens is None and listener.auth is Auth.TOKEN:
            raise StartError(f"{listener.address} is to demand a token, and there is none: give tokens.files")
        return Door(listener, None if tokens is None else lambda: tokens.value)

    def _credentials(self, listener: TcpListener) -> grpc.ServerCredentials:
        certificates = self._certificates
        if certificates is None:
            raise StartError(f"{listener.address} is to speak TLS, and there is no certificate: give tls.cert, tls.key")
        ask = listener.auth is Auth.CERTIFICATE
        if ask and certificates.value.client_ca_expires_unix_s is None:
            raise StartError(f"{listener.address} is to demand a certificate: give tls.client_ca")
        from zkside.rpc.tls import server_credentials

        return server_credentials(lambda: certificates.value, ask_client=ask)


def _kept_certificates(files: FileWatch, tls: TlsFiles) -> Kept[Certificates]:
    # Other daemons do without its memory.
    from zkside.rpc.tls import read_certificates

    return files.keep("tls", tls.paths, lambda: read_certificates(tls), lambda read: read.expires)


def _of_files(files: FileWatch) -> Iterator[Metric]:
    kept = files.statistics()
    if not kept:
        return
    if any(one.expires_unix_s for one in kept):
        expiry = GaugeMetricFamily(
            "zkside_tls_certificate_expiry_timestamp_seconds",
            "When the first of a chain of the daemon's expires, and the last of the authorities for its peers.",
            labels=("certificate",),
        )
        for one in kept:
            for what, expires_unix_s in one.expires_unix_s.items():
                expiry.add_metric((what,), expires_unix_s)
        yield expiry
    labels = ("source",)
    loads = CounterMetricFamily("zkside_files_loads", "Times that these files were read with success.", labels=labels)
    failures = CounterMetricFamily("zkside_files_failures", "Times that they made no sense.", labels=labels)
    loaded = GaugeMetricFamily(
        "zkside_files_loaded_timestamp_seconds", "When what is in use was read from them.", labels=labels
    )
    current = GaugeMetricFamily(
        "zkside_files_current", "Whether what they say is in use; 0: they make no sense as they are.", labels=labels
    )
    for one in kept:
        loads.add_metric((one.name,), one.loads)
        failures.add_metric((one.name,), one.failures)
        loaded.add_metric((one.name,), one.loaded_unix_s)
        current.add_metric((one.name,), 0 if one.error else 1)
    yield from (loads, failures, loaded, current)
