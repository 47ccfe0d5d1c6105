"""What a client shows to its daemon, and what it demands of it: TLS, a certificate of its own, a bearer token.

All of it comes from files, which are looked at again every second while calls are made: a token that was renewed
(as Kubernetes renews those of a projected volume) is sent with the next call, a certificate with the next
connection. What is open stays as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from zkside.errors import InvalidArgument

CA_VARIABLE = "ZKSIDE_CA"
CERT_VARIABLE = "ZKSIDE_CERT"
KEY_VARIABLE = "ZKSIDE_KEY"
SERVER_NAME_VARIABLE = "ZKSIDE_SERVER_NAME"
TOKEN_FILE_VARIABLE = "ZKSIDE_TOKEN_FILE"

LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS to a daemon at "host:port"."""

    ca: str | Path | None = None
    """The authorities to trust, as a PEM file; None: the public ones that gRPC comes with."""
    cert: str | Path | None = None
    """The certificate to show, as a PEM file, the chain behind it; None: none is shown."""
    key: str | Path | None = None
    """Its private key, as a PEM file without a password."""
    server_name: str = ""
    """The name that the daemon's certificate must have, where that is not the host of the address."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of one client."""

    tls: TlsOptions | None = None
    token_file: Path | None = None

    def __bool__(self) -> bool:
        return self.tls is not None or self.token_file is not None

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which another process has the same."""
        tls = self.tls or TlsOptions()
        found = {
            CA_VARIABLE: tls.ca,
            CERT_VARIABLE: tls.cert,
            KEY_VARIABLE: tls.key,
            SERVER_NAME_VARIABLE: tls.server_name,
            TOKEN_FILE_VARIABLE: self.token_file,
        }
        return {name: str(value) for name, value in found.items() if value}


def credentials_for(
    address: str,
    tls: TlsOptions | None = None,
    token_file: str | Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credentials:
    """What was given; of what was not, what the environment names.

    A Unix socket does without TLS, so the environment's is left out for one. Raises: InvalidArgument for what
    does not go together.
    """
    is_socket = address.startswith("unix:")
    if tls is None and not is_socket:
        tls = _tls_of(environment)
    if token_file is None:
        token_file = environment.get(TOKEN_FILE_VARIABLE, "").strip() or None
    if tls is not None and is_socket:
        raise InvalidArgument(f"TLS is for host:port; {address} is a Unix socket", field="tls")
    if tls is not None and bool(tls.cert) != bool(tls.key):
        raise InvalidArgument(
            f"a certificate and its key belong together: {CERT_VARIABLE} and {KEY_VARIABLE}", field="tls"
        )
    if token_file is not None and tls is None and not is_socket and not _is_loopback(address):
        raise InvalidArgument(
            f"a token would go to {address} in the clear: use TLS ({CA_VARIABLE}, or tls=TlsOptions(…))",
            field="token_file",
        )
    return Credentials(tls, None if token_file is None else Path(token_file))


class Bearer:
    """The token of a file, as the file is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._print: object = None
        self._value = ""
        self._look_s = 0.0

    def metadata(self) -> tuple[str, str]:
        """Raises: InvalidArgument, when there never was a token in the file."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_INTERVAL_S
            self._look()
        return ("authorization", self._value)

    def _look(self) -> None:
        found = _fingerprint((self._path,))
        if found == self._print and self._value:
            return
        try:
            token = self._path.read_text("ascii").strip()
            if not token or any(not "!" <= letter <= "~" for letter in token):
                raise ValueError("there is no token in it, or more than one")
        except (OSError, ValueError) as error:
            # While a token is being exchanged the one before serves.
            if not self._value:
                self._look_s = 0.0
                reason = error.strerror if isinstance(error, OSError) else error
                raise InvalidArgument(
                    f"the token file {self._path} cannot be used: {reason}", field="token_file"
                ) from None
            return
        self._print, self._value = found, f"Bearer {token}"


class Certified:
    """gRPC's credentials from the files of TLS, as the files are now."""

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._paths = tuple(Path(path) for path in (options.ca, options.cert, options.key) if path)
        self._print: object = None
        self._made: grpc.ChannelCredentials | None = None
        self._look_s = 0.0

    def credentials(self) -> grpc.ChannelCredentials:
        """The same object as long as the files are the same. Raises: InvalidArgument, when they never made sense."""
        now_s = time.monotonic()
        if self._made is not None and now_s < self._look_s:
            return self._made
        self._look_s = now_s + LOOK_INTERVAL_S
        found = _fingerprint(self._paths)
        if self._made is None or found != self._print:
            try:
                self._made = _credentials(self._options)
                self._print = found
            except InvalidArgument:
                # One of the files may be the next one already, and another not yet.
                if self._made is None:
                    raise
        return self._made


def _credentials(options: TlsOptions) -> grpc.ChannelCredentials:
    import ssl  # for those who need it

    context = ssl.create_default_context(cafile=None)
    ca = _read(options.ca) if options.ca else None
    cert, key = (_read(options.cert), _read(options.key)) if options.cert and options.key else (None, None)
    try:
        if ca is not None:
            context.load_verify_locations(cadata=ca.decode())
        if options.cert and options.key:
            # An empty password, for without one it would ask for it at the terminal.
            context.load_cert_chain(options.cert, options.key, password=b"")
    except (ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        files = ", ".join(str(path) for path in (options.ca, options.cert, options.key) if path)
        raise InvalidArgument(f"TLS cannot be spoken with {files}: {reason}", field="tls") from None
    return grpc.ssl_channel_credentials(ca, key, cert)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", field="tls") from None


def _fingerprint(paths: tuple[Path, ...]) -> object:
    try:
        stats = [os.stat(path) for path in paths]
    except OSError:
        return None
    return [(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) for status in stats]


def _tls_of(environment: Mapping[str, str]) -> TlsOptions | None:
    ca, cert, key, name = (
        environment.get(variable, "").strip()
        for variable in (CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, SERVER_NAME_VARIABLE)
    )
    if not (ca or cert or key or name):
        return None
    return TlsOptions(ca or None, cert or None, key or None, name)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    import ipaddress  # for those who need it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
