"""TLS on a listener: its files, what is wrong with them, and how new ones are taken up without a restart.

gRPC asks before every handshake which certificate to use (`dynamic_ssl_server_credentials`). So a new certificate,
or a new list of client authorities, counts from the next connection on; connections that are open stay as they are.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from zkside.errors import StartError
from zkside.rpc.listeners import TlsFiles
from zkside.zk.pem import content, expiries, in_memory, ssl_reason

_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True, slots=True)
class Certificates:
    """One reading of the files."""

    configuration: Any = field(repr=False)
    """gRPC's."""
    expires_unix_s: float
    """The first end of validity in the daemon's chain."""
    client_ca_expires_unix_s: float | None
    """The last one of the authorities for clients."""

    @property
    def expires(self) -> Mapping[str, float]:
        """For the metric."""
        authorities = self.client_ca_expires_unix_s
        return {"server": self.expires_unix_s} | ({} if authorities is None else {"client_ca": authorities})


def read_certificates(files: TlsFiles) -> Certificates:
    """Read and check: a key that belongs to the certificate, a chain and authorities that can be parsed.

    A certificate that has expired is used all the same (clients refuse it, the metric shows it).
    Raises: StartError.
    """
    cert, key = content(files.cert), content(files.key)
    if any(mark in key for mark in _ENCRYPTED):
        raise StartError(f"{files.key} is encrypted with a password, which gRPC cannot read: store it without one")
    client_ca = content(files.client_ca) if files.client_ca is not None else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with in_memory(cert) as cert_file, in_memory(key) as key_file:
            # Without a password it would ask for one at the terminal.
            context.load_cert_chain(cert_file, key_file, password=b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartError(f"{files.cert} and {files.key} cannot be used: {ssl_reason(error)}") from error
    authorities = expiries(files.client_ca, client_ca) if files.client_ca and client_ca is not None else []
    if client_ca is not None:
        try:
            context.load_verify_locations(cadata=client_ca.decode())
        except (ssl.SSLError, ValueError) as error:
            raise StartError(f"{files.client_ca} cannot be used: {ssl_reason(error)}") from error
    return Certificates(
        grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca),
        min(expiries(files.cert, cert)),
        max(authorities) if authorities else None,
    )


def server_credentials(current: Callable[[], Certificates], *, ask_client: bool) -> grpc.ServerCredentials:
    """For one listener; `current` is asked before each handshake, on a thread of gRPC's.

    With `ask_client` a client without a certificate of a known authority is refused in the handshake.
    """
    used = current()

    def fetch() -> Any:
        nonlocal used
        now = current()
        if now is used:
            return None  # gRPC goes on with what it has, and need not parse it again
        used = now
        return now.configuration

    return grpc.dynamic_ssl_server_credentials(used.configuration, fetch, ask_client)
