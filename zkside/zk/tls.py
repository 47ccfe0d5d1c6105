"""TLS to ZooKeeper: what it is spoken with, made from files, and what an error of it means."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zkside.errors import StartError
from zkside.zk.pem import content, expiries, in_memory, ssl_reason

_STRICT_CODES = range(80, 95)
"""OpenSSL's X509_V_ERR_…: those that it looks for with X509_V_FLAG_X509_STRICT alone."""


@dataclass(frozen=True, slots=True)
class ZooKeeperTls:
    """How TLS to ZooKeeper is spoken."""

    ca: Path | None = None
    """None: the system's."""
    cert: Path | None = None
    key: Path | None = None
    key_password: str = field(default="", repr=False)
    verify_hostname: bool = True
    strict: bool = False
    """Whether certificates have to follow RFC 5280 to the letter, whatever release of Python this is."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One reading of the files."""

    context: ssl.SSLContext
    expires_unix_s: Mapping[str, float]
    """When the first of the daemon's chain expires, and the last of the authorities."""


def load(tls: ZooKeeperTls) -> Loaded:
    """Read each file once, and check that they belong together. Raises: StartError."""
    expires: dict[str, float] = {}
    try:
        ca = content(tls.ca) if tls.ca is not None else None
        context = _trusting(ca)
    except (ssl.SSLError, ValueError) as error:
        raise StartError(f"zookeeper.tls: {tls.ca} cannot be used: {ssl_reason(error)}") from error
    if tls.ca is not None and ca is not None:
        expires["zookeeper_ca"] = max(expiries(tls.ca, ca))
    context.check_hostname = tls.verify_hostname
    if tls.strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cert is not None and tls.key is not None:
        cert, key = content(tls.cert), content(tls.key)
        expires["zookeeper_client"] = min(expiries(tls.cert, cert))
        try:
            with in_memory(cert) as cert_file, in_memory(key) as key_file:
                # Without a password it would ask for one at the terminal.
                context.load_cert_chain(cert_file, key_file, password=tls.key_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise StartError(f"zookeeper.tls: {tls.cert} and {tls.key} cannot be used: {ssl_reason(error)}") from error
    return Loaded(context, expires)


def _trusting(ca: bytes | None) -> ssl.SSLContext:
    if ca is None:
        return ssl.create_default_context()
    with in_memory(ca) as ca_file:
        return ssl.create_default_context(cafile=ca_file)


def server_name(name: str) -> str:
    """As certificates have it: without the dot at the end, which is the DNS's, and without an address's zone."""
    return name.removesuffix(".").partition("%")[0]


def hint(error: ssl.SSLError) -> str:
    """The error for people, with what to do about it if that is known."""
    text = ssl_reason(error)
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {text}"
    text = f"TLS: {error.verify_message or text}"
    if error.verify_code in _STRICT_CODES:
        text += ": the certificate does not follow RFC 5280; make a new one, or set zookeeper.tls.strict = false"
    return text
