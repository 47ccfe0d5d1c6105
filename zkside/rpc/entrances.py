"""The ways into a daemon: its listeners, and what it takes to tell apart who comes by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside.errors import StartError
from zkside.model.identity import Auth
from zkside.rpc.files import FileWatch, Kept
from zkside.rpc.identity import Door
from zkside.rpc.listeners import Listener, Listening, TcpListener, TlsFiles
from zkside.rpc.settings import RpcSettings
from zkside.rpc.tokens import Tokens, read_tokens

if TYPE_CHECKING:
    from zkside.rpc.tls import Certificates


class Entrances:
    """Opened once, and closed."""

    def __init__(self, settings: RpcSettings, files: FileWatch) -> None:
        self._settings = settings
        self._files = files
        self._tokens: Kept[Tokens] | None = None
        self._certificates: Kept[Certificates] | None = None
        self._listening = Listening(self._credentials)

    def open(self, server: Callable[[Door | None], grpc.aio.Server]) -> tuple[str, ...]:
        """Bind all listeners; returns the addresses as clients write them. `server` makes one, not started yet.

        Without anything that tells callers apart one server has all listeners, and no door. Otherwise each has its
        own, for gRPC does not tell by which of a server's listeners a call came.
        Raises: StartError; `close` undoes what was done.
        """
        self._read_files()
        apart = self._settings.tells_callers_apart
        made: grpc.aio.Server | None = None
        addresses = []
        for listener in self._settings.listeners:
            if made is None or apart:
                made = server(self._door(listener) if apart else None)
            addresses.append(self._listening.open(made, listener))
        return tuple(addresses)

    def on_tokens_changed(self, changed: Callable[[Tokens], None]) -> None:
        """Call this whenever other tokens are known than before. After `open`."""
        if self._tokens is not None:
            self._tokens.on_change(changed)

    def open_health(self, server: grpc.aio.Server, listener: TcpListener) -> str:
        """As `open`, for a server that has nothing to protect."""
        return self._listening.open(server, listener, for_all=True)

    def close(self) -> None:
        """After the servers were stopped. Idempotent."""
        self._listening.close()
        for kept in (self._tokens, self._certificates):
            if kept is not None:
                self._files.forget(kept)
        self._tokens = self._certificates = None

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_files_*` and `zkside_tls_*`; none where there are no files."""
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
